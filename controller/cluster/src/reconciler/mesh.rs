//! What one VersionFlag has in Istio: what is wrong there, its routes, and its part in the plugins. I/O:
//! through the mesh.

use std::collections::{BTreeMap, BTreeSet};

use flag::record::Record;
use kube::ResourceExt;

use super::{Flag, Look, Surroundings, TurnError, gateway};
use crate::istio::check::{self, Wanted};
use crate::istio::object::{DestinationRule, Object, Rule};
use crate::istio::plugin::{Part, namespaces, targets, too_wide};
use crate::istio::routes;
use crate::status::Problem;
use machine::duration::Span;
use machine::observation::{RouteProblem, Workload};
use machine::spec::{Management, Provider, Spec};
use machine::status::{Phase, Status};
use service::failpoint;

/// By namespace, the routing header of the oldest flag there, and its name.
pub(crate) type Headers = BTreeMap<String, (String, String)>;

/// Why nothing can be done in Istio for a flag.
pub(super) fn problem(name: &str, namespace: &str, spec: &Spec, around: &Surroundings<'_>) -> Option<Problem> {
    if !spec.routing.in_mesh() {
        return None;
    }
    let (istio, image) = (&around.mesh.istio, &around.mesh.image);
    let unknown = istio.routes_problem(spec.routing.provider).or_else(|| istio.plugins_problem());
    let unknown = unknown.or_else(|| image.problem().map(|message| ("PluginUnknown", message)));
    let unknown =
        unknown.or_else(|| too_wide(namespace, &spec.all_callers(), &image.root).map(|message| ("TooWide", message)));
    if let Some((reason, message)) = unknown {
        return Some(Problem { reason, message });
    }
    let places = namespaces(namespace, &spec.callers);
    let other = places.iter().filter_map(|place| around.headers.get(place).map(|oldest| (place, oldest)));
    let mut other = other.filter(|(_, (header, flag))| *header != spec.routing.header && flag != name);
    other.next().map(|(place, (header, flag))| Problem {
        reason: "HeaderTaken",
        message: format!(
            "VersionFlag {flag} has spec.routing.header {header} in namespace {place}, and there can be only one: use \
             the same"
        ),
    })
}

/// What is wrong with the routes of a flag.
pub(super) fn routes(
    namespace: &str,
    spec: &Spec,
    machine: &Status,
    workloads: &BTreeMap<String, Workload>,
    unwritten: Option<&String>,
    around: &Surroundings<'_>,
) -> Option<RouteProblem> {
    if !spec.routing.in_mesh() {
        return None;
    }
    let problem = |reason, message| RouteProblem { reason, message, snippet: String::new() };
    if let Some((reason, message)) = around.mesh.istio.routes_problem(spec.routing.provider) {
        return Some(problem(reason, message));
    }
    if let Some(message) = unwritten {
        return Some(problem("RoutesNotWritten", message.clone()));
    }
    if let Some(message) = around.mesh.trouble(&targets(namespace, &spec.all_callers())) {
        return Some(problem("PluginNotWritten", message));
    }
    let (versions, active) = match &machine.record {
        Some(record) => (record.versions.clone(), record.active.clone()),
        None => (BTreeSet::from([spec.version.clone()]), spec.version.clone()),
    };
    let (found, callers) = (around.mesh.istio.found(), namespaces(namespace, &spec.callers));
    let by_gateway_api = (spec.routing.provider == Provider::GatewayAPI).then(|| gateway::found(namespace, around));
    spec.services.iter().find_map(|service| {
        let wanted = Wanted {
            domain: around.domain,
            namespace,
            service: &service.name,
            header: &spec.routing.header,
            label: &spec.version_label,
            versions: &versions,
            active: &active,
            callers: &callers,
            gateways: &spec.routing.gateways,
        };
        if let Some(found) = &by_gateway_api {
            let managed = spec.routing.management == Management::Managed;
            return gateway::problem(&wanted, managed, machine, workloads, found, around);
        }
        match spec.routing.management {
            Management::Managed => check::managed(&wanted, &found).or_else(|| {
                machine.record.as_ref()?;
                unrouted(&wanted, around)
            }),
            Management::UserProvided => check::user_provided(&wanted, &found),
        }
    })
}

/// The versions that have no route yet.
fn unrouted(wanted: &Wanted<'_>, around: &Surroundings<'_>) -> Option<RouteProblem> {
    let name = routes::name(wanted.service);
    let found = around.mesh.istio.services.get(wanted.namespace, &name);
    let routed = found.map(|found| routes::routed(&found, wanted.header)).unwrap_or_default();
    let missing: Vec<&str> = wanted.versions.difference(&routed).map(String::as_str).collect();
    pending(wanted, &routed, &missing)
}

/// Says which versions have no route yet.
pub(super) fn pending(wanted: &Wanted<'_>, routed: &BTreeSet<String>, missing: &[&str]) -> Option<RouteProblem> {
    let reason = if routed.contains(wanted.active) { RouteProblem::WARMING } else { RouteProblem::PENDING };
    let message = || {
        let (versions, wait) = (missing.join(" and "), Span(routes::WARM_MS));
        let service = wanted.service;
        format!(
            "routes to {versions} of Service {service} are written {wait} after what they lead to, so that none fails"
        )
    };
    (!missing.is_empty()).then(|| RouteProblem { reason, message: message(), snippet: String::new() })
}

impl Flag {
    /// Writes the routes of every service, if they are the controller's.
    pub(super) async fn route(
        &mut self,
        look: &Look,
        record: &Record,
        around: &Surroundings<'_>,
    ) -> Result<(), TurnError> {
        let routing = &look.spec.routing;
        let managed = routing.management == Management::Managed;
        if !managed || look.problem.is_some() || around.mesh.istio.routes_problem(routing.provider).is_some() {
            return Ok(());
        }
        if routing.provider == Provider::GatewayAPI {
            return self.route_by_gateway_api(look, record, around).await;
        }
        let (mesh, namespace) = (around.mesh, self.resource.namespace().unwrap_or_default());
        let header = &look.spec.routing.header;
        self.warm_ms = None;
        for service in look.spec.services.iter().map(|service| &service.name) {
            let name = routes::name(service);
            let written = mesh.istio.rules.get(&namespace, &name).map(|rule| recorded(&rule, &look.spec.version_label));
            // A subset may be used as long as a route to it may be left somewhere.
            let kept = written.unwrap_or_default().into_iter().filter(|_| self.machine.phase == Phase::Removing);
            let versions: BTreeSet<String> = record.versions.iter().cloned().chain(kept).collect();
            let listed = versions.iter().map(String::as_str);
            let rule = routes::destination_rule(around.domain, &namespace, service, &look.spec.version_label, listed);
            // Before the routes that need it.
            let mut wrote = mesh.keep(&mesh.istio.rules, rule).await?;
            let since = mesh.subsets(&namespace, &name, &versions, look.now_ms);
            let routed = mesh.istio.services.get(&namespace, &name).map(|found| routes::routed(&found, header));
            let (warm, next) = routes::warm(&record.versions, &routed.unwrap_or_default(), &since, look.now_ms);
            self.warm_ms = self.warm_ms.into_iter().chain(next).min();
            if !warm.contains(&record.active) {
                continue;
            }
            let record = &Record { versions: warm, ..record.clone() };
            if !look.spec.callers.gateways.is_empty() {
                let delegate = routes::delegate(around.domain, &namespace, service, header, record);
                wrote |= mesh.keep(&mesh.istio.services, delegate).await?;
            }
            let routes = routes::virtual_service(around.domain, &namespace, service, header, record);
            wrote |= mesh.keep(&mesh.istio.services, routes).await?;
            if wrote {
                failpoint::point("after routes were written");
            }
        }
        Ok(())
    }

    /// Says what has to be in the plugins.
    pub(super) fn configure(&self, look: &Look, record: Record, around: &Surroundings<'_>) {
        if look.problem.as_ref().is_some_and(|problem| ["HeaderTaken", "TooWide"].contains(&problem.reason)) {
            return;
        }
        let metadata = &self.resource.metadata;
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        let uid = self.resource.uid().unwrap_or_default();
        let part = Part {
            age: (created, uid.clone()),
            targets: targets(&self.resource.namespace().unwrap_or_default(), &look.spec.all_callers()),
            header: look.spec.routing.header.clone(),
            record,
        };
        around.mesh.offer(&uid, part);
    }
}

/// The versions that a rule has subsets of.
fn recorded(rule: &Object<DestinationRule>, label: &str) -> Vec<String> {
    let subsets = rule.read::<Rule>().subsets.into_iter();
    subsets.filter_map(|subset| subset.labels.get(label).cloned()).collect()
}
