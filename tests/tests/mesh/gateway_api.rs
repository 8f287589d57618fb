//! The whole system in a real mesh by routes of the Gateway API: the controller writes an HTTPRoute and a
//! Service for each version, istiod brings them to sidecars, and a flag moves all requests under load. Every
//! request is checked.

use anyhow::{Result, ensure};
use harness::kube::gateway_api_crds;
use harness::mesh::switch::{LIMIT, adopt_with, adopted, ask, goes_on, plan, reaches, start, strength};
use harness::mesh::{Mesh, story};
use harness::wait_for;
use serde_json::{Value, json};

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
        let mut controller = start(mesh, &["reviews"]).await?;
        mesh.cluster.apply_manifests("kubernetes/istio/gateway-api").await?;
        let early = mesh.load_with("caller-a", "reviews", plan()).await?;
        goes_on(&early, 50).await?;
        adopt_with(mesh, &["reviews"], json!({ "routing": { "provider": "GatewayAPI" } })).await?;
        adopted(mesh, 4).await?;
        // Connections from before the plugin drain past it, and show no routes.
        early.stop().await?.assert_no_failures();
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        for (old, new) in [("v1", "v2"), ("v2", "v1")] {
            ask(mesh, new).await?;
            let status = reaches(mesh, "Stable", new).await?;
            println!("overlap {} ms, {}", status["switch"]["overlapMs"], status["proxies"]["summary"]);
            assert_eq!(strength(mesh, old).await?, "0");
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
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v1");
        }
        Ok(())
    });
}
