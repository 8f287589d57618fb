//! Istio: VirtualServices and DestinationRules that are written and looked at, and the flag's part in the plugins.
//! I/O: through the mesh.

use std::collections::{BTreeMap, BTreeSet};

use flag::record::Record;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use kube::ResourceExt;
use machine::observation::{Destination, ServiceFacts};
use machine::plan::{RouteOrder, ServiceRoutes, WARM_UP};
use machine::reason::{Problem, Reason};
use machine::spec::Management;
use service::failpoint;

use super::{Files, Provider, ProxySet, Subject};
use crate::context::{Context, TurnError};
use crate::istio::check::{self, RouteNeeds};
use crate::istio::object::{DestinationRule, DestinationRuleSpec, MeshObject};
use crate::istio::plugin::{Part, namespaces, targets, too_wide};
use crate::istio::routes;
use crate::proxies;

/// `spec.routing.provider: Istio`.
pub(super) struct Istio;

impl Provider for Istio {
    fn namespace(&self, subject: &Subject<'_>) -> String {
        subject.namespace.to_owned()
    }

    fn proxies(&self, subject: &Subject<'_>) -> ProxySet {
        proxies_in_mesh(subject)
    }

    fn services(&self, subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts> {
        let record = subject.status.record.as_ref();
        let mut all = subject.place(context).in_mesh(subject.spec, &subject.known_versions(), record);
        for (service, facts) in &mut all {
            let (name, mesh) = (routes::name(service), context.mesh);
            let rule = mesh.istio.rules.get(subject.namespace, &name);
            let versions = rule.map(|rule| recorded(&rule, &subject.spec.version_label)).unwrap_or_default();
            let since = mesh.since(subject.namespace, &name, &versions, subject.now);
            // A subset may be empty; whoever serves is in there at once.
            let there = |since| Destination { since, serving_since: Some(since) };
            facts.destinations = since.into_iter().map(|(version, since)| (version, there(since))).collect();
            let found = mesh.istio.services.get(subject.namespace, &name);
            let header = &subject.spec.routing.header;
            let routed = found.map(|found| routes::routed(&found, header)).unwrap_or_default();
            facts.routed = BTreeMap::from([(name, routed)]);
        }
        all
    }

    fn problem(&self, subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem> {
        problem_in_mesh(subject, context)
    }

    fn routes(&self, subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem> {
        let found = context.mesh.istio.found();
        let managed = subject.spec.routing.management == Management::Managed;
        routes_in_mesh(subject, context, |wanted| match managed {
            true => check::managed(wanted, &found).or_else(|| {
                subject.status.record.as_ref()?;
                unrouted(wanted, context)
            }),
            false => check::user_provided(wanted, &found),
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
                write_routes(&subject, service, routes, &order.record, context).await?;
            }
            Ok(Files::new())
        }
        .boxed_local()
    }

    fn configure(&self, subject: &Subject<'_>, record: &Record, context: &Context<'_>) -> Result<Files, TurnError> {
        offer_part(subject, record, context);
        Ok(Files::new())
    }
}

/// Sidecars and gateways of Istio.
pub(super) fn proxies_in_mesh(subject: &Subject<'_>) -> ProxySet {
    let (namespace, spec, pods) = (subject.namespace, subject.spec, &subject.objects.pods);
    let expected = proxies::expected_in_mesh(namespace, spec, subject.workloads, pods);
    let mut audience = proxies::audience_in_mesh(namespace, spec, pods);
    audience.extend(expected.iter().cloned());
    ProxySet { expected, audience }
}

/// Why nothing can be done in Istio for a flag.
pub(super) fn problem_in_mesh(subject: &Subject<'_>, context: &Context<'_>) -> Option<Problem> {
    let (istio, image, spec) = (&context.mesh.istio, &context.mesh.image, subject.spec);
    let wide = || too_wide(subject.namespace, &spec.all_callers(), &image.root);
    let problem = istio
        .routes_problem(spec.routing.provider)
        .or_else(|| istio.plugins_problem())
        .or_else(|| image.problem().map(|message| Problem::new(Reason::PluginUnknown, message)))
        .or_else(|| wide().map(|message| Problem::new(Reason::TooWide, message)));
    problem.or_else(|| header_taken(subject, context))
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

/// What is wrong with the routes of a flag; `check` looks at those of one Service.
pub(super) fn routes_in_mesh(
    subject: &Subject<'_>,
    context: &Context<'_>,
    check: impl Fn(&RouteNeeds<'_>) -> Option<Problem>,
) -> Option<Problem> {
    let (namespace, spec) = (subject.namespace, subject.spec);
    if let Some(problem) = context.mesh.istio.routes_problem(spec.routing.provider) {
        return Some(problem);
    }
    // What is the operator's is not written here, whatever was tried before.
    let managed = spec.routing.management == Management::Managed;
    if let Some(message) = subject.unwritten.filter(|_| managed) {
        return Some(Problem::new(Reason::RoutesNotWritten, message));
    }
    if let Some(message) = context.mesh.trouble(&targets(namespace, &spec.all_callers())) {
        return Some(Problem::new(Reason::PluginNotWritten, message));
    }
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

/// The versions that have no route yet.
fn unrouted(wanted: &RouteNeeds<'_>, context: &Context<'_>) -> Option<Problem> {
    let found = context.mesh.istio.services.get(wanted.namespace, &routes::name(wanted.service));
    let routed = found.map(|found| routes::routed(&found, wanted.header)).unwrap_or_default();
    pending(wanted, &routed)
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

async fn write_routes(
    subject: &Subject<'_>,
    service: &str,
    order: &ServiceRoutes,
    record: &Record,
    context: &Context<'_>,
) -> Result<(), TurnError> {
    let (mesh, namespace, spec) = (context.mesh, subject.namespace, subject.spec);
    let listed = order.destinations.iter().map(String::as_str);
    let rule = routes::destination_rule(context.domain, namespace, service, &spec.version_label, listed);
    // Before the routes that need it.
    let mut wrote = mesh.keep(&mesh.istio.rules, rule).await?;
    if let Some(versions) = order.routes.get(&routes::name(service)) {
        let record = &Record { versions: versions.clone(), ..record.clone() };
        let header = &spec.routing.header;
        if !spec.callers.gateways.is_empty() {
            let delegate = routes::delegate(context.domain, namespace, service, header, record);
            wrote |= mesh.keep(&mesh.istio.services, delegate).await?;
        }
        let routes = routes::virtual_service(context.domain, namespace, service, header, record);
        wrote |= mesh.keep(&mesh.istio.services, routes).await?;
    }
    if wrote {
        failpoint::point("after routes were written");
    }
    Ok(())
}

/// Says what the flag has in the plugins.
pub(super) fn offer_part(subject: &Subject<'_>, record: &Record, context: &Context<'_>) {
    let created = subject.resource.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let uid = subject.resource.uid().unwrap_or_default();
    let part = Part {
        age: (created, uid.clone()),
        targets: targets(subject.namespace, &subject.spec.all_callers()),
        header: subject.spec.routing.header.clone(),
        record: record.clone(),
    };
    context.mesh.offer(&uid, part);
}

/// The versions that a rule has subsets of.
fn recorded(rule: &MeshObject<DestinationRule>, label: &str) -> BTreeSet<String> {
    let subsets = rule.read::<DestinationRuleSpec>().subsets.into_iter();
    subsets.filter_map(|subset| subset.labels.get(label).cloned()).collect()
}
