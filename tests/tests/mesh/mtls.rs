//! The flag service by mutual TLS: sidecars show the certificates of their workloads, and nobody is believed who has
//! another one, another address, or none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use flag::named::Named;
use flag::report::Report;
use harness::client::Answer;
use harness::mesh::mtls::TTL;
use harness::mesh::switch::{LIMIT, adopt, adopted, ask, deploy, ended_unused, goes_on, plan, reaches, strengths};
use harness::mesh::{Mesh, Pod, story};
use harness::{Call, Load, wait_for};
use serde_json::json;

const HOST: &str = "versionflag.versionflag.svc.cluster.local";

#[test]
fn a_switch_by_mutual_tls_loses_no_request_and_nobody_speaks_for_others() {
    story("mesh-mtls", async |mesh| {
        let mut controller = mesh.install_with_mtls().await?;
        let began = Instant::now();
        let first = std::fs::read_to_string(controller.certs.join("cert-chain.pem"))?;
        deploy(mesh, &["reviews"]).await?;
        adopt(mesh, &["reviews"]).await?;
        adopted(mesh, 4).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        goes_on(&b, 50).await?;
        for caller in ["caller-a", "caller-b"] {
            ensure!(reached(&mesh.pod(caller)?, 7071).await? > 0, "{caller} does not go by mutual TLS");
            ensure!(reached(&mesh.pod(caller)?, 7070).await? == 0, "{caller} goes in plain text");
        }

        nobody_speaks_for_others(mesh).await?;

        for (old, new) in [("v1", "v2"), ("v2", "v1")] {
            ask(mesh, new).await?;
            reaches(mesh, "Stable", new).await?;
            assert_eq!(strengths(mesh, &[old, new]).await?, ["0", "2"]);
            ended_unused(mesh, old).await?;
            goes_on(&b, 100).await?;
        }

        // By now the first certificate is over. A sidecar that comes sees the one of now.
        wait_for("the end of the first certificate", LIMIT, async || began.elapsed() > TTL).await?;
        ensure!(std::fs::read_to_string(controller.certs.join("cert-chain.pem"))? != first, "it was not renewed");
        mesh.caller("caller-c").await?;
        adopted(mesh, 5).await?;
        ensure!(reached(&mesh.pod("caller-c")?, 7071).await? > 0, "caller-c does not go by mutual TLS");
        the_mesh_turns_it_off(mesh, &b).await?;
        controller.process.check_running()?;
        for load in [a, b] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v1");
        }
        Ok(())
    });
}

/// Somebody's rule has callers speak in plain text: the doctor finds it, and no request fails for it.
async fn the_mesh_turns_it_off(mesh: &Mesh<'_>, load: &Load) -> Result<()> {
    let (code, said) = doctor(mesh).await?;
    ensure!(code == Some(0), "{said}");
    mesh.apply(&json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": { "name": "plain", "namespace": "default" },
        "spec": { "host": HOST, "trafficPolicy": { "tls": { "mode": "DISABLE" } } },
    }))
    .await?;
    let caller = mesh.pod("caller-b")?;
    wait_for("a poll that does not arrive", LIMIT, async || {
        let status = poll(mesh, &caller, 7071, &caller, None).await?.status;
        ensure!(status >= 500, "it arrives: {status}");
        Ok(())
    })
    .await?;
    let (code, said) = doctor(mesh).await?;
    ensure!(code == Some(1) && said.contains("✗ tls: DestinationRule default/plain has callers"), "{said}");
    println!("{said}");
    goes_on(load, 200).await?;
    mesh.cluster.kubectl(&["delete", "destinationrule", "plain"]).await?;
    let before = mesh.reports().await?.get("accepted").copied();
    adopted(mesh, 5).await?;
    wait_for("reports again", LIMIT, async || {
        mesh.reports().await.is_ok_and(|now| now.get("accepted") > before.as_ref())
    })
    .await
}

async fn doctor(mesh: &Mesh<'_>) -> Result<(Option<i32>, String)> {
    let output = mesh.cluster.versionflag(&["doctor", "-n", "default"]).await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(said)?))
}

async fn nobody_speaks_for_others(mesh: &Mesh<'_>) -> Result<()> {
    let (a, b, reviews) = (mesh.pod("caller-a")?, mesh.pod("caller-b")?, mesh.pods("reviews-v1"));
    let before = mesh.reports().await?;
    // Another workload, with a certificate that is good.
    refused(&report(mesh, &b, 7071, &a).await?, "its certificate is of spiffe://cluster.local/ns/default/sa/caller-b")?;
    // Another pod of the same.
    refused(&report(mesh, &reviews[0], 7071, &reviews[1]).await?, &format!("that pod is at {}", reviews[1].ip()))?;
    // The pod itself, without its certificate.
    refused(&report(mesh, &a, 7070, &a).await?, "reach the port http-mtls of its Service by mutual TLS")?;
    let after = mesh.reports().await?;
    let count = |of: &BTreeMap<String, u64>, result: &str| of.get(result).copied().unwrap_or_default();
    assert_eq!(count(&after, "sender"), count(&before, "sender") + 3, "{before:?} {after:?}");
    wait_for("reports that are believed", LIMIT, async || {
        ensure!(count(&mesh.reports().await?, "accepted") > count(&after, "accepted"), "there are none");
        Ok(())
    })
    .await?;

    // The same for polls; and who shows a token of its pod needs no certificate.
    refused(&poll(mesh, &b, 7071, &a, None).await?, "its certificate is of")?;
    refused(&poll(mesh, &a, 7070, &a, None).await?, "its address alone is not believed")?;
    let token = mesh.pod_token(a.name()).await?;
    ensure!(poll(mesh, &a, 7070, &a, Some(&token)).await?.status == 200, "its token is not believed");
    refused(&poll(mesh, &a, 7070, &b, Some(&token)).await?, "with the token of")?;
    ensure!(poll(mesh, &a, 7071, &a, None).await?.status == 200, "its certificate is not believed");
    Ok(())
}

fn refused(answer: &Answer, why: &str) -> Result<()> {
    ensure!(answer.status == 403 && answer.body.contains(why), "{why}: {} {}", answer.status, answer.body);
    println!("{}", answer.body);
    Ok(())
}

/// What a pod's app sends through its sidecar, as if it were a report of this pod.
async fn report(mesh: &Mesh<'_>, from: &Pod, port: u16, of: &Pod) -> Result<Answer> {
    let report = Report {
        protocol: flag::PROTOCOL,
        proxy: format!("{}.default", of.name()),
        boot: "forged".to_owned(),
        seq: 1,
        revision: String::new(),
        instances: vec![1],
        complete: true,
        flags: Named::new(),
        findings: Default::default(),
    };
    let to = SocketAddr::new(mesh.flag_service().await?, port);
    from.call(Call::post(to, "/v1/report", &serde_json::to_string(&report)?).host(HOST)).await
}

async fn poll(mesh: &Mesh<'_>, from: &Pod, port: u16, of: &Pod, token: Option<&str>) -> Result<Answer> {
    let to = SocketAddr::new(mesh.flag_service().await?, port);
    let call = Call::get(to, &format!("/v1/snapshot?proxy={}.default&waitMs=0", of.name())).host(HOST);
    from.call(token.into_iter().fold(call, |call, token| call.header("authorization", &format!("Bearer {token}"))))
        .await
}

/// Requests of a pod's sidecar that the flag service has answered at this port.
async fn reached(pod: &Rc<Pod>, port: u16) -> Result<u64> {
    let clusters = pod.sidecar()?.admin("/clusters").await?.body;
    let line = |line: &&str| line.starts_with(&format!("outbound|{port}||{HOST}::")) && line.contains("::rq_success::");
    let counts = clusters
        .lines()
        .filter(line)
        .map(|line| line.rsplit("::").next().context("no count")?.parse::<u64>().map_err(Into::into));
    counts.sum()
}
