//! What a status asks for, again and again until the world is like it: the effects, in the order in which they
//! are executed. Pure.

use flag::record::{Gate, Record};

use super::{Effect, Pass, RouteOrder, orders, settled, suspended};
use crate::duration::Millis;
use crate::observation::Keeper;
use crate::publication::Publication;
use crate::spec::Replicas;
use crate::status::{Phase, Status, Switch};
use crate::time::UnixMs;

/// How long the configuration of the proxies waits for the acks of a flip: writing it makes each
/// proxy reconfigure, which is not wanted in the milliseconds in which the flip spreads.
const CONFIGURE_AFTER: Millis = Millis(1_000);

/// The effects in order, and when there may be more of them for the clock alone. A version that is gone back to is
/// protected, and what is needed started, before requests are sent there; clusters come before what names them; what
/// others still read is written before anything is stopped.
pub(super) fn effects(pass: Pass<'_>, status: &Status) -> (Vec<Effect>, Option<UnixMs>) {
    let Some(record) = &status.record else {
        return (vec![], None);
    };
    let mut effects = vec![];
    let switch = status.switch.as_ref().filter(|_| !suspended(pass.spec, status));
    effects.extend(protect(pass, status));
    let rollback = switch.is_some_and(|switch| switch.rollback);
    if rollback || pass.holding().is_none() {
        effects.extend(starts(pass, status, switch));
    }
    effects.extend(cluster(pass, record));
    effects.push(Effect::Publish(Box::new(Publication::of(pass.spec, status, pass.seen, record))));
    // A hold is over in a moment: what proxies read is as it was before it, until it is known where requests go.
    let more = if record.gate == Gate::Hold {
        None
    } else {
        let (order, more) = RouteOrder::of(pass, status, record).unzip();
        effects.extend(order.map(|order| Effect::Route(Box::new(order))));
        effects.extend(configure(pass, status, record));
        more
    };
    let removal = switch.and_then(|switch| remove(pass, status, switch));
    effects.extend(orders::stops(pass, status).filter(|stop| removal.as_ref() != Some(stop)));
    effects.extend(removal);
    (effects, more.flatten())
}

/// Another leader may have decided to stop what this one is about to send requests to: it is marked before the flip,
/// or, where it is gone back to at once, before the record is published.
fn protect(pass: Pass<'_>, status: &Status) -> Option<Effect> {
    let switch = status.switch.as_ref()?;
    let version = match status.phase {
        Phase::AwaitingPromotion | Phase::ProvingRoutes => &switch.to,
        Phase::Switching if switch.rollback => &status.active_version,
        _ => return None,
    };
    let marked = pass.seen.workload(version).kept_at == Some(status.epoch());
    (!marked).then(|| Effect::Protect { version: version.clone(), epoch: status.epoch() })
}

/// What has to run. What was stopped by request stays so.
fn starts(pass: Pass<'_>, status: &Status, switch: Option<&Switch>) -> Vec<Effect> {
    let other = switch.and_then(|switch| start_other(pass, status, switch));
    let mut starts: Vec<Effect> =
        start_active(pass, status).into_iter().chain(other).chain(orders::starts(pass, status)).collect();
    let mut known = status.halted.clone();
    starts.retain(|one| !matches!(one, Effect::Start { version, .. } if !known.insert(version.clone())));
    starts
}

/// Where somebody else keeps it running and nothing is switched, whoever scales the version that serves means it.
fn start_active(pass: Pass<'_>, status: &Status) -> Option<Effect> {
    let rests = matches!(status.phase, Phase::Adopting | Phase::Stable);
    let left_alone = rests && pass.seen.keeper == Keeper::Platform;
    // What was gone back to gets the strength of what it takes the traffic from.
    let back = status.switch.as_ref().filter(|switch| switch.rollback && !rests && switch.to == status.active_version);
    let matches = pass.spec.coexistence.replicas == Replicas::MatchActive;
    let like = back.filter(|_| matches).map(|switch| switch.from.clone());
    (!left_alone).then(|| Effect::Start { version: status.active_version.clone(), like })
}

/// The version that is gone to; and what was just left, which must be there to be gone back to.
fn start_other(pass: Pass<'_>, status: &Status, switch: &Switch) -> Option<Effect> {
    let version = match status.phase {
        phase if phase.before_flip() && switch.headroom_at.is_some() => &switch.to,
        // What was rolled back need not be there, but while what waits may still be let go there.
        Phase::Committing => &switch.from,
        Phase::Switching | Phase::Settling | Phase::Retaining if switch.may_roll_back() => &switch.from,
        _ => return None,
    };
    let like = status.strength_of_new(pass.spec.coexistence.replicas);
    Some(Effect::Start { version: version.clone(), like: like.map(str::to_owned) })
}

impl Status {
    /// The version whose strength a new one gets; `None`: as it is declared.
    pub fn strength_of_new(&self, replicas: Replicas) -> Option<&str> {
        (replicas == Replicas::MatchActive).then_some(self.active_version.as_str())
    }
}

/// A cluster is there before anything names it. It goes, in a later pass, when nothing names it any more and nothing of
/// its version runs: what runs was not proved to be quiet.
fn cluster(pass: Pass<'_>, record: &Record) -> Option<Effect> {
    let facts = pass.seen.clusters.as_ref()?;
    let named = |version: &String| facts.named.as_ref().is_none_or(|named| named.contains(version));
    let known = pass.seen.versions.iter().filter(|(_, state)| state.can_run()).map(|(version, _)| version);
    let kept = facts.there.iter().filter(|version| named(version));
    Some(Effect::Cluster { versions: known.chain(&record.versions).chain(kept).cloned().collect() })
}

fn configure(pass: Pass<'_>, status: &Status, record: &Record) -> Option<Effect> {
    let spreading = status.phase == Phase::Switching
        && !pass.seen.fleet.all_acked()
        && pass.now.since(status.phase_since) < CONFIGURE_AFTER;
    let barred = pass.seen.problem.as_ref().is_some_and(|problem| problem.reason.bars_plugin());
    (!spreading && !barred).then(|| Effect::Configure(Box::new(record.clone())))
}

/// The proof is asked for again in the very pass of the stop.
fn remove(pass: Pass<'_>, status: &Status, switch: &Switch) -> Option<Effect> {
    let leaves = status.phase == Phase::Removing && switch.from != status.active_version;
    if !leaves || settled::may_go(pass, switch).is_err() {
        return None;
    }
    let (version, left) = (switch.from.clone(), pass.seen.workload(&switch.from));
    if left.running {
        return (!left.stopped).then_some(Effect::Stop { version });
    }
    (left.exists && settled::deletes(pass.spec, switch)).then_some(Effect::Delete { version })
}
