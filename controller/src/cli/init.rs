//! `versionflag init`: the VersionFlag of a Service that is there. I/O: the Kubernetes API; the rest is pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Map, Value, json};

use super::args::Init;
use super::kube_api::Cluster;
use super::render_istio::yaml;
use cluster::domain::Domain;
use cluster::istio::check::{self, RouteNeeds};
use cluster::istio::routes::destination_rule;
use cluster::pods::has_sidecar;
use cluster::workloads::{Objects, Workloads};
use machine::spec::{Management, Provider, Spec};

/// The label that most use, and the one that Kubernetes recommends.
const LABELS: [&str; 2] = ["version", "app.kubernetes.io/version"];

pub(super) async fn run(options: &Init) -> anyhow::Result<String> {
    let cluster = Cluster::connect(&options.cluster, false).await?;
    cluster.reach().await?;
    let (client, namespace, all) = (cluster.client(), cluster.namespace(), ListParams::default());
    let services: Vec<Service> = Api::namespaced(client.clone(), namespace).list(&all).await?.items;
    let deployments = Api::namespaced(client.clone(), namespace).list(&all).await?.items;
    let sets = Api::namespaced(client.clone(), namespace).list(&all).await?.items;
    let pods = Api::namespaced(client.clone(), namespace).list(&all).await?.items;
    let in_mesh = pods.iter().any(has_sidecar);
    let objects = Objects {
        services: services.into_iter().map(Arc::new).collect(),
        deployments: deployments.into_iter().map(Arc::new).collect(),
        stateful_sets: sets.into_iter().map(Arc::new).collect(),
        ..Objects::default()
    };
    let flag = flag(namespace, options, in_mesh, &objects).map_err(anyhow::Error::msg)?;
    let spec: Spec = serde_json::from_value(flag.pointer("/spec").cloned().unwrap_or_default()).context("the spec")?;
    let mut documents = vec![flag];
    if options.user_provided {
        if !in_mesh {
            bail!("routes of your own are for Istio, and no pod in {namespace} has a sidecar");
        }
        documents.extend(routes(&options.names.cluster_domain, namespace, &spec, &options.service));
    }
    let documents: Result<Vec<String>, String> = documents.iter().map(yaml).collect();
    Ok(documents.map_err(anyhow::Error::msg)?.join("---\n"))
}

/// The VersionFlag, if the version is there.
pub(super) fn flag(namespace: &str, options: &Init, in_mesh: bool, objects: &Objects) -> Result<Value, String> {
    let Init { service, version, user_provided, .. } = options;
    let look = |label: &str| {
        let spec = json!({ "version": version, "services": [{ "name": service }], "versionLabel": label });
        serde_json::from_value::<Spec>(spec)
            .map(|spec| Workloads::find(namespace, &spec, objects))
            .map_err(|error| error.to_string())
    };
    let looks = LABELS.map(|label| look(label).map(|found| (label, found)));
    let [usual, recommended] = looks;
    let (usual, recommended) = (usual?, recommended?);
    let fits = |(_, found): &&(&str, Workloads)| found.versions().contains(version.as_str());
    let Some((label, found)) = [&usual, &recommended].into_iter().find(fits) else {
        let versions =
            [&usual, &recommended].map(|(_, found)| found.versions()).into_iter().find(|all| !all.is_empty());
        let known = versions.map(|all| all.into_iter().collect::<Vec<_>>().join(", "));
        let none =
            || usual.1.errors.first().cloned().unwrap_or_else(|| format!("Service {service} selects no workload"));
        return Err(known.map_or_else(none, |known| {
            format!("Service {service} selects no workload of version {version}; there are {known}")
        }));
    };
    if let Some(problem) = found.errors.first() {
        return Err(problem.clone());
    }
    let routing = match (in_mesh, *user_provided) {
        (false, _) => Some(json!({ "provider": Provider::External })),
        (true, true) => Some(json!({ "management": Management::UserProvided })),
        (true, false) => None,
    };
    let mut spec =
        Map::from_iter([("version".to_owned(), json!(version)), ("services".to_owned(), json!([{ "name": service }]))]);
    // What is the default is left out.
    spec.extend((*label != LABELS[0]).then(|| ("versionLabel".to_owned(), json!(label))));
    spec.extend(routing.map(|routing| ("routing".to_owned(), routing)));
    Ok(json!({
        "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
        "metadata": { "name": service, "namespace": namespace }, "spec": spec,
    }))
}

/// Routes to begin with, where they are the operator's.
pub(super) fn routes(domain: &Domain, namespace: &str, spec: &Spec, service: &str) -> Vec<Value> {
    let versions = BTreeSet::from([spec.version.clone()]);
    let callers = BTreeSet::from([namespace.to_owned()]);
    let wanted = RouteNeeds {
        domain,
        namespace,
        service,
        header: &spec.routing.header,
        label: &spec.version_label,
        versions: &versions,
        active: &spec.version,
        ports: &[],
        callers: &callers,
        gateway_places: &BTreeSet::new(),
        root: "",
        gateways: &spec.routing.gateways,
    };
    let everybody = ["*".to_owned()];
    let versions = [spec.version.as_str()];
    let rule = destination_rule(domain, namespace, service, &spec.version_label, versions, &everybody);
    let rule = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": { "name": service, "namespace": namespace }, "spec": rule.spec,
    });
    let missing = check::user_provided(&wanted, &check::IstioObjects::default());
    let routes = missing.and_then(|missing| serde_saphyr::from_str(&missing.fix).ok());
    [rule].into_iter().chain(routes).collect()
}
