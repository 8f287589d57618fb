//! The controller as its image and its Deployment run it: not as root, with nothing to write to and no
//! capability, and known to the cluster by the files of its ServiceAccount.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{image, switch_story};
use harness::{Call, Signal, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const ADDRESS: &str = "198.19.128.11";

#[test]
fn the_controller_needs_nothing_but_what_its_image_has() {
    switch_story("kube-image", async |switch| {
        let mut controller = image::controller(switch.cluster, "versionflag-0", ADDRESS).await?;
        switch.reaches("Stable", "v1").await?;
        let of = |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", controller.pid()));
        let status = of("status")?;
        let field = |name: &str| -> Result<Vec<&str>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            Ok(line.with_context(|| format!("no {name}"))?.split_whitespace().collect())
        };
        assert_eq!(field("Name")?, ["versionflag"]);
        assert_eq!((field("Uid")?, field("Gid")?), (vec!["65532"; 4], vec!["65532"; 4]));
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(field(set)?, ["0000000000000000"], "{set}");
        }
        assert_eq!(field("NoNewPrivs")?, ["1"]);
        let mounts = of("mountinfo")?;
        let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).context("a root")?;
        let options: Vec<&str> = root.split(' ').nth(5).context("options")?.split(',').collect();
        assert!(options.contains(&"ro"), "{root}");

        let ready = Call::get(format!("{ADDRESS}:7070").parse()?, "/readyz").send().await?;
        assert_eq!(ready.status, 200, "{}", ready.body);
        let holder =
            ["get", "lease", "versionflag", "--namespace=versionflag", "--output=jsonpath={.spec.holderIdentity}"];
        assert_eq!(switch.cluster.kubectl(&holder).await?, "versionflag-0");
        let log = std::fs::read_to_string(controller.log())?;
        assert!(!log.contains("forbidden"), "a right is missing: {log}");
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        let strange: Vec<&str> = log.lines().skip(1).filter(|line| !json(line)).collect();
        assert!(strange.is_empty() && log.starts_with("flag service on http://"), "{strange:?}");

        controller.signal(Signal::SIGTERM)?;
        let ended = controller.wait_exit(LIMIT).await?;
        assert!(ended.success(), "{ended}: {}", controller.log_tail(3));
        wait_for("the Lease to be free", LIMIT, async || {
            let now = switch.cluster.kubectl(&holder).await?;
            ensure!(now.is_empty(), "{now}");
            Ok(())
        })
        .await
    });
}
