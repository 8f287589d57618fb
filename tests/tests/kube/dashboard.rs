//! The live page of a controller in a cluster, through a real API server, with the rights of whoever asks.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::client::Call;
use harness::kube::{Cluster, image, story, versionflag};
use harness::process::{Process, program};
use harness::{Signal, wait_for};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cli::{controller, world};

const LIMIT: Duration = Duration::from_secs(60);
const PERSON: &str = "--serviceaccount=shop:person";

/// Why the page is not opened for this person.
async fn refused(config: &Path) -> Result<String> {
    let said = versionflag(config, &["dashboard", "-n", "shop", "--no-open"]).await?;
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.status.code() == Some(1), "{said:?}");
    Ok(error)
}

async fn refused_with(config: &Path, words: &str) -> Result<()> {
    wait_for(words, LIMIT, async || {
        let said = refused(config).await?;
        ensure!(said.contains(words), "{said}");
        Ok(())
    })
    .await
}

async fn grant(cluster: &Cluster<'_>, namespace: &str, role: &str) -> Result<()> {
    let (place, named) = (format!("--namespace={namespace}"), format!("--role={role}"));
    cluster.kubectl(&["create", "rolebinding", role, &place, &named, PERSON]).await.map(drop)
}

/// The first event of a stream, and the connection, which goes on.
async fn event(at: SocketAddr) -> Result<(Value, TcpStream)> {
    let mut stream = TcpStream::connect(at).await?;
    stream
        .write_all(format!("GET /v1/events HTTP/1.1\r\nhost: {at}\r\naccept: text/event-stream\r\n\r\n").as_bytes())
        .await?;
    let (mut text, mut some) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut some).await?;
        text.extend(&some[..length]);
        let said = String::from_utf8_lossy(&text);
        if let Some((data, _)) = said.split_once("data: ").and_then(|(_, rest)| rest.split_once("\n\n")) {
            // A piece of it for each chunk would not be JSON.
            return Ok((serde_json::from_str(data)?, stream));
        }
        ensure!(length > 0, "the events ended: {said}");
    }
}

#[test]
fn the_page_of_a_cluster_is_opened_with_the_rights_of_whoever_asks() {
    story("kube-dashboard", async |cluster| {
        cluster.add_node("one", "8", "16Gi").await?;
        cluster.install().await?;
        cluster.apply(&world().to_string()).await?;
        cluster.kubectl(&["create", "serviceaccount", "person", "--namespace=shop"]).await?;
        let config = cluster.kubeconfig_as("shop", "person").await?;

        // Each right that is missing is named, with what grants it.
        let said = refused(&config).await?;
        let (lease, grants) =
            ("you may not `get` leases.coordination.k8s.io/versionflag in namespace versionflag", "kubernetes/live");
        ensure!(said.contains(lease) && said.contains(grants) && said.lines().count() == 1, "{said}");
        let half = [
            "create",
            "role",
            "half",
            "--namespace=versionflag",
            "--verb=get",
            "--resource=leases.coordination.k8s.io",
        ];
        cluster.kubectl(&half).await?;
        grant(cluster, "versionflag", "half").await?;
        refused_with(&config, "no controller has run in namespace versionflag").await?;
        let _controller = controller(cluster).await?;
        refused_with(&config, "you may not `get` pods/proxy in namespace versionflag").await?;
        cluster.apply_manifests("kubernetes/live").await?;
        grant(cluster, "versionflag", "versionflag-live").await?;
        // The replica of this test is a process: at first no Pod has its name.
        refused_with(&config, "pod one, is gone").await?;
        image::stands_for(cluster, "one", "198.19.128.12").await?;
        refused_with(&config, "the API server does not reach the controller, pod one").await?;
        cluster.kubectl(&["delete", "pod", "one", "--namespace=versionflag", "--force"]).await?;
        image::stands_for(cluster, "one", "198.19.128.11").await?;

        let mut command = Command::new(program("versionflag")?);
        command.args(["dashboard", "-n", "shop", "--no-open", "-o", "json"]).env("KUBECONFIG", &config);
        let mut dashboard = Process::start(cluster.dir(), "dashboard", command)?;
        let address = wait_for("the address", LIMIT, async || {
            dashboard.check_running()?;
            let said: Value = serde_json::from_str(&std::fs::read_to_string(dashboard.log())?)?;
            said["address"].as_str().map(str::to_owned).context("no address")
        })
        .await?;
        let at: SocketAddr = address.trim_start_matches("http://").trim_end_matches('/').parse()?;
        ensure!(at.ip().is_loopback(), "{address}");

        let page = Call::get(at, "/").send().await?;
        let policy = page.headers.iter().find(|(name, _)| name == "content-security-policy");
        ensure!(page.status == 200 && page.body.contains("page.js") && policy.is_some(), "{page:?}");
        let script = Call::get(at, "/page.js").send().await?;
        ensure!(script.status == 200 && script.body.contains("v1/events"), "{}", script.status);
        let flags: Value = wait_for("the flag", LIMIT, async || {
            let said: Value = serde_json::from_str(&Call::get(at, "/v1/status").send().await?.body)?;
            ensure!(said[0]["name"] == "shop/reviews", "{said}");
            Ok(said)
        })
        .await?;
        ensure!(flags[0]["specVersion"] == "v1", "{flags}");
        let (told, open) = tokio::time::timeout(LIMIT, event(at)).await??;
        ensure!(told[0]["name"] == json!("shop/reviews"), "{told}");

        // Nothing else is behind that port, and no name of somebody else's leads there.
        for path in ["/metrics", "/v1/snapshot", "/../../../../../../api/v1/secrets", "/v1/requests"] {
            ensure!(Call::get(at, path).send().await?.status == 404, "{path} is relayed");
        }
        ensure!(Call::post(at, "/v1/requests", "{}").send().await?.status == 404, "a request is relayed");
        let named = Call::get(at, "/v1/status").host("page.example").send().await?;
        ensure!(named.status == 403, "{named:?}");

        // A right that is taken away is named, too.
        cluster.kubectl(&["delete", "rolebinding", "versionflag-live", "--namespace=versionflag"]).await?;
        wait_for("the refusal", LIMIT, async || {
            let said = Call::get(at, "/v1/status").send().await?;
            ensure!(said.status == 502 && said.body.contains("you may not `get` pods/proxy"), "{said:?}");
            Ok(())
        })
        .await?;

        // Events still come over the connection that is open.
        dashboard.signal(Signal::SIGINT)?;
        let ended = dashboard.wait_exit(LIMIT).await?;
        ensure!(ended.success(), "{ended}");
        drop(open);
        Ok(())
    });
}
