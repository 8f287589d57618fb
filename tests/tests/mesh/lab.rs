//! The lab itself: requests go through sidecars that istiod configures, a switch by hand moves them,
//! and the filter that a WasmPlugin delivers chooses a version.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::mesh::{CONTROLLER, Mesh, Workload, flag_config, plugin, routed_by_header, routed_to, story};
use harness::process::program;
use harness::{Call, LoadPlan, Process, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);
const BOTH: [&str; 2] = ["v1", "v2"];

fn plan() -> LoadPlan {
    LoadPlan { rate_per_s: 200, ..LoadPlan::default() }
}

#[test]
fn a_switch_by_hand_moves_requests_and_loses_none() {
    story("mesh-by-hand", async |mesh| {
        reviews(mesh).await?;
        mesh.apply(&routed_to("reviews", &BOTH, "v1")).await?;
        only(mesh, "v1").await?;
        mesh.step("routes to v1");

        let load = mesh.load_with("caller-a", "reviews", plan()).await?;
        wait_for("load on v1", LIMIT, async || load.live().by_version.contains_key("v1")).await?;
        mesh.apply(&routed_to("reviews", &BOTH, "v2")).await?;
        only(mesh, "v2").await?;
        load.stop_served_by(&BOTH).await?.assert_last_by("v2");
        Ok(())
    });
}

#[test]
fn a_caller_whose_channel_is_frozen_stays_where_it_is() {
    story("mesh-frozen", async |mesh| {
        reviews(mesh).await?;
        let frozen = mesh.caller("caller-b").await?;
        mesh.apply(&routed_to("reviews", &BOTH, "v1")).await?;
        only(mesh, "v1").await?;

        let (a, b) = (mesh.load_with("caller-a", "reviews", plan()), mesh.load_with("caller-b", "reviews", plan()));
        let (a, b) = (a.await?, b.await?);
        wait_for("load on v1", LIMIT, async || b.live().by_version.get("v1") > Some(&50)).await?;
        frozen.sidecar()?.freeze_agent()?;
        mesh.apply(&routed_to("reviews", &BOTH, "v2")).await?;
        only(mesh, "v2").await?;
        let before = b.live().done;
        wait_for("more load", LIMIT, async || b.live().done > before + 200).await?;
        assert!(!b.live().by_version.contains_key("v2"), "{:?}", b.live());
        frozen.sidecar()?.thaw_agent()?;
        wait_for("the other caller", LIMIT, async || b.live().by_version.contains_key("v2")).await?;

        // An Envoy that stands still answers nothing, and all of it when it goes on.
        frozen.sidecar()?.freeze_envoy()?;
        wait_for("requests that wait", LIMIT, async || b.live().sent > b.live().done + 50).await?;
        frozen.sidecar()?.thaw_envoy()?;
        a.stop().await?.assert_no_failures();
        b.stop().await?.assert_no_failures();
        Ok(())
    });
}

#[test]
fn the_filter_of_a_wasm_plugin_chooses_the_version() {
    story("mesh-filter", async |mesh| {
        reviews(mesh).await?;
        // Without the filter, or when it has failed, requests go to v1.
        mesh.apply(&routed_by_header("reviews", &BOTH, "v1")).await?;
        only(mesh, "v1").await?;
        let image = mesh.push_filter().await?;
        mesh.step("routes, and the image in the registry");

        let load = mesh.load_with("caller-a", "reviews", plan()).await?;
        mesh.apply(&plugin(&image, &flag_config("reviews", &BOTH, "v2", 1))).await?;
        only(mesh, "v2").await?;
        mesh.step("the filter chooses v2");
        for forged in [&["v1"][..], &["v1", "v1"], &["v2", "v1"], &["v3"]] {
            let headers: Vec<_> = forged.iter().map(|value| ("x-versionflag", *value)).collect();
            let answer = mesh.call_with("caller-a", "reviews", "/", &headers).await?;
            assert_eq!((answer.version(), answer.got_flag()), ("v2", "v2"), "sent {forged:?}");
        }

        mesh.apply(&plugin(&image, &flag_config("reviews", &BOTH, "v1", 2))).await?;
        only(mesh, "v1").await?;
        load.stop_served_by(&BOTH).await?;
        Ok(())
    });
}

#[test]
fn pods_are_what_they_are_in_a_cluster() {
    story("mesh-pods", async |mesh| {
        mesh.deploy_all(&[
            Workload::of("reviews", "v1", 1),
            Workload::of("ratings", "v1", 1),
            Workload::named("caller-a"),
            Workload { sidecar: false, ..Workload::named("plain") },
        ])
        .await?;
        let gateway = mesh.gateway("gateway").await?;

        // One service calls the other, through both sidecars.
        let path = format!("/call?to={}&host=ratings", mesh.service("ratings").await?);
        let answer = mesh.call("caller-a", "reviews", &path).await?;
        assert_eq!((answer.status, answer.version()), (200, "v1+v1"), "{}", answer.body);
        // A pod without a sidecar is let in, until identities are asked for.
        assert_eq!(mesh.call("plain", "reviews", "/").await?.version(), "v1");
        let strict = json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": { "name": "default", "namespace": "default" }, "spec": { "mtls": { "mode": "STRICT" } },
        });
        mesh.apply(&strict).await?;
        wait_for("the plain pod to be refused", LIMIT, async || mesh.call("plain", "reviews", "/").await.is_err())
            .await?;
        assert_eq!(mesh.call("caller-a", "reviews", "/").await?.version(), "v1");

        // From outside by the gateway.
        let host = "reviews.default.svc.cluster.local";
        mesh.apply(&json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "name": "edge", "namespace": "default" },
            "spec": { "hosts": ["reviews.example"], "gateways": ["gateway"],
                      "http": [{ "route": [{ "destination": { "host": host } }] }] },
        }))
        .await?;
        let edge = Call::get(SocketAddr::new(gateway.ip().into(), 8080), "/").host("reviews.example");
        wait_for("the gateway's routes", LIMIT, async || {
            let answer = edge.send().await?;
            ensure!(answer.version() == "v1", "{}", answer.status);
            Ok(())
        })
        .await?;

        // A process beside the API sees who calls it: the controller will be one.
        let mut command = Command::new(program("backend")?);
        command.args(["--version", "beside", "--listen", &CONTROLLER.to_string()]);
        let _beside = Process::start(mesh.cluster.dir(), "beside", command)?;
        mesh.cluster.install().await?;
        mesh.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "versionflag", "namespace": "versionflag",
                          "labels": { "kubernetes.io/service-name": "versionflag" } },
            "ports": [{ "name": "http", "port": CONTROLLER.port() }],
            "endpoints": [{ "addresses": [CONTROLLER.ip()], "conditions": { "ready": true } }],
        }))
        .await?;
        let caller = mesh.pod("caller-a")?;
        let service = SocketAddr::new(mesh.flag_service().await?, CONTROLLER.port());
        let call = Call::get(service, "/peer").host("versionflag.versionflag.svc.cluster.local");
        wait_for("the flag service's address in the sidecar", LIMIT, async || {
            let answer = caller.call(call.clone()).await?;
            ensure!(answer.body == caller.ip().to_string(), "{} {}", answer.status, answer.body);
            Ok(())
        })
        .await?;

        // A pod that goes ends its processes, as they end themselves, and another one comes.
        let old = mesh.pod("reviews-v1")?.name().to_owned();
        mesh.cluster.kubectl(&["delete", "pod", &old, "--wait=false"]).await?;
        wait_for("another pod in its place", LIMIT, async || {
            let pods = mesh.pods("reviews-v1");
            pods.len() == 1 && pods.iter().all(|pod| pod.name() != old)
        })
        .await?;
        let log = std::fs::read_to_string(mesh.cluster.dir().file(&format!("{old}.app.log")))?;
        assert!(log.contains("v1 ends"), "{log}");
        // A container that ends by itself is started again.
        let sidecar = || Ok::<_, anyhow::Error>(caller.sidecar()?.agent().ok());
        let agent = sidecar()?;
        caller.sidecar()?.kill_envoy()?;
        wait_for("another sidecar", LIMIT, async || {
            ensure!(sidecar()?.is_some_and(|now| Some(now) != agent), "it is not there yet");
            ensure!(mesh.call("caller-a", "reviews", "/").await?.version() == "v1", "it does not serve yet");
            Ok(())
        })
        .await
    });
}

async fn reviews(mesh: &Mesh<'_>) -> Result<()> {
    let versions = BOTH.map(|version| Workload::of("reviews", version, 2));
    mesh.deploy_all(&[versions.as_slice(), &[Workload::named("caller-a")]].concat()).await
}

/// Waits until twenty requests in a row reach this version.
async fn only(mesh: &Mesh<'_>, version: &str) -> Result<()> {
    wait_for(&format!("requests at {version} only"), LIMIT, async || {
        for _ in 0..20 {
            let answer = mesh.call("caller-a", "reviews", "/").await?;
            ensure!(answer.status == 200 && answer.version() == version, "{} {}", answer.status, answer.version());
        }
        Ok(())
    })
    .await
}
