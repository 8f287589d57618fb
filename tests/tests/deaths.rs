//! What dies in the middle of a switch: the new version, a proxy, and by chance whatever there is. On real parts, under
//! load, with every request checked.

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::local::Local;
use harness::soak::{self, SoakPlan, seed};
use harness::story::story_within;
use harness::{Call, Envoy, EnvoyOptions, Load, LoadPlan, Results, TestDir, clock, story, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

async fn load(envoy: &Envoy, version: &str) -> anyhow::Result<Load> {
    let load = Load::start(envoy.listener("ingress"), LoadPlan { slow_per_s: 5, ..LoadPlan::default() });
    traffic(&load, version).await?;
    Ok(load)
}

async fn traffic(load: &Load, version: &str) -> anyhow::Result<()> {
    let before = load.live().answered_by(version);
    wait_for(&format!("traffic on {version}"), LIMIT, async || load.live().answered_by(version) > before + 200).await
}

/// Has v2 end at its next starts.
fn make_v2_breakable(local: &mut Local<'_>, dir: &TestDir) {
    let unless = format!("test ! -e '{}' && exec \"$@\"", dir.file("broken").display());
    let command = local.file()["local"]["versions"]["v2"]["command"].as_array_mut().expect("a command");
    command.splice(0..0, ["sh", "-c", unless.as_str(), "sh"].map(Value::from));
}

/// Ends v2, which does not come back.
async fn kill_v2(local: &Local<'_>, dir: &TestDir) -> anyhow::Result<u64> {
    dir.write("broken", "");
    let died_us = clock::now_us();
    ensure!(Call::get(local.address("v2"), "/crash").send().await.is_err(), "v2 answered and did not end");
    Ok(died_us)
}

/// Waits until every worker of `edge` routes to v1 again.
async fn edge_is_back(local: &Local<'_>) -> anyhow::Result<u64> {
    wait_for("v1 in effect at edge", LIMIT, async || {
        let view = local.view().await?;
        ensure!(view["status"]["activeVersion"] == "v1", "{}", view["waiting"]);
        let laggards = view["fleet"]["laggards"].as_array().context("no laggards")?;
        ensure!(laggards.iter().all(|one| one["proxy"] != "edge"), "{laggards:?}");
        Ok(())
    })
    .await?;
    Ok(clock::now_us())
}

/// Only what v2 had, or was sent before the last worker knew better, may have failed.
fn assert_only_its_death_was_seen(results: &Results, died_us: u64, back_us: u64) {
    let away = |request: &harness::load::Request| request.end_us >= died_us && request.start_us <= back_us;
    results.only(|request| !away(request) || request.version() == "v1").assert_no_failures();
    let after = results.after(back_us);
    assert!(after.all_served_by("v1"), "{:?}", after.by_version());
}

#[test]
fn v2_dies_and_is_left_again() {
    for phase in ["Switching", "Settling", "Retaining"] {
        story("rolled-back", async |dir| {
            let mut local = Local::new(dir)?;
            local.file()["spec"]["onTargetFailure"] = "Rollback".into();
            local.file()["spec"]["cleanup"]["retainFor"] = "1h".into();
            local.file()["spec"]["settle"]["quietPeriod"] = if phase == "Settling" { "10s" } else { "1s" }.into();
            local.file()["local"]["proxies"] = json!([{ "id": "edge" }, { "id": "other" }]);
            make_v2_breakable(&mut local, dir);
            local.start().await?;
            let (envoy, mut other) = (local.envoy("edge", 2).await?, local.envoy("other", 1).await?);
            local.reaches("Stable", "v1").await?;
            let load = load(&envoy, "v1").await?;
            if phase == "Switching" {
                local.flips_without(&mut other, "v2").await?;
            } else {
                local.ask("v2");
            }
            local.reaches(phase, "v2").await?;
            traffic(&load, "v2").await?;
            let died_us = kill_v2(&local, dir).await?;
            let back_us = edge_is_back(&local).await?;
            let view = local.view().await?;
            let reason = view["status"]["override"]["reason"].as_str().unwrap_or_default();
            assert!(reason.contains("v2 does not stay up: exit status: 1, after the flip"), "{phase}: {reason:?}");
            other.resume()?;
            traffic(&load, "v1").await?;
            local.file()["spec"]["settle"]["quietPeriod"] = "1s".into();
            local.write();
            local.reaches("Retaining", "v1").await?;
            let results = load.stop().await?;
            assert_only_its_death_was_seen(&results, died_us, back_us);
            let (failed, ms) = (results.failures().len(), (back_us - died_us) / 1_000);
            println!("{phase}: v1 was back {ms} ms after the death of v2, {failed} of {} failed", results.len());
            Ok(())
        });
    }
}

/// T1: v2 is ready in most looks, and ends every three seconds. It is never quiet enough around it to remove v1.
#[test]
fn v2_that_ends_again_and_again_keeps_v1() {
    story("crash-loop", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["spec"]["coexistence"]["minReady"] = "500ms".into();
        local.file()["spec"]["settle"]["quietPeriod"] = "1s".into();
        local.file()["spec"]["cleanup"]["retainFor"] = "4s".into();
        let command = local.file()["local"]["versions"]["v2"]["command"].as_array_mut().context("a command")?;
        command.splice(0..0, ["sh", "-c", "timeout 3 \"$@\"; exit 7", "sh"].map(Value::from));
        local.start().await?;
        let envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        let load = load(&envoy, "v1").await?;
        local.ask("v2");
        let flipped_us = wait_for("v2 to be flipped to", LIMIT, async || {
            let (_, active) = local.phase().await?;
            ensure!(active == "v2", "{active}");
            Ok(clock::now_us())
        })
        .await?;
        wait_for("two breaks", Duration::from_secs(60), async || {
            let history = local.view().await?["status"]["history"].take();
            let breaks = history.as_array().into_iter().flatten().filter(|entry| entry["event"] == "Unsettled").count();
            ensure!(breaks >= 2, "{history}");
            Ok(())
        })
        .await?;
        ensure!(local.runs("v1").await, "v1 was removed under a version that ends again and again");
        local.request("rollback").await?;
        let back_us = edge_is_back(&local).await?;
        traffic(&load, "v1").await?;
        assert_only_its_death_was_seen(&load.stop().await?, flipped_us, back_us);
        Ok(())
    });
}

#[test]
fn v2_dies_and_v1_stays_until_somebody_decides() {
    story("blocked", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["spec"]["settle"]["quietPeriod"] = "3s".into();
        make_v2_breakable(&mut local, dir);
        local.start().await?;
        let envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        let load = load(&envoy, "v1").await?;
        local.ask("v2");
        local.reaches("Settling", "v2").await?;
        traffic(&load, "v2").await?;
        let died_us = kill_v2(&local, dir).await?;
        // Longer than it would have had to be quiet: what is dead is quiet too.
        let dead_for = Duration::from_secs(5);
        wait_for("the reason, for long", LIMIT, async || {
            let view = local.view().await?;
            ensure!(view["status"]["blocked"]["reason"] == "TargetExited", "{}", view["status"]["blocked"]);
            ensure!(view["status"]["phase"] == "Settling" && view["status"]["activeVersion"] == "v2", "{view}");
            ensure!(clock::now_us() - died_us > dead_for.as_micros() as u64, "not for long enough");
            Ok(())
        })
        .await?;
        ensure!(local.runs("v1").await, "v1 was removed although v2 is dead");
        local.request("rollback").await?;
        let back_us = edge_is_back(&local).await?;
        traffic(&load, "v1").await?;
        let results = load.stop().await?;
        assert_only_its_death_was_seen(&results, died_us, back_us);
        Ok(())
    });
}

/// T7: somebody else has v2's port. Nothing is flipped to him, and he is named.
#[test]
fn a_port_that_somebody_else_has_gets_no_requests() {
    story("taken", async |dir| {
        let mut local = Local::new(dir)?;
        local.start().await?;
        let envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        let load = load(&envoy, "v1").await?;
        let foreign = std::net::TcpListener::bind(local.address("v2"))?;
        local.ask("v2");
        local.blocks(&[format!("process {} ", std::process::id()).as_str(), "v2 is not started"]).await?;
        drop(foreign);
        local.reaches("Stable", "v2").await?;
        traffic(&load, "v2").await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

/// T7: v2's shell dies under load, and its server lives, deaf to SIGTERM: v1 stays until all of v2 serves anew.
#[test]
fn what_is_left_of_v2_proves_nothing() {
    story("left-behind", async |dir| {
        let mut local = Local::new(dir)?;
        local.file()["spec"]["settle"]["quietPeriod"] = "3s".into();
        local.file()["local"]["versions"]["v2"]["stop"] = json!({ "grace": "500ms" });
        let shell = format!("trap '' TERM; \"$@\" & echo $$ > '{}'; wait", dir.file("shell").display());
        let command = local.file()["local"]["versions"]["v2"]["command"].as_array_mut().context("a command")?;
        command.splice(0..0, ["sh", "-c", shell.as_str(), "sh"].map(Value::from));
        local.start().await?;
        let envoy = local.envoy("edge", 2).await?;
        local.reaches("Stable", "v1").await?;
        let load = load(&envoy, "v1").await?;
        local.ask("v2");
        local.reaches("Settling", "v2").await?;
        traffic(&load, "v2").await?;
        let died_ms = clock::unix_ms(clock::now_us());
        let shell: i32 = std::fs::read_to_string(dir.file("shell"))?.trim().parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shell), nix::sys::signal::Signal::SIGKILL)?;
        local.reaches("Stable", "v2").await?;
        let view = local.view().await?;
        let removal = view["status"]["switch"]["removalIntentAt"].as_u64().context("no removal")?;
        ensure!(
            removal.saturating_sub(died_ms) >= 3_000,
            "v1 was removed on the server of the shell that died: {view}"
        );
        let stable_us = clock::now_us();
        traffic(&load, "v2").await?;
        load.stop().await?.after(stable_us).assert_no_failures();
        Ok(())
    });
}

/// The first answers of a proxy that starts, before it says that it is ready.
async fn first_answers(envoy: &mut Envoy, dir: &TestDir) -> anyhow::Result<()> {
    let ingress = envoy.listener("ingress");
    let call = Call::get(ingress, "/").host("reviews");
    let asks = async {
        let mut answers = 0;
        while answers < 20 {
            // Until it listens, the connection is refused.
            if let Ok(answer) = call.send().await {
                ensure!((answer.status, answer.version()) == (200, "v2"), "{answer:?}");
                answers += 1;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let (restarted, asked) = tokio::join!(envoy.restart(dir), asks);
    restarted.and(asked)
}

#[test]
fn a_proxy_dies_in_the_middle_and_v1_waits_for_it() {
    for (phase, why) in [("Switching", "before its ack"), ("Settling", "after its ack")] {
        story("killed-proxy", async |dir| {
            let mut local = Local::new(dir)?;
            // Longer than the report of a dead proxy is believed.
            let quiet = Duration::from_secs(6);
            local.file()["spec"]["settle"]["quietPeriod"] = format!("{}s", quiet.as_secs()).into();
            local.file()["local"]["proxies"] = json!([{ "id": "edge" }, { "id": "other" }]);
            local.start().await?;
            let (envoy, mut other) = (local.envoy("edge", 2).await?, local.envoy("other", 2).await?);
            local.reaches("Stable", "v1").await?;
            let load = load(&envoy, "v1").await?;
            if phase == "Switching" {
                local.flips_without(&mut other, "v2").await?;
            } else {
                local.ask("v2");
            }
            local.reaches(phase, "v2").await.context(why)?;
            other.kill();
            local.blocks(&["other (last seen"]).await?;
            ensure!(local.runs("v1").await, "v1 was removed although a proxy is not known");
            let restarted_ms = clock::unix_ms(clock::now_us());
            first_answers(&mut other, dir).await.context(why)?;
            let load_of_other = self::load(&other, "v2").await?;
            local.reaches("Stable", "v2").await?;
            ensure!(!local.runs("v1").await, "v1 still runs");
            let view = local.view().await?;
            let removal = view["status"]["switch"]["removalIntentAt"].as_u64().context("no removal")?;
            let proven = Duration::from_millis(removal.saturating_sub(restarted_ms));
            ensure!(proven >= quiet, "v1 was removed {proven:?} after the restart");
            traffic(&load_of_other, "v2").await?;
            let (results, of_other) = (load.stop().await?, load_of_other.stop().await?);
            results.assert_no_failures();
            of_other.assert_no_failures();
            assert!(of_other.all_served_by("v2"), "{:?}", of_other.by_version());
            Ok(())
        });
    }
}

/// What an Envoy reports of itself while another one reports by its name.
const RIVAL: &str = "two processes report by its name";

/// T2, F17: the Envoy that drains has a stream open on v1, which nobody hears of any more. It is not cut, whether the
/// flag is flipped before or after.
#[test]
fn a_stream_in_an_envoy_that_is_being_replaced_is_not_cut() {
    for phase in ["Stable", "Settling"] {
        story("restarted-hot", async |dir| {
            let mut local = Local::new(dir)?;
            local.start().await?;
            let options =
                EnvoyOptions { name: "edge".to_owned(), concurrency: 2, hot: true, ..EnvoyOptions::default() };
            let mut envoy = Envoy::start_with(dir, options, local.envoy_config()).await?;
            local.reaches("Stable", "v1").await?;
            let plan = LoadPlan { rate_per_s: 200, stream: Some(Duration::from_secs(8)), ..LoadPlan::default() };
            let load = Load::start(envoy.listener("ingress"), plan);
            wait_for("a stream", LIMIT, async || load.live().answering.get("v1").is_some_and(|open| *open > 0)).await?;
            if phase == "Settling" {
                local.ask("v2");
                local.reaches("Settling", "v2").await?;
            }
            let mut parent = envoy.restart_hot(dir).await?;
            local.ask("v2");
            local.blocks(&["edge", RIVAL]).await?;
            ensure!(local.runs("v1").await, "v1 was stopped although nobody knows what the Envoy before has open");
            parent.wait_exit(LIMIT).await?;
            local.reaches("Stable", "v2").await?;
            traffic(&load, "v2").await?;
            load.stop().await?.assert_no_failures();
            Ok(())
        });
    }
}

/// T2: nothing is known of two Envoys that have one node id, and nothing is flipped.
#[test]
fn two_envoys_of_one_node_id_are_named() {
    story("twins", async |dir| {
        let mut local = Local::new(dir)?;
        local.start().await?;
        let envoy = local.envoy("edge", 1).await?;
        local.reaches("Stable", "v1").await?;
        let mut config = local.envoy_config();
        config["node"] = json!({ "id": "edge", "cluster": "test" });
        let options = EnvoyOptions { name: "twin".to_owned(), ..EnvoyOptions::default() };
        let mut twin = Envoy::start_with(dir, options, config).await?;
        let (load, of_twin) = (load(&envoy, "v1").await?, self::load(&twin, "v1").await?);
        local.ask("v2");
        local.blocks(&["edge", RIVAL]).await?;
        let of_twin = of_twin.stop().await?;
        assert!(of_twin.all_served_by("v1"));
        of_twin.assert_no_failures();
        twin.kill();
        local.reaches("Stable", "v2").await?;
        traffic(&load, "v2").await?;
        load.stop().await?.assert_no_failures();
        Ok(())
    });
}

/// `make soak DAMAGE=local` does many.
#[test]
fn no_damage_costs_what_it_does_not_explain() {
    story_within("damage", Duration::from_secs(1_200), async |dir| {
        println!("{}", soak::local::run(dir, SoakPlan { switches: 12, seed: seed() }).await?);
        Ok(())
    });
}
