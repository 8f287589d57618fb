//! A fenced switch of the real controller, with a proxy that only says what a proxy says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use flag::count::Totals;
use flag::fence::Gatekeeper;
use flag::instance::{Findings, FlagState};
use flag::level;
use flag::named::Named;
use flag::record::Gate;
use flag::report::Report;
use flag::snapshot::Snapshot;

use super::*;

/// The proxy `edge`: it takes over what it is sent, and reports again and again.
struct Edge {
    service: SocketAddr,
    boot: String,
    /// Streams that are open on v1.
    open: Arc<AtomicU64>,
    /// Every record that it had: gate and active version.
    had: Arc<Mutex<Vec<(Gate, String)>>>,
}

impl Edge {
    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Option<Bytes> {
        let http = HttpClient::plain(ExchangeLimits { bytes: 1 << 20, time: Duration::from_secs(5) }).unwrap();
        let url = format!("http://{}{path}", self.service);
        let request = OutgoingRequest { method, url: &url, headers: &[], body };
        http.exchange(request).await.ok().map(|(_, body)| body)
    }

    async fn live(self) {
        let (keeper, mut revision, mut snapshot) = (Gatekeeper::default(), String::new(), None);
        for seq in 1.. {
            let path = format!("/v1/snapshot?proxy=edge&revision={revision}&waitMs=20&level={}", level::LEVEL);
            let body = self.exchange(Method::GET, &path, Bytes::new()).await.unwrap_or_default();
            if let Ok(new) = Snapshot::parse(&body) {
                revision.clone_from(&new.revision);
                keeper.take(new.asks.as_ref().and_then(|asks| asks.fences.first()), now().0);
                if let Some(record) = new.flags.first() {
                    let is = (record.gate, record.active.clone());
                    let mut had = self.had.lock().unwrap();
                    if had.last() != Some(&is) {
                        had.push(is);
                    }
                }
                snapshot = Some(new);
            }
            let Some(record) = snapshot.as_ref().and_then(|snapshot| snapshot.flags.first()) else { continue };
            let open = self.open.load(Ordering::SeqCst);
            let state = FlagState {
                epoch: record.epoch,
                hash: record.hash.clone(),
                gate: record.gate,
                config_epoch: Some(record.epoch),
                sent: Named::from([("v1".to_owned(), Totals { started: 9, finished: 9 - open })]),
                ..FlagState::default()
            };
            let fenced = keeper.shown(record, now().0);
            let found = Findings { flag: record.uid.clone(), fenced, ..Findings::default() };
            let report = Report {
                protocol: flag::PROTOCOL,
                proxy: "edge".to_owned(),
                boot: self.boot.clone(),
                seq,
                revision: revision.clone(),
                instances: vec![1],
                complete: true,
                flags: Named::from([(record.uid.clone(), state)]),
                findings: vec![],
            };
            let (first, second) = (serde_json::to_vec(&report).unwrap(), serde_json::to_vec(&[found]).unwrap());
            self.exchange(Method::POST, "/v1/report", level::joined(first, &second).into()).await;
        }
    }
}

/// What waits goes to v2 once nothing is open on v1, and back to v1 while something is.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_switch_waits_for_what_is_open() {
    let mut world = World::start().await;
    let (open, had) = (Arc::new(AtomicU64::new(1)), Arc::new(Mutex::new(vec![])));
    let (boot, service) = ("b".to_owned(), world.service);
    let edge = Edge { service, boot, open: Arc::clone(&open), had: Arc::clone(&had) };
    let edge = tokio::spawn(edge.live());
    let v2 = free_address();
    world.edit(|file| {
        let version = json!({ "command": server(v2), "address": v2.to_string(), "ready": { "interval": "20ms" } });
        file["local"]["versions"]["v2"] = version;
        let spec = &mut file["spec"];
        spec["version"] = "v2".into();
        spec["coexistence"] = json!({ "minReady": "0s", "headroom": "Ignore", "probe": { "mode": "None" } });
        spec["switch"] = json!({ "mode": "Fenced", "fence": { "maxHold": "1s", "attempts": 50 } });
        spec["settle"] = json!({ "quietPeriod": "1s" });
    });
    let given_up =
        world.until("it is given up", |view| view["status"]["history"].to_string().contains("Aborted")).await;
    let why = given_up["status"]["switch"]["fence"]["aborted"].to_string();
    assert!(why.contains("1 request sent to v1 is open"), "{given_up}");
    assert_eq!(given_up["status"]["activeVersion"], "v1");
    open.store(0, Ordering::SeqCst);
    let flipped = world.until("settling", |view| view["status"]["phase"] == "Settling").await;
    let fence = &flipped["status"]["switch"]["fence"];
    let at = |name: &str| fence[name].as_u64().unwrap_or_else(|| panic!("no {name}: {fence}"));
    assert!(at("committedAt") <= at("openedAt") && at("heldMs") < 1_000, "{fence}");
    let had = had.lock().unwrap().clone();
    let gate = |gate: Gate, version: &str| (gate, version.to_owned());
    let (hold, open) = (Gate::Hold, Gate::Open);
    assert!(had.starts_with(&[gate(open, "v1"), gate(hold, "v1"), gate(open, "v1")]), "{had:?}");
    assert!(had.ends_with(&[gate(hold, "v1"), gate(hold, "v2"), gate(open, "v2")]), "{had:?}");
    let metrics = world.get("/metrics").await.unwrap();
    assert!(metrics.contains("versionflag_holds_total{outcome=\"committed\"} 1"), "{metrics}");
    edge.abort();
    world.end().await;
}
