//! Istio: VirtualServices and DestinationRules that are written and looked at. I/O: through the mesh.

use std::collections::{BTreeMap, BTreeSet};

use flag::record::Record;
use machine::observation::{Destination, ServiceFacts};
use machine::plan::ServiceRoutes;
use machine::reason::Problem;

use super::Subject;
use super::in_mesh::{MeshRoutes, pending};
use crate::context::{Context, TurnError};
use crate::istio::check::{self, IstioObjects, RouteNeeds};
use crate::istio::object::{DestinationRule, MeshObject};
use crate::istio::routes::{self, RouteSource};
use crate::istio::rules::export_to;

/// `spec.routing.provider: Istio`.
pub(super) struct Istio;

impl MeshRoutes for Istio {
    type Objects = IstioObjects;

    fn objects(subject: &Subject<'_>, service: &str, context: &Context<'_>) -> IstioObjects {
        context.mesh.istio.about(service, subject.namespace)
    }

    fn services(subject: &Subject<'_>, context: &Context<'_>) -> BTreeMap<String, ServiceFacts> {
        let record = subject.status.record.as_ref();
        let mut all = subject.place(context).in_mesh(subject.spec, &subject.known_versions(), record);
        for (service, facts) in &mut all {
            let (name, mesh) = (routes::name(service), context.mesh);
            let rule = mesh.istio.rules.get(subject.namespace, &name);
            let versions = rule.map(|rule| recorded(&rule, &subject.spec.version_label)).unwrap_or_default();
            // A rule of somebody else may take its place at some callers, who have no subset then.
            let found = mesh.istio.about(service, subject.namespace);
            let led_to = |version: &String| subject.needs(service, context, |needs| needs.is_led_to(version, &found));
            let (there, hidden): (BTreeSet<String>, BTreeSet<String>) = versions.into_iter().partition(led_to);
            let since = mesh.since(subject.namespace, &name, &there, subject.now);
            // A subset may be empty; whoever serves is in there at once.
            let there = |since| Destination { since, serving_since: Some(since) };
            let hidden =
                hidden.into_iter().map(|version| (version, Destination { since: subject.now, serving_since: None }));
            facts.destinations =
                since.into_iter().map(|(version, since)| (version, there(since))).chain(hidden).collect();
            let found = mesh.istio.services.get(subject.namespace, &name);
            let header = &subject.spec.routing.header;
            let routed = found.map(|found| routes::routed(&found, header)).unwrap_or_default();
            facts.routed = BTreeMap::from([(name, routed)]);
        }
        all
    }

    fn managed(wanted: &RouteNeeds<'_>, objects: &IstioObjects) -> Option<Problem> {
        check::managed(wanted, objects)
    }

    fn user_provided(wanted: &RouteNeeds<'_>, objects: &IstioObjects) -> Option<Problem> {
        check::user_provided(wanted, objects)
    }

    fn written(_: &Subject<'_>, wanted: &RouteNeeds<'_>, _: &IstioObjects, context: &Context<'_>) -> Option<Problem> {
        let found = context.mesh.istio.services.get(wanted.namespace, &routes::name(wanted.service));
        let routed = found.map(|found| routes::routed(&found, wanted.header)).unwrap_or_default();
        pending(wanted, &routed)
    }

    async fn write(
        subject: &Subject<'_>,
        service: &str,
        order: &ServiceRoutes,
        record: &Record,
        context: &Context<'_>,
    ) -> Result<bool, TurnError> {
        let (mesh, namespace, spec) = (context.mesh, subject.namespace, subject.spec);
        let listed = order.destinations.iter().map(String::as_str);
        let export_to =
            subject.needs(service, context, |needs| export_to(needs, &mesh.istio.about(service, namespace)));
        let rule =
            routes::destination_rule(context.domain, namespace, service, &spec.version_label, listed, &export_to);
        // Before the routes that need it.
        let mut wrote = mesh.keep(&mesh.istio.rules, rule).await?;
        if let Some(versions) = order.routes.get(&routes::name(service)) {
            let record = &Record { versions: versions.clone(), ..record.clone() };
            let header = &spec.routing.header;
            let source =
                RouteSource { domain: context.domain, namespace, service, header, record, export_to: &export_to };
            if !spec.callers.gateways.is_empty() {
                for delegate in routes::delegates(&source, &subject.ports(service)) {
                    wrote |= mesh.keep(&mesh.istio.services, delegate).await?;
                }
            }
            wrote |= mesh.keep(&mesh.istio.services, routes::virtual_service(&source)).await?;
        }
        Ok(wrote)
    }
}

/// The versions that a rule has subsets of.
fn recorded(rule: &MeshObject<DestinationRule>, label: &str) -> BTreeSet<String> {
    let subsets = rule.looked_at().subsets.iter();
    subsets.filter_map(|subset| subset.labels.get(label).cloned()).collect()
}
