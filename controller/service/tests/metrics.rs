//! What `GET /metrics` says of a flag: what is known, no more, and nothing of what is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use flag::count::Totals;
use flag::instance::FlagState;
use flag::named::Named;
use flag::report::Report;
use machine::fleet::ledger::Quiet;
use machine::history::Happening;
use machine::reason::Reason;
use machine::status::{Override, Phase, Status};
use machine::time::UnixMs;
use rstest::rstest;
use service::{FlagView, Limits};

mod running;
mod view;

use crate::running::{SOON, Service};
use crate::view::{at_work, view};

async fn started() -> Service {
    Service::start(Limits::default()).await
}

/// The lines of one metric, without its name and the flag.
async fn lines(service: &Service, metric: &str) -> Vec<String> {
    let text = service.get("/metrics", "").await.body;
    let of_metric =
        text.lines().filter_map(|line| line.strip_prefix(&format!("versionflag_{metric}{{flag=\"shop/reviews\"")));
    of_metric.map(|line| line.trim_start_matches(',').replace(['{', '}', '"'], "")).collect()
}

/// The same view with another status.
fn with(view: &FlagView, change: impl FnOnce(&mut Status)) -> FlagView {
    let mut status = Status::clone(&view.status);
    change(&mut status);
    FlagView { status: status.into(), ..view.clone() }
}

#[rstest]
#[case::blocked("blocked", &["reason=NotQuiet 1"])]
#[case::used("old_version_used", &[" 1"])]
#[case::unknown("evidence_unknown", &[" 0"])]
#[case::overlap("overlap_seconds", &[" 0.25"])]
#[case::open("open_requests", &["version=v1 2"])]
#[case::checks("check", &["check=errors,verdict=passed 0", "check=errors,verdict=failed 0", "check=errors,verdict=inconclusive 1"])]
#[case::requests("requests_total", &["version=v1 0", "version=v2 0"])]
#[case::restarts("version_restarts_total", &["version=v1 0", "version=v2 0"])]
#[case::overridden("overridden", &[" 0"])]
#[tokio::test]
async fn a_switch_that_waits_has_its_lines(#[case] metric: &str, #[case] expected: &[&str]) {
    let service = started().await;
    service.hub.show_flag(at_work());
    assert_eq!(lines(&service, metric).await, expected);
}

#[tokio::test]
async fn nothing_is_said_of_what_is_not_known_or_not_asked() {
    let service = started().await;
    let mut unknown = at_work();
    unknown.fleet.old = Quiet::Unknown;
    unknown.fleet.sent.insert("v1".to_owned(), Totals { started: 1, finished: 2 });
    service.hub.show_flag(with(&unknown, |status| status.switch.as_mut().unwrap().overlap_ms = None));
    assert_eq!(lines(&service, "evidence_unknown").await, [" 1"]);
    for metric in ["old_version_used", "overlap_seconds", "open_requests"] {
        assert!(lines(&service, metric).await.is_empty(), "{metric}");
    }
    // At rest.
    service.hub.show_flag(view());
    assert_eq!(lines(&service, "evidence_unknown").await, [" 0"]);
    for metric in ["blocked", "proxies_lagging_routes", "proxies_lagging_config", "unmanaged_callers", "check"] {
        assert!(lines(&service, metric).await.is_empty(), "{metric}");
    }
}

#[tokio::test]
async fn what_has_to_be_put_right_first_blocks() {
    let service = started().await;
    for (problem, expected) in
        [(Reason::RouteConflict, "reason=RouteConflict 1"), (Reason::RoutesWarming, "reason=NotQuiet 1")]
    {
        service.hub.show_flag(FlagView { problem: Some(problem), ..at_work() });
        assert_eq!(lines(&service, "blocked").await, [expected]);
    }
}

#[tokio::test]
async fn a_version_that_is_held_overrides_the_spec_until_that_asks_for_another_one() {
    let service = started().await;
    let held = |version: &str, asked: &str| {
        with(&FlagView { spec_version: asked.to_owned(), ..view() }, |status| {
            let (version, for_spec_version) = (version.to_owned(), "v2".to_owned());
            let at = UnixMs(0);
            status.r#override = Some(Override { version, for_spec_version, reason: String::new(), at });
        })
    };
    for (version, asked, expected) in [("v1", "v2", " 1"), ("v2", "v2", " 0"), ("v1", "v3", " 0")] {
        service.hub.show_flag(held(version, asked));
        assert_eq!(lines(&service, "overridden").await, [expected], "{version} is held, {asked} is asked for");
    }
}

#[tokio::test]
async fn rollbacks_and_restarts_are_counted_from_the_first_view_on() {
    let service = started().await;
    let rolled_back = |view: &FlagView, at: u64| {
        with(view, |status| status.note(UnixMs(at), Happening::RolledBack, "back to v1".to_owned()))
    };
    let restarted = |view: &FlagView, at: u64| {
        let mut view = view.clone();
        view.versions.get_mut("v2").unwrap().started = Some(UnixMs(at));
        view
    };
    let first = rolled_back(&at_work(), 1);
    service.hub.show_flag(first.clone());
    assert_eq!(lines(&service, "rollbacks_total").await, [" 0"], "it was before");
    let second = restarted(&rolled_back(&first, 2), 9);
    service.hub.show_flag(second.clone());
    service.hub.show_flag(second.clone());
    assert_eq!(lines(&service, "rollbacks_total").await, [" 1"]);
    assert_eq!(lines(&service, "version_restarts_total").await, ["version=v1 0", "version=v2 1"]);
    // v1 is stopped when the switch is over, and started again for the next one.
    let mut over = with(&second, |status| status.phase = Phase::Stable);
    over.versions.get_mut("v1").unwrap().started = None;
    service.hub.show_flag(over.clone());
    let mut next =
        with(&over, |status| (status.phase, status.target_version) = (Phase::Coexisting, Some("v1".to_owned())));
    next.versions.get_mut("v1").unwrap().started = Some(UnixMs(50));
    service.hub.show_flag(next);
    assert_eq!(lines(&service, "version_restarts_total").await, ["version=v1 0", "version=v2 1"]);
}

#[tokio::test]
async fn requests_are_counted_as_proxies_report_them_and_go_with_the_flag() {
    let service = started().await;
    service.hub.show_flag(at_work());
    for (seq, started) in [(1, 1_000), (2, 1_007), (3, 1_009)] {
        let totals = Totals { started, finished: started };
        let sent = Named::from([("v1".to_owned(), totals), ("v9".to_owned(), totals)]);
        let report = Report {
            seq,
            flags: Named::from([("u".to_owned(), FlagState { sent, unroutable: started, ..FlagState::default() })]),
            ..serde_json::from_slice(&running::report("open")).unwrap()
        };
        assert_eq!(service.report(&serde_json::to_vec(&report).unwrap(), "").await.status, 200);
    }
    assert_eq!(lines(&service, "requests_total").await, ["version=v1 9", "version=v2 0"]);
    assert_eq!(lines(&service, "unroutable_responses_total").await, [" 9"]);
    service.hub.forget_flag("shop/reviews");
    let text = service.get("/metrics", "").await.body;
    assert!(!text.contains("shop/reviews"), "{text}");
    service.hub.show_flag(at_work());
    assert_eq!(lines(&service, "requests_total").await, ["version=v1 0", "version=v2 0"]);
}

#[tokio::test]
async fn it_leads_once_it_has_looked_and_until_another_one_does() {
    let service = started().await;
    let leader = async |expected: &str| {
        let body = tokio::time::timeout(SOON, service.get("/metrics", "")).await.unwrap().body;
        assert!(body.contains(&format!("\nversionflag_leader {expected}\n")), "{body}");
    };
    leader("1").await;
    service.hub.set_leads(false);
    leader("0").await;
    service.hub.set_leads(true);
    leader("1").await;
}
