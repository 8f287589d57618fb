//! The Gateway API: HTTPRoutes and the Services of versions that are written and looked at. I/O: through the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flag::record::Record;
use kube::ResourceExt;
use machine::observation::{Destination, ServiceFacts};
use machine::plan::ServiceRoutes;
use machine::reason::Problem;

use super::Subject;
use super::in_mesh::{MeshRoutes, pending};
use crate::context::{Context, TurnError};
use crate::gateway_api::attach::{self, Attached};
use crate::gateway_api::check::{self, GatewayObjects};
use crate::gateway_api::routes;
use crate::istio::check::RouteNeeds;
use crate::istio::object::{HTTPRoute, MeshObject};
use crate::istio::ours;

/// `spec.routing.provider: GatewayAPI`.
pub(super) struct GatewayApi;

impl MeshRoutes for GatewayApi {
    type Objects = GatewayObjects;

    fn objects(subject: &Subject<'_>, service: &str, context: &Context<'_>) -> GatewayObjects {
        let istio = &context.mesh.istio;
        GatewayObjects {
            http: istio.http_routes.by_key(subject.namespace),
            grpc: istio.grpc_routes.by_key(subject.namespace),
            virtual_services: istio.about(service, subject.namespace).services,
            services: subject.objects.services.clone(),
        }
    }

    fn services(subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts> {
        let (record, versions) = (subject.status.record.as_ref(), subject.known_versions());
        let mut all = subject.place(context).in_mesh(subject.spec, &versions, record);
        for (service, facts) in &mut all {
            facts.destinations = destinations(subject, service, &versions, context);
            let Some(whole) = routes::find(&subject.objects.services, service) else { continue };
            let routed = |one: Attached<'_>| {
                let found = context.mesh.istio.http_routes.get(subject.namespace, &one.name);
                let header = &subject.spec.routing.header;
                (one.name, found.map(|found| routes::routed(&found, header)).unwrap_or_default())
            };
            let attached = attach::all(subject.namespace, whole, &subject.spec.routing.gateways).0;
            facts.routed = attached.into_iter().map(routed).collect();
        }
        all
    }

    fn managed(wanted: &RouteNeeds<'_>, objects: &GatewayObjects) -> Option<Problem> {
        check::managed(wanted, objects)
    }

    fn user_provided(wanted: &RouteNeeds<'_>, objects: &GatewayObjects) -> Option<Problem> {
        check::user_provided(wanted, objects)
    }

    fn written(
        subject: &Subject<'_>,
        wanted: &RouteNeeds<'_>,
        objects: &GatewayObjects,
        context: &Context<'_>,
    ) -> Option<Problem> {
        let whole = routes::find(&objects.services, wanted.service)?;
        let (attached, _) = attach::all(wanted.namespace, whole, wanted.gateways);
        let written = |one: &Attached<'_>| context.mesh.istio.http_routes.get(wanted.namespace, &one.name);
        let all: Vec<_> = attached.iter().map(|one| (one, written(one))).collect();
        let refused = || all.iter().find_map(|(one, route)| one.refusal(route.as_ref()?));
        unrouted(subject, wanted, &all).or_else(refused)
    }

    async fn write(
        subject: &Subject<'_>,
        service: &str,
        order: &ServiceRoutes,
        record: &Record,
        context: &Context<'_>,
    ) -> Result<bool, TurnError> {
        let (mesh, namespace, spec) = (context.mesh, subject.namespace, subject.spec);
        let services = &subject.objects.services;
        let Some(whole) = routes::find(services, service) else { return Ok(false) };
        let mut wrote = false;
        for version in &order.destinations {
            let wanted = routes::service(namespace, whole, &spec.version_label, version);
            let found = routes::find(services, &wanted.name_any());
            if found.is_some_and(|one| routes::taken_by(services, one, service, &spec.version_label).is_some()) {
                continue;
            }
            let found = found.map(routes::as_object);
            // One of somebody else's that selects the same serves as well.
            if found.as_ref().is_none_or(ours) {
                wrote |= mesh.keep_over(found.as_ref(), wanted).await?;
            }
        }
        for one in attach::all(namespace, whole, &spec.routing.gateways).0 {
            if let Some(versions) = order.routes.get(&one.name) {
                let record = &Record { versions: versions.clone(), ..record.clone() };
                let route = routes::http_route(namespace, service, &one, &spec.routing.header, record);
                wrote |= mesh.keep(&mesh.istio.http_routes, route).await?;
            }
        }
        Ok(wrote)
    }
}

/// The versions that have a Service of their own, and since when somebody serves there.
fn destinations(
    subject: &Subject<'_>,
    service: &str,
    versions: &BTreeSet<String>,
    context: &Context<'_>,
) -> BTreeMap<String, Destination> {
    let (services, slices) = (&subject.objects.services, &subject.objects.slices);
    let named = |version: &&String| routes::find(services, &routes::service_name(service, version)).is_some();
    let there: BTreeSet<String> = versions.iter().filter(named).cloned().collect();
    let serves = |version: &&String| routes::has_endpoints(&routes::service_name(service, version), slices);
    let serving: BTreeSet<String> = there.iter().filter(serves).cloned().collect();
    let since = |what: &str, versions: &BTreeSet<String>| {
        context.mesh.since(subject.namespace, &format!("{service} by version, {what}"), versions, subject.now)
    };
    let (there, serving) = (since("there", &there), since("serving", &serving));
    let destination = |(version, since)| {
        let serving_since = serving.get(&version).copied();
        (version, Destination { since, serving_since })
    };
    there.into_iter().map(destination).collect()
}

/// The versions that have no route yet, or no endpoints in it.
fn unrouted(
    subject: &Subject<'_>,
    wanted: &RouteNeeds<'_>,
    attached: &[(&Attached<'_>, Option<Arc<MeshObject<HTTPRoute>>>)],
) -> Option<Problem> {
    let known = |route: &Option<Arc<MeshObject<HTTPRoute>>>| {
        route.as_ref().map(|route| routes::routed(route, wanted.header)).unwrap_or_default()
    };
    let mut known = attached.iter().map(|(_, route)| known(route));
    let mut routed = known.next().unwrap_or_default();
    known.for_each(|other| routed.retain(|version| other.contains(version)));
    // What is ready serves by the whole Service. That says nothing of the one of the version.
    routed.retain(|version| {
        let ready = subject.versions.get(version).is_some_and(|workload| workload.ready);
        let service = routes::service_name(wanted.service, version);
        !ready || routes::has_endpoints(&service, &subject.objects.slices)
    });
    pending(wanted, &routed)
}
