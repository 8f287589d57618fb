//! Which DestinationRule a proxy goes by for a Service, as Istio looks it up: in the namespace of the client first,
//! then in that of the Service, then in the root. Within one namespace rules of one host are made one if they are for
//! the same namespaces and the same clients; of others one takes the place of the rest. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::check::{IstioObjects, RouteNeeds, conflict, yaml};
use super::object::{DestinationRule, DestinationRuleSpec, MeshObject};
use super::ours;
use super::routes::{name, subset};
use machine::reason::Problem;

/// A rule whose host is the Service, or a pattern of it.
#[derive(Clone)]
struct Rule<'a> {
    object: &'a MeshObject<DestinationRule>,
    spec: &'a DestinationRuleSpec,
}

/// Rules that Istio makes one of: they are for the same namespaces, and for the same clients.
type Merged<'a> = Vec<Rule<'a>>;

/// Whether an object of `place` with this `exportTo` is seen by proxies of a namespace. Without one it is taken for
/// seen: whether the mesh has another default is not known.
pub(super) fn seen_from(export_to: &[String], place: &str, namespace: &str) -> bool {
    let shows = |to: &String| match to.as_str() {
        "*" => true,
        "." => place == namespace,
        other => other == namespace,
    };
    export_to.is_empty() || export_to.iter().any(shows)
}

/// Whether proxies of other namespaces never see it.
fn is_private(rule: &Rule<'_>) -> bool {
    let place = rule.object.namespace();
    let near = |to: &String| to == "." || to == place;
    rule.spec.workload_selector.is_some() || !rule.spec.export_to.is_empty() && rule.spec.export_to.iter().all(near)
}

/// Whether Istio makes one of a rule and the controller's, which is for the same namespaces then: for all of them, or
/// for those of the mesh's default.
fn merges(rule: &DestinationRuleSpec) -> bool {
    rule.workload_selector.is_none() && (rule.export_to.is_empty() || rule.export_to.iter().any(|to| to == "*"))
}

/// The namespaces that what is written for a Service is for. A mesh's default may hide it, so that it says so itself;
/// but Istio makes one of two rules only where both say the same.
pub fn export_to(wanted: &RouteNeeds<'_>, found: &IstioObjects) -> Vec<String> {
    let others = wanted.beside(found).filter(|rule| merges(rule.spec));
    let oldest = others.min_by_key(|rule| rule.object.metadata.creation_timestamp.as_ref().map(|time| time.0));
    oldest.map_or_else(|| vec!["*".to_owned()], |rule| rule.spec.export_to.clone())
}

impl<'a> RouteNeeds<'a> {
    /// How exactly a rule's host means the Service: the length of a pattern, more than any for its name.
    fn exactness(&self, rule: &Rule<'_>) -> Option<usize> {
        let host = rule.spec.host.trim_end_matches('.').to_ascii_lowercase();
        if let Some(end) = host.strip_prefix('*') {
            return self.domain.host(self.service, self.namespace).ends_with(end).then_some(host.len());
        }
        self.is(&host, rule.object.namespace()).then_some(usize::MAX)
    }

    /// The rules of a namespace that are most exactly about the Service.
    fn most_exact<'b>(
        &self,
        found: &'b IstioObjects,
        place: &str,
        counts: impl Fn(&Rule<'_>) -> bool,
    ) -> Vec<Rule<'b>> {
        let here = found.rules.iter().filter(|object| object.namespace() == place);
        let read = here.map(|object| Rule { object, spec: object.looked_at() }).filter(counts);
        let fitting: Vec<_> = read.filter_map(|rule| Some((self.exactness(&rule)?, rule))).collect();
        let most = fitting.iter().map(|(exact, _)| *exact).max();
        fitting.into_iter().filter(|(exact, _)| Some(*exact) == most).map(|(_, rule)| rule).collect()
    }

    /// The rules that proxies of a namespace go by. Several groups take each other's place: by age, or for some pods.
    fn in_effect<'b>(&self, found: &'b IstioObjects, client: &str) -> Vec<Merged<'b>> {
        // In the root namespace only those count first that nobody else sees.
        let near = |rule: &Rule<'_>| {
            seen_from(&rule.spec.export_to, client, client) && (client != self.root || is_private(rule))
        };
        let shown = |rule: &Rule<'_>| !is_private(rule) && seen_from(&rule.spec.export_to, "", client);
        let mut rules = self.most_exact(found, client, near);
        for place in [self.namespace, self.root] {
            if rules.is_empty() {
                rules = self.most_exact(found, place, shown);
            }
        }
        let mut groups: BTreeMap<(BTreeSet<String>, String), Merged<'b>> = BTreeMap::new();
        for rule in rules {
            let exported = rule.spec.export_to.iter().cloned().collect();
            let clients = rule.spec.workload_selector.as_ref().map(Value::to_string).unwrap_or_default();
            groups.entry((exported, clients)).or_default().push(rule);
        }
        groups.into_values().collect()
    }

    /// The namespaces of the proxies that lead requests to the Service.
    fn clients(&self) -> impl Iterator<Item = &'a String> {
        self.callers.iter().chain(self.gateway_places.difference(self.callers))
    }

    /// The version that a subset stands for at every client.
    pub(super) fn version_of(&self, subset: &str, found: &IstioObjects) -> Option<String> {
        let groups: Vec<_> = self.clients().flat_map(|client| self.in_effect(found, client)).collect();
        let mut versions = groups.iter().map(|group| {
            let mut subsets = group.iter().flat_map(|rule| &rule.spec.subsets);
            subsets.find(|one| one.name == subset)?.labels.get(self.label).cloned()
        });
        let first = versions.next()??;
        versions.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }

    /// A client that has no subset for a version, and the rule that it goes by instead of one that has it.
    pub(super) fn without_subset(&self, version: &str, found: &IstioObjects) -> Option<(&'a String, Option<String>)> {
        self.clients().find_map(|client| {
            let groups = self.in_effect(found, client);
            let has = |group: &Merged<'_>| {
                let mut subsets = group.iter().flat_map(|rule| &rule.spec.subsets);
                subsets.any(|one| one.labels.get(self.label).is_some_and(|it| it == version))
            };
            let lacking = groups.iter().find(|group| !has(group));
            let name = lacking.and_then(|group| group.first()).map(|rule| rule.object.name());
            (groups.is_empty() || lacking.is_some()).then_some((client, name))
        })
    }

    /// Whether every client has the controller's subset of a version.
    pub fn is_led_to(&self, version: &str, found: &IstioObjects) -> bool {
        let has = |group: &Merged<'_>| group.iter().any(|rule| self.has_subset(rule.spec, version));
        self.clients().all(|client| {
            let groups = self.in_effect(found, client);
            !groups.is_empty() && groups.iter().all(has)
        })
    }

    /// Whether a rule has the subset of a version as the controller writes it.
    fn has_subset(&self, rule: &DestinationRuleSpec, version: &str) -> bool {
        rule.subsets.iter().any(|one| one.name == subset(version) && self.is_all_of(&one.labels, version))
    }

    fn is_all_of(&self, labels: &BTreeMap<String, String>, version: &str) -> bool {
        labels.len() == 1 && labels.get(self.label).is_some_and(|it| it == version)
    }

    /// The rules of others in the flag's namespace for exactly the Service.
    fn beside<'b>(&self, found: &'b IstioObjects) -> impl Iterator<Item = Rule<'b>> {
        let others = self.most_exact(found, self.namespace, |_| true);
        let exact = others.into_iter().filter(|rule| self.exactness(rule) == Some(usize::MAX));
        exact.filter(|rule| !self.is_its_own(rule.object))
    }

    fn is_its_own(&self, object: &MeshObject<DestinationRule>) -> bool {
        object.namespace() == self.namespace && object.metadata.name.as_deref() == Some(&name(self.service))
    }

    /// A rule of others that keeps the controller's subsets from a client.
    pub(super) fn rule_in_the_way(&self, found: &IstioObjects) -> Option<Problem> {
        let taken = found.rules.iter().find(|object| self.is_its_own(object) && !ours(object)).map(|object| {
            let message = format!("DestinationRule {} has a name that the controller needs: rename it", object.name());
            conflict(message, String::new())
        });
        let beside = || {
            let others: Vec<Rule<'_>> = self.beside(found).collect();
            others.iter().find_map(|rule| self.colliding(rule).or_else(|| self.unmerged(rule, &others)))
        };
        taken.or_else(beside).or_else(|| self.clients().find_map(|client| self.shadow(found, client)))
    }

    /// A subset of that name that is another one.
    fn colliding(&self, rule: &Rule<'_>) -> Option<Problem> {
        let collides = |one: &&super::object::Subset| {
            let version = self.versions.iter().find(|version| subset(version) == one.name);
            version.is_some_and(|version| !self.is_all_of(&one.labels, version))
        };
        let name = &rule.spec.subsets.iter().find(collides)?.name;
        let message = format!(
            "DestinationRule {} has a subset {name} of Service {} that is not all of version {name}: rename it there",
            rule.object.name(),
            self.service
        );
        Some(conflict(message, String::new()))
    }

    /// A rule of the flag's namespace that Istio does not make one with the controller's.
    fn unmerged(&self, rule: &Rule<'_>, others: &[Rule<'_>]) -> Option<Problem> {
        let title = format!("DestinationRule {} of Service {}", rule.object.name(), self.service);
        if rule.spec.workload_selector.is_some() {
            let message = format!(
                "{title} is for some pods (workloadSelector), which do not have the controller's subsets by it: repeat them there"
            );
            let whole = self.versions.iter().all(|version| self.has_subset(rule.spec, version));
            return (!whole).then(|| conflict(message, self.subsets()));
        }
        if !merges(rule.spec) {
            let seen = self.clients().any(|client| seen_from(&rule.spec.export_to, self.namespace, client));
            let message = format!(
                "{title} is not for all namespaces, so that Istio does not merge it with the controller's: set its \
                 exportTo to [\"*\"]"
            );
            return seen.then(|| conflict(message, yaml(&json!({ "exportTo": ["*"] }))));
        }
        let exported = |rule: &Rule<'_>| rule.spec.export_to.iter().cloned().collect::<BTreeSet<_>>();
        let other = others.iter().find(|other| merges(other.spec) && exported(other) != exported(rule))?;
        let message = format!(
            "{title} and {} have another exportTo each, so that Istio takes one of both, and not the controller's: set \
             exportTo to [\"*\"] in both",
            other.object.name()
        );
        Some(conflict(message, yaml(&json!({ "exportTo": ["*"] }))))
    }

    /// A rule of a client's namespace that takes the place of the controller's, without its subsets.
    fn shadow(&self, found: &IstioObjects, client: &str) -> Option<Problem> {
        let groups = self.in_effect(found, client);
        let lacking = |group: &&Merged<'_>| {
            let lacks = |version: &String| !group.iter().any(|rule| self.has_subset(rule.spec, version));
            self.versions.iter().any(lacks)
        };
        let rule = groups.iter().find(lacking)?.first()?;
        // In that of the flag it is one beside the controller's, and in the root the controller's comes first.
        if client == self.namespace || rule.object.namespace() != client {
            return None;
        }
        let names: Vec<String> = self.versions.iter().map(|version| subset(version)).collect();
        let (host, names) = (self.domain.host(self.service, self.namespace), names.join(", "));
        let title = format!(
            "DestinationRule {} (host {}) takes the place of the controller's for Service {} at callers in {client}",
            rule.object.name(),
            rule.spec.host,
            self.service
        );
        if self.exactness(rule) == Some(usize::MAX) {
            return Some(conflict(format!("{title}: it has to repeat the subsets {names}, or go"), self.subsets()));
        }
        let message = format!("{title}: write one there for {host} alone that repeats the subsets {names}");
        let more = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": { "name": self.service, "namespace": rule.object.namespace() },
            "spec": {
                "host": host, "exportTo": rule.spec.export_to, "subsets": self.subset_list(),
                "trafficPolicy": rule.object.spec.get("trafficPolicy"),
            },
        });
        Some(conflict(message, yaml(&more)))
    }

    fn subsets(&self) -> String {
        yaml(&json!({ "subsets": self.subset_list() }))
    }

    fn subset_list(&self) -> Vec<Value> {
        let of = |version: &String| json!({ "name": subset(version), "labels": { self.label: version } });
        self.versions.iter().map(of).collect()
    }
}
