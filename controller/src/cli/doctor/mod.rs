//! `versionflag doctor`: looks at a cluster with the rights of whoever asks, or at an Envoy, and says what would keep
//! flags from working. I/O: terminal, the Kubernetes API.

mod envoy;
mod facts;
mod judge;
mod paths;
#[cfg(test)]
mod tests;

use cluster::names::MANAGER;
use std::fmt::{Debug, Write};
use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use self::facts::{Facts, Leader, Right};
use self::judge::{Finding, Severity, judge};
use super::args::{Doctor, Output};
use super::kube_api::Cluster;
use super::terminal::{print, print_json};
use super::{MTLS_PORT, PORT};
use cluster::driver::LEASE;
use cluster::istio::object::{DestinationRule, HTTPRoute, Kind, VirtualService};
use cluster::resource::definition;
use machine::spec::{CleanupPolicy, Management, Provider, Spec};

/// How long the Lease is watched: a replica that acts renews it every 2 s.
const WATCHED: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(options: &Doctor) -> anyhow::Result<ExitCode> {
    if let Some(admin) = &options.envoy_admin {
        let (name, findings) = envoy::look(&options.file, admin).await?;
        return said(&findings, &format!("{name} from working in the Envoy of {admin}"), options.output);
    }
    let cluster = Cluster::connect(&options.cluster, false).await?;
    // Whether there is a cluster at all.
    cluster.reach().await?;
    let facts = look(&cluster, options).await;
    let findings = judge(&facts);
    said(&findings, &format!("VersionFlags in {} from working", facts.namespace), options.output)
}

fn said(findings: &[Finding], kept: &str, output: Output) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => print_json(&findings)?,
        Output::Text => print(&text(findings, kept))?,
    }
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What people read, of what keeps something from working. Pure.
fn text(findings: &[Finding], kept: &str) -> String {
    let mut text = String::new();
    for Finding { severity, check, message, fix } in findings {
        let mark = if *severity == Severity::Error { "✗" } else { "!" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{mark} {check}: {message}\n    {fix}");
    }
    let any = |severity, check: Option<&str>| {
        findings.iter().any(|one| one.severity == severity && check.is_none_or(|check| one.check == check))
    };
    if !any(Severity::Error, None) {
        let _ = if any(Severity::Warning, Some("rights")) {
            writeln!(text, "✓ nothing was found in what could be read")
        } else {
            writeln!(text, "✓ nothing keeps {kept}")
        };
    }
    text
}

/// Reads with the rights of whoever asks, and notes what they do not suffice for.
struct Reader {
    client: Client,
    unread: Vec<(&'static str, String)>,
}

impl Reader {
    /// What there is. A kind that the cluster does not have has no objects.
    async fn list<K>(&mut self, what: &'static str, namespaces: &[&str], parameters: &ListParams) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let mut found = vec![];
        let mut seen: Vec<&str> = vec![];
        for namespace in namespaces {
            if seen.contains(namespace) {
                continue;
            }
            seen.push(namespace);
            match Api::<K>::namespaced(self.client.clone(), namespace).list(parameters).await {
                Ok(list) => found.extend(list.items),
                Err(error) => self.refused(what, error),
            }
        }
        found
    }

    fn refused(&mut self, what: &'static str, error: kube::Error) {
        let why = match error {
            // A kind that is not there is a page that is not found, without a reason.
            kube::Error::Api(status) if status.code == 404 => return,
            kube::Error::Api(status) => status.message,
            error => error.to_string(),
        };
        if !self.unread.iter().any(|(known, _)| *known == what) {
            self.unread.push((what, why));
        }
    }

    fn read<K>(&mut self, what: &'static str, found: Result<Option<K>, kube::Error>) -> Option<K> {
        found.unwrap_or_else(|error| {
            self.refused(what, error);
            None
        })
    }

    async fn has<K: Kind>(&mut self) -> bool {
        let version = K::api_version();
        match self.client.list_api_group_resources(&version).await {
            Ok(list) => list.resources.iter().any(|resource| resource.kind == K::KIND),
            Err(error) => {
                self.refused("kinds", error);
                false
            }
        }
    }
}

async fn look(cluster: &Cluster, options: &Doctor) -> Facts {
    let client = cluster.client();
    let mut reader = Reader { client: client.clone(), unread: vec![] };
    let (namespace, home, root) = (cluster.namespace(), cluster.home(), options.istio_root_namespace.as_str());
    let leases: Api<Lease> = Api::namespaced(client.clone(), home);
    let before = leases.get_opt(LEASE).await;
    let all = ListParams::default();
    let of_controller = ListParams::default().labels(&format!("app.kubernetes.io/name={MANAGER}"));
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let current = definition();
    let name = current.metadata.name.clone().unwrap_or_default();
    let mut facts = Facts {
        namespace: namespace.to_owned(),
        home: home.to_owned(),
        domain: options.names.cluster_domain.clone(),
        definition: reader.read("definitions of resources", definitions.get_opt(&name).await),
        current,
        flags: reader.list("VersionFlags", &[namespace], &all).await,
        pods: reader.list("pods", &[namespace], &all).await,
        controllers: reader.list("pods of the controller", &[home], &of_controller).await,
        services: reader.list("services", &[namespace], &all).await,
        deployments: reader.list("deployments", &[namespace], &all).await,
        stateful_sets: reader.list("statefulsets", &[namespace], &all).await,
        network_policies: reader.list("network policies", &[namespace, home], &all).await,
        sidecars: reader.list("Sidecars", &[namespace, root], &all).await,
        authorizations: reader.list("AuthorizationPolicies", &[home, root], &all).await,
        authentications: reader.list("PeerAuthentications", &[home, root], &all).await,
        rules: reader.list("DestinationRules", &[namespace, home, root], &all).await,
        plugins: reader.list("WasmPlugins", &[namespace, root], &all).await,
        extensions: reader.list("TrafficExtensions", &[namespace, root], &all).await,
        ..Facts::default()
    };
    facts.port = options.port.unwrap_or(if facts.mtls() { MTLS_PORT } else { PORT }).into();
    for name in [namespace, home] {
        let found = Api::<Namespace>::all(client.clone()).get_opt(name).await;
        facts.namespaces.extend(reader.read("namespaces", found));
    }
    look_at_rights(cluster, options, &mut reader, &mut facts).await;
    if facts.in_mesh() {
        facts.planes = reader.list("Deployments of istiod", &[root], &ListParams::default().labels("app=istiod")).await;
        look_for_secret(&mut reader, &mut facts).await;
    }
    facts.leader = leader(&leases, before).await;
    facts.unread = reader.unread;
    facts
}

/// Whether every namespace of callers has the Secret with which the filter is pulled there.
async fn look_for_secret(reader: &mut Reader, facts: &mut Facts) {
    let Some(name) = facts.pull_secret() else { return };
    for place in facts.caller_namespaces() {
        match Api::<Secret>::namespaced(reader.client.clone(), &place).get_metadata_opt(&name).await {
            Ok(Some(_)) => {}
            Ok(None) => _ = facts.without_secret.insert((place, name.clone())),
            Err(error) => reader.refused("Secrets", error),
        }
    }
}

/// What the flags need of the cluster's kinds, and of the controller's rights.
async fn look_at_rights(cluster: &Cluster, options: &Doctor, reader: &mut Reader, facts: &mut Facts) {
    let specs: Vec<&Spec> = facts.flags.iter().map(|flag| &flag.spec.0).collect();
    let (wants, gateway_api) = (needed(&specs), by_gateway_api(&specs));
    if facts.in_mesh() {
        for (kind, there) in [
            (VirtualService::KIND, reader.has::<VirtualService>().await),
            (DestinationRule::KIND, reader.has::<DestinationRule>().await),
        ] {
            facts.missing_kinds.extend((!there).then_some(kind));
        }
    }
    if gateway_api && !reader.has::<HTTPRoute>().await {
        facts.missing_kinds.push(HTTPRoute::KIND);
    }
    let account = format!("system:serviceaccount:{}:{}", cluster.home(), options.account);
    for right in wants {
        match may(&cluster.client(), &account, cluster.namespace(), &right).await {
            Ok(true) => {}
            Ok(false) => facts.denied.push(right),
            Err(error) => {
                reader.refused("rights of the controller", error);
                break;
            }
        }
    }
}

fn by_gateway_api(specs: &[&Spec]) -> bool {
    specs.iter().any(|spec| spec.routing.provider == Provider::GatewayAPI)
}

/// What the controller has to be allowed to do for these flags; without any, for one of the default. Pure.
fn needed(specs: &[&Spec]) -> Vec<Right> {
    let right = |verb, group, resource, subresource, manifest| Right { verb, group, resource, subresource, manifest };
    let base = "manifests/kubernetes";
    let mut rights = vec![
        right("watch", "versionflag.io", "versionflags", "", base),
        right("update", "versionflag.io", "versionflags", "status", base),
        right("watch", "", "pods", "", base),
        right("watch", "", "services", "", base),
        right("watch", "", "namespaces", "", base),
        right("watch", "discovery.k8s.io", "endpointslices", "", base),
        right("patch", "apps", "deployments", "", base),
        right("update", "apps", "deployments", "scale", base),
    ];
    let mesh: Vec<&&Spec> = specs.iter().filter(|spec| spec.routing.in_mesh()).collect();
    if specs.is_empty() || !mesh.is_empty() {
        let istio = "manifests/kubernetes/istio";
        rights.push(right("patch", "extensions.istio.io", "wasmplugins", "", istio));
        rights.push(right("watch", "networking.istio.io", "virtualservices", "", istio));
    }
    let managed = |provider| {
        mesh.iter().any(|spec| spec.routing.provider == provider && spec.routing.management == Management::Managed)
    };
    if specs.is_empty() || managed(Provider::Istio) {
        let routes = "manifests/kubernetes/istio/routes";
        rights.push(right("patch", "networking.istio.io", "virtualservices", "", routes));
        rights.push(right("patch", "networking.istio.io", "destinationrules", "", routes));
    }
    if by_gateway_api(specs) {
        rights.push(right("watch", "gateway.networking.k8s.io", "httproutes", "", "manifests/kubernetes/istio"));
    }
    if managed(Provider::GatewayAPI) {
        let routes = "manifests/kubernetes/istio/gateway-api";
        rights.push(right("patch", "gateway.networking.k8s.io", "httproutes", "", routes));
        rights.push(right("patch", "", "services", "", routes));
    }
    if specs.iter().any(|spec| spec.cleanup.policy == CleanupPolicy::Delete) {
        rights.push(right("delete", "apps", "deployments", "", "manifests/kubernetes/delete"));
    }
    rights
}

async fn may(client: &Client, account: &str, namespace: &str, right: &Right) -> Result<bool, kube::Error> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let asked = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(account.to_owned()),
            resource_attributes: Some(ResourceAttributes {
                group: text(right.group),
                namespace: Some(namespace.to_owned()),
                resource: text(right.resource),
                subresource: text(right.subresource),
                verb: text(right.verb),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &asked).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether the Lease changes. Clocks of other machines say nothing.
async fn leader(leases: &Api<Lease>, before: Result<Option<Lease>, kube::Error>) -> Leader {
    let before = match before {
        Ok(Some(lease)) => lease,
        Ok(None) => return Leader::Nobody,
        Err(_) => return Leader::Unknown,
    };
    let holder = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
    let deadline = tokio::time::Instant::now() + WATCHED;
    loop {
        match leases.get_opt(LEASE).await {
            Ok(Some(now)) if now.metadata.resource_version != before.metadata.resource_version => {
                return if holder(&now).is_empty() { Leader::GivenBack } else { Leader::Leads };
            }
            Ok(_) if holder(&before).is_empty() => return Leader::GivenBack,
            Ok(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            Ok(_) => return Leader::Silent(holder(&before)),
            Err(_) => return Leader::Unknown,
        }
    }
}
