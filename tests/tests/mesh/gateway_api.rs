//! The whole system in a real mesh by routes of the Gateway API: the controller writes HTTPRoutes and a
//! Service for each version, istiod brings them to sidecars and to a gateway, and a flag moves all requests under
//! load. Every request is checked.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use harness::kube::gateway_api_crds;
use harness::mesh::switch::{
    LIMIT, adopt_with, adopted, ask, awaits_promotion, goes_on, plan, reaches, request, shows, start, strength,
};
use harness::mesh::{Mesh, story};
use harness::{Call, Load, LoadPlan, wait_for};
use serde_json::{Value, json};

/// By which clients of the gateway know reviews.
const HOST: &str = "reviews.example";
/// Its virtual host there.
const GATEWAY_HOST: &str = "reviews.example:80";

/// The routes of a virtual host in a proxy: by name, the version that the header has to have, and the cluster.
async fn routes(mesh: &Mesh<'_>, pod: &str, host: &str) -> Result<Vec<(String, String, String)>> {
    let config = mesh.pod(pod)?.sidecar()?.config().await?;
    let mut hosts = Vec::new();
    collect(&config, host, &mut hosts);
    let routes = hosts.iter().flat_map(|host| host["routes"].as_array().into_iter().flatten()).map(|route| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let header = &route["match"]["headers"][0]["string_match"]["exact"];
        (text(&route["name"]), text(header), text(&route["route"]["cluster"]))
    });
    Ok(routes.collect())
}

/// The virtual hosts of this name.
fn collect<'a>(value: &'a Value, name: &str, hosts: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) if object.get("name").is_some_and(|it| *it == name) && object.contains_key("domains") => {
            hosts.push(value);
        }
        Value::Object(object) => object.values().for_each(|value| collect(value, name, hosts)),
        Value::Array(all) => all.iter().for_each(|value| collect(value, name, hosts)),
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
        let gateway = mesh.attachable_gateway("public", "edge").await?;
        let attached = json!([{ "name": "public", "namespace": "edge", "hostnames": [HOST] }]);
        let routing = json!({ "provider": "GatewayAPI", "gateways": attached });
        adopt_with(mesh, &["reviews"], json!({ "routing": routing, "promotion": { "mode": "Manual" } })).await?;
        // The Gateway lets in no routes of other namespaces before it is told to.
        shows(mesh, "the Gateway refuses", |status| {
            let said = status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "RoutesReady");
            said.is_some_and(|one| {
                let message = one["message"].as_str().unwrap_or_default();
                one["reason"] == "GatewayRefused" && message.contains("edge/public does not accept HTTPRoute default/")
            })
        })
        .await?;
        let listeners = json!([{
            "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "All" } },
        }]);
        let open = json!({ "spec": { "listeners": listeners } }).to_string();
        mesh.cluster
            .kubectl(&["patch", "gateway", "public", "--namespace=edge", "--type=merge", "--patch", &open])
            .await?;
        adopted(mesh, 5).await?;
        // Connections from before the plugin drain past it, and show no routes.
        early.stop().await?.assert_no_failures();
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        let edge = SocketAddr::new(gateway.ip().into(), 8080);
        let at_edge = async |header: &str, value: &str| {
            let answer = Call::get(edge, "/").host(HOST).header(header, value).send().await?;
            if answer.status != 200 {
                bail!("{answer:?}");
            }
            Ok(answer.version().to_owned())
        };
        wait_for("the routes of the gateway", LIMIT, async || at_edge("x-nothing", "").await).await?;
        let elsewhere = Call::get(edge, "/").host("other.example").send().await?;
        ensure!(elsewhere.status == 404, "{elsewhere:?}");
        // Every request says that it is for one version.
        let forged = |version: &str| {
            let headers = vec![("x-versionflag".to_owned(), version.to_owned())];
            Load::start(edge, LoadPlan { authority: HOST.to_owned(), headers, ..plan() })
        };
        let (to_v1, to_v2) = (forged("v1"), forged("v2"));
        for (old, new) in [("v1", "v2"), ("v2", "v1")] {
            ask(mesh, new).await?;
            // Both have routes, also in the gateway, and what a client says chooses none.
            awaits_promotion(mesh, 7).await?;
            for _ in 0..20 {
                let chosen = at_edge("x-versionflag", new).await?;
                ensure!(chosen == old, "a client has chosen {chosen}");
            }
            goes_on(&to_v2, 100).await?;
            request(mesh, "promote").await?;
            let status = reaches(mesh, "Stable", new).await?;
            println!("overlap {} ms, {}", status["switch"]["overlapMs"], status["proxies"]["summary"]);
            assert_eq!(strength(mesh, old).await?, "0");
            goes_on(&b, 100).await?;
            goes_on(&to_v1, 100).await?;
            // The name of the rule is that of the route, which is what proves it.
            wait_for("routes without the old version", LIMIT, async || {
                for (pod, host) in [("caller-a", "reviews.default.svc.cluster.local:80"), ("public", GATEWAY_HOST)] {
                    let found = routes(mesh, pod, host).await?;
                    let cluster = format!("outbound|80||reviews-{new}.default.svc.cluster.local");
                    let expected = [(0, new), (1, "")].map(|(rule, header)| {
                        (format!("versionflag.{rule}.{new}.{new}"), header.to_owned(), cluster.clone())
                    });
                    ensure!(found == expected, "{pod}: {found:?}");
                }
                Ok(())
            })
            .await?;
        }
        controller.check_running()?;
        for load in [a, b, to_v1, to_v2] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v1");
        }
        Ok(())
    });
}
