//! Everything that is written to the cluster. I/O: the Kubernetes API.

use crate::names::{KEPT_AT, MANAGED_BY, MANAGER};
use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v1::{Scale as ScaleObject, ScaleSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::leader;
use super::resource::{ResourceStatus, VersionFlag};
use super::scaled_object::{Scale, ScaledObject};

/// The files of a flag's proxies, as they are stored.
#[derive(Debug, Clone, Default)]
pub struct StoredFiles {
    /// The resource version of their ConfigMap.
    pub version: Option<String>,
    /// By name.
    pub files: BTreeMap<String, String>,
}

/// Writes to the cluster, in the name of this controller.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    recorder: Recorder,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Writer")
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn merge() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// Whether somebody else has written since: look again.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// What the API server does not let this controller do, in its words.
pub fn refusal(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(status) if status.code == 403 => Some(&status.message),
        _ => None,
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

impl Writer {
    /// `identity` names this replica in Events.
    pub fn new(client: Client, identity: &str) -> Writer {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        Writer { recorder: Recorder::new(client.clone(), reporter), client }
    }

    /// The resource as it is now; `None`: it is gone.
    pub async fn read(&self, flag: &VersionFlag) -> Result<Option<VersionFlag>, kube::Error> {
        Api::namespaced(self.client.clone(), &flag.namespace().unwrap_or_default()).get_opt(&flag.name_any()).await
    }

    /// Replaces the status of exactly this state of the resource.
    pub async fn status(&self, flag: &VersionFlag, status: ResourceStatus) -> Result<VersionFlag, kube::Error> {
        let api: Api<VersionFlag> = Api::namespaced(self.client.clone(), &flag.namespace().unwrap_or_default());
        let mut written = flag.clone();
        written.metadata.managed_fields = None;
        written.status = Some(status);
        api.replace_status(&flag.name_any(), &post(), &written).await
    }

    /// Says in the status of a flag that cannot be read what is wrong with it, and keeps all else.
    pub async fn stalled(&self, flag: &ObjectMeta, patch: &Value) -> Result<(), kube::Error> {
        let namespace = flag.namespace.clone().unwrap_or_default();
        let name = flag.name.clone().unwrap_or_default();
        let api: Api<PartialObjectMeta<VersionFlag>> = Api::namespaced(self.client.clone(), &namespace);
        api.patch_status(&name, &merge(), &Patch::Merge(patch)).await.map(|_| ())
    }

    /// Scales a workload, if it still is as it was when that was decided.
    pub async fn scale(&self, scale: &Scale) -> Result<(), kube::Error> {
        let metadata = scale.object.metadata();
        let (name, namespace) = (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone());
        let body = ScaleObject {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: namespace.clone(),
                resource_version: metadata.resource_version.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(ScaleSpec { replicas: Some(scale.replicas) }),
            status: None,
        };
        let namespace = namespace.unwrap_or_default();
        match &scale.object {
            ScaledObject::Deployment(_) => {
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
                api.replace_scale(&name, &post(), &body).await?;
            }
            ScaledObject::StatefulSet(_) => {
                let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &namespace);
                api.replace_scale(&name, &post(), &body).await?;
            }
        }
        Ok(())
    }

    /// Deletes a workload, if it still is as it was when that was decided.
    pub async fn delete(&self, object: &ScaledObject) -> Result<(), kube::Error> {
        let metadata = object.metadata();
        let (name, namespace) = (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone());
        let same = Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        let (namespace, how) = (namespace.unwrap_or_default(), DeleteParams::background().preconditions(same));
        let done = match object {
            ScaledObject::Deployment(_) => {
                Api::<Deployment>::namespaced(self.client.clone(), &namespace).delete(&name, &how).await.map(drop)
            }
            ScaledObject::StatefulSet(_) => {
                Api::<StatefulSet>::namespaced(self.client.clone(), &namespace).delete(&name, &how).await.map(drop)
            }
        };
        done.or_else(|error| if is_not_found(&error) { Ok(()) } else { Err(error) })
    }

    /// Marks a workload that is about to get requests, so that a scale-down which was decided before fails.
    pub async fn keep(&self, object: &ScaledObject, epoch: u64) -> Result<(), kube::Error> {
        let metadata = object.metadata();
        let (name, namespace) = (metadata.name.clone().unwrap_or_default(), metadata.namespace.clone());
        // A label: an annotation would make another generation of a Deployment, which is not ready until its controller
        // has seen that.
        let patch = Patch::Merge(json!({ "metadata": { "labels": { KEPT_AT: epoch.to_string() } } }));
        let namespace = namespace.unwrap_or_default();
        match object {
            ScaledObject::Deployment(_) => {
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace);
                api.patch_metadata(&name, &merge(), &patch).await?;
            }
            ScaledObject::StatefulSet(_) => {
                let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &namespace);
                api.patch_metadata(&name, &merge(), &patch).await?;
            }
        }
        Ok(())
    }

    /// The resource version of the ConfigMap with the files of a flag's proxies; `None`: there is none.
    pub async fn files_version(&self, namespace: &str, name: &str) -> Result<Option<String>, kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_metadata_opt(name).await?.and_then(|found| found.metadata.resource_version))
    }

    /// That ConfigMap.
    pub async fn read_files(&self, namespace: &str, name: &str) -> Result<Option<StoredFiles>, kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await?;
        Ok(found.map(|found| StoredFiles {
            version: found.metadata.resource_version,
            files: found.data.unwrap_or_default(),
        }))
    }

    /// Writes some of the files that the proxies of a flag read, over this version; the others stay as they are. The
    /// version that it has now.
    pub async fn files(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
        files: &BTreeMap<String, String>,
    ) -> Result<Option<String>, kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let written = if let Some(version) = version {
            let patch = json!({ "metadata": { "resourceVersion": version }, "data": files });
            api.patch(name, &merge(), &Patch::Merge(patch)).await
        } else {
            let labels = BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())]);
            let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: Some(files.clone()), ..ConfigMap::default() };
            api.create(&post(), &map).await
        };
        Ok(written?.metadata.resource_version)
    }

    /// Writes the endpoint of the flag service over that of who led before, unless it is like that. What was read in
    /// between makes it a conflict.
    pub async fn lead(&self, here: &EndpointSlice, leads: impl Fn() -> bool) -> Result<(), kube::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &here.namespace().unwrap_or_default());
        let found = api.get_opt(&here.name_any()).await?;
        if found.as_ref().is_some_and(|found| leader::is_led(found, here)) || !leads() {
            return Ok(());
        }
        let version = found.and_then(|found| found.metadata.resource_version);
        if version.is_none() {
            return api.create(&post(), here).await.map(|_| ());
        }
        let mut here = here.clone();
        here.metadata.resource_version = version;
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&here.name_any(), &params, &Patch::Apply(&here)).await.map(|_| ())
    }

    /// Tells people what happened. Losing an Event must not hold anything up.
    pub async fn event(&self, flag: &impl Resource<DynamicType = ()>, warning: bool, reason: &str, note: &str) {
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let (reason, action) = (reason.to_owned(), reason.to_owned());
        let event = Event { type_, reason, note: Some(note.chars().take(1_000).collect()), action, secondary: None };
        if let Err(error) = self.recorder.publish(&event, &flag.object_ref(&())).await {
            tracing::warn!(flag = flag.name_any(), %error, "an Event is lost");
        }
    }
}
