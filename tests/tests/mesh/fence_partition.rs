//! A fenced switch in a real mesh in which a caller and a workload of v1 do not hear the controller any more while
//! requests are held, and a caller is new. Requests are sent again, hedged, and mirrored to both versions. Every request
//! is checked, at both ends.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::clock::now_us;
use harness::mesh::fenced::{all_hold, both, can_hold, is_held, plan, spec};
use harness::mesh::switch::{
    LIMIT, adopt_with, adopted, ask, awaits_promotion, goes_on, held_up_by, reaches, request, shows, status,
};
use harness::mesh::{Mesh, Pod, Workload, story};
use harness::overlap::steady_us;
use harness::talk::Kind;
use harness::{Load, LoadPlan, Process, Results, wait_for};
use serde_json::{Value, json};

/// Half of it is longer than a report is believed, and than a pod takes to start.
const MAX_HOLD: &str = "18s";

#[test]
fn who_is_cut_off_refuses_until_it_hears_more() {
    story("mesh-fence-reject", async |mesh| {
        let parted = Parted::begin(mesh, "Reject").await?;
        let b = &parted.b;
        wait_for("requests that are refused", LIMIT, async || b.live().failed >= 30).await?;
        let answer = mesh.call("caller-b", "reviews", "/").await?;
        let header = |name| answer.header(name).unwrap_or("-");
        let told = (answer.status, header("x-versionflag-refused"), header("retry-after"), answer.version());
        ensure!(told == (503, "expired", "1", "-"), "{told:?}");
        parted.nothing_moves(mesh).await?;
        // Neither version has seen any of it.
        ensure!(b.live().done - b.live().failed == parted.answered, "{:?}, {}", b.live(), parted.answered);

        let cut_us = parted.cut_us;
        let [a, b, c] = parted.heal(mesh).await?;
        for load in [a, c] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v2");
        }
        let b = b.stop().await?;
        waited(&b, cut_us)?;
        b.assert_last_by("v2");
        let wrong = b.failures().only(|one| one.status != 503 || one.version() != "-" || one.end_us < cut_us);
        ensure!(wrong.is_empty(), "{:?}", wrong.requests());
        println!("{} of {} requests were refused", b.failures().len(), b.len());
        Ok(())
    });
}

#[test]
fn who_is_cut_off_goes_back_and_fails_nothing() {
    story("mesh-fence-open", async |mesh| {
        let parted = Parted::begin(mesh, "Open").await?;
        wait_for("what was held there", LIMIT, async || parted.b.live().in_flight() < 20).await?;
        goes_on(&parted.b, 50).await?;
        parted.nothing_moves(mesh).await?;
        let cut_us = parted.cut_us;
        let [a, b, c] = parted.heal(mesh).await?;
        for load in [a, c] {
            load.stop_served_by(&["v1", "v2"]).await?.assert_last_by("v2");
        }
        let b = b.stop_served_by(&["v1", "v2"]).await?;
        b.assert_last_by("v2");
        waited(&b, cut_us)
    });
}

/// A switch whose hold was given up, because nobody knows what two proxies do.
struct Parted {
    controller: Process,
    a: Load,
    /// From the caller that is cut off.
    b: Load,
    /// From the new one.
    c: Load,
    /// Their pods: of the caller, and of v1.
    cut: [Rc<Pod>; 2],
    /// When they were, in [`now_us`].
    cut_us: u64,
    /// From when on no two versions may have requests open, in [`steady_us`].
    since_us: u64,
    /// Requests that were answered at the caller that is cut off, before it was.
    answered: u64,
}

impl Parted {
    async fn begin(mesh: &Mesh<'_>, on_expiry: &str) -> Result<Parted> {
        let controller = mesh.install().await?;
        let shadow = Workload { sidecar: false, ..Workload::named("shadow") };
        let versions = [("v1", 2), ("v2", 0)]
            .map(|(version, replicas)| Workload { grpc: true, ..Workload::of("reviews", version, replicas) });
        mesh.deploy_all(&[versions.as_slice(), &["caller-a", "caller-b"].map(caller), &[shadow]].concat()).await?;
        mesh.apply(&insists()).await?;
        let mut spec = spec(json!({ "maxHold": MAX_HOLD, "onExpiry": on_expiry }));
        spec["promotion"] = json!({ "mode": "Manual" });
        // Until it has settled v1 takes nothing. It is looked at before.
        spec["settle"] = json!({ "quietPeriod": "1m", "drainTime": "0s" });
        adopt_with(mesh, &["reviews"], spec).await?;
        adopted(mesh, 4).await?;
        let a = mesh.load_with("caller-a", "reviews", slow()).await?;
        let b = mesh.load_with("caller-b", "reviews", slow()).await?;
        ask(mesh, "v2").await?;
        awaits_promotion(mesh, 6).await?;
        can_hold(mesh).await?;

        // Something on v1 goes on while requests are held, at a port of which nothing is mirrored.
        let since_us = steady_us();
        let talk = mesh.talk("caller-a", "reviews", Kind::Grpc).await?;
        request(mesh, "promote").await?;
        reaches(mesh, "Holding", "v1").await?;
        let cut = [mesh.pod("caller-b")?, mesh.pod("reviews-v1")?];
        let new = [caller("caller-c")];
        let (parted, deployed) = tokio::join!(part(mesh, &b, &cut), mesh.deploy_all(&new));
        let (answered, cut_us) = parted?;
        deployed?;
        // It waits, too, where it has come before the hold is given up.
        let c = mesh.load_with("caller-c", "reviews", slow()).await?;
        ensure!(talk.version() == "v1", "the stream is with {}", talk.version());
        talk.end().await?;
        // All that can be heard is drained.
        let now = shows(mesh, "the hold is given up", |status| status["phase"] != "Holding").await?;
        let why = now["switch"]["fence"]["aborted"].as_str().unwrap_or_default();
        println!("{why}");
        ensure!(why.contains("of 7 proxies"), "the new caller does not have to ack: {why}");
        ensure!(cut.iter().all(|pod| why.contains(pod.name())) && now["activeVersion"] == "v1", "{now}");
        Ok(Parted { controller, a, b, c, cut, cut_us, since_us, answered })
    }

    /// Nothing is held while it is not known what two proxies do, and both are named.
    async fn nothing_moves(&self, mesh: &Mesh<'_>) -> Result<()> {
        let [caller, beside] = &self.cut;
        held_up_by(mesh, "ProvingRoutes", &[caller.name(), beside.name()]).await?;
        for load in [&self.a, &self.c] {
            goes_on(load, 50).await?;
            let live = load.live();
            ensure!(live.failed == 0 && live.in_flight() < 20, "{live:?}");
        }
        let now = status(mesh).await?;
        ensure!(now["phase"] == "ProvingRoutes" && now["switch"]["fence"]["attempts"] == 1, "{now}");
        for load in [&self.a, &self.b, &self.c] {
            ensure!(!load.live().by_version.contains_key("v2"), "{:?}", load.live());
        }
        Ok(())
    }

    /// Lets them be heard again: the switch comes to its end.
    async fn heal(mut self, mesh: &Mesh<'_>) -> Result<[Load; 3]> {
        for pod in &self.cut {
            mesh.cut_off(pod, false)?;
        }
        let now = reaches(mesh, "Settling", "v2").await?;
        println!("{}", now["switch"]["fence"]);
        for load in [&self.a, &self.b, &self.c] {
            goes_on(load, 50).await?;
        }
        let now = status(mesh).await?;
        ensure!(now["phase"] == "Settling", "mirrored requests may arrive at v1 again: {now}");
        let both = both(mesh, self.since_us, steady_us())?;
        ensure!(both.is_empty(), "{both:?}");
        let (a, new) = (mesh.pod("caller-a")?.sidecar()?, mesh.pod("reviews-v2")?.sidecar()?);
        a.reaches("hedged requests", "upstream_rq_retry$", |count| count > 10).await?;
        new.reaches("refused mirrors", "versionflag_refused", |count| count > 100).await?;
        let shadows = mesh.spans("shadow-")?;
        ensure!(shadows.len() > 100, "{} requests were mirrored", shadows.len());
        self.controller.check_running()?;
        Ok([self.a, self.b, self.c])
    }
}

/// Whoever was cut off went on holding: its proxy counts for how long, and nobody else.
fn waited(results: &Results, cut_us: u64) -> Result<()> {
    let until_us = cut_us + Duration::from_secs(8).as_micros() as u64;
    let early = results.only(|one| (cut_us..until_us).contains(&one.end_us));
    ensure!(early.is_empty(), "{:?}", early.requests());
    Ok(())
}

/// Cuts these pods off when the requests of a load wait. Gives how many were answered, and the time.
async fn part(mesh: &Mesh<'_>, load: &Load, pods: &[Rc<Pod>]) -> Result<(u64, u64)> {
    all_hold().await?;
    let answered = is_held(load).await?;
    for pod in pods {
        mesh.cut_off(pod, true)?;
    }
    Ok((answered, now_us()))
}

/// One whose Envoy counts what it sends more than once.
fn caller(name: &str) -> Workload {
    let annotation = ("sidecar.istio.io/statsInclusionPrefixes".to_owned(), "cluster.outbound".to_owned());
    Workload { workers: 2, annotations: vec![annotation], ..Workload::named(name) }
}

/// Load whose slow requests take longer than Envoy waits before it sends them again.
fn slow() -> LoadPlan {
    LoadPlan { slow_per_s: 1, slow: Duration::from_millis(700), ..plan() }
}

/// Whatever is sent to the service and takes long is sent once more beside what is open; and all of it goes to another
/// service and to both of its versions, too, past the flag.
fn insists() -> Value {
    let cluster = |to: &str| json!({ "cluster": format!("outbound|80|{to}.default.svc.cluster.local") });
    let mirrors = ["|shadow", "v1|reviews", "v2|reviews"].map(cluster);
    let route = json!({
        "request_mirror_policies": mirrors,
        "retry_policy": { "retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.4s" },
        "hedge_policy": { "hedge_on_per_try_timeout": true },
    });
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": { "name": "insists", "namespace": "default" },
        "spec": { "configPatches": [{
            "applyTo": "HTTP_ROUTE",
            "match": {
                "context": "SIDECAR_OUTBOUND",
                "routeConfiguration": { "vhost": { "name": "reviews.default.svc.cluster.local:80" } },
            },
            "patch": { "operation": "MERGE", "value": { "route": route } },
        }] },
    })
}
