//! The routes of one VersionFlag by the Gateway API: what is wrong with them, and writing them. I/O: through
//! the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flag::record::Record;
use kube::ResourceExt;

use super::mesh::pending;
use super::{Flag, Look, Surroundings, TurnError};
use crate::gateway_api::attach::{self, Attached};
use crate::gateway_api::check::{self, Found};
use crate::gateway_api::routes;
use crate::istio::check::Wanted;
use crate::istio::object::{HTTPRoute, Object};
use crate::istio::ours;
use crate::istio::routes as istio;
use machine::observation::{RouteProblem, Workload};
use machine::status::Status;
use service::failpoint;

/// What the cluster holds, for a flag of this namespace.
pub(super) fn found(namespace: &str, around: &Surroundings<'_>) -> Found {
    let istio = &around.mesh.istio;
    Found {
        http: istio.http_routes.all(),
        grpc: istio.grpc_routes.all(),
        virtual_services: istio.services.all(),
        services: around.cache.services(namespace),
    }
}

/// What is wrong with the routes of a Service.
pub(super) fn problem(
    wanted: &Wanted<'_>,
    managed: bool,
    machine: &Status,
    workloads: &BTreeMap<String, Workload>,
    found: &Found,
    around: &Surroundings<'_>,
) -> Option<RouteProblem> {
    if !managed {
        return check::user_provided(wanted, found);
    }
    check::managed(wanted, found).or_else(|| {
        machine.record.as_ref()?;
        let whole = routes::find(&found.services, wanted.service)?;
        let (attached, _) = attach::all(wanted.namespace, whole, wanted.gateways);
        let written = |one: &Attached<'_>| around.mesh.istio.http_routes.get(wanted.namespace, &one.name);
        let all: Vec<_> = attached.iter().map(|one| (one, written(one))).collect();
        let refused = || all.iter().find_map(|(one, route)| one.refusal(route.as_ref()?));
        unrouted(wanted, workloads, &all, around).or_else(refused)
    })
}

/// The versions that have no route yet, or no endpoints in it.
fn unrouted(
    wanted: &Wanted<'_>,
    workloads: &BTreeMap<String, Workload>,
    attached: &[(&Attached<'_>, Option<Arc<Object<HTTPRoute>>>)],
    around: &Surroundings<'_>,
) -> Option<RouteProblem> {
    let slices = around.cache.slices(wanted.namespace);
    let known = |route: &Option<Arc<Object<HTTPRoute>>>| {
        route.as_ref().map(|route| routes::routed(route, wanted.header)).unwrap_or_default()
    };
    let mut known = attached.iter().map(|(_, route)| known(route));
    let mut routed = known.next().unwrap_or_default();
    known.for_each(|other| routed.retain(|version| other.contains(version)));
    // What is ready serves by the whole Service. That says nothing of the one of the version.
    routed.retain(|version| {
        let ready = workloads.get(version).is_some_and(|workload| workload.ready);
        !ready || routes::has_endpoints(&routes::service_name(wanted.service, version), &slices)
    });
    let missing: Vec<&str> = wanted.versions.difference(&routed).map(String::as_str).collect();
    pending(wanted, &routed, &missing)
}

impl Flag {
    /// Writes the Services of the versions, and after them the routes.
    pub(super) async fn route_by_gateway_api(
        &mut self,
        look: &Look,
        record: &Record,
        around: &Surroundings<'_>,
    ) -> Result<(), TurnError> {
        let (mesh, namespace) = (around.mesh, self.resource.namespace().unwrap_or_default());
        let (header, label) = (&look.spec.routing.header, &look.spec.version_label);
        let (services, slices) = (around.cache.services(&namespace), around.cache.slices(&namespace));
        self.warm_ms = None;
        for service in look.spec.services.iter().map(|service| &service.name) {
            let Some(whole) = routes::find(&services, service) else { continue };
            let mut wrote = false;
            for version in &record.versions {
                let wanted = routes::service(&namespace, whole, label, version);
                let found = routes::find(&services, &wanted.name_any()).map(routes::as_object);
                // One of somebody else's that selects the same serves as well.
                if found.as_ref().is_none_or(ours) {
                    wrote |= mesh.keep_over(found.as_ref(), wanted).await?;
                }
            }
            // A route to a Service that no endpoints are known of fails requests.
            let serves = |version: &&String| {
                **version != record.active || routes::has_endpoints(&routes::service_name(service, version), &slices)
            };
            let there: BTreeSet<String> = record.versions.iter().filter(serves).cloned().collect();
            let since = mesh.subsets(&namespace, &format!("{service} by version"), &there, look.now_ms);
            for one in attach::all(&namespace, whole, &look.spec.routing.gateways).0 {
                let found = mesh.istio.http_routes.get(&namespace, &one.name);
                let routed = found.map(|found| routes::routed(&found, header));
                let (warm, next) = istio::warm(&record.versions, &routed.unwrap_or_default(), &since, look.now_ms);
                self.warm_ms = self.warm_ms.into_iter().chain(next).min();
                if !warm.contains(&record.active) {
                    continue;
                }
                let record = &Record { versions: warm, ..record.clone() };
                let route = routes::http_route(&namespace, service, &one, header, record);
                wrote |= mesh.keep(&mesh.istio.http_routes, route).await?;
            }
            if wrote {
                failpoint::point("after routes were written");
            }
        }
        Ok(())
    }
}
