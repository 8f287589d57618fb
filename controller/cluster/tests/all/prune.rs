//! What is not kept of an object is not looked at.

use std::sync::Arc;

use cluster::domain::Domain;
use cluster::prune::Trim;
use cluster::scaled_object::ScaledObject;
use cluster::service_facts::ServicePlace;
use cluster::workloads::{Objects, Workloads};
use cluster::{headroom, pods, proxies};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::objects::{parse, spec};

const POD: &str = "
    containers: [{name: app, image: any, env: [{name: A, value: b}], resources: {requests: {cpu: 300m}}
      ports: [{name: web, containerPort: 8080}], readinessProbe: {httpGet: {path: /ready, port: web}}}]
    initContainers: [{name: first, image: any, restartPolicy: Always, resources: {requests: {cpu: 300m}}}]
    volumes: [{name: any}]
    nodeSelector: {disk: fast}
    tolerations: [{key: only, operator: Exists}]";

fn of_cluster() -> (Deployment, Deployment, Vec<Pod>, EndpointSlice, Node) {
    let deployment = |version: &str, replicas: i32| {
        parse(&format!(
            "{{metadata: {{name: reviews-{version}, namespace: shop, generation: 1, resourceVersion: '7',
              labels: {{versionflag.io/kept-at: '5'}}, annotations: {{other: x}}, managedFields: [{{manager: any}}, {{manager: gitops, operation: Apply, apiVersion: apps/v1,
                fieldsType: FieldsV1, fieldsV1: {{'f:spec': {{'f:replicas': {{}}, 'f:template': {{}}}}}}}}]}},
              spec: {{replicas: {replicas}, selector: {{}}, template: {{
                metadata: {{labels: {{app: reviews, version: {version}}}}}, spec: {{{}}}}}}},
              status: {{observedGeneration: 1, replicas: {replicas}, updatedReplicas: {replicas},
                availableReplicas: {replicas}, conditions: [{{type: Available, status: 'True'}}, {{type: Progressing,
                status: 'True', message: 'ReplicaSet \"reviews-{version}-7\" has successfully progressed.'}},
                {{type: ReplicaFailure, status: 'True', reason: FailedCreate, message: a quota}}]}}}}",
            POD.trim().replace("\n", ", ")
        ))
    };
    let pod = |name: &str, status: &str| {
        parse(&format!(
            "{{metadata: {{name: {name}, namespace: shop,
              labels: {{app: reviews, version: v1, versionflag.io/proxy: sidecar, pod-template-hash: '7'}},
              ownerReferences: [{{controller: true, kind: ReplicaSet, name: reviews-v1-7, apiVersion: a, uid: a}}]}},
              spec: {{nodeName: one, serviceAccountName: web, {}}}, status: {status}}}",
            POD.trim().replace("\n", ", ")
        ))
    };
    let ready = "{phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'},
        {type: PodScheduled, status: 'True'}], containerStatuses: [{name: app, image: any, imageID: any, ready: true,
        restartCount: 0, state: {running: {}}}]}";
    let slice = parse(
        "{metadata: {name: any, namespace: shop, labels: {kubernetes.io/service-name: reviews}}, addressType: IPv4,
          ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: a}}]}",
    );
    let node = parse(
        "{metadata: {name: one, labels: {disk: fast}}, spec: {taints: [{key: only, effect: NoSchedule}]},
          status: {allocatable: {cpu: 1600m, pods: '10'}, images: [{names: [any]}]}}",
    );
    (deployment("v1", 1), deployment("v2", 0), vec![pod("a", ready)], slice, node)
}

fn look(trim: bool) -> String {
    let (mut v1, mut v2, mut pods, mut slice, mut node) = of_cluster();
    if trim {
        v1.trim();
        v2.trim();
        pods.iter_mut().for_each(Trim::trim);
        slice.trim();
        node.trim();
        assert_eq!(
            (v1.metadata.managed_fields.as_ref().map(Vec::len), v1.metadata.annotations.as_ref().map(|all| all.len())),
            (Some(1), None)
        );
        assert_eq!(pods.first().and_then(|pod| pod.spec.as_ref()?.volumes.clone()), None);
        let account = |pod: &mut Pod| pod.spec.as_mut().and_then(|spec| spec.service_account_name.take());
        // Whose certificate it has. The one that most have takes no room.
        assert_eq!(pods.iter_mut().map(account).collect::<Vec<_>>(), [Some("web".to_owned())]);
        let mut plain: Pod = parse("{metadata: {name: b}, spec: {containers: [], serviceAccountName: default}}");
        plain.trim();
        assert_eq!((account(&mut plain), pods::account(&plain)), (None, "default"));
        assert_eq!(node.status.as_ref().and_then(|status| status.images.clone()), None);
    }
    let service = parse(
        "{metadata: {name: reviews, namespace: shop}, spec: {selector: {app: reviews},
        ports: [{name: http, port: 80, targetPort: web}]}}",
    );
    let objects = Objects {
        services: vec![Arc::new(service)],
        deployments: vec![Arc::new(v1), Arc::new(v2)],
        pods: pods.into_iter().map(Arc::new).collect(),
        slices: vec![Arc::new(slice)],
        nodes: Some(vec![Arc::new(node)]),
        ..Objects::default()
    };
    let spec = spec("");
    let workloads = Workloads::find("shop", &spec, &objects);
    let room = |replicas: i32| {
        let mut scales = workloads.start("v2", None);
        scales.iter_mut().for_each(|scale| scale.replicas = replicas);
        headroom::look("shop", "v2", &scales, &headroom::injected(&workloads, &["v1"]), &objects)
    };
    let place = ServicePlace {
        domain: &Domain::default(),
        namespace: "shop",
        services: &objects.services,
        groups: &workloads.services,
    };
    let made = workloads.pods("v1").map(|pod| (pods::owner(pod), pods::revision(pod))).collect::<Vec<_>>();
    format!(
        "{:?} {:?} {:?} {:?} {made:?} {:?} {:?} {:?} {:?} {:?}",
        workloads.errors,
        workloads.observe("v1"),
        workloads.lacks("v2"),
        workloads.managers("v1").keys(),
        workloads.objects("v1").into_iter().map(ScaledObject::revision).collect::<Vec<_>>(),
        place.in_mesh(&spec, &["v1".to_owned()].into(), None).get("reviews").map(|facts| &facts.reach),
        proxies::expected("shop", &spec, &objects),
        room(1),
        room(2),
    )
}

#[test]
fn a_look_at_what_is_kept_sees_the_same() {
    let (whole, kept) = (look(false), look(true));
    assert_eq!(whole, kept);
    // It saw something: one is at full strength, and there is room for one more, not for two.
    let words =
        ["ready: true", "kept_at: Some(5)", "gitops", "a.shop", "Fits", "needs 2 more pods", "Deployment/reviews-v1"];
    for word in words.into_iter().chain(["[Some(\"7\")]", "readiness: Some(\"/ready\")"]) {
        assert!(whole.contains(word), "{word}: {whole}");
    }
}
