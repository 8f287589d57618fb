//! Kubernetes objects for tests, from YAML as it is applied and as controllers fill it in.

use std::sync::Arc;

use cluster::workloads::Objects;
use k8s_openapi::serde::de::DeserializeOwned;
use machine::spec::Spec;

pub(crate) fn parse<T: DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}:\n{yaml}"))
}

/// A spec for v2 of reviews; what comes later in `extra` does not repeat a field.
pub(crate) fn spec(extra: &str) -> Spec {
    let services = if extra.contains("services:") { "" } else { ", services: [{name: reviews}]" };
    parse(&format!("{{version: v2{services} {extra}}}"))
}

/// Namespace shop, with what belongs to Service reviews.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) objects: Objects,
}

impl Cluster {
    pub(crate) fn service(&mut self, name: &str) -> &mut Cluster {
        self.service_spec(name, &format!("{{selector: {{app: {name}}}, ports: [{{port: 80, name: http}}]}}"))
    }

    pub(crate) fn service_spec(&mut self, name: &str, spec: &str) -> &mut Cluster {
        let service = parse(&format!("{{metadata: {{name: {name}, namespace: shop}}, spec: {spec}}}"));
        self.objects.services.push(Arc::new(service));
        self
    }

    /// A Deployment as large as it is asked to be, with so many pods that are ready.
    pub(crate) fn deployment(&mut self, version: &str, replicas: i32, ready: i32) -> &mut Cluster {
        let name = format!("reviews-{version}");
        self.labelled(&name, &format!("{{app: reviews, version: {version}}}"), replicas);
        self.pods(&name, version, ready)
    }

    /// A Deployment whose pods have this spec.
    pub(crate) fn deployment_of(&mut self, version: &str, replicas: i32, pod: &str) -> &mut Cluster {
        let labels = format!("{{app: reviews, version: {version}}}");
        let deployment = parse(&workload(&format!("reviews-{version}"), &labels, replicas, pod));
        self.objects.deployments.push(Arc::new(deployment));
        self
    }

    pub(crate) fn labelled(&mut self, name: &str, labels: &str, replicas: i32) -> &mut Cluster {
        let deployment = parse(&workload(name, labels, replicas, APP));
        self.objects.deployments.push(Arc::new(deployment));
        self
    }

    pub(crate) fn stateful_set(&mut self, version: &str, replicas: i32, ready: i32) -> &mut Cluster {
        let name = format!("reviews-{version}");
        let set = parse(&workload(&name, &format!("{{app: reviews, version: {version}}}"), replicas, APP));
        self.objects.stateful_sets.push(Arc::new(set));
        self.pods(&name, version, ready)
    }

    pub(crate) fn autoscaler(&mut self, deployment: &str) -> &mut Cluster {
        let yaml = format!(
            "{{metadata: {{name: {deployment}-hpa, namespace: shop}}, spec: {{maxReplicas: 9, \
             scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {deployment}}}}}}}"
        );
        self.objects.autoscalers.push(Arc::new(parse(&yaml)));
        self
    }

    fn pods(&mut self, name: &str, version: &str, ready: i32) -> &mut Cluster {
        let names: Vec<String> = (0..ready).map(|index| format!("{name}-{index}")).collect();
        for name in &names {
            self.pod(name, version, "{phase: Running, conditions: [{type: Ready, status: 'True'}]}");
        }
        self.slice("reviews", &names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn pod(&mut self, name: &str, version: &str, status: &str) -> &mut Cluster {
        self.pod_in("shop", name, &format!("labels: {{app: reviews, version: {version}}}"), status)
    }

    /// A pod with more `metadata`.
    pub(crate) fn pod_in(&mut self, namespace: &str, name: &str, metadata: &str, status: &str) -> &mut Cluster {
        self.pod_with(namespace, name, metadata, "containers: []", status)
    }

    /// A pod with these containers.
    pub(crate) fn pod_with(
        &mut self,
        namespace: &str,
        name: &str,
        metadata: &str,
        containers: &str,
        status: &str,
    ) -> &mut Cluster {
        self.push_pod(&format!(
            "{{metadata: {{name: {name}, namespace: {namespace}, {metadata}}}, \
             spec: {{nodeName: one, {containers}}}, status: {status}}}"
        ))
    }

    pub(crate) fn pod_on(&mut self, node: &str, namespace: &str, spec: &str, status: &str) -> &mut Cluster {
        self.push_pod(&format!(
            "{{metadata: {{name: placed, namespace: {namespace}}}, spec: {{nodeName: {node}, {spec}}}, \
             status: {status}}}"
        ))
    }

    /// A pod that this workload made, of this revision of its template.
    pub(crate) fn pod_of(&mut self, workload: &str, revision: &str, version: &str, status: &str) -> &mut Cluster {
        let labels = format!("app: reviews, version: {version}, pod-template-hash: {revision}");
        let owner =
            format!("{{controller: true, kind: ReplicaSet, name: {workload}-{revision}, apiVersion: a, uid: a}}");
        let name = format!("{workload}-{revision}-{}", self.objects.pods.len());
        self.pod_in("shop", &name, &format!("labels: {{{labels}}}, ownerReferences: [{owner}]"), status)
    }

    pub(crate) fn unplaced_pod(&mut self, name: &str, metadata: &str) -> &mut Cluster {
        self.push_pod(&format!(
            "{{metadata: {{name: {name}, namespace: shop, {metadata}}}, spec: {{containers: []}}, \
             status: {{phase: Pending}}}}"
        ))
    }

    fn push_pod(&mut self, yaml: &str) -> &mut Cluster {
        self.objects.pods.push(Arc::new(parse(yaml)));
        self
    }

    pub(crate) fn slice(&mut self, service: &str, pods: &[&str]) -> &mut Cluster {
        self.slice_of(service, "[{name: http, port: 80}, {name: '', port: 80}]", pods)
    }

    /// A slice with these ports, as its controller names them after those of the Service.
    pub(crate) fn slice_of(&mut self, service: &str, ports: &str, pods: &[&str]) -> &mut Cluster {
        let endpoint = |pod: &&str| {
            format!("{{addresses: [198.18.0.1], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}}}}}")
        };
        let endpoints: Vec<String> = pods.iter().map(endpoint).collect();
        let slice = parse(&format!(
            "{{metadata: {{name: {service}-{}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}, \
             addressType: IPv4, ports: {ports}, endpoints: [{}]}}",
            self.objects.slices.len(),
            endpoints.join(", ")
        ));
        self.objects.slices.push(Arc::new(slice));
        self
    }

    pub(crate) fn unready_endpoint(&mut self, pod: &str) -> &mut Cluster {
        for slice in &mut self.objects.slices {
            let slice = Arc::make_mut(slice);
            for endpoint in &mut slice.endpoints {
                if endpoint.target_ref.as_ref().is_some_and(|target| target.name.as_deref() == Some(pod)) {
                    endpoint.conditions = parse("{ready: false}");
                }
            }
        }
        self
    }

    pub(crate) fn managed(&mut self, deployment: &str, fields: &str) -> &mut Cluster {
        let found = |one: &&mut Arc<_>| name_of(one) == Some(deployment);
        let one = self.objects.deployments.iter_mut().find(found).unwrap();
        Arc::make_mut(one).metadata.managed_fields = parse(fields);
        self
    }

    pub(crate) fn status(&mut self, deployment: &str, status: &str) -> &mut Cluster {
        let found = |one: &&mut Arc<_>| name_of(one) == Some(deployment);
        let one = self.objects.deployments.iter_mut().find(found).unwrap();
        Arc::make_mut(one).status = parse(status);
        self
    }
}

fn name_of(deployment: &k8s_openapi::api::apps::v1::Deployment) -> Option<&str> {
    deployment.metadata.name.as_deref()
}

const APP: &str = "containers: [{name: app, resources: {requests: {cpu: '1', memory: 1Gi}}}]";

fn workload(name: &str, labels: &str, replicas: i32, pod: &str) -> String {
    format!(
        "{{metadata: {{name: {name}, namespace: shop, uid: {name}, generation: 2, resourceVersion: '7'}}, \
         spec: {{replicas: {replicas}, serviceName: reviews, selector: {{matchLabels: {labels}}}, \
         template: {{metadata: {{labels: {labels}}}, \
         spec: {{{pod}}}}}}}, \
         status: {{replicas: {replicas}, updatedReplicas: {replicas}, availableReplicas: {replicas}, \
         readyReplicas: {replicas}, observedGeneration: 2}}}}"
    )
}
