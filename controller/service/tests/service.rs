//! The flag service over HTTP: who may speak for a proxy, long polls, and what a client may take.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use flag::instance::FlagState;
use flag::report::Report;
use flag::snapshot::Snapshot;
use machine::observation::Observation;
use machine::publication::Publication;
use machine::record::Draft;
use machine::status::Status;
use machine::time::UnixMs;
use rstest::rstest;
use serde_json::Value;
use service::{FlagView, Limits, router};
use tokio::io::AsyncWriteExt;
use tower::Service as _;

use crate::running::{Answer, SOON, Service, flips, hub, publication, report};
use crate::view::view;

mod running;
mod view;

#[rstest]
#[case::no_token_needed("open", "", true)]
#[case::its_token("edge", "authorization: Bearer secret-1\r\n", true)]
#[case::no_token("edge", "", false)]
#[case::a_wrong_token("edge", "authorization: Bearer secret\r\n", false)]
#[case::another_scheme("edge", "authorization: secret-1\r\n", false)]
#[case::the_token_of_another("edge", "authorization: Bearer secret-2\r\n", false)]
#[case::not_expected("stranger", "authorization: Bearer secret-1\r\n", false)]
#[tokio::test]
async fn only_a_proxy_speaks_for_itself(#[case] proxy: &str, #[case] header: &str, #[case] granted: bool) {
    let service = Service::start(Limits::default()).await;
    service.publish(1_000);
    let reported = service.report(&report(proxy), header).await;
    let polled = service.get(&format!("/v1/snapshot?proxy={proxy}"), header).await;
    if granted {
        assert_eq!((reported.status, polled.status), (200, 200), "{reported:?} {polled:?}");
        return;
    }
    for answer in [reported, polled] {
        assert_eq!((answer.status, answer.reason().as_str()), (403, "sender"), "{answer:?}");
        assert!(!answer.body.contains("secret"), "{answer:?}");
    }
}

#[tokio::test]
async fn another_machine_needs_a_token() {
    let here = ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"].map(|peer| (peer, 200, 404));
    // 127.0.0.6 is whoever a sidecar of Istio's lets in.
    let elsewhere = ["198.51.100.1:1", "127.0.0.6:1", "[::ffff:127.0.0.6]:1"].map(|peer| (peer, 403, 403));
    for (peer, taken, asked) in here.into_iter().chain(elsewhere) {
        let hub = hub();
        hub.publish(publication("reviews", 1_000));
        let peer: SocketAddr = peer.parse().unwrap();
        let unknown = Body::from(r#"{"flag": "none", "action": "rollback"}"#);
        let requests = [
            (Request::get("/v1/snapshot?proxy=open").body(Body::empty()), taken),
            (Request::post("/v1/report").body(Body::from(report("open"))), taken),
            (Request::post("/v1/requests").header("content-type", "application/json").body(unknown), asked),
        ];
        for (request, status) in requests {
            let mut request = request.unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router(Arc::clone(&hub), Limits::default()).call(request).await.unwrap();
            assert_eq!(answer.status(), status, "{peer}");
        }
    }
}

#[tokio::test]
async fn a_late_copy_of_a_report_is_refused() {
    let service = Service::start(Limits::default()).await;
    assert_eq!(service.report(&report("open"), "").await.status, 200);
    let again = service.report(&report("open"), "").await;
    assert_eq!((again.status, again.reason().as_str()), (409, "stale"));
    let malformed = service.report(b"{}", "").await;
    assert_eq!((malformed.status, malformed.reason().as_str()), (400, "malformed"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_its_end() {
    let service = Service::start(Limits::default()).await;
    let just_over = service.report(&vec![b' '; flag::limits::REPORT_BYTES + 1], "").await;
    assert_eq!((just_over.status, just_over.reason().as_str()), (413, "too_large"));
    // Of a body without end no more than the limit is needed.
    let mut stream = service.connect().await;
    stream.write_all(b"POST /v1/report HTTP/1.1\r\nhost: a\r\ncontent-length: 1099511627776\r\n\r\n").await.unwrap();
    stream.write_all(&vec![b' '; flag::limits::REPORT_BYTES + 1]).await.unwrap();
    let endless = Answer::read(stream).await;
    assert_eq!((endless.status, endless.reason().as_str()), (413, "too_large"));
}

#[tokio::test]
async fn a_poll_is_answered_when_something_changes() {
    let service = Service::start(Limits::default()).await;
    let begin = Instant::now();
    let nothing = service.poll("proxy=open&waitMs=200").await;
    assert_eq!((nothing.status, nothing.body.as_str()), (204, ""));
    assert!(begin.elapsed() >= Duration::from_millis(200), "it did not wait");

    service.publish(1_000);
    let first = service.poll("proxy=open&waitMs=30000").await;
    let first = Snapshot::parse(first.body.as_bytes()).unwrap();
    assert_eq!(first.report_every_ms, 1_000);
    let same = format!("proxy=open&revision={}", first.revision);
    assert_eq!(service.poll(&format!("{same}&waitMs=100")).await.status, 204);

    let waits = format!("{same}&waitMs=30000");
    let change = async {
        // Not before both wait: connections that were accepted are polled before this task again.
        for _ in 0..2 {
            assert_eq!(service.poll("proxy=open&waitMs=1&revision=none").await.status, 200);
        }
        service.publish(100);
        Instant::now()
    };
    let (one, other, changed) = tokio::join!(service.poll(&waits), service.poll(&waits), change);
    assert!(changed.elapsed() < SOON, "answered {:?} after the change", changed.elapsed());
    for answer in [one, other] {
        assert_eq!(Snapshot::parse(answer.body.as_bytes()).unwrap().report_every_ms, 100);
    }
}

#[tokio::test]
async fn a_snapshot_has_every_flag_until_it_is_gone() {
    let service = Service::start(Limits::default()).await;
    let poll = async || Snapshot::parse(service.poll("proxy=open&waitMs=1000").await.body.as_bytes()).unwrap();
    let names = |snapshot: &Snapshot| snapshot.flags.iter().map(|flag| flag.name.clone()).collect::<Vec<_>>();
    assert!(service.hub.publish(publication("reviews", 1_000)));
    assert!(service.hub.publish(Publication { prove_routes: true, ..publication("ratings", 100) }));
    assert!(!service.hub.publish(publication("reviews", 1_000)), "nothing changed");
    let both = poll().await;
    assert_eq!((names(&both), both.report_every_ms), (vec!["ratings".to_owned(), "reviews".to_owned()], 100));
    assert_eq!(both.prove_routes, ["ratings"]);
    let elsewhere = Some(BTreeSet::from(["edge".to_owned()]));
    service.hub.publish(Publication { audience: elsewhere, ..publication("details", 1_000) });
    assert_eq!(poll().await, both, "what others are sent is no change");
    service.hub.forget_flag("ratings");
    let one = poll().await;
    assert_eq!((names(&one), one.report_every_ms), (vec!["reviews".to_owned()], 1_000));
    assert_ne!(both.revision, one.revision);
}

/// T15: a controller that begins has proxies wait until it has published all of its flags.
#[tokio::test]
async fn polls_wait_for_all_flags() {
    let service = Service::start(Limits::default()).await;
    service.hub.set_incomplete(true);
    service.hub.publish(publication("reviews", 1_000));
    assert_eq!(service.poll("proxy=open&waitMs=50").await.status, 204, "some are not all");
    let all = async {
        service.hub.publish(publication("ratings", 1_000));
        service.hub.set_incomplete(false);
    };
    let (answer, ()) = tokio::join!(service.poll("proxy=open&waitMs=30000"), all);
    assert_eq!(Snapshot::parse(answer.body.as_bytes()).unwrap().flags.len(), 2);
}

/// C14: a controller that leads no more sends its proxies away, on connections that were kept open too.
#[tokio::test]
async fn who_does_not_lead_sends_proxies_away() {
    let service = Service::start(Limits::default()).await;
    service.hub.publish(publication("reviews", 1_000));
    let answer = service.poll("proxy=open").await;
    assert_eq!(answer.status, 200);
    let revision = serde_json::from_str::<Value>(&answer.body).unwrap()["revision"].as_str().unwrap().to_owned();
    // It waits on a connection that it means to keep.
    let mut kept = service.connect().await;
    let head = format!("GET /v1/snapshot?proxy=open&waitMs=20000&revision={revision} HTTP/1.1\r\nhost: a\r\n\r\n");
    kept.write_all(head.as_bytes()).await.unwrap();
    let waiting = tokio::spawn(Answer::read(kept));
    tokio::task::yield_now().await;
    service.hub.set_leads(false);
    let sent_away = waiting.await.unwrap();
    assert_eq!((sent_away.status, sent_away.reason().as_str()), (503, "not_leading"));
    assert_eq!(service.report(&report("open"), "").await.status, 503);
    assert_eq!(service.poll("proxy=open").await.status, 503);
    service.hub.set_leads(true);
    assert_eq!(service.poll("proxy=open").await.status, 200);
    assert_eq!(service.report(&report("open"), "").await.status, 200);
}

/// C24: a page in a browser posts nothing, by whatever name it reached the service.
#[rstest]
#[case::a_page("origin: https://evil.example\r\n", 403)]
#[case::a_page_by_another_name_of_this_machine("origin: http://a\r\n", 403)]
#[case::a_proxy("", 200)]
#[tokio::test]
async fn no_page_reports_or_asks(#[case] header: &str, #[case] status: u16) {
    let service = Service::start(Limits::default()).await;
    assert_eq!(service.report(&report("open"), header).await.status, status);
}

/// C24: a name of somebody else, which leads to this machine, reads nothing here.
#[rstest]
#[case("evil.example", 403)]
#[case("evil.example:7070", 403)]
#[case("127.0.0.1.evil.example", 403)]
#[case("127.0.0.1", 200)]
#[case("[::1]:7070", 200)]
#[case("localhost:7070", 200)]
#[tokio::test]
async fn no_page_reads_by_a_name_of_its_own(#[case] host: &str, #[case] status: u16) {
    let service = Service::start(Limits::default()).await;
    assert_eq!(service.get_by(host, "/v1/status", "").await.status, status);
    // A proxy asks by the name of its cluster.
    assert_ne!(service.get_by(host, "/v1/snapshot?proxy=open&waitMs=0", "").await.status, 403);
}

#[tokio::test]
async fn where_the_time_of_a_flip_went_is_shown() {
    let service = Service::start(Limits::default()).await;
    let published = publication("reviews", 100);
    let (uid, flips) = (published.record.uid.clone(), flips(&published));
    let view = FlagView { name: "reviews".to_owned(), status: flips.clone().into(), ..view() };
    service.hub.show_flag(view.clone());
    let shown = async || {
        let answer = service.get("/v1/status", "").await;
        let flags: Vec<FlagView> = serde_json::from_str(&answer.body).unwrap();
        flags.first().and_then(|flag| flag.flip.clone())
    };
    assert_eq!(shown().await, None);
    let before = Status { record: None, switch: None, ..flips.clone() };
    let expected = BTreeSet::from(["open".to_owned()]);
    let look = (UnixMs(7), Instant::now());
    service.hub.stopwatch.decided(&before, &flips, &expected, look.0, look.1);
    tokio::time::sleep(Duration::from_millis(2)).await;
    service.hub.stopwatch.written(&uid);
    // No proxy can have it before.
    let hash = published.record.hash.clone();
    let report = |proxy: &str, seq: u64, epoch: u64, hash: &str| {
        let state = FlagState { epoch, hash: hash.to_owned(), ..FlagState::default() };
        let mut report: Report = serde_json::from_slice(&report(proxy)).unwrap();
        (report.seq, report.flags) = (seq, [(uid.clone(), state)].into_iter().collect());
        serde_json::to_vec(&report).unwrap()
    };
    let early = service.report(&report("open", 2, 0, ""), "").await;
    service.hub.publish(published);
    assert_eq!((early.status, shown().await.unwrap().acked.proxies), (200, 0));
    for _ in 0..2 {
        assert_eq!(service.poll("proxy=open").await.status, 200);
    }
    let sent = shown().await.unwrap();
    assert_eq!((sent.sent.proxies, sent.acked.proxies), (1, 0));
    // Neither one that is late, nor another record, nor somebody who is not waited for.
    let edge = "authorization: Bearer secret-1\r\n";
    assert_eq!(service.report(&report("open", 1, 1, &hash), "").await.status, 409);
    assert_eq!(service.report(&report("open", 3, 1, "another"), "").await.status, 200);
    assert_eq!(service.report(&report("edge", 1, 1, &hash), edge).await.status, 200);
    assert_eq!(service.get("/v1/snapshot?proxy=edge", edge).await.status, 200);
    // The same flip, written again.
    service.hub.stopwatch.decided(&flips, &flips, &expected, UnixMs(9), Instant::now());
    assert_eq!((shown().await.unwrap().sent.proxies, shown().await.unwrap().acked.proxies), (1, 0));
    assert_eq!(service.report(&report("open", 4, 1, &hash), "").await.status, 200);
    service.hub.observe_flip(&uid, 0.1);
    let flip = shown().await.unwrap();
    assert_eq!((flip.epoch, flip.at, flip.sent.proxies, flip.acked.proxies), (1, UnixMs(7), 1, 1));
    assert!(flip.write_ms >= 2.0 && flip.sent.max_ms > 0.0 && flip.acked.max_ms > flip.sent.max_ms, "{flip:?}");
    let metrics = service.get("/metrics", "").await.body;
    for part in ["decide", "write", "publish", "send", "ack"] {
        assert!(metrics.contains(&format!("flip_part_seconds_count{{part=\"{part}\"}} 1")), "{part}: {metrics}");
    }
    service.hub.forget_flag("reviews");
    service.hub.show_flag(view);
    assert_eq!(shown().await, None);
}

/// C25: whoever may look at flags does not learn how to choose a version.
#[tokio::test]
async fn a_status_hides_what_chooses_a_version() {
    let service = Service::start(Limits::default()).await;
    let yaml = "{version: v1, services: [{name: reviews}], preview: {header: x-try, value: s3cret}}";
    let spec = serde_saphyr::from_str(yaml).unwrap();
    let versions = BTreeSet::from(["v1".to_owned()]);
    let preview = Some("v1");
    let draft = Draft { uid: "u", name: "reviews", epoch: 1, active: "v1", versions: &versions, preview, before: None };
    let record = draft.record(&spec, &Observation::unknown()).seal().unwrap();
    let shown = view();
    let status = Status { record: Some(record), ..shown.status.as_ref().clone() };
    service.hub.show_flag(FlagView { status: status.into(), ..shown });
    let shown = service.get("/v1/status", "").await;
    assert!(shown.body.contains("x-try") && !shown.body.contains("s3cret"), "{}", shown.body);
}

/// C18: one proxy does not take the places of others. Who polls anew is answered: what it asked before may be lost.
#[tokio::test]
async fn a_proxy_has_a_few_polls_at_a_time() {
    let service = Service::start(Limits::default()).await;
    service.publish(1_000);
    let first = Snapshot::parse(service.poll("proxy=open").await.body.as_bytes()).unwrap();
    let waits = format!("proxy=open&waitMs=30000&revision={}", first.revision);
    let mut polls = tokio::task::JoinSet::new();
    // The ninth has the first one answered, which is asked again then, and so on.
    for number in 0..9 {
        let head = format!("GET /v1/snapshot?{waits} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let mut stream = service.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        polls.spawn(async move { (number, Answer::read(stream).await.status) });
        // One after the other.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = tokio::time::timeout(SOON, polls.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(ended, (0, 204));
    service.publish(100);
    let mut answers = polls.join_all().await;
    answers.sort_unstable();
    assert_eq!(answers, (1..9).map(|number| (number, 200)).collect::<Vec<_>>());
}
