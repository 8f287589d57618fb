//! What a test begins with: a spec, something seen, a switch in one of its phases. Each is the fine case, and a
//! test says what differs: `seen().acked(0)`, `switching(Phase::Settling)`, `spec("settle: {timeout: 1s}")`.

use std::collections::BTreeSet;

use flag::record::{Gate, Record};
use machine::duration::Millis;
use machine::observation::Observation;
use machine::plan::{Effect, Pass, Plan, plan};
use machine::reason::Reason;
use machine::record::Draft;
use machine::spec::Spec;
use machine::status::{FenceStatus, Phase, Status, Switch};
use machine::time::UnixMs;

pub(crate) use crate::seen::{Seen, laggard, ready, seen, there};

/// When every test of a single pass takes place, in Unix milliseconds.
pub(crate) const NOW: u64 = 1_000_000;
/// A minute before.
pub(crate) const LONG_AGO: u64 = NOW - 60_000;

/// A spec that asks for v2 of `reviews`, with more members in YAML.
pub(crate) fn spec(more: &str) -> Spec {
    let comma = if more.is_empty() { "" } else { "," };
    let yaml = format!("{{version: v2, services: [{{name: reviews}}]{comma} {more}}}");
    serde_saphyr::from_str(&yaml).unwrap()
}

/// One pass at [`NOW`].
pub(crate) fn pass(spec: &Spec, status: &Status, seen: &Observation) -> Plan {
    plan(Pass { now: UnixMs(NOW), spec, seen }, status)
}

/// The status after one pass at [`NOW`], under [`spec`] with more members.
pub(crate) fn next(more: &str, status: &Status, seen: &Observation) -> Status {
    pass(&spec(more), status, seen).status
}

/// The reason of what blocks, if anything does.
pub(crate) fn blocked(status: &Status) -> Option<Reason> {
    status.blocked.as_ref().map(|blocked| blocked.reason)
}

/// Names as a set.
pub(crate) fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

/// From v1 to v2, in this phase; the record was written a millisecond ago. Before the flip v1 is active, and in
/// `Adopting` nothing is switched.
pub(crate) fn switching(phase: Phase) -> Status {
    let mut status = Status::new("uid", "reviews", UnixMs(0));
    let flipped = !phase.before_flip();
    status.phase = phase;
    status.active_version = if flipped { "v2" } else { "v1" }.to_owned();
    status.target_version = (!matches!(phase, Phase::Adopting | Phase::Stable)).then(|| "v2".to_owned());
    let at = (flipped && !phase.holds()).then_some(UnixMs(LONG_AGO));
    let switch = Switch {
        from: "v1".to_owned(),
        to: "v2".to_owned(),
        ours: true,
        headroom_at: Some(UnixMs(NOW - 90_000)),
        flipped_at: at,
        acked_at: at,
        settled_at: matches!(phase, Phase::Retaining | Phase::Removing).then_some(UnixMs(NOW - 1_000)),
        retain_until: Some(UnixMs(NOW)),
        fence: phase.holds().then(|| holds(phase)),
        ..Switch::default()
    };
    status.switch = (phase != Phase::Adopting).then_some(switch);
    let all: &[&str] = match phase {
        Phase::Adopting | Phase::Stable | Phase::Removing => &["v2"],
        _ => &["v1", "v2"],
    };
    recorded(status, NOW - 1, all)
}

/// A hold of two seconds that began a tenth of one ago.
fn holds(phase: Phase) -> FenceStatus {
    FenceStatus {
        attempts: 1,
        held_at: Some(UnixMs(NOW - 100)),
        led_since: Some(UnixMs(0)),
        max_hold: Millis(2_000),
        since: NOW - 2,
        committed_at: (phase == Phase::Committing).then_some(UnixMs(NOW - 50)),
        ..FenceStatus::default()
    }
}

/// With a record of these versions, written at an epoch.
pub(crate) fn recorded(status: Status, epoch: u64, versions: &[&str]) -> Status {
    let (active, versions) = (status.active_version.as_str(), &names(versions));
    let draft = Draft { uid: &status.uid, name: &status.name, epoch, active, versions, preview: None, before: None };
    let gate = if status.phase.holds() { Gate::Hold } else { Gate::Open };
    let record = Record { gate, ..draft.record(&spec(""), &Observation::unknown()) }.seal().unwrap();
    Status { record: Some(record), ..status }
}

/// With another switch.
pub(crate) fn with_switch(status: Status, change: impl FnOnce(&mut Switch)) -> Status {
    let mut switch = status.switch.clone().unwrap();
    change(&mut switch);
    Status { switch: Some(switch), ..status }
}

/// The switch back to v1, in a phase after the flip.
pub(crate) fn going_back(phase: Phase) -> Status {
    let status = with_switch(switching(phase), |switch| {
        (switch.from, switch.to) = ("v2".to_owned(), "v1".to_owned());
        switch.rollback = true;
    });
    let status = Status { active_version: "v1".to_owned(), target_version: Some("v1".to_owned()), ..status };
    let held = machine::status::Override {
        version: "v1".to_owned(),
        for_spec_version: "v2".to_owned(),
        reason: "by request".to_owned(),
        at: UnixMs(LONG_AGO),
    };
    let versions: &[&str] = if phase == Phase::Removing { &["v1"] } else { &["v1", "v2"] };
    recorded(Status { r#override: Some(held), ..status }, NOW - 1, versions)
}

/// Effects in words, in their order.
pub(crate) fn words(effects: &[Effect]) -> String {
    let word = |effect: &Effect| match effect {
        Effect::Protect { version, epoch } => format!("protect {version} at {epoch}"),
        Effect::Start { version, like: None } => format!("start {version}"),
        Effect::Start { version, like: Some(like) } => format!("start {version} like {like}"),
        Effect::Cluster { versions } => {
            format!("cluster {}", versions.iter().map(String::as_str).collect::<Vec<_>>().join("+"))
        }
        Effect::Publish(_) => "publish".to_owned(),
        Effect::Route(_) => "route".to_owned(),
        Effect::Configure(_) => "configure".to_owned(),
        Effect::Stop { version } => format!("stop {version}"),
        Effect::Delete { version } => format!("delete {version}"),
    };
    effects.iter().map(word).collect::<Vec<_>>().join(", ")
}
