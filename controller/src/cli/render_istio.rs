//! What the controller would write for Istio, by either kind of routes. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flag::record::Record;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::Value;

use cluster::domain::Domain;
use cluster::gateway_api::{attach, routes as gateway};
use cluster::istio::object::{MeshObject, WasmPlugin};
use cluster::istio::plugin::{Image, Part, config, spec, targets};
use cluster::istio::routes::{RouteSource, delegates, destination_rule, metadata, virtual_service};
use cluster::resource::VersionFlag;
use cluster::service_facts::ServicePlace;
use local::yaml::{Document, documents};
use machine::observation::{Observation, ServiceFacts};
use machine::record::Draft;
use machine::spec::Provider;

/// What is in a file: one VersionFlag, and Services beside it.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) flag: VersionFlag,
    pub(super) services: Vec<Arc<Service>>,
}

/// Reads YAML documents. Those of other kinds are left alone.
pub(super) fn read(text: &str) -> Result<Input, String> {
    let documents = documents(text).map_err(|error| error.to_string())?;
    let (mut flags, mut services) = (vec![], vec![]);
    for document in documents {
        match document.value().get("kind").and_then(Value::as_str) {
            Some("VersionFlag") => flags.push(from(&document)?),
            Some("Service") => services.push(Arc::new(from::<Service>(&document)?)),
            _ => {}
        }
    }
    match <[VersionFlag; 1]>::try_from(flags) {
        Ok([flag]) => Ok(Input { flag, services }),
        Err(all) => Err(format!("it has {} VersionFlags, not one", all.len())),
    }
}

fn from<T: serde::de::DeserializeOwned>(document: &Document) -> Result<T, String> {
    document.read().map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// The routes of a flag with these versions by a provider, and its plugins, as YAML documents. Epoch and uid are
/// those of an example: only a controller knows the next epoch, and only a cluster the uid.
pub(super) fn render(
    input: Input,
    provider: Provider,
    versions: &[String],
    image: &Image,
    domain: &Domain,
) -> Result<String, String> {
    let Input { mut flag, services } = input;
    if flag.spec.routing.provider == Provider::External {
        return Err(format!(
            "spec.routing.provider is External: its Envoys read files that the controller writes, and nothing is \
             written for {provider:?}: `render envoy` is for those; or set it to {provider:?}"
        ));
    }
    flag.spec.routing.provider = provider;
    let namespace = flag.namespace().unwrap_or_else(|| "default".to_owned());
    let wrong = flag.spec.validate();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let active = &flag.spec.version;
    let versions: BTreeSet<String> = versions.iter().chain([active]).cloned().collect();
    // In a file a namespace may be left out.
    let services: Vec<Arc<Service>> = services.iter().map(|service| placed(service, &namespace)).collect();
    let here = services.iter().filter(|service| service.namespace().as_ref() == Some(&namespace));
    let here: Vec<Arc<Service>> = here.cloned().collect();
    let place = ServicePlace { domain, namespace: &namespace, services: &here, groups: &BTreeMap::new() };
    // Which pods a proxy stands beside is for the controller to say, which sees them.
    let facts = place.in_mesh(&flag.spec, &versions, None).into_iter();
    let facts = facts.map(|(name, facts)| (name, ServiceFacts { selector: BTreeSet::new(), ..facts }));
    let seen = Observation { services: facts.collect(), ..Observation::unknown() };
    let name = format!("{namespace}/{}", flag.name_any());
    let draft =
        Draft { uid: "example", name: &name, epoch: 1, active, versions: &versions, preview: None, before: None };
    let record = draft.record(&flag.spec, &seen).seal().map_err(|error| error.to_string())?;
    let mut documents = match provider {
        Provider::GatewayAPI => by_gateway_api(&flag, &namespace, &services, &record)?,
        _ => by_istio(&place, &flag, &record)?,
    };
    let targets = targets(&namespace, &flag.spec.all_callers());
    let header = flag.spec.routing.header.clone();
    let part = Part { age: (None, String::new()), targets: targets.clone(), header, record };
    if let Some(config) = config([&part], &[], &image.cluster) {
        for target in &targets {
            let content = spec::<WasmPlugin>(image, target, &config);
            documents.push(yaml(&MeshObject::<WasmPlugin>::new(metadata(&target.namespace, &target.name()), content))?);
        }
    }
    Ok(documents.join("---\n"))
}

fn placed(service: &Service, namespace: &str) -> Arc<Service> {
    let mut service = service.clone();
    service.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
    Arc::new(service)
}

fn by_istio(place: &ServicePlace<'_>, flag: &VersionFlag, record: &Record) -> Result<Vec<String>, String> {
    let ServicePlace { domain, namespace, services, .. } = *place;
    let header = flag.spec.routing.header.as_str();
    let mut documents = vec![];
    // What others export there is not known.
    let export_to = &["*".to_owned()];
    for service in flag.spec.services.iter().map(|service| service.name.as_str()) {
        let all = record.versions.iter().map(String::as_str);
        documents.push(yaml(&destination_rule(domain, namespace, service, &flag.spec.version_label, all, export_to))?);
        let source = RouteSource { domain, namespace, service, header, record, export_to };
        documents.push(yaml(&virtual_service(&source))?);
        if !flag.spec.callers.gateways.is_empty() {
            let ports = gateway::find(services, service).map(gateway::ports).unwrap_or_default();
            for delegate in delegates(&source, &ports) {
                documents.push(yaml(&delegate)?);
            }
        }
    }
    Ok(documents)
}

fn by_gateway_api(
    flag: &VersionFlag,
    namespace: &str,
    services: &[Arc<Service>],
    record: &Record,
) -> Result<Vec<String>, String> {
    let header = &flag.spec.routing.header;
    let mut documents = vec![];
    for name in flag.spec.services.iter().map(|service| &service.name) {
        let here = |service: &&Arc<Service>| service.namespace().as_deref() == Some(namespace);
        let mut of_name = services.iter().filter(here).filter(|service| service.name_any() == *name);
        let whole = of_name.next().ok_or_else(|| {
            format!("Service {name} is not in the file: add it, as `kubectl get service {name} -o yaml` prints it")
        })?;
        for version in &record.versions {
            documents.push(yaml(&gateway::service(namespace, whole, &flag.spec.version_label, version))?);
        }
        let (attached, wrong) = attach::all(namespace, whole, &flag.spec.routing.gateways);
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        for one in attached {
            documents.push(yaml(&gateway::http_route(namespace, name, &one, header, record))?);
        }
    }
    Ok(documents)
}

pub(super) fn yaml(object: &impl serde::Serialize) -> Result<String, String> {
    serde_saphyr::to_string(object).map_err(|error| error.to_string())
}
