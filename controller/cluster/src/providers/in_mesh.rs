//! What providers in Istio's mesh have in common: the proxies, what stands in the way, and the flag's part in the
//! plugins. Each says only what its routes are. I/O: through the mesh.

use std::collections::{BTreeMap, BTreeSet};

use flag::record::Record;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use kube::ResourceExt;
use machine::observation::ServiceFacts;
use machine::plan::{RouteOrder, ServiceRoutes, WARM_UP};
use machine::reason::{Problem, Reason};
use machine::spec::Management;
use service::failpoint;

use super::{Files, Provider, ProxySet, Subject};
use crate::context::{Context, TurnError};
use crate::istio::check::RouteNeeds;
use crate::istio::plugin::{Part, namespaces, targets, too_wide};
use crate::proxies;

/// A kind of routes in the mesh.
pub(super) trait MeshRoutes: Sync {
    /// What is looked at when routes are checked.
    type Objects;

    fn objects(subject: &Subject<'_>, context: &Context<'_>) -> Self::Objects;

    /// What is known of each service, its routes among it.
    fn services(subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts>;

    /// What stands beside the routes of one Service that are written.
    fn managed(wanted: &RouteNeeds<'_>, objects: &Self::Objects) -> Option<Problem>;

    /// What is wrong with the operator's routes of one Service.
    fn user_provided(wanted: &RouteNeeds<'_>, objects: &Self::Objects) -> Option<Problem>;

    /// What is wrong with the routes of one Service as they are written.
    fn written(
        subject: &Subject<'_>,
        wanted: &RouteNeeds<'_>,
        objects: &Self::Objects,
        context: &Context<'_>,
    ) -> Option<Problem>;

    /// Writes what the routes of one Service lead to, and after it the routes. Whether anything had to be written.
    async fn write(
        subject: &Subject<'_>,
        service: &str,
        order: &ServiceRoutes,
        record: &Record,
        context: &Context<'_>,
    ) -> Result<bool, TurnError>;
}

impl<R: MeshRoutes> Provider for R {
    fn namespace(&self, subject: &Subject<'_>) -> String {
        subject.namespace.to_owned()
    }

    fn proxies(&self, subject: &Subject<'_>) -> ProxySet {
        let (namespace, spec, pods) = (subject.namespace, subject.spec, &subject.objects.pods);
        let expected = proxies::expected_in_mesh(namespace, spec, subject.workloads, pods);
        let mut audience = proxies::audience_in_mesh(namespace, spec, pods);
        audience.extend(expected.iter().cloned());
        ProxySet { expected, audience }
    }

    fn services(&self, subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts> {
        R::services(subject, context)
    }

    fn problem(&self, subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem> {
        let (istio, image, spec) = (&context.mesh.istio, &context.mesh.image, subject.spec);
        let wide = || too_wide(subject.namespace, &spec.all_callers(), &image.root);
        let problem = istio
            .routes_problem(spec.routing.provider)
            .or_else(|| istio.plugins_problem())
            .or_else(|| image.problem().map(|message| Problem::new(Reason::PluginUnknown, message)))
            .or_else(|| wide().map(|message| Problem::new(Reason::TooWide, message)));
        problem.or_else(|| header_taken(subject, context))
    }

    fn routes(&self, subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem> {
        let managed = subject.spec.routing.management == Management::Managed;
        unwritable(subject, managed, context).or_else(|| {
            let objects = R::objects(subject, context);
            first_wrong(subject, context, |wanted| match managed {
                true => R::managed(wanted, &objects).or_else(|| {
                    subject.status.record.as_ref()?;
                    R::written(subject, wanted, &objects, context)
                }),
                false => R::user_provided(wanted, &objects),
            })
        })
    }

    fn route<'a>(
        &'a self,
        subject: Subject<'a>,
        order: &'a RouteOrder,
        context: &'a Context<'a>,
    ) -> LocalBoxFuture<'a, Result<Files, TurnError>> {
        async move {
            for (service, routes) in &order.services {
                if R::write(&subject, service, routes, &order.record, context).await? {
                    failpoint::point("after routes were written");
                }
            }
            Ok(Files::new())
        }
        .boxed_local()
    }

    fn configure(&self, subject: &Subject<'_>, record: &Record, context: &Context<'_>) -> Result<Files, TurnError> {
        let created = subject.resource.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let uid = subject.resource.uid().unwrap_or_default();
        let part = Part {
            age: (created, uid.clone()),
            targets: targets(subject.namespace, &subject.spec.all_callers()),
            header: subject.spec.routing.header.clone(),
            record: record.clone(),
        };
        context.mesh.offer(&uid, part);
        Ok(Files::new())
    }
}

/// All flags of a namespace share the filter there, and with it the routing header.
fn header_taken(subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem> {
    let places = namespaces(subject.namespace, &subject.spec.callers);
    let header = &subject.spec.routing.header;
    let mut others = places.iter().filter_map(|place| {
        let (taken, flag) = context.headers.get(place)?;
        (taken != header && flag != subject.name).then_some((place, taken, flag))
    });
    let (place, taken, flag) = others.next()?;
    let message = format!(
        "VersionFlag {flag} has spec.routing.header {taken} in namespace {place}, and there can be only one: use the same"
    );
    Some(Problem::new(Reason::HeaderTaken, message))
}

/// Why nothing can be written in the mesh for a flag.
fn unwritable(subject: &Subject<'_>, managed: bool, context: &Context<'_>) -> Option<Problem> {
    if let Some(problem) = context.mesh.istio.routes_problem(subject.spec.routing.provider) {
        return Some(problem);
    }
    // What is the operator's is not written here, whatever was tried before.
    if let Some(message) = subject.unwritten.filter(|_| managed) {
        return Some(Problem::new(Reason::RoutesNotWritten, message));
    }
    let message = context.mesh.trouble(&targets(subject.namespace, &subject.spec.all_callers()))?;
    Some(Problem::new(Reason::PluginNotWritten, message))
}

/// What `check` finds first in the routes of any Service of a flag.
fn first_wrong(
    subject: &Subject<'_>,
    context: &Context<'_>,
    check: impl Fn(&RouteNeeds<'_>) -> Option<Problem>,
) -> Option<Problem> {
    let (namespace, spec) = (subject.namespace, subject.spec);
    let (versions, active) = match &subject.status.record {
        Some(record) => (record.versions.clone(), record.active.clone()),
        None => (BTreeSet::from([spec.version.clone()]), spec.version.clone()),
    };
    let callers = namespaces(namespace, &spec.callers);
    spec.services.iter().find_map(|service| {
        check(&RouteNeeds {
            domain: context.domain,
            namespace,
            service: &service.name,
            header: &spec.routing.header,
            label: &spec.version_label,
            versions: &versions,
            active: &active,
            callers: &callers,
            gateways: &spec.routing.gateways,
        })
    })
}

/// Says which versions have no route yet.
pub(super) fn pending(wanted: &RouteNeeds<'_>, routed: &BTreeSet<String>) -> Option<Problem> {
    let missing: Vec<&str> = wanted.versions.difference(routed).map(String::as_str).collect();
    if missing.is_empty() {
        return None;
    }
    let reason = if routed.contains(wanted.active) { Reason::RoutesWarming } else { Reason::RoutesPending };
    let (versions, service) = (missing.join(" and "), wanted.service);
    let message = format!(
        "routes to {versions} of Service {service} are written {WARM_UP} after what they lead to, so that none fails"
    );
    Some(Problem::new(reason, message))
}
