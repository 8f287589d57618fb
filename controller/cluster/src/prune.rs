//! What is kept of the objects that are watched: a cluster has many, and little of each is looked
//! at. Pure.

use crate::names::{DEFAULT_ACCOUNT, REQUEST};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Node, NodeStatus, Pod, PodSpec, PodStatus, PodTemplateSpec, ResourceQuota, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::core::ObjectMeta;

use super::field_managers;
use super::reading::Reading;
use super::resource::VersionFlag;

/// Drops what nothing here looks at.
pub trait Trim {
    /// Does it.
    fn trim(&mut self);
}

/// Labels tell what belongs together, and two annotations are of ours.
fn metadata(all: &mut ObjectMeta) {
    all.managed_fields = None;
    rest(all);
}

/// The same of what has replicas.
fn scaled(all: &mut ObjectMeta) {
    field_managers::trim(all);
    rest(all);
}

fn rest(all: &mut ObjectMeta) {
    if let Some(annotations) = &mut all.annotations {
        annotations.retain(|name, _| name == REQUEST);
    }
    all.annotations = all.annotations.take().filter(|annotations| !annotations.is_empty());
    all.owner_references = None;
    all.finalizers = None;
}

/// Which nodes may take it, and what it takes of them.
fn pod_spec(spec: &mut PodSpec) {
    let container = |one: Container| Container {
        name: one.name,
        resources: one.resources,
        restart_policy: one.restart_policy,
        ..Container::default()
    };
    let all = std::mem::take(spec);
    *spec = PodSpec {
        containers: all.containers.into_iter().map(container).collect(),
        host_network: all.host_network,
        init_containers: all.init_containers.map(|init| init.into_iter().map(container).collect()),
        node_name: all.node_name,
        node_selector: all.node_selector,
        overhead: all.overhead,
        tolerations: all.tolerations,
        ..PodSpec::default()
    };
}

fn template(template: &mut PodTemplateSpec) {
    if let Some(all) = &mut template.metadata {
        metadata(all);
    }
    template.spec.iter_mut().for_each(pod_spec);
}

fn statuses(all: Option<Vec<ContainerStatus>>) -> Option<Vec<ContainerStatus>> {
    let status = |one: ContainerStatus| ContainerStatus {
        name: one.name,
        state: one.state,
        restart_count: one.restart_count,
        last_state: one.last_state,
        ..ContainerStatus::default()
    };
    all.map(|all| all.into_iter().map(status).collect())
}

impl Trim for Pod {
    fn trim(&mut self) {
        metadata(&mut self.metadata);
        if let Some(spec) = &mut self.spec {
            // Whose certificate it has. Most pods have the one that goes without saying.
            let account = spec.service_account_name.take().filter(|name| name != DEFAULT_ACCOUNT);
            pod_spec(spec);
            spec.service_account_name = account;
        }
        self.status = self.status.take().map(|all| PodStatus {
            phase: all.phase,
            reason: all.reason,
            message: all.message,
            pod_ip: all.pod_ip,
            pod_ips: all.pod_ips,
            conditions: all.conditions.map(|all| all.into_iter().filter(|one| one.type_ == "Ready").collect()),
            init_container_statuses: statuses(all.init_container_statuses),
            container_statuses: statuses(all.container_statuses),
            ..PodStatus::default()
        });
    }
}

impl Trim for Deployment {
    fn trim(&mut self) {
        scaled(&mut self.metadata);
        self.spec.iter_mut().for_each(|spec| template(&mut spec.template));
        self.status.iter_mut().for_each(|status| status.conditions = None);
    }
}

impl Trim for StatefulSet {
    fn trim(&mut self) {
        scaled(&mut self.metadata);
        if let Some(spec) = &mut self.spec {
            template(&mut spec.template);
            spec.volume_claim_templates = None;
        }
        self.status.iter_mut().for_each(|status| status.conditions = None);
    }
}

impl Trim for Service {
    fn trim(&mut self) {
        metadata(&mut self.metadata);
        self.status = None;
    }
}

impl Trim for EndpointSlice {
    fn trim(&mut self) {
        metadata(&mut self.metadata);
        self.ports = None;
        let endpoint = |one: Endpoint| Endpoint {
            conditions: one.conditions,
            target_ref: one.target_ref.filter(|target| target.kind.as_deref() == Some("Pod")),
            ..Endpoint::default()
        };
        self.endpoints = std::mem::take(&mut self.endpoints).into_iter().map(endpoint).collect();
    }
}

impl Trim for Node {
    fn trim(&mut self) {
        metadata(&mut self.metadata);
        let allocatable = self.status.take().and_then(|status| status.allocatable);
        self.status = Some(NodeStatus { allocatable, ..NodeStatus::default() });
    }
}

impl Trim for ResourceQuota {
    fn trim(&mut self) {
        metadata(&mut self.metadata);
    }
}

impl Trim for HorizontalPodAutoscaler {
    fn trim(&mut self) {
        metadata(&mut self.metadata);
        self.status = None;
        self.spec.iter_mut().for_each(|spec| (spec.metrics, spec.behavior) = (None, None));
    }
}

impl Trim for VersionFlag {
    fn trim(&mut self) {
        metadata(&mut self.metadata);
    }
}

impl Trim for Reading {
    fn trim(&mut self) {
        metadata(kube::Resource::meta_mut(self));
    }
}
