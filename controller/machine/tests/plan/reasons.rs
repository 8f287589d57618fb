//! What a flag says while it waits, for every reason, in `golden/reasons.txt`; and the page on all reasons,
//! `docs/reference/reasons.md`, which is made from `reason.rs`. Both files are written anew with `UPDATE_GOLDENS=1`.

use std::collections::BTreeSet;
use std::fmt::Write;

use machine::action::Action;
use machine::checks::Verdict;
use machine::observation::Headroom;
use machine::reason::{Group, Reason};
use machine::status::{Phase, Status};
use machine::time::UnixMs;

use crate::fixtures::*;
use crate::golden;

/// One pass that waits: its title, the spec, the status and what is seen.
type Case = (&'static str, &'static str, Status, Seen);

const SETTLING: Phase = Phase::Settling;

fn before_the_start() -> Status {
    with_switch(switching(Phase::Coexisting), |switch| switch.headroom_at = None)
}

fn short() -> Headroom {
    Headroom::Short { message: "2 more pods of 500m cpu do not fit: 300m are free".to_owned() }
}

/// F09: v2 has 2 pods, v1 has 10, and somebody else says so.
fn scaled_by(autoscaler: &str) -> Seen {
    let mut seen = seen().pods("v1", 10, 10).pods("v2", 2, 2);
    seen.0.versions.entry("v2".to_owned()).or_default().autoscalers.push(autoscaler.to_owned());
    seen
}

fn before_the_flip() -> Vec<Case> {
    let (coexisting, promoting) = (switching(Phase::Coexisting), switching(Phase::AwaitingPromotion));
    let unknown = Status { active_version: String::new(), record: None, ..switching(Phase::Adopting) };
    let late = "coexistence: {readyTimeout: 1m}";
    let check = "checks: [{name: a, when: BeforeFlip, onFail: Pause, webhook: {url: 'http://a'}}]";
    vec![
        ("suspended", "suspend: true", switching(Phase::Stable), seen()),
        ("an edit is not valid", "", switching(Phase::Stable), seen().spec_error("spec.version is empty")),
        ("a record is not valid", "", promoting.clone(), seen().in_namespace("no namespace", "app=reviews")),
        ("nothing to adopt", "", unknown, seen().undeclared("v2")),
        ("adopted, and it ends", "", switching(Phase::Adopting), seen().exited("v2")),
        ("nothing to switch to", "", stable_at_v1(), seen().undeclared("v2")),
        ("what serves is not ready", "", switching(Phase::Stable), seen().not_ready("v2")),
        ("what serves ended", "", switching(Phase::Stable), seen().exited("v2")),
        ("no room", "", before_the_start(), seen().not_running("v2").headroom(short())),
        ("nobody knows of room", "", before_the_start(), seen().not_running("v2").headroom(Headroom::Unknown)),
        ("it is weaker", "", switching(Phase::Coexisting), seen().pods("v1", 10, 10).pods("v2", 2, 2)),
        ("an autoscaler keeps it weaker", "", switching(Phase::Coexisting), scaled_by("web")),
        // F23, C41.
        ("replaced in place", "", switching(Phase::Coexisting), seen().relabelled("v1", "Deployment/reviews makes v2")),
        (
            "a proxy does not know it yet",
            "",
            switching(Phase::ProvingRoutes),
            seen().proxies(2).lags("edge", "epoch 8"),
        ),
        ("routes come first", "", before_the_start(), seen().routes(Reason::RoutesPending)),
        ("it ends before the flip", "", coexisting.clone(), seen().exited("v2")),
        ("somebody else is where it would listen", "", coexisting.clone(), seen().barred("v2")),
        ("the first version is not started", "", switching(Phase::Adopting), seen().barred("v2")),
        ("what serves is not started again", "", switching(Phase::Stable), seen().barred("v2")),
        ("it is late", late, coexisting, seen().not_ready("v2")),
        ("a person promotes", "promotion: {mode: Manual}", promoting.clone(), seen()),
        ("a check fails", check, promoting.clone(), seen().checked(Verdict::Failed, NOW)),
        ("a check has no answer", check, promoting, seen()),
        ("routes are warming", "", switching(Phase::ProvingRoutes), seen().routes(Reason::RoutesWarming)),
        ("no filter to load", "", switching(Phase::ProvingRoutes), seen().routes(Reason::FilterUnusable)),
        ("another flag is missing", "", switching(Phase::ProvingRoutes), seen().routes(Reason::OtherFlagUnread)),
        ("no route yet", "", switching(Phase::ProvingRoutes), seen().route_lags("edge", "its route lists v1 only")),
        (
            "not reached",
            "",
            switching(Phase::ProvingRoutes),
            seen().unreached("edge", "cluster c: no healthy host", false),
        ),
        ("a filter that cannot hold", FENCED, switching(Phase::ProvingRoutes), cannot_hold()),
        (
            "no proxy beside it",
            "switch: {mode: Fenced, fence: {inbound: Required}}",
            switching(Phase::ProvingRoutes),
            seen().fence(|_| ()).beside("v1", &["reviews-v1-a"]),
        ),
        ("a long stream", FENCED, switching(Phase::ProvingRoutes), streams()),
        ("it has not looked for long", FENCED, just_now(Phase::ProvingRoutes), looked()),
        ("another fence", FENCED, long_ago(Phase::ProvingRoutes), seen().fence(|_| ()).other_fence("shop/ratings")),
        ("a hold was given up", FENCED, given_up(1), seen().fence(|_| ())),
        ("holds were given up", FENCED, given_up(5), seen().fence(|_| ())),
        ("an ack of a hold", FENCED, switching(Phase::Holding), seen().proxies(2).lags("edge", "epoch 8")),
        ("it drains", FENCED, switching(Phase::Holding), drains()),
        ("no common moment", FENCED, switching(Phase::Holding), seen().fence(|_| ())),
        ("it closes", FENCED, switching(Phase::Committing), seen().proxies(2).lags("v1", "epoch 8")),
        ("clocks differ", "", switching(Phase::ProvingRoutes), seen().reported(NOW + 172_800_000)),
    ]
}

const FENCED: &str = "switch: {mode: Fenced}";

fn cannot_hold() -> Seen {
    let why = "it shows nothing of the fence: its filter is older than this controller, or has not heard of it";
    seen().fence(|fence| fence.unable.push(laggard("edge", why)))
}

fn streams() -> Seen {
    seen().fence(|fence| fence.long.push(laggard("web.shop", "a stream has been open on v1 for 12.3 s")))
}

fn looked() -> Seen {
    seen().fence(|fence| fence.unwatched.push(laggard("web.shop", "it has looked for 800 ms")))
}

fn drains() -> Seen {
    seen().fence(|fence| fence.open.push(laggard("web.shop", "3 requests sent to v1 are open")))
}

fn given_up(attempts: u32) -> Status {
    with_switch(switching(Phase::ProvingRoutes), |switch| {
        let fence = switch.fence.get_or_insert_default();
        (fence.attempts, fence.retry_at) = (attempts, Some(UnixMs(NOW + 1_000)));
        fence.aborted = Some("after 1s: v1 has to drain: requests are open on it at web.shop (1 request)".to_owned());
    })
}

fn long_ago(phase: Phase) -> Status {
    Status { phase_since: UnixMs(LONG_AGO), ..switching(phase) }
}

/// v1 serves, and v2 is asked for.
fn stable_at_v1() -> Status {
    let status = Status { active_version: "v1".to_owned(), switch: None, ..switching(Phase::Stable) };
    recorded(status, NOW - 1, &["v1"])
}

fn after_the_flip() -> Vec<Case> {
    let settling = || switching(SETTLING);
    let check = "checks: [{name: a, onFail: Pause, webhook: {url: 'http://a'}}]";
    let behind = seen().proxies(2).lags("edge", "it is at epoch 8, not 9");
    let alone = seen().proxies(0).acked(0);
    vec![
        ("not acked", "", switching(Phase::Switching), behind.clone()),
        ("nobody to ack", "", switching(Phase::Switching), alone),
        ("it ends while acks are missing", "", switching(Phase::Switching), behind.clone().exited("v2")),
        ("it ends after the flip", "", settling(), seen().exited("v2")),
        ("it is not started again after the flip", "", settling(), seen().barred("v2")),
        ("it is not ready after the flip", "", settling(), seen().not_ready("v2")),
        ("an ack is gone", "", settling(), behind),
        ("an old configuration", "", settling(), seen().config_lags("edge", "epoch 8, not yet 9")),
        ("routes do not fit", "", settling(), seen().routes(Reason::RouteConflict)),
        ("another flag is missing after the flip", "", settling(), seen().routes(Reason::OtherFlagUnread)),
        ("an old route", "", settling(), seen().route_lags("edge", "its route still leads to v0")),
        ("a joiner has not tried", "", settling(), seen().unreached("edge", "it has not tried yet", false)),
        ("not reached any more", "", settling(), seen().unreached("edge", "cluster c: status 503", true)),
        ("past the flag", "", settling(), seen().strays("edge", "35 to reviews/api, by route \"older\" to cluster c")),
        ("from before the filter", "", settling(), seen().filter_came("web.shop", NOW - 1_000)),
        ("nobody knows", "", settling(), seen().quiet_unknown()),
        ("past all filters", "", settling(), seen().busy(0).unmanaged("v1-a.shop", "10.0.0.7", 4)),
        // F15.
        (
            "it calls itself",
            "settle: {timeout: 1s}",
            settling(),
            seen().busy(1).called_by(&["v1-a.shop", "v1-b.shop"], &[]),
        ),
        ("a caller still sends there", "", settling(), seen().busy(0).called_by(&["v1-a.shop"], &["web-0.shop"])),
        ("requests are open", "settle: {timeout: 1h}", settling(), seen().busy(3)),
        ("requests are open for too long", "settle: {timeout: 1s}", settling(), seen().busy(3)),
        ("quiet, not for long enough", "", settling(), seen().quiet_since(NOW - 4_000)),
        ("it bakes", "settle: {bake: 2m}", settling(), seen()),
        ("a check fails after the flip", check, settling(), seen().checked(Verdict::Failed, NOW)),
        ("a check has no answer after the flip", check, settling(), seen()),
        ("a check passed just now", check, settling(), seen().checked(Verdict::Passed, NOW)),
        ("retained", "", with_switch(switching(Phase::Retaining), |one| one.retain_until = at(NOW + 1)), seen()),
        ("removed", "", switching(Phase::Removing), seen()),
        ("it ends slowly", "", switching(Phase::Removing), seen().stopping("v1", &["pod v1-a", "pod v1-b"])),
        ("it hangs", "", settling(), seen().not_ready("v2")),
        ("an ack of the removal", "", just_now(Phase::Removing), seen().proxies(2).lags("edge", "epoch 8")),
        ("the cluster", "", settling(), seen().busy(1).problem(Reason::Forbidden)),
        ("nothing", "", switching(Phase::Stable), seen()),
    ]
}

fn at(ms: u64) -> Option<UnixMs> {
    Some(UnixMs(ms))
}

fn just_now(phase: Phase) -> Status {
    Status { phase_since: UnixMs(NOW), ..switching(phase) }
}

/// Every reason that the switch has of its own is blocked by in one of the cases.
#[test]
fn a_flag_says_what_it_waits_for() {
    let (mut text, mut shown) = (String::new(), BTreeSet::new());
    for (title, more, status, seen) in before_the_flip().into_iter().chain(after_the_flip()) {
        let plan = pass(&spec(more), &status, &seen);
        assert_eq!(plan.status.phase, status.phase, "{title}: it moves");
        let reason = blocked(&plan.status);
        shown.extend(reason);
        let word = reason.map_or("-", Reason::name);
        let said = plan.status.blocked.as_ref().map_or(&plan.waiting, |blocked| &blocked.message);
        let same = if *said == plan.waiting { "" } else { ", which waiting does not say" };
        writeln!(text, "{title} ({})\n  blocked: {word}{same}\n  waiting: {}\n", status.phase.name(), plan.waiting)
            .unwrap();
    }
    golden::compare("controller/machine/tests/golden/reasons.txt", &format!("{}\n", text.trim_end()));
    let of_switch = Reason::ALL.iter().filter(|reason| reason.group() == Group::Switch);
    let never: Vec<_> = of_switch.filter(|reason| !shown.contains(reason)).collect();
    assert!(never.is_empty(), "no case is blocked by {never:?}");
}

/// A pass says the same word for the same wait, however often it is asked, and since when.
#[test]
fn what_blocks_has_blocked_since_it_began() {
    let busy = seen().busy(3).asked_for(Action::Promote);
    let first = next("settle: {timeout: 1s}", &next("settle: {timeout: 1s}", &switching(SETTLING), &busy), &busy);
    let earlier = first.blocked.clone().map(|blocked| machine::status::Blocked { since: UnixMs(NOW - 700), ..blocked });
    let again =
        next("settle: {timeout: 1s}", &Status { blocked: earlier.clone(), ..first.clone() }, &busy.clone().busy(4));
    assert_eq!(again.blocked.unwrap().since, UnixMs(NOW - 700), "the wording changed, the reason did not");
    let other = next("settle: {timeout: 1s}", &Status { blocked: earlier, ..first }, &busy.quiet_unknown());
    assert_eq!(other.blocked.map(|blocked| (blocked.reason, blocked.since)), Some((Reason::QuietUnknown, UnixMs(NOW))));
}

const BEGIN: &str = "<!-- Made from controller/machine/src/reason.rs: UPDATE_GOLDENS=1 cargo test -p versionflag-machine -->\n\n\
# Reasons\n\n";

/// Where the words appear.
const WHERE: &str = "These words are the `reason` of the conditions and Events of a VersionFlag, of the lines `Blocked` \
in the audit log, and of `blocked` in what `versionflag status` prints; a sentence with names and numbers stands beside \
each.";

fn heading(group: Group) -> (&'static str, &'static str) {
    match group {
        Group::Switch => ("The switch waits", "What a flag is blocked by of its own."),
        Group::Cluster => {
            ("Something in the cluster has to be put right", "What the controller found around the flag.")
        }
        Group::Routes => {
            ("The routes do not fit", "While they do not, requests are moved to no other version, and none is removed.")
        }
        Group::Condition => (
            "What conditions say",
            "Words of conditions that tell where a flag stands; nothing is wrong with most of them.",
        ),
    }
}

/// What a reason holds up.
fn holds_up(reason: Reason) -> &'static str {
    match reason.group() {
        Group::Cluster if reason.bars_plugin() => "the beginning, and in a mesh the routes and the plugin",
        Group::Cluster => "the beginning, and in a mesh the routes",
        _ if reason.passes() => "nothing for long: it passes by itself",
        _ if reason.awaits_person() => "the next step, until a person acts",
        _ if reason == Reason::NotQuiet => "the next step, and blocks after `settle.timeout`",
        _ => "the next step",
    }
}

fn page() -> String {
    let mut text = format!("{BEGIN}{WHERE}\n");
    for group in [Group::Switch, Group::Cluster, Group::Routes, Group::Condition] {
        let (title, about) = heading(group);
        // What only tells where a flag stands holds up nothing.
        let (column, line) = if group == Group::Condition { ("", "") } else { (" holds up |", " --- |") };
        write!(text, "\n## {title}\n\n{about}\n\n| word | meaning | what ends it |{column}\n").unwrap();
        writeln!(text, "| --- | --- | --- |{line}").unwrap();
        for reason in Reason::ALL.iter().filter(|reason| reason.group() == group) {
            let (word, meaning, end) = (reason.name(), reason.meaning(), reason.end());
            let holds_up = if column.is_empty() { String::new() } else { format!(" {} |", holds_up(*reason)) };
            writeln!(text, "| `{word}` | {meaning} | {end} |{holds_up}").unwrap();
        }
    }
    text
}

#[test]
fn the_page_on_reasons_is_current() {
    golden::compare("docs/reference/reasons.md", &page());
}

/// Whoever reads a word finds what it means, and what ends it if anything has to end.
#[test]
fn every_reason_is_explained() {
    for reason in Reason::ALL {
        let (meaning, end) = (reason.meaning(), reason.end());
        assert!(meaning.ends_with('.') && (end.is_empty() || end.ends_with('.')), "{reason}");
        assert!(!meaning.contains('|') && !end.contains('|'), "{reason}: a table has no room for it");
        assert!(reason.group() == Group::Condition || !end.is_empty(), "{reason}: nobody knows what ends it");
        assert_eq!(Reason::from(reason.name().to_owned()), *reason);
    }
    assert_eq!(Reason::from("Unheard".to_owned()), Reason::Other);
}
