//! What a cluster knows of the services of a flag: their names, the Envoy clusters of their versions, and the labels
//! of their pods. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flag::record::{Member, Record};
use k8s_openapi::api::core::v1::Service;
use machine::observation::ServiceFacts;
use machine::reach::Reach;
use machine::spec::{Provider, Spec};

use super::domain::Domain;
use super::gateway_api::routes as gateway;
use super::hosts::host_names;
use super::istio::routes::{clusters, subset};
use super::readiness;
use super::workloads::VersionGroup;

/// Where the Services of a flag are.
#[derive(Debug, Clone, Copy)]
pub struct ServicePlace<'a> {
    /// The cluster's domain.
    pub domain: &'a Domain,
    /// The namespace of the flag.
    pub namespace: &'a str,
    /// The Services of that namespace.
    pub services: &'a [Arc<Service>],
    /// What runs there, by service and version.
    pub groups: &'a BTreeMap<String, BTreeMap<String, VersionGroup>>,
}

impl ServicePlace<'_> {
    /// The facts of each service where proxies are told which pods they stand beside.
    pub fn by_files(&self, spec: &Spec) -> BTreeMap<String, ServiceFacts> {
        let facts = spec.services.iter().map(|service| {
            let hosts = host_names(self.domain, spec, service, self.namespace);
            let reach = self.reach(spec, &service.name);
            (service.name.clone(), ServiceFacts { hosts, reach, ..ServiceFacts::default() })
        });
        facts.collect()
    }

    /// The facts of each service where Istio's proxies find out by themselves. A Service that is not there just
    /// now has what the record of `before` says of it.
    pub fn in_mesh(
        &self,
        spec: &Spec,
        versions: &BTreeSet<String>,
        before: Option<&Record>,
    ) -> BTreeMap<String, ServiceFacts> {
        let facts = spec.services.iter().map(|service| {
            let name = &service.name;
            let known = before.iter().flat_map(|record| &record.members).find(|member| member.service == *name);
            let hosts = self.domain.hosts(name, self.namespace).into_iter().chain(service.hosts.iter().cloned());
            let facts = ServiceFacts {
                hosts: hosts.collect(),
                clusters: self.clusters(name, spec, versions, known),
                selector: self.selector(name, known),
                reach: self.reach(spec, name),
                ..ServiceFacts::default()
            };
            (name.clone(), facts)
        });
        facts.collect()
    }

    fn clusters(
        &self,
        name: &str,
        spec: &Spec,
        versions: &BTreeSet<String>,
        known: Option<&Member>,
    ) -> BTreeMap<String, BTreeSet<String>> {
        let listed = versions.iter().map(String::as_str);
        match gateway::find(self.services, name) {
            Some(whole) if spec.routing.provider == Provider::GatewayAPI => {
                gateway::clusters(self.domain, self.namespace, whole, self.services, &spec.version_label, listed)
            }
            Some(whole) => clusters(self.domain, name, self.namespace, &gateway::ports(whole), listed),
            None => known.map(|member| member.clusters.clone()).unwrap_or_default(),
        }
    }

    fn selector(&self, name: &str, known: Option<&Member>) -> BTreeSet<String> {
        let whole = gateway::find(self.services, name);
        let labels = whole.and_then(|service| service.spec.as_ref()?.selector.as_ref());
        let labels = labels.map(|labels| labels.iter().map(|(key, value)| format!("{key}={value}")).collect());
        labels.or_else(|| known.map(|member| member.selector.clone())).unwrap_or_default()
    }

    /// Every version of a service, with its clusters where the record does not name them all.
    fn reach(&self, spec: &Spec, name: &str) -> BTreeMap<String, Reach> {
        let Some(service) = gateway::find(self.services, name) else { return BTreeMap::new() };
        let of = |(version, group): (&String, &VersionGroup)| {
            let asked = group.objects.iter().find_map(|object| readiness::asked(service, object));
            // What the spec asks for is asked for there, too, where that is known.
            let ports = asked.as_ref().map_or_else(|| gateway::ports(service), |(_, ports)| ports.clone());
            let reach = Reach {
                clusters: self.reached_by(spec, service, version, &ports),
                readiness: asked.map(|(path, _)| path),
            };
            (version.clone(), reach)
        };
        self.groups.get(name).into_iter().flatten().map(of).collect()
    }

    /// The clusters of a version in the mesh, with the host of each.
    fn reached_by(&self, spec: &Spec, service: &Service, version: &str, ports: &[i32]) -> BTreeMap<String, String> {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let whole = self.domain.host(name, self.namespace);
        let clusters = |subset: &str, host: &str| {
            let all = ports.iter().map(|port| format!("outbound|{port}|{subset}|{host}"));
            all.map(|cluster| (cluster, whole.clone())).collect::<Vec<_>>()
        };
        match spec.routing.provider {
            Provider::External => BTreeMap::new(),
            Provider::Istio => clusters(&subset(version), &whole).into_iter().collect(),
            Provider::GatewayAPI => {
                let stands =
                    |one: &&Arc<Service>| gateway::version_of(one, service, &spec.version_label) == Some(version);
                let theirs = self.services.iter().filter(stands).filter_map(|one| one.metadata.name.clone());
                let ours = gateway::service_name(name, version);
                let ours = gateway::find(self.services, &ours).map(|_| ours.clone());
                let names: BTreeSet<String> = theirs.chain(ours).collect();
                names.iter().flat_map(|name| clusters("", &self.domain.host(name, self.namespace))).collect()
            }
        }
    }
}
