//! Bookinfo in a real mesh, as docs/bookinfo.md has it: its commands in their order, under load. Every
//! request is checked.

use std::time::Duration;

use anyhow::ensure;
use harness::kube::Walk;
use harness::mesh::{Workload, story};
use harness::{LoadPlan, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn bookinfo_goes_as_it_is_written() {
    story("mesh-bookinfo", async |mesh| {
        let cluster = &mesh.cluster;
        let versions = ["v1", "v2", "v3"].map(|version| Workload::of("reviews", version, 1));
        mesh.deploy_all(&[&versions[..], &[Workload::named("productpage")]].concat()).await?;
        let mut walk = Walk::read(cluster, "docs/bookinfo.md", None)?;
        walk.next("apply -k manifests/kubernetes").await?;
        walk.next("apply -k manifests/kubernetes/istio").await?;
        walk.next("apply -k manifests/kubernetes/istio/routes").await?;
        // The controller is a process here, and the registry has another name.
        walk.skip("-n versionflag set env deployment/versionflag VERSIONFLAG_PLUGIN_URL=oci://")?;
        let image = mesh.push_filter().await?;
        let _controller = mesh.controller("one", &["--plugin-url", &image]).await?;

        walk.next("apply -f docs/bookinfo/reviews.yaml").await?;
        walk.next("wait versionflag/reviews --for=condition=Ready").await?;
        walk.next("wait versionflag/reviews --for=jsonpath").await?;
        walk.next("wait versionflag/reviews --for=condition=RoutesReady").await?;
        let tree = walk.next("versionflag status reviews").await?;
        assert!(tree.starts_with("reviews  v1  Stable"), "{tree}");
        let objects = walk.next("get ").await?;
        for kind in ["virtualservice", "destinationrule"] {
            assert!(objects.contains(&format!("{kind}.networking.istio.io/versionflag-reviews")), "{objects}");
        }
        let load =
            mesh.load_with("productpage", "reviews", LoadPlan { rate_per_s: 100, ..LoadPlan::default() }).await?;
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        walk.next("patch versionflag reviews").await?;
        walk.next("wait versionflag/reviews --for=jsonpath").await?;
        walk.next("wait versionflag/reviews --for=condition=RoutesReady").await?;
        let preview = walk.next("versionflag preview reviews v2").await?;
        assert!(preview.contains("x-preview: reviews-v2"), "{preview}");
        wait_for("the route in the sidecar", LIMIT, async || {
            let answer = mesh.call_with("productpage", "reviews", "/", &[("x-preview", "reviews-v2")]).await?;
            ensure!(answer.version() == "v2", "{answer:?}");
            Ok(())
        })
        .await?;
        assert_eq!(load.live().answered_by("v2"), 0);

        walk.next("versionflag promote reviews").await?;
        walk.next("wait versionflag/reviews --for=condition=Settled").await?;
        let tree = walk.next("versionflag status reviews").await?;
        assert!(tree.starts_with("reviews  v1→v2  Retaining"), "{tree}");
        assert!(tree.contains("proxies 4/4 acked"), "{tree}");

        let tree = walk.next("versionflag rollback reviews").await?;
        assert!(tree.contains("kubectl versionflag retry reviews"), "{tree}");
        walk.next("wait versionflag/reviews --for=jsonpath").await?;
        walk.next("versionflag retry reviews").await?;
        walk.next("wait versionflag/reviews --for=jsonpath").await?;
        walk.next("versionflag promote reviews").await?;
        walk.next("wait versionflag/reviews --for=condition=CleanedUp").await?;
        walk.next("versionflag history reviews").await?;
        let deployments = walk.next("get deployments").await?;
        for (name, ready) in [("reviews-v1", "0/0"), ("reviews-v2", "1/1"), ("reviews-v3", "1/1")] {
            let row = deployments.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            ensure!(row.split_whitespace().nth(1) == Some(ready), "{deployments}");
        }
        walk.ends()?;
        load.stop_served_by(&["v1", "v2"]).await?;
        Ok(())
    });
}
