//! What a filter that fails costs: P5. A real Envoy, with the filter in a build whose VM ends when a request asks for it.

use std::time::Duration;

use anyhow::ensure;
use harness::bench::ours_config;
use harness::config::{self, Upstream, Wasm};
use harness::local::trapping_wasm;
use harness::{Backend, Call, Envoy, story, wait_for};
use serde_json::json;

const HEADER: &str = "x-versionflag";
const LIMIT: Duration = Duration::from_secs(10);

/// P5: an edge that is set up as `render envoy` says.
#[test]
fn a_filter_that_fails_ends_no_request_and_lets_no_client_choose() {
    story("trap", async |dir| {
        let code = trapping_wasm()?;
        let mut plugin = ours_config(1, &["v1"]);
        plugin["role"] = json!("edge");
        let (v1, v2) = (Backend::start(dir, "v1").await?, Backend::start(dir, "v2").await?);
        let filters = [Wasm::new(&code, plugin).filter()];
        let routes = config::routes([config::route_when(HEADER, "v2", "v2"), config::route_to("v1")]);
        let clusters = [config::cluster("v1", v1.addr(), Upstream::H1), config::cluster("v2", v2.addr(), Upstream::H1)];
        let listener = config::without_header(config::listener("edge", filters, routes), HEADER);
        let envoy = Envoy::start(dir, "edge", config::bootstrap([listener], clusters)).await?;
        let call = |path: &str| Call::get(envoy.listener("edge"), path).header(HEADER, "v2");
        let open = call("/slow?ms=1500");
        let fails = async {
            wait_for("the open request", LIMIT, async || {
                ensure!(v1.stats().await?.open == 1, "none is open");
                Ok(())
            })
            .await?;
            call("/").header("x-trap", "1").send().await
        };
        let (open, failed) = tokio::try_join!(open.send(), fails)?;
        ensure!((open.status, open.version()) == (200, "v1"), "the request that was open: {open:?}");
        println!("the request that failed: {} by {}", failed.status, failed.version());
        let log = std::fs::read_to_string(dir.file("edge.log"))?;
        ensure!(log.contains("unreachable"), "no VM has failed");
        for _ in 0..3 {
            let after = call("/").send().await?;
            ensure!((after.status, after.version()) == (200, "v1"), "a forged header after it: {after:?}");
        }
        Ok(())
    });
}
