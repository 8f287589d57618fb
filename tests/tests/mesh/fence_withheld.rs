//! A fenced switch while istiod withholds the way to the new version, in a real mesh: nobody's requests are held before
//! all have it, and those that are held while somebody lacks it go back. Every request is checked.

use anyhow::{Result, ensure};
use harness::mesh::fenced::{both, can_hold, fleet, is_held, plan, spec};
use harness::mesh::replica::{DISCOVERY, Replica};
use harness::mesh::switch::{
    LIMIT, adopt_with, adopted, ask, awaits_promotion, goes_on, held_up_by, laggards, reaches, request, shows, start,
    status,
};
use harness::mesh::{Mesh, Workload, story};
use harness::talk::Kind;
use harness::{Load, Signal, Talk, wait_for};
use serde_json::{Value, json};

/// What proxies have of v2.
const CLUSTER: &str = "outbound|80|v2|reviews";
const ROUTE: &str = "versionflag:default/reviews:v1,v2";
/// Two pods start within half of it.
const MAX_HOLD: &str = "20s";

#[test]
fn nothing_is_held_before_all_have_the_way_and_what_is_held_goes_back() {
    story("mesh-fence-withheld", async |mesh| {
        let mut controller = start(mesh, &["reviews"]).await?;
        let mut second = Replica::start(mesh).await?;
        adopt_with(mesh, &["reviews"], spec(json!({ "maxHold": MAX_HOLD }))).await?;
        adopted(mesh, 4).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        // v2 runs, and neither istiod brings anybody a route or a cluster of it.
        mesh.deploy("reviews", "v2", 2).await?;
        adopted(mesh, 6).await?;
        second.keep_stale(true)?;
        mesh.istiod().signal(Signal::SIGSTOP)?;
        nobody_is_held(mesh, &a).await?;

        // Everybody has it now, and something on v1 goes on while two callers come that do not.
        let talk = mesh.talk("caller-a", "reviews", Kind::WebSocket).await?;
        mesh.istiod().signal(Signal::SIGCONT)?;
        reaches(mesh, "Holding", "v1").await?;
        let (b, c) = two_start(mesh, &second).await?;
        given_back(mesh, talk, [&a, &b, &c]).await?;

        // They get it. Those who have shown that they do need no istiod for the flip.
        mesh.istiod().signal(Signal::SIGSTOP)?;
        second.keep_stale(false)?;
        let now = reaches(mesh, "Settling", "v2").await?;
        ensure!(now["switch"]["fence"]["attempts"] == 2, "{now}");
        for load in [&a, &b, &c] {
            goes_on(load, 50).await?;
        }
        mesh.istiod().signal(Signal::SIGCONT)?;
        reaches(mesh, "Stable", "v2").await?;
        controller.check_running()?;
        for load in [a, b, c] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v2");
        }
        let both = both(mesh, 0, u64::MAX)?;
        ensure!(both.is_empty(), "{both:?}");
        Ok(())
    });
}

/// A switch begins, and nobody gets the way to v2: that is said, and v1 serves all the while.
async fn nobody_is_held(mesh: &Mesh<'_>, load: &Load) -> Result<()> {
    ask(mesh, "v2").await?;
    let caller = format!("{}.default", mesh.pod("caller-a")?.name());
    shows(mesh, "the way to v2 is missing", |status| {
        let (named, why) = laggards(status);
        status["phase"] == "ProvingRoutes" && named.contains(&caller.as_str()) && why.contains(&caller)
    })
    .await?;
    can_hold(mesh).await?;
    goes_on(load, 50).await?;
    let now = status(mesh).await?;
    ensure!(now["phase"] == "ProvingRoutes" && now["switch"]["fence"].is_null(), "{now}");
    ensure!(load.live().in_flight() < 20 && !load.live().by_version.contains_key("v2"), "{:?}", load.live());
    Ok(())
}

/// The hold ends for two callers that do not reach v2: whatever waits goes to v1, and nothing is held again while they do
/// not.
async fn given_back(mesh: &Mesh<'_>, talk: Talk, loads: [&Load; 3]) -> Result<()> {
    let lacking = [mesh.pod("caller-b")?, mesh.pod("caller-c")?];
    let [one, other] = lacking.each_ref().map(|pod| pod.name());
    // Where pods take longer to start than requests are held they come later.
    let waited = tokio::select! {
        all = all_wait(loads) => all.map(|()| true)?,
        over = shows(mesh, "the hold is over before", |status| status["phase"] != "Holding") => over.map(|_| false)?,
    };
    ensure!(talk.version() == "v1", "the stream is with {}", talk.version());
    talk.end().await?;
    let drained = waited && status(mesh).await?["phase"] == "Holding";
    let now = shows(mesh, "the hold is given up", |status| status["phase"] != "Holding").await?;
    println!("{}", aborted(&now));
    ensure!(!drained || aborted(&now).contains(one) && aborted(&now).contains(other), "{now}");
    held_up_by(mesh, "ProvingRoutes", &[one, other]).await?;
    for load in loads {
        goes_on(load, 50).await?;
        let live = load.live();
        ensure!(live.failed == 0 && live.in_flight() < 20 && !live.by_version.contains_key("v2"), "{live:?}");
    }
    let now = status(mesh).await?;
    ensure!(now["phase"] == "ProvingRoutes" && now["switch"]["fence"]["attempts"] == 1, "{now}");
    Ok(())
}

/// Two callers come to an istiod that knows nothing of v2: one starts anew, and one is new. Both have requests.
async fn two_start(mesh: &Mesh<'_>, second: &Replica) -> Result<(Load, Load)> {
    let pod = mesh.pod("caller-b")?;
    second.takes_over(&pod)?;
    let before = pod.sidecar()?.agent()?;
    pod.sidecar()?.kill_envoy()?;
    mesh.deploy_all(&[Workload { istiod: DISCOVERY, ..Workload::named("caller-c") }]).await?;
    wait_for("another sidecar", LIMIT, async || {
        ensure!(pod.sidecar()?.agent()? != before, "it is not there yet");
        pod.is_ready().await
    })
    .await?;
    mesh.step("the sidecar was started again");
    let b = mesh.load_with("caller-b", "reviews", plan()).await?;
    let c = mesh.load_with("caller-c", "reviews", plan()).await?;
    Ok((b, c))
}

/// Waits until the requests of all wait, and it is known of two callers that they do not reach v2.
async fn all_wait(loads: [&Load; 3]) -> Result<()> {
    let [a, b, c] = loads;
    tokio::try_join!(is_held(a), is_held(b), is_held(c))?;
    wait_for("two that do not reach v2", LIMIT, async || {
        let fleet = fleet().await?;
        let all = fleet["reachLaggards"].as_array().into_iter().flatten();
        let named: Vec<&str> = all.filter_map(|one| one["proxy"].as_str()).collect();
        ensure!(named.len() == 2 && named[0].starts_with("caller-b") && named[1].starts_with("caller-c"), "{fleet}");
        Ok(())
    })
    .await
}

/// Why the last hold was given up.
fn aborted(status: &Value) -> &str {
    status["switch"]["fence"]["aborted"].as_str().unwrap_or_default()
}

/// A caller knows the new version and has no route to it, as each kind of object has a watch of its own in istiod. Nobody
/// knows: it had no requests until they were held. Envoy gives a request its routes when it comes, so these never reach
/// the new version.
#[test]
fn requests_held_where_the_route_alone_is_missing_go_back() {
    story("mesh-fence-route", async |mesh| {
        let mut controller = mesh.install().await?;
        let mut second = Replica::start(mesh).await?;
        let callers = [Workload::named("caller-a"), Workload { istiod: DISCOVERY, ..Workload::named("caller-b") }];
        let versions = [Workload::of("reviews", "v1", 2), Workload::of("reviews", "v2", 0)];
        mesh.deploy_all(&[versions, callers].concat()).await?;
        let mut spec = spec(json!({ "maxHold": MAX_HOLD }));
        spec["promotion"] = json!({ "mode": "Manual" });
        adopt_with(mesh, &["reviews"], spec).await?;
        adopted(mesh, 4).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        second.keep_routes_stale()?;
        ask(mesh, "v2").await?;
        awaits_promotion(mesh, 6).await?;
        can_hold(mesh).await?;
        let caller = mesh.pod("caller-b")?;
        let config = caller.sidecar()?.config().await?.to_string();
        ensure!(config.contains(CLUSTER) && !config.contains(ROUTE), "it has the route, or no cluster");

        let talk = mesh.talk("caller-a", "reviews", Kind::WebSocket).await?;
        request(mesh, "promote").await?;
        reaches(mesh, "Holding", "v1").await?;
        is_held(&a).await?;
        let b = mesh.load_with("caller-b", "reviews", plan()).await?;
        let now = shows(mesh, "the end of the hold", |status| status["phase"] == "ProvingRoutes").await?;
        ensure!(aborted(&now).contains("would not reach v2") && aborted(&now).contains(caller.name()), "{now}");
        held_up_by(mesh, "ProvingRoutes", &[caller.name()]).await?;
        for load in [&a, &b] {
            goes_on(load, 50).await?;
        }
        ensure!(talk.version() == "v1", "the stream is with {}", talk.version());
        talk.end().await?;
        second.keep_stale(false)?;
        reaches(mesh, "Stable", "v2").await?;
        goes_on(&b, 50).await?;
        controller.check_running()?;
        for load in [a, b] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v2");
        }
        let both = both(mesh, 0, u64::MAX)?;
        ensure!(both.is_empty(), "{both:?}");
        Ok(())
    });
}
