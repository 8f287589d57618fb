//! The command line against a real Kubernetes API, with the real controller. No traffic, and no proxy.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{self, Cluster, image, programs, story};
use harness::local::wasm;
use harness::process::{Process, program};
use harness::wait_for;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn deployment(version: &str, replicas: u32) -> Value {
    let mut deployment = kube::deployment(version, replicas);
    deployment["metadata"]["namespace"] = json!("shop");
    deployment
}

pub(super) fn world() -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews", "namespace": "shop" },
          "spec": { "selector": { "app": "reviews" }, "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } },
        deployment("v1", 1),
        deployment("v2", 0),
        { "apiVersion": "versionflag.io/v1alpha1", "kind": "VersionFlag",
          "metadata": { "name": "reviews", "namespace": "shop" },
          "spec": {
            "version": "v1", "services": [{ "name": "reviews" }],
            "routing": { "provider": "External" },
            "coexistence": { "minReady": "200ms" },
            "promotion": { "mode": "Manual" },
          } },
    ] })
}

/// What a program printed.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    /// What it printed, if it ended like this.
    fn ended(self, code: i32) -> Result<String> {
        ensure!(self.code == Some(code), "exit code {code} is expected: {self:?}");
        Ok(if code == 1 { self.err } else { self.out })
    }
}

async fn versionflag(kubeconfig: &Path, args: &[&str]) -> Result<Said> {
    Ok(harness::kube::versionflag(kubeconfig, args).await?.into())
}

/// The same through kubectl, which finds it on the PATH.
async fn plugin(cluster: &Cluster<'_>, args: &[&str]) -> Result<Said> {
    let link = cluster.dir().file("kubectl-versionflag");
    if !link.exists() {
        std::os::unix::fs::symlink(program("versionflag")?, &link)?;
    }
    let directory = link.parent().context("a directory")?;
    let mut command = tokio::process::Command::new(programs()?.join("kubectl"));
    command.arg("versionflag").args(args).env("KUBECONFIG", cluster.kubeconfig()).env("PATH", directory);
    Ok(command.stdin(Stdio::null()).kill_on_drop(true).output().await?.into())
}

pub(super) async fn controller(cluster: &Cluster<'_>) -> Result<Process> {
    let mut command = Command::new(program("versionflag")?);
    command
        .args(["controller", "--listen", "198.19.128.11:7070", "--identity", "one", "--home", "versionflag"])
        .arg("--filter-path")
        .arg(wasm()?)
        .arg("--audit-log")
        .arg(cluster.dir().file("audit.log"))
        .env("KUBECONFIG", cluster.kubeconfig_as("versionflag", "versionflag").await?);
    Process::start(cluster.dir(), "controller", command)
}

async fn reaches(cluster: &Cluster<'_>, phase: &str) -> Result<Value> {
    wait_for(phase, LIMIT, async || {
        let said = versionflag(cluster.kubeconfig(), &["status", "reviews", "-n", "shop", "-o", "json"]).await?;
        ensure!(matches!(said.code, Some(0 | 3)), "{said:?}");
        let all: Value = serde_json::from_str(&said.out)?;
        ensure!(all[0]["status"]["phase"] == phase, "{all}");
        Ok(all[0].clone())
    })
    .await
}

/// The flag service is asked through the API server, with the rights of who asks, and nothing else fails
/// without it.
async fn requests_are_shown_to_who_may_ask(cluster: &Cluster<'_>) -> Result<()> {
    cluster.kubectl(&["create", "serviceaccount", "person", "--namespace=shop"]).await?;
    let looks = ["create", "role", "looks", "--namespace=shop", "--verb=get,list,watch", "--resource=versionflags"];
    cluster.kubectl(&looks).await?;
    let bind = async |namespace: &str, role: &str| {
        let (place, role) = (format!("--namespace={namespace}"), format!("--role={role}"));
        let person = "--serviceaccount=shop:person";
        cluster.kubectl(&["create", "rolebinding", "person", &place, &role, person]).await
    };
    bind("shop", "looks").await?;
    let config = cluster.kubeconfig_as("shop", "person").await?;
    let status = async || versionflag(&config, &["status", "reviews", "-n", "shop"]).await;
    let without = wait_for("what may not be asked", LIMIT, async || {
        let said = status().await?;
        ensure!(said.code == Some(0) && said.err.contains("is forbidden"), "{said:?}");
        Ok(said)
    })
    .await?;
    let words = "without requests, as the flag service cannot be asked: leases.coordination.k8s.io \"versionflag\" is forbidden";
    assert!(without.err.starts_with(words) && without.err.lines().count() == 1, "{without:?}");
    assert!(without.out.contains("├─ v1 ● active  ready  1 replicas\n"), "{without:?}");

    cluster.apply_manifests("kubernetes/live").await?;
    bind("versionflag", "versionflag-live").await?;
    image::stands_for(cluster, "one", "198.19.128.11").await?;
    // No proxy counts, so that nothing is known: that is not zero.
    let known = wait_for("what may be asked", LIMIT, async || {
        let said = status().await?;
        ensure!(said.err.is_empty(), "{said:?}");
        said.ended(0)
    })
    .await?;
    assert!(known.contains("├─ v1 ● active  ready  1 replicas  ? rps  in flight ?\n"), "{known}");
    let json = versionflag(&config, &["status", "reviews", "-n", "shop", "-o", "json"]).await?.ended(0)?;
    let shown: Value = serde_json::from_str(&json)?;
    assert_eq!(shown[0]["live"]["traffic"], json!({ "expected": 0, "known": 0, "versions": {} }), "{shown}");
    // It may look, and nothing else.
    let may = async |verb: &str| {
        let what = ["auth", "can-i", verb, "pods", "--subresource=proxy", "--namespace=versionflag"];
        cluster.kubectl(&[what.as_slice(), &["--as=system:serviceaccount:shop:person"]].concat()).await
    };
    assert_eq!(may("get").await?.trim(), "yes");
    ensure!(may("create").await.is_err(), "it may ask for more than a look");
    Ok(())
}

#[test]
fn flags_of_a_cluster_are_shown_and_asked_by_name() {
    story("kube-cli", async |cluster| {
        let absent = versionflag(cluster.kubeconfig(), &["list", "-A"]).await?.ended(1)?;
        assert!(absent.contains("has no VersionFlags: install manifests/kubernetes first"), "{absent}");
        cluster.add_node("one", "8", "16Gi").await?;
        cluster.install().await?;
        cluster.apply(&world().to_string()).await?;
        let here = cluster.kubeconfig();
        let run = async |args: &[&str]| versionflag(here, &[args, &["-n", "shop"]].concat()).await;

        // Nobody answers.
        let unseen = run(&["why", "reviews"]).await?.ended(0)?;
        assert_eq!(unseen, "reviews waits for the controller to look at it: check that it runs\n");
        let silent = run(&["suspend", "reviews"]).await?.ended(1)?;
        assert!(silent.contains("not answered within 10 s; it stays asked for"), "{silent}");
        assert!(silent.contains("check that the controller runs"), "{silent}");
        let second = run(&["resume", "reviews"]).await?.ended(1)?;
        assert!(second.contains("suspend was asked for before and is not answered yet"), "{second}");
        cluster.kubectl(&["annotate", "versionflag", "reviews", "-n", "shop", "versionflag.io/request-"]).await?;

        let _controller = controller(cluster).await?;
        reaches(cluster, "Stable").await?;
        let table = versionflag(here, &["list", "-A"]).await?.ended(0)?;
        let row = table.lines().nth(1).context("a row")?.split_whitespace().collect::<Vec<_>>();
        assert_eq!(row[..7], ["shop", "reviews", "v1", "v1", "Stable", "0/0", "True"], "{table}");
        let listed: Value = serde_json::from_str(&versionflag(here, &["list", "-A", "-o", "json"]).await?.ended(0)?)?;
        assert_eq!((&listed[0]["name"], &listed[0]["namespace"]), (&json!("reviews"), &json!("shop")));
        assert!(listed[0]["status"]["machine"].is_null(), "{listed}");
        let tree = run(&["status"]).await?.ended(0)?;
        assert!(tree.starts_with("reviews  v1  Stable  epoch 1"), "{tree}");
        assert!(tree.contains("├─ v1 ● active  ready  1 replicas\n"), "{tree}");
        assert!(run(&["history"]).await?.ended(0)?.contains("Adopted: v1 serves"));
        requests_are_shown_to_who_may_ask(cluster).await?;

        // What is refused says why.
        let refused = run(&["promote", "reviews"]).await?.ended(1)?;
        assert!(refused.contains("refused: nothing waits for a promotion: the phase is Stable"), "{refused}");
        let unknown = run(&["status", "ratings"]).await?.ended(1)?;
        assert!(unknown.contains("no VersionFlag ratings in namespace shop"), "{unknown}");
        assert!(run(&["list", "./reviews.yaml"]).await?.ended(1)?.contains("are for the NAME of a VersionFlag"));

        // Given up by hand, tried again, promoted.
        let patch = json!({ "spec": { "version": "v2" } }).to_string();
        let wish = ["patch", "versionflag", "reviews", "-n", "shop", "--type=merge", "--patch", &patch];
        cluster.kubectl(&wish).await?;
        reaches(cluster, "AwaitingPromotion").await?;
        assert!(run(&["rollback", "reviews"]).await?.ended(1)?.contains("nothing has been switched yet: use abort"));
        let aborted = run(&["abort", "reviews"]).await?.ended(0)?;
        assert!(aborted.contains("v1 is held against v2: aborted by request"), "{aborted}");
        assert!(aborted.contains("you can: versionflag retry reviews -n shop"), "{aborted}");
        // v2 was started for it. Without a proxy nothing proves that it may go again.
        reaches(cluster, "Settling").await?;
        run(&["retry", "reviews"]).await?.ended(0)?;
        reaches(cluster, "AwaitingPromotion").await?;
        let suspended = plugin(cluster, &["suspend", "reviews", "-n", "shop"]).await?.ended(0)?;
        assert!(suspended.contains("you can: kubectl versionflag resume reviews -n shop"), "{suspended}");
        let held = run(&["promote", "reviews"]).await?.ended(1)?;
        assert!(held.contains("refused: the flag is suspended: resume it first"), "{held}");
        let resumed: Value = serde_json::from_str(&run(&["resume", "reviews", "-o", "json"]).await?.ended(0)?)?;
        assert_eq!(resumed["status"]["lastRequest"]["action"], "resume");
        run(&["promote", "reviews"]).await?.ended(0)?;
        // No proxy knows v2, so that it stays there, and says so with its exit code.
        reaches(cluster, "ProvingRoutes").await?;
        wait_for("what blocks", LIMIT, async || run(&["status", "reviews"]).await?.ended(3)).await?;
        let spec = cluster.kubectl(&["get", "versionflag", "reviews", "-n", "shop", "-o=jsonpath={.spec.version}"]);
        assert_eq!(spec.await?, "v2");

        let help = plugin(cluster, &["--help"]).await?.ended(0)?;
        assert!(help.contains("Usage: kubectl versionflag <COMMAND>") && help.contains("3 blocked"), "{help}");

        let audit = std::fs::read_to_string(cluster.dir().file("audit.log"))?;
        let lines = audit.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        for event in ["Adopted", "Refused", "Requested", "GivenUp", "Started", "Blocked"] {
            let found =
                lines.iter().find(|line| line["event"] == event).with_context(|| format!("{event}: {audit}"))?;
            assert_eq!((&found["namespace"], &found["name"]), (&json!("shop"), &json!("reviews")));
        }

        // A cluster that is not there.
        let config = std::fs::read_to_string(here)?.replace("198.19.128.2:6443", "127.0.0.1:1");
        let nowhere = cluster.dir().write("nowhere.kubeconfig", config);
        let silent = versionflag(&nowhere, &["list", "-A"]).await?.ended(1)?;
        assert!(silent.contains("the cluster at https://127.0.0.1:1/ does not answer: is it running"), "{silent}");
        Ok(())
    });
}
