//! What the controller would write for Istio. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt;

use crate::kube::istio::object::{Object, WasmPlugin};
use crate::kube::istio::place;
use crate::kube::istio::plugin::{Image, Part, config, spec, targets};
use crate::kube::istio::routes::{delegate, destination_rule, metadata, virtual_service};
use crate::spec::VersionFlag;
use crate::step::record_of;

/// The routes of a flag with these versions, and its plugins, as YAML documents. Epoch and uid are those
/// of an example: only a controller knows the next epoch, and only a cluster the uid.
pub(super) fn istio(flag: &VersionFlag, versions: &[String], image: &Image) -> Result<String, String> {
    let namespace = flag.namespace().unwrap_or_else(|| "default".to_owned());
    let wrong = flag.spec.validate();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let active = &flag.spec.version;
    let versions: BTreeSet<String> = versions.iter().chain([active]).cloned().collect();
    let wanted = place::complete(&namespace, &flag.spec, &[], &versions, None);
    let name = format!("{namespace}/{}", flag.name_any());
    let record =
        record_of("example", &name, 1, active, &versions, None, &wanted).seal().map_err(|error| error.to_string())?;
    let header = &flag.spec.routing.header;
    let mut documents = vec![];
    for service in flag.spec.services.iter().map(|service| &service.name) {
        let all = versions.iter().map(String::as_str);
        documents.push(yaml(&destination_rule(&namespace, service, &flag.spec.version_label, all))?);
        documents.push(yaml(&virtual_service(&namespace, service, header, &record))?);
        if !flag.spec.callers.gateways.is_empty() {
            documents.push(yaml(&delegate(&namespace, service, header, &record))?);
        }
    }
    let targets = targets(&namespace, &flag.spec.callers);
    let part = Part { age: (None, String::new()), targets: targets.clone(), header: header.clone(), record };
    if let Some(config) = config([&part], &[], &image.cluster) {
        for target in &targets {
            let content = spec::<WasmPlugin>(image, target, &config);
            documents.push(yaml(&Object::<WasmPlugin>::new(metadata(&target.namespace, &target.name()), content))?);
        }
    }
    Ok(documents.join("---\n"))
}

fn yaml(object: &impl serde::Serialize) -> Result<String, String> {
    serde_saphyr::to_string(object).map_err(|error| error.to_string())
}
