//! The whole system in a real mesh by routes of the Gateway API: the controller writes an HTTPRoute and a
//! Service for each version, istiod brings them to sidecars, and a flag moves all requests under load. Every
//! request is checked.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::kube::gateway_api_crds;
use harness::mesh::{Mesh, Workload, story};
use harness::{Load, LoadPlan, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn status(mesh: &Mesh<'_>) -> Result<Value> {
    let text = mesh.cluster.kubectl(&["get", "versionflag", "reviews", "--output=json"]).await?;
    Ok(serde_json::from_str::<Value>(&text)?["status"].take())
}

/// Waits until the status is so.
async fn shows(mesh: &Mesh<'_>, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = wait_for(what, LIMIT, async || {
        let status = status(mesh).await?;
        ensure!(holds(&status), "{status}");
        Ok(status)
    })
    .await?;
    mesh.step(what);
    Ok(found)
}

/// Waits until so many more requests were answered.
async fn goes_on(load: &Load, more: u64) -> Result<()> {
    let before = load.live().done;
    wait_for("more answers", LIMIT, async || load.live().done >= before + more).await
}

/// The routes to a Service in a sidecar: by name, the version that the header has to have, and the cluster.
async fn routes(mesh: &Mesh<'_>, pod: &str) -> Result<Vec<(String, String, String)>> {
    let config = mesh.pod(pod)?.sidecar()?.config().await?;
    let mut hosts = Vec::new();
    collect(&config, &mut hosts);
    let routes = hosts.iter().flat_map(|host| host["routes"].as_array().into_iter().flatten()).map(|route| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let header = &route["match"]["headers"][0]["string_match"]["exact"];
        (text(&route["name"]), text(header), text(&route["route"]["cluster"]))
    });
    Ok(routes.collect())
}

/// The virtual hosts of reviews.
fn collect<'a>(value: &'a Value, hosts: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object)
            if object.get("name").is_some_and(|name| *name == "reviews.default.svc.cluster.local:80") =>
        {
            hosts.push(value);
        }
        Value::Object(object) => object.values().for_each(|value| collect(value, hosts)),
        Value::Array(all) => all.iter().for_each(|value| collect(value, hosts)),
        _ => {}
    }
}

#[test]
fn a_switch_by_routes_of_the_gateway_api_loses_no_request() {
    story("mesh-gateway-api", async |mesh| {
        mesh.cluster.install_crds(&gateway_api_crds()?).await?;
        let mut controller = mesh.install().await?;
        mesh.cluster.apply_manifests("kubernetes/istio/gateway-api").await?;
        let mut all = vec![Workload::of("reviews", "v1", 2), Workload::of("reviews", "v2", 0)];
        all.extend(["caller-a", "caller-b"].map(Workload::named));
        mesh.deploy_all(&all).await?;
        let plan = || LoadPlan { rate_per_s: 100, ..LoadPlan::default() };
        let early = mesh.load_with("caller-a", "reviews", plan()).await?;
        goes_on(&early, 50).await?;
        mesh.apply(&json!({
            "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
            "metadata": { "name": "reviews", "namespace": "default" },
            "spec": {
                "version": "v1", "services": [{ "name": "reviews" }], "routing": { "provider": "GatewayAPI" },
                "coexistence": { "minReady": "200ms" }, "settle": { "quietPeriod": "1s" },
                "cleanup": { "retainFor": "0s" },
            },
        }))
        .await?;
        shows(mesh, "adopted", |status| {
            let conditions = status["conditions"].as_array();
            let ready =
                conditions.into_iter().flatten().any(|one| one["type"] == "RoutesReady" && one["status"] == "True");
            status["phase"] == "Stable" && status["proxies"]["summary"] == "4/4" && ready
        })
        .await?;
        // Connections from before the plugin drain past it, and show no routes.
        early.stop().await?.assert_no_failures();
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        for (old, new) in [("v1", "v2"), ("v2", "v1")] {
            mesh.patch("versionflag", "reviews", &json!({ "spec": { "version": new } })).await?;
            let status = shows(mesh, &format!("Stable at {new}"), |status| {
                status["phase"] == "Stable" && status["activeVersion"] == new
            })
            .await?;
            println!("overlap {} ms, {}", status["switch"]["overlapMs"], status["proxies"]["summary"]);
            let replicas = ["get", "deployment", &format!("reviews-{old}"), "--output=jsonpath={.spec.replicas}"];
            assert_eq!(mesh.cluster.kubectl(&replicas).await?, "0");
            goes_on(&b, 100).await?;
            // The name of the rule is that of the route, which is what proves it.
            wait_for("routes without the old version", LIMIT, async || {
                let found = routes(mesh, "caller-a").await?;
                let cluster = format!("outbound|80||reviews-{new}.default.svc.cluster.local");
                let expected = [(0, new), (1, "")].map(|(rule, header)| {
                    (format!("versionflag.{rule}.{new}.{new}"), header.to_owned(), cluster.clone())
                });
                ensure!(found == expected, "{found:?}");
                Ok(())
            })
            .await?;
        }
        controller.check_running()?;
        for load in [a, b] {
            let results = load.stop().await?;
            results.assert_no_failures();
            assert_eq!(results.by_version().keys().collect::<Vec<_>>(), ["v1", "v2"]);
            assert_eq!(results.requests().last().map(|request| request.version()), Some("v1"));
        }
        Ok(())
    });
}
