//! Who has the filter with which flags, when `callers` of a VersionFlag change, on a real API server with Istio's
//! own definitions. No traffic: that is for the mesh.

use anyhow::{Result, ensure};
use harness::kube::istio::{LIMIT, PLUGIN, beside, controller, flag, install_istio, patch, reaches, start};
use harness::kube::{Cluster, story};
use harness::wait_for;
use serde_json::{Value, json};

/// The names of the flags in the plugin of a namespace, and which version of the plugin that is.
async fn plugin(cluster: &Cluster<'_>, namespace: &str) -> Result<(Vec<String>, String)> {
    let get = ["get", "trafficextension", "versionflag", "--namespace", namespace, "--output=json"];
    let found: Value = serde_json::from_str(&cluster.kubectl(&get).await?)?;
    let flags = found["spec"]["wasm"]["pluginConfig"]["flags"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = flags.iter().filter_map(|flag| Some(flag["name"].as_str()?.to_owned())).collect();
    names.sort();
    Ok((names, found["metadata"]["resourceVersion"].to_string()))
}

/// Waits until it has these. Which version of the plugin that is.
async fn has(cluster: &Cluster<'_>, namespace: &str, expected: &[&str]) -> Result<String> {
    wait_for(&format!("{expected:?} in the plugin of {namespace}"), LIMIT, async || {
        let (names, version) = plugin(cluster, namespace).await?;
        ensure!(names == expected, "{names:?}");
        Ok(version)
    })
    .await
}

async fn callers(cluster: &Cluster<'_>, flag: &str, namespaces: &[&str]) -> Result<()> {
    patch(cluster, flag, json!({ "callers": { "namespaces": namespaces } })).await
}

const BOTH: [&str; 2] = ["shop/ratings", "shop/reviews"];

#[test]
fn a_namespace_that_is_taken_out_of_the_callers_loses_the_flag() {
    story("callers-taken-out", async |cluster| {
        start(cluster).await?;
        install_istio(cluster).await?;
        for name in ["web", "jobs", "theirs"] {
            cluster.kubectl(&["create", "namespace", name]).await?;
        }
        cluster.kubectl(&["label", "namespace", "web", "jobs", "versionflag.io/callers=shop"]).await?;
        for name in ["reviews", "ratings"] {
            cluster.apply(&flag(name).to_string()).await?;
            callers(cluster, name, &["web", "jobs"]).await?;
        }
        let first = controller(cluster, "controller", &["--plugin-url", PLUGIN]).await?;
        beside(cluster, async {
            for namespace in ["shop", "web", "jobs"] {
                has(cluster, namespace, &BOTH).await?;
            }
            // One that looks the same, and that somebody else wrote.
            let get = ["get", "trafficextension", "versionflag", "--namespace=web", "--output=json"];
            let mut theirs: Value = serde_json::from_str(&cluster.kubectl(&get).await?)?;
            theirs["metadata"] = json!({ "name": "versionflag", "namespace": "theirs" });
            cluster.apply(&theirs.to_string()).await?;
            let untouched = has(cluster, "theirs", &BOTH).await?;

            // Where another flag stays, and where none does.
            callers(cluster, "reviews", &["web"]).await?;
            has(cluster, "jobs", &["shop/ratings"]).await?;
            callers(cluster, "ratings", &["web"]).await?;
            let empty = has(cluster, "jobs", &[]).await?;
            has(cluster, "web", &BOTH).await?;

            // Nobody saw it go.
            drop(first);
            callers(cluster, "ratings", &[]).await?;
            let second = controller(cluster, "controller.2", &["--plugin-url", PLUGIN]).await?;
            has(cluster, "web", &["shop/reviews"]).await?;
            drop(second);
            callers(cluster, "reviews", &[]).await?;
            let _third = controller(cluster, "controller.3", &["--plugin-url", PLUGIN]).await?;
            has(cluster, "web", &[]).await?;

            // It comes back. When the flag is deleted it stays there, whatever else is written.
            callers(cluster, "reviews", &["web"]).await?;
            let before = has(cluster, "web", &["shop/reviews"]).await?;
            cluster.kubectl(&["delete", "versionflag", "reviews", "--namespace=shop"]).await?;
            has(cluster, "shop", &["shop/ratings"]).await?;
            let (_, shop) = plugin(cluster, "shop").await?;
            patch(cluster, "ratings", json!({ "version": "v2" })).await?;
            reaches(cluster, "ratings", "Stable", "v2").await?;
            assert_ne!(plugin(cluster, "shop").await?.1, shop, "the switch is in the plugin");
            for (namespace, flags, version) in
                [("web", vec!["shop/reviews"], before), ("jobs", vec![], empty), ("theirs", BOTH.into(), untouched)]
            {
                let (names, now) = plugin(cluster, namespace).await?;
                assert_eq!((names, now), (flags.into_iter().map(str::to_owned).collect(), version), "{namespace}");
            }
            Ok(())
        })
        .await
    });
}
