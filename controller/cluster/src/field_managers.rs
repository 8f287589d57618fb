//! Who else writes the number of pods of a workload, again and again. Pure.
//!
//! The API server remembers which field manager wrote what. One that applies a whole workload, such
//! as a GitOps tool, would undo what the controller does to its number of pods.

use crate::names::MANAGER;
use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::core::ObjectMeta;
use serde_json::json;

/// Tools that write the same again and again, without server-side apply.
const TOOLS: [&str; 4] =
    ["argocd-controller", "argocd-application-controller", "helm-controller", "kustomize-controller"];

/// The names of those that apply the number of pods.
pub fn of(metadata: &ObjectMeta) -> BTreeSet<String> {
    let entries = metadata.managed_fields.iter().flatten().filter(|entry| again(entry) && of_replicas(entry));
    entries.filter_map(|entry| entry.manager.clone()).collect()
}

/// Keeps what [`of`] looks at.
pub(super) fn trim(metadata: &mut ObjectMeta) {
    let kept = metadata.managed_fields.take().unwrap_or_default();
    let kept = kept.into_iter().filter(|entry| again(entry) && of_replicas(entry)).map(|entry| ManagedFieldsEntry {
        manager: entry.manager,
        operation: entry.operation,
        fields_v1: Some(FieldsV1(json!({ "f:spec": { "f:replicas": {} } }))),
        ..ManagedFieldsEntry::default()
    });
    metadata.managed_fields = Some(kept.collect::<Vec<_>>()).filter(|kept| !kept.is_empty());
}

fn again(entry: &ManagedFieldsEntry) -> bool {
    let manager = entry.manager.as_deref().unwrap_or_default();
    manager != MANAGER && (entry.operation.as_deref() == Some("Apply") || TOOLS.contains(&manager))
}

fn of_replicas(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
}
