//! What the tests on Kubernetes stand on: a control plane that does what a real one does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{Cluster, Part, story};
use harness::{Signal, wait_for};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

const REVIEWS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1}
spec:
  replicas: 2
  selector: {matchLabels: {app: reviews, version: v1}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      containers:
        - name: reviews
          image: reviews.example/reviews:v1
          resources: {requests: {cpu: "1", memory: 1Gi}}
"#;

async fn pods(cluster: &Cluster<'_>) -> Result<Vec<Pod>> {
    Ok(cluster.api::<Pod>("default").list(&ListParams::default().labels("app=reviews")).await?.items)
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The addresses in the EndpointSlices, those of ready pods only.
async fn ready_endpoints(cluster: &Cluster<'_>) -> Result<Vec<String>> {
    let of_reviews = ListParams::default().labels("kubernetes.io/service-name=reviews");
    let slices = cluster.api::<EndpointSlice>("default").list(&of_reviews).await?;
    let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|is| is.ready == Some(true)));
    let mut addresses: Vec<String> = ready.flat_map(|endpoint| endpoint.addresses).collect();
    addresses.sort();
    Ok(addresses)
}

async fn wait_endpoints(cluster: &Cluster<'_>, count: usize) -> Result<Vec<String>> {
    wait_for(&format!("{count} ready endpoints"), LIMIT, async || {
        let endpoints = ready_endpoints(cluster).await?;
        ensure!(endpoints.len() == count, "{endpoints:?}");
        Ok(endpoints)
    })
    .await
}

async fn scale(cluster: &Cluster<'_>, replicas: u32) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    cluster.api::<Deployment>("default").patch("reviews-v1", &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn annotate(cluster: &Cluster<'_>, pod: &str, value: Option<&str>) -> Result<()> {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { "test.versionflag.io/unready": value } } }));
    cluster.api::<Pod>("default").patch(pod, &PatchParams::default(), &patch).await?;
    Ok(())
}

#[test]
fn a_deployment_has_pods_that_come_and_go() {
    story("pods", async |cluster| {
        println!("memory: {} MiB", cluster.memory_kib()? / 1024);
        cluster.add_node("one", "4", "8Gi").await?;
        cluster.apply(REVIEWS).await?;

        let endpoints = wait_endpoints(cluster, 2).await?;
        let pods_now = pods(cluster).await?;
        assert!(pods_now.iter().all(is_ready));
        let mut ips: Vec<String> = pods_now.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect();
        ips.sort();
        assert_eq!(ips, endpoints);
        assert!(ips.iter().all(|ip| ip.starts_with("198.18.")), "{ips:?}");

        // A pod that stops being ready leaves the endpoints, and comes back with its address.
        let pod = pods_now[0].metadata.name.as_deref().context("a pod without a name")?;
        annotate(cluster, pod, Some("true")).await?;
        wait_endpoints(cluster, 1).await?;
        annotate(cluster, pod, None).await?;
        assert_eq!(wait_endpoints(cluster, 2).await?, endpoints);

        // There is room for four.
        scale(cluster, 5).await?;
        wait_endpoints(cluster, 4).await?;
        let waiting = pods(cluster).await?.into_iter().find(|pod| !is_ready(pod)).context("a fifth pod")?;
        assert_eq!(waiting.spec.and_then(|spec| spec.node_name), None);

        scale(cluster, 0).await?;
        wait_for("no pods", LIMIT, async || -> Result<()> {
            let left = pods(cluster).await?.len();
            ensure!(left == 0, "{left} pods");
            Ok(())
        })
        .await?;
        wait_endpoints(cluster, 0).await?;
        Ok(())
    });
}

#[test]
fn a_service_account_may_do_what_rbac_says() {
    story("rbac", async |cluster| {
        cluster.kubectl(&["create", "serviceaccount", "reader"]).await?;
        let reader: Api<Pod> = Api::default_namespaced(cluster.client_as("default", "reader").await?);
        let refused = reader.list(&ListParams::default()).await.expect_err("an account without rights");
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");

        cluster.kubectl(&["create", "role", "reader", "--verb=list", "--resource=pods"]).await?;
        cluster
            .kubectl(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"])
            .await?;
        wait_for("the right to list pods", LIMIT, async || Ok(reader.list(&ListParams::default()).await?)).await?;
        let refused = reader.get("any").await.expect_err("a verb that the role does not have");
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");

        let kubeconfig = cluster.kubeconfig_as("default", "reader").await?.to_string_lossy().into_owned();
        let who = cluster.kubectl(&["--kubeconfig", &kubeconfig, "auth", "whoami", "--output=name"]).await;
        assert!(who.is_ok(), "{who:?}");
        Ok(())
    });
}

#[test]
fn what_was_written_outlives_the_programs() {
    story("restarts", async |cluster| {
        cluster.add_node("one", "4", "8Gi").await?;
        cluster.apply(REVIEWS).await?;
        let endpoints = wait_endpoints(cluster, 2).await?;

        cluster.process(Part::ApiServer).signal(Signal::SIGSTOP)?;
        let asked = tokio::time::timeout(Duration::from_secs(1), pods(cluster)).await;
        assert!(asked.is_err(), "a stopped API server answered");
        cluster.process(Part::ApiServer).signal(Signal::SIGCONT)?;
        assert_eq!(wait_endpoints(cluster, 2).await?, endpoints);

        for part in Part::ALL {
            cluster.restart(part).await?;
        }
        assert_eq!(wait_endpoints(cluster, 2).await?, endpoints);
        scale(cluster, 3).await?;
        wait_endpoints(cluster, 3).await?;
        Ok(())
    });
}
