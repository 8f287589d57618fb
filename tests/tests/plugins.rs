//! Several plugins in one VM of a real Envoy: each request is treated as its own plugin says.

use anyhow::Result;
use harness::bench::ours_config;
use harness::config::{self, Direction, Wasm};
use harness::local::wasm;
use harness::{Call, Envoy, EnvoyOptions, TestDir, story};
use serde_json::{Value, json};

/// Requests that are marked for v1 get `v1`, others `none`.
fn routes() -> Value {
    config::routes([config::route_of_version("/proof", "v1"), config::direct_response(200, "none")])
}

/// A flag for `reviews`, of which v1 is active.
fn plugin(role: &str) -> Value {
    let mut plugin = ours_config(1, &["v1"]);
    plugin["role"] = json!(role);
    plugin
}

async fn start(dir: &TestDir, listeners: impl IntoIterator<Item = Value>) -> Result<Envoy> {
    let options = EnvoyOptions { name: "both".to_owned(), ..EnvoyOptions::default() };
    Envoy::start_with(dir, options, config::bootstrap(listeners, [])).await
}

#[test]
fn plugins_of_one_vm_keep_their_own_settings() {
    story("two-plugins", async |dir| {
        let code = wasm()?;
        let listener = |name: &str, role: &str| {
            let wasm = Wasm { name, ..Wasm::new(&code, plugin(role)) };
            config::listener(name, [wasm.filter()], routes())
        };
        let envoy = start(dir, [listener("outside", "edge"), listener("inside", "caller")]).await?;
        let call = async |listener: &str, host: &str| {
            Call::get(envoy.listener(listener), "/proof").host(host).header("x-versionflag", "v1").send().await
        };
        for _ in 0..3 {
            let calls = (call("outside", "ratings"), call("inside", "ratings"), call("outside", "reviews"));
            let (outside, inside, flagged) = tokio::try_join!(calls.0, calls.1, calls.2)?;
            // Only the edge takes away what a client sends to a host without a flag.
            assert_eq!([outside.body, inside.body, flagged.body], ["none", "v1", "v1"]);
        }
        Ok(())
    });
}

/// Nothing tells requests of these apart, so that both are treated like the one that trusts less.
#[test]
fn plugins_of_one_name_are_an_edge_if_one_of_them_is() {
    story("twin-plugins", async |dir| {
        let code = wasm()?;
        let listener = |name, role| config::listener(name, [Wasm::new(&code, plugin(role)).filter()], routes());
        let envoy = start(dir, [listener("outside", "edge"), listener("inside", "caller")]).await?;
        for (host, expected) in [("ratings", "none"), ("reviews", "v1")] {
            for listener in ["outside", "inside"] {
                let call = Call::get(envoy.listener(listener), "/proof").host(host).header("x-versionflag", "v1");
                assert_eq!(call.send().await?.body, expected, "{listener}, {host}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_sidecar_tells_its_traffic_by_direction() {
    story("sidecar", async |dir| {
        let code = wasm()?;
        // One configuration for both directions, or one for each under one name.
        let pairs = [("alike", "auto", "auto"), ("apart", "inbound", "caller")];
        let name = |vm_id: &str, direction: Direction| format!("{vm_id}-{direction:?}");
        let listener = |vm_id, role, direction| {
            let wasm = Wasm { vm_id, ..Wasm::new(&code, plugin(role)) };
            let listener = config::listener(&name(vm_id, direction), [wasm.filter()], routes());
            config::with_direction(listener, direction)
        };
        let listeners = pairs.into_iter().flat_map(|(vm_id, inbound, outbound)| {
            [listener(vm_id, inbound, Direction::Inbound), listener(vm_id, outbound, Direction::Outbound)]
        });
        let envoy = start(dir, listeners).await?;
        for (vm_id, ..) in pairs {
            // Only what goes out is given a version.
            for (direction, expected) in [(Direction::Inbound, "none"), (Direction::Outbound, "v1")] {
                let call = Call::get(envoy.listener(&name(vm_id, direction)), "/proof").host("reviews");
                assert_eq!(call.send().await?.body, expected, "{vm_id}, {direction:?}");
            }
        }
        Ok(())
    });
}
