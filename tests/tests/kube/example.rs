//! The quick start in a cluster, as README.md has it: its commands in their order, on a real
//! Kubernetes API, with the Envoy of the example under load.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{Switch, Walk, example_story};
use harness::process::{Process, program};
use harness::tree::rate;
use harness::{Envoy, EnvoyOptions, Load, LoadPlan, root, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// The Envoy of the example. Nobody answers for names in DNS here, and the files of the pod are in
/// the test's directory.
async fn envoy(switch: &Switch<'_, '_>) -> Result<Envoy> {
    let dir = switch.cluster.dir();
    let text = std::fs::read_to_string(root().join("manifests/kubernetes/example/envoy.yaml"))?;
    let text = text.replace("/etc/versionflag", &dir.path().to_string_lossy());
    let mut config: Value = serde_saphyr::from_str(&text)?;
    let made = switch.bootstrap().await?;
    for cluster in config["static_resources"]["clusters"].as_array_mut().context("no clusters")? {
        let clusters = made["static_resources"]["clusters"].as_array().context("no clusters")?;
        *cluster = clusters.iter().find(|other| other["name"] == cluster["name"]).context("another cluster")?.clone();
    }
    config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = json!(0);
    config["node"] = made["node"].clone();
    let options = EnvoyOptions { name: "caller".to_owned(), concurrency: 2, ..EnvoyOptions::default() };
    Envoy::start_with(dir, options, config).await
}

#[test]
fn the_quick_start_goes_as_it_is_written() {
    example_story("kube-example", async |switch| {
        let mut walk = Walk::read(switch.cluster, "README.md", Some("Quick start in a cluster"))?;
        walk.next("apply -k manifests/kubernetes").await?;
        walk.next("create configmap versionflag-filter").await?;
        walk.next("apply -k manifests/kubernetes/example").await?;
        let _controller = switch.controller("controller", &[]).await?;
        switch.stands_for("one").await?;
        let envoy = envoy(switch).await?;
        let load = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 100, ..LoadPlan::default() });
        walk.next("wait versionflag/reviews --for=condition=Ready").await?;
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        let mut watch = Command::new(program("versionflag")?);
        watch.args(["status", "-w", "reviews"]).env("KUBECONFIG", switch.cluster.kubeconfig());
        let watch = Process::start(switch.cluster.dir(), "status", watch)?;
        let shown = async |words: &str| {
            wait_for(words, LIMIT, async || {
                let text = std::fs::read_to_string(watch.log())?;
                ensure!(text.contains(words), "{text}");
                Ok(())
            })
            .await
        };
        shown("reviews  v1  Stable  epoch").await?;
        // Nothing but the requests changes here, which a watch draws for a terminal only.
        let rate_above = async |least: f64| {
            wait_for("the rate", LIMIT, async || {
                let text = String::from_utf8(switch.cluster.versionflag(&["status", "reviews"]).await?.stdout)?;
                ensure!(rate(&text, "├─ v1 ● active")?.0 > least, "{text}");
                Ok(())
            })
            .await
        };
        rate_above(50.0).await?;
        let more = Load::start(envoy.listener("outbound"), LoadPlan { rate_per_s: 300, ..LoadPlan::default() });
        rate_above(200.0).await?;
        more.stop().await?.assert_no_failures();
        walk.next("patch versionflag reviews").await?;
        walk.next("wait versionflag/reviews --for=condition=Settled").await?;
        let tree = walk.next("versionflag status reviews").await?;
        assert!(tree.starts_with("reviews  v1→v2  Retaining"), "{tree}");
        assert!(tree.contains("undo: kubectl versionflag rollback reviews"), "{tree}");
        assert!(tree.lines().any(|line| line.contains("v2 ● active") && line.contains(" rps  in flight ")), "{tree}");
        walk.next("versionflag rollback reviews").await?;
        walk.next("wait versionflag/reviews --for=jsonpath").await?;
        walk.next("versionflag retry reviews").await?;
        walk.next("wait versionflag/reviews --for=condition=CleanedUp").await?;
        for words in ["v1→v2  Coexisting", "v1→v2  Retaining", "v2→v1  S", "reviews  v2  Stable  epoch"] {
            shown(words).await?;
        }
        let table = walk.next("get versionflags").await?;
        let row: Vec<_> = table.lines().nth(1).context("a row")?.split_whitespace().collect();
        assert_eq!(row[..6], ["reviews", "v2", "v2", "Stable", "1/1", "True"]);
        walk.ends()?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}
