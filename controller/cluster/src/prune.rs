//! What is kept of the objects that are watched: a cluster has many, and little of each is looked
//! at. Pure.

use crate::names::{DEFAULT_ACCOUNT, REQUEST};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Namespace, Node, NodeStatus, Pod, PodSpec, PodStatus, PodTemplateSpec, ResourceQuota,
    Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
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

/// What made it.
fn owner(all: &mut ObjectMeta) -> Option<Vec<OwnerReference>> {
    let maker = all.owner_references.take()?.into_iter().find(|owner| owner.controller == Some(true))?;
    let OwnerReference { kind, name, controller, .. } = maker;
    Some(vec![OwnerReference { kind, name, controller, ..OwnerReference::default() }])
}

/// Which nodes may take it, what it takes of them, and whether it ends by itself.
fn pod_spec(spec: &mut PodSpec, container: fn(Container) -> Container) {
    let all = std::mem::take(spec);
    *spec = PodSpec {
        containers: all.containers.into_iter().map(container).collect(),
        host_network: all.host_network,
        init_containers: all.init_containers.map(|init| init.into_iter().map(container).collect()),
        node_name: all.node_name,
        node_selector: all.node_selector,
        overhead: all.overhead,
        restart_policy: all.restart_policy,
        tolerations: all.tolerations,
        ..PodSpec::default()
    };
}

fn container(one: Container) -> Container {
    Container { name: one.name, resources: one.resources, restart_policy: one.restart_policy, ..Container::default() }
}

/// The same with what proxies may ask of it.
fn asked_container(one: Container) -> Container {
    let (ports, readiness_probe) = (one.ports.clone(), one.readiness_probe.clone());
    Container { ports, readiness_probe, ..container(one) }
}

fn template(template: &mut PodTemplateSpec) {
    if let Some(all) = &mut template.metadata {
        metadata(all);
    }
    template.spec.iter_mut().for_each(|spec| pod_spec(spec, asked_container));
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
        let owner = owner(&mut self.metadata);
        metadata(&mut self.metadata);
        self.metadata.owner_references = owner;
        if let Some(spec) = &mut self.spec {
            // Whose certificate it has. Most pods have the one that goes without saying.
            let account = spec.service_account_name.take().filter(|name| name != DEFAULT_ACCOUNT);
            pod_spec(spec, container);
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
        // Which template is the current one, and what the API server refused.
        let said = |one: DeploymentCondition| DeploymentCondition {
            type_: one.type_,
            status: one.status,
            reason: one.reason,
            message: one.message,
            ..DeploymentCondition::default()
        };
        let of_use = |one: &DeploymentCondition| ["Progressing", "ReplicaFailure"].contains(&one.type_.as_str());
        if let Some(status) = &mut self.status {
            let all = status.conditions.take().into_iter().flatten().filter(of_use).map(said).collect::<Vec<_>>();
            status.conditions = Some(all).filter(|all| !all.is_empty());
        }
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
        let port = |one: EndpointPort| EndpointPort { name: one.name, ..EndpointPort::default() };
        self.ports = self.ports.take().map(|ports| ports.into_iter().map(port).collect());
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

impl Trim for Namespace {
    fn trim(&mut self) {
        metadata(&mut self.metadata);
        (self.spec, self.status) = (None, None);
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
