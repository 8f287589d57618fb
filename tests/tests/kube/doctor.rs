//! What the doctor finds in a real cluster, and what `init` and `preview` print there.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::kube::istio::{PLUGIN, controller, flag, install_istio, patch, reaches, start};
use harness::kube::{programs, story};
use harness::process::program;
use serde_json::{Value, json};

async fn versionflag(kubeconfig: &Path, args: &str) -> Result<(Option<i32>, String)> {
    let output = harness::kube::versionflag(kubeconfig, &args.split(' ').collect::<Vec<_>>()).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
}

/// What is found, as `SEVERITY CHECK`, once each.
fn checks(json: &str) -> Result<Vec<String>> {
    let findings: Vec<Value> = serde_json::from_str(json).with_context(|| json.to_owned())?;
    let mut checks: Vec<String> =
        findings.iter().map(|one| format!("{} {}", one["severity"], one["check"]).replace('"', "")).collect();
    checks.dedup();
    Ok(checks)
}

#[test]
fn a_cluster_is_examined() {
    story("doctor", async |cluster| {
        let admin = cluster.kubeconfig();
        let (code, found) = versionflag(admin, "doctor -n shop -o json").await?;
        assert_eq!(
            (code, checks(&found)?),
            (Some(1), ["crd", "controller", "rights", "kinds"].map(|it| format!("error {it}")).into())
        );

        start(cluster).await?;
        install_istio(cluster).await?;
        cluster.apply(&flag("reviews").to_string()).await?;
        let running = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        reaches(cluster, "reviews", "Stable", "v1").await?;
        harness::kube::istio::condition(cluster, "reviews", "RoutesReady", "Written").await?;
        let (code, found) = versionflag(admin, "doctor -n shop").await?;
        assert_eq!((code, found.as_str()), (Some(0), "✓ nothing keeps VersionFlags in shop from working\n"));

        // The same by kubectl, in a cluster where much is wrong.
        let all = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
              "metadata": { "name": "narrow", "namespace": "shop" }, "spec": { "egress": [{ "hosts": ["./*"] }] } },
            { "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
              "metadata": { "name": "deny", "namespace": "shop" },
              "spec": { "podSelector": {}, "policyTypes": ["Egress"] } },
            { "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
              "metadata": { "name": "mine", "namespace": "shop" },
              "spec": { "url": PLUGIN, "pluginName": "versionflag" } },
            { "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
              "metadata": { "name": "tls", "namespace": "shop" },
              "spec": { "host": "*.local", "trafficPolicy": { "tls": { "mode": "ISTIO_MUTUAL" } } } },
            { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "lost", "namespace": "shop" },
              "spec": {
                "replicas": 0, "selector": { "matchLabels": { "app": "lost" } },
                "template": {
                    "metadata": { "labels": { "app": "lost", "version": "v1" } },
                    "spec": { "containers": [{ "name": "lost", "image": "lost.example/lost:1" }] },
                },
              } },
        ] });
        cluster.apply(&all.to_string()).await?;
        cluster.kubectl(&["delete", "clusterrolebinding", "versionflag-istio-routes"]).await?;
        let directory = cluster.dir().path();
        std::os::unix::fs::symlink(program("versionflag")?, directory.join("kubectl-versionflag"))?;
        let mut command = tokio::process::Command::new(programs()?.join("kubectl"));
        command.args(["versionflag", "doctor", "-n", "shop"]).env("KUBECONFIG", admin).env("PATH", directory);
        let output = command.output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}");
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text.contains("✗ sidecar: Sidecar shop/narrow hides the flag service from its pods\n    add "),
            "{text}"
        );
        let (code, json) = versionflag(admin, "doctor -n shop -o json").await?;
        let expected =
            ["error rights", "error network", "error sidecar", "error tls", "error plugin", "warning workloads"];
        assert_eq!((code, checks(&json)?), (Some(1), expected.map(String::from).into()), "{json}");
        assert!(json.contains("patch virtualservices.networking.istio.io"), "{json}");
        assert!(json.contains("kubectl apply -k manifests/kubernetes/istio/routes"), "{json}");
        cluster.apply_manifests("kubernetes/istio/routes").await?;
        for object in
            ["sidecar/narrow", "networkpolicy/deny", "wasmplugin/mine", "destinationrule/tls", "deployment/lost"]
        {
            cluster.kubectl(&["delete", object, "--namespace=shop"]).await?;
        }

        // What may not be read is said.
        let stranger = cluster.kubeconfig_as("shop", "default").await?;
        let (code, found) = versionflag(&stranger, "doctor -n shop").await?;
        assert_eq!(code, Some(0), "{found}");
        assert!(
            found.contains("! rights: pods cannot be read")
                && found.ends_with("✓ nothing was found in what could be read\n"),
            "{found}"
        );

        // A controller that stands still does not act.
        running.signal(harness::Signal::SIGSTOP)?;
        let (code, found) = versionflag(admin, "doctor -n shop").await?;
        running.signal(harness::Signal::SIGCONT)?;
        assert_eq!(code, Some(1), "{found}");
        assert!(found.starts_with("✗ controller: one, which should act in versionflag, is silent\n"), "{found}");
        Ok(())
    });
}

#[test]
fn a_flag_is_made_for_a_service_that_is_there() {
    story("init", async |cluster| {
        start(cluster).await?;
        install_istio(cluster).await?;
        let admin = cluster.kubeconfig();
        let (code, refused) = versionflag(admin, "init reviews --version v9 -n shop").await?;
        assert_eq!(code, Some(1), "{refused}");
        assert!(refused.contains("selects no workload of version v9; there are v1, v2"), "{refused}");
        let (code, yaml) = versionflag(admin, "init reviews --version v1 -n shop --user-provided -o yaml").await?;
        assert_eq!(code, Some(0), "{yaml}");
        cluster.apply(&yaml).await?;
        let _controller = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        reaches(cluster, "reviews", "Stable", "v1").await?;
        // The routes that came with it are such as the controller asks for.
        harness::kube::istio::condition(cluster, "reviews", "RoutesReady", "Found").await?;
        let all = cluster.kubectl(&["get", "virtualservices,destinationrules", "-A", "-o=name"]).await?;
        assert_eq!(all.lines().count(), 2, "{all}");

        // By routes of the controller's it can be previewed.
        let (code, refused) = versionflag(admin, "preview reviews v2 -n shop").await?;
        assert_eq!(code, Some(1), "{refused}");
        assert!(refused.contains("reviews has no preview: `kubectl patch vf reviews -n shop"), "{refused}");
        cluster.kubectl(&["delete", "virtualservice,destinationrule", "reviews", "--namespace=shop"]).await?;
        let spec = json!({
            "version": "v2", "promotion": { "mode": "Manual" }, "coexistence": { "minReady": "200ms" },
            "routing": { "management": "Managed" }, "preview": { "header": "x-preview", "value": "hard-to-guess" },
        });
        patch(cluster, "reviews", spec).await?;
        reaches(cluster, "reviews", "AwaitingPromotion", "v1").await?;
        let (code, shown) = versionflag(admin, "preview reviews v2 -n shop").await?;
        assert_eq!(code, Some(0), "{shown}");
        assert_eq!(shown, "x-preview: hard-to-guess\ncurl -H 'x-preview: hard-to-guess' http://reviews.shop/\n");
        let (_, shown) = versionflag(admin, "preview reviews v2 -n shop -o json").await?;
        let shown: Value = serde_json::from_str(&shown)?;
        ensure!(shown["header"] == "x-preview" && shown["version"] == "v2", "{shown}");
        Ok(())
    });
}
