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
use machine::time::UnixMs;
use service::failpoint;

use super::{Files, Provider, ProxySet, Subject};
use crate::context::{Context, TurnError};
use crate::gateway_api::routes as gateway;
use crate::istio::check::RouteNeeds;
use crate::istio::plugin::{Part, namespaces, targets, too_wide};
use crate::{alias, proxies};

/// A kind of routes in the mesh.
pub(super) trait MeshRoutes: Sync {
    /// What is looked at when routes are checked.
    type Objects;

    /// Those that may be about one Service.
    fn objects(subject: &Subject<'_>, service: &str, context: &Context<'_>) -> Self::Objects;

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
        let (namespace, spec, objects) = (subject.namespace, subject.spec, subject.objects);
        let expected = proxies::expected_in_mesh(namespace, spec, subject.workloads, objects);
        let mut audience = proxies::audience_in_mesh(namespace, spec, &objects.pods);
        audience.extend(expected.iter().cloned());
        ProxySet { expected, audience }
    }

    fn filter_since(&self, subject: &Subject<'_>, context: &Context<'_>) -> Option<UnixMs> {
        context.mesh.istio.plugins_since(&targets(subject.namespace, &subject.spec.all_callers()))
    }

    fn services(&self, subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts> {
        R::services(subject, context)
    }

    fn problems(&self, subject: &Subject<'_>, context: &Context<'_>) -> Vec<Problem> {
        let (istio, image, spec) = (&context.mesh.istio, &context.mesh.image, subject.spec);
        let said = |reason: Reason, message: Option<String>| message.map(|message| Problem::new(reason, message));
        let all = [
            istio.routes_problem(spec.routing.provider),
            istio.plugins_problem(),
            said(Reason::PluginUnknown, image.problem()),
            said(Reason::TooWide, too_wide(subject.namespace, &spec.all_callers(), &image.root)),
            header_taken(subject, context),
            proxies::unbelieved(subject.namespace, spec, subject.workloads, subject.objects),
        ];
        all.into_iter().flatten().collect()
    }

    fn routes(&self, subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem> {
        let managed = subject.spec.routing.management == Management::Managed;
        unwritable(subject, managed, context).or_else(|| {
            first_wrong(subject, context, |wanted| {
                let objects = R::objects(subject, wanted.service, context);
                if !managed {
                    return R::user_provided(wanted, &objects);
                }
                R::managed(wanted, &objects).or_else(|| {
                    subject.status.record.as_ref()?;
                    R::written(subject, wanted, &objects, context)
                })
            })
            .or_else(|| alias(subject, context))
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

/// Another name of a Service, where callers are, that the filter does not know.
fn alias(subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem> {
    let places = namespaces(subject.namespace, &subject.spec.callers);
    let services: Vec<_> = places.iter().flat_map(|place| context.cache.services(place)).collect();
    let mut listed = subject.spec.services.iter();
    listed.find_map(|service| {
        subject.needs(&service.name, context, |wanted| alias::unlisted(wanted, &service.hosts, &services))
    })
}

/// What `check` finds first in the routes of any Service of a flag.
fn first_wrong(
    subject: &Subject<'_>,
    context: &Context<'_>,
    check: impl Fn(&RouteNeeds<'_>) -> Option<Problem>,
) -> Option<Problem> {
    subject.spec.services.iter().find_map(|service| subject.needs(&service.name, context, &check))
}

impl Subject<'_> {
    /// What is asked of the routes of a Service that leads to it.
    pub(super) fn needs<T>(&self, service: &str, context: &Context<'_>, ask: impl Fn(&RouteNeeds<'_>) -> T) -> T {
        let (namespace, spec) = (self.namespace, self.spec);
        let (versions, active) = match &self.status.record {
            Some(record) => (record.versions.clone(), record.active.clone()),
            None => (BTreeSet::from([spec.version.clone()]), spec.version.clone()),
        };
        let all = spec.all_callers();
        ask(&RouteNeeds {
            domain: context.domain,
            namespace,
            service,
            header: &spec.routing.header,
            label: &spec.version_label,
            versions: &versions,
            active: &active,
            ports: &self.ports(service),
            callers: &namespaces(namespace, &spec.callers),
            gateway_places: &all.gateways.iter().map(|gateway| gateway.namespace(namespace).to_owned()).collect(),
            root: &context.mesh.image.root,
            gateways: &spec.routing.gateways,
        })
    }

    /// The ports of a Service, as far as it is there.
    pub(super) fn ports(&self, service: &str) -> Vec<i32> {
        gateway::find(&self.objects.services, service).map(gateway::ports).unwrap_or_default()
    }
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
