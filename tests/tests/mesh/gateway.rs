//! Clients from outside the mesh, who come by the ingress gateway: what they send chooses no version, unless
//! it is a preview, and the gateway has to ack like everybody.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use harness::mesh::switch::{
    LIMIT, adopt_with, adopted, ask, awaits_promotion, ended_unused, goes_on, held_up_by, plan, reaches, request,
};
use harness::mesh::{Mesh, Workload, story};
use harness::{Call, Load, LoadPlan, wait_for};
use serde_json::json;

const HOST: &str = "reviews.example";

#[test]
fn a_gateway_takes_part_and_believes_no_client() {
    story("mesh-gateway", async |mesh| {
        let mut controller = mesh.install().await?;
        let versions = [Workload::of("reviews", "v1", 2), Workload::of("reviews", "v2", 0)];
        mesh.deploy_all(&[versions.as_slice(), &[Workload::named("front")]].concat()).await?;
        let gateway = mesh.gateway("gateway").await?;
        let edge = SocketAddr::new(gateway.ip().into(), 8080);
        let spec = json!({
            "callers": { "gateways": [{ "matchLabels": { "app": "gateway" } }] },
            "preview": { "header": "x-preview", "value": "yes" },
            "promotion": { "mode": "Manual" },
        });
        adopt_with(mesh, &["reviews"], spec).await?;
        adopted(mesh, 4).await?;
        lead_in(mesh, edge).await?;

        // Every request says that it is for v2, and none is.
        let forged = |version: &str| LoadPlan {
            authority: HOST.to_owned(),
            headers: vec![("x-versionflag".to_owned(), version.to_owned())],
            ..plan()
        };
        let to_v2 = Load::start(edge, forged("v2"));
        let to_v1 = Load::start(edge, forged("v1"));
        goes_on(&to_v2, 100).await?;
        ask(mesh, "v2").await?;
        awaits_promotion(mesh, 6).await?;

        // A preview reaches v2 before the flip, also if the app in between hands its condition on.
        let through = format!("/call?to={}&host=reviews&pass=", mesh.service("reviews").await?);
        for (path, header, value, version) in [
            ("/".to_owned(), "x-preview", "yes", "v2"),
            ("/".to_owned(), "x-preview", "no", "v1"),
            ("/".to_owned(), "x-versionflag", "v2", "v1"),
            (format!("{through}x-preview"), "x-preview", "yes", "latest+v2"),
            (format!("{through}x-preview"), "x-preview", "no", "latest+v1"),
            (format!("{through}nothing"), "x-preview", "yes", "latest+v1"),
            (format!("{through}x-versionflag"), "x-versionflag", "v2", "latest+v1"),
        ] {
            let answer = Call::get(edge, &path).host(HOST).header(header, value).send().await?;
            ensure!((answer.status, answer.version()) == (200, version), "{header}: {value} at {path}: {answer:?}");
        }
        goes_on(&to_v2, 100).await?;
        ensure!(to_v2.live().answered_by("v2") == 0, "a client has chosen v2: {:?}", to_v2.live());

        gateway.sidecar()?.freeze_envoy()?;
        request(mesh, "promote").await?;
        held_up_by(mesh, "Switching", &[gateway.name()]).await?;
        gateway.sidecar()?.thaw_envoy()?;
        reaches(mesh, "Stable", "v2").await?;
        ended_unused(mesh, "v1").await?;
        goes_on(&to_v1, 100).await?;
        controller.check_running()?;
        for load in [to_v2, to_v1] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v2");
        }
        Ok(())
    });
}

/// Routes of the gateway, as an operator would write them; waits until they are there.
async fn lead_in(mesh: &Mesh<'_>, edge: SocketAddr) -> Result<()> {
    let front = json!({ "destination": { "host": "front.default.svc.cluster.local" } });
    mesh.apply(&json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "edge", "namespace": "default" },
        "spec": { "hosts": [HOST], "gateways": ["gateway"], "http": [
            { "match": [{ "uri": { "prefix": "/call" } }], "route": [front] },
            { "match": [{ "uri": { "prefix": "/" } }], "delegate": { "name": "versionflag-reviews-delegate" } },
        ] },
    }))
    .await?;
    wait_for("the routes of the gateway", LIMIT, async || {
        for path in ["/", "/call"] {
            let answer = Call::get(edge, path).host(HOST).send().await?;
            // The app behind /call is asked for nothing, and says so.
            ensure!(answer.version() != "-", "{} at {path}", answer.status);
        }
        Ok(())
    })
    .await
}
