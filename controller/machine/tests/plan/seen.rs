//! What is seen in a pass: the fine case, to be changed word by word.

use std::ops::Deref;

use flag::record::Gate;
use machine::action::{Action, Request};
use machine::checks::{CheckAnswer, Verdict};
use machine::fleet::fence::FleetFence;
use machine::fleet::ledger::{Laggard, LateFilter, Quiet};
use machine::fleet::unmanaged::UnmanagedCaller;
use machine::history::Happening;
use machine::observation::{
    ClusterFacts, Destination, Headroom, Keeper, Observation, Occurrence, Strength, VersionState,
};
use machine::order::Order;
use machine::reason::{Problem, Reason};
use machine::time::UnixMs;

use crate::fixtures::{LONG_AGO, names};

/// A subset or a Service that has been there since then, with somebody who serves or with nobody.
pub(crate) fn there(since: u64, serves: bool) -> Destination {
    Destination { since: UnixMs(since), serving_since: serves.then_some(UnixMs(since)) }
}

/// v1 and v2 run and are ready; the only proxy acked; v1 has been quiet for a minute.
pub(crate) fn seen() -> Seen {
    let mut seen = Seen(Observation::unknown());
    for version in ["v1", "v2"] {
        seen.0.versions.insert(version.to_owned(), ready(0));
    }
    seen.headroom(Headroom::Fits).proxies(1).acked(1).quiet_since(LONG_AGO)
}

/// A workload that has been ready since then.
pub(crate) fn ready(since: u64) -> VersionState {
    let ready_since = Some(UnixMs(since));
    VersionState { declared: true, running: true, ready: true, ready_since, ..VersionState::default() }
}

/// What is seen in a pass, to be changed word by word.
#[derive(Debug, Clone)]
pub(crate) struct Seen(pub(crate) Observation);

impl Deref for Seen {
    type Target = Observation;

    fn deref(&self) -> &Observation {
        &self.0
    }
}

impl Seen {
    fn with(mut self, change: impl FnOnce(&mut Observation)) -> Seen {
        change(&mut self.0);
        self
    }

    fn workload(self, version: &str, change: impl FnOnce(&mut VersionState)) -> Seen {
        self.with(|seen| change(seen.versions.entry(version.to_owned()).or_default()))
    }

    /// The proxies have clusters of these versions; routes and filters name those, or nobody knows which.
    pub(crate) fn clusters(self, there: &[&str], named: Option<&[&str]>) -> Seen {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let facts = ClusterFacts { there: owned(there), named: named.map(owned) };
        self.with(|seen| seen.clusters = Some(facts))
    }

    /// So many proxies have to ack.
    pub(crate) fn proxies(self, expected: usize) -> Seen {
        self.with(|seen| seen.fleet.expected = expected)
    }

    /// So many proxies acked.
    pub(crate) fn acked(self, acked: usize) -> Seen {
        self.with(|seen| seen.fleet.acked = acked)
    }

    /// This proxy has not acked.
    pub(crate) fn lags(self, proxy: &str, why: &str) -> Seen {
        self.with(|seen| seen.fleet.laggards.push(laggard(proxy, why)))
    }

    /// This proxy has an old configuration.
    pub(crate) fn config_lags(self, proxy: &str, why: &str) -> Seen {
        self.with(|seen| seen.fleet.config_laggards.push(laggard(proxy, why)))
    }

    /// This proxy has shown a route that does not fit.
    pub(crate) fn route_lags(self, proxy: &str, why: &str) -> Seen {
        self.with(|seen| seen.fleet.route_laggards.push(laggard(proxy, why)))
    }

    /// This proxy does not reach the new version; or not any more.
    pub(crate) fn unreached(self, proxy: &str, why: &str, any_more: bool) -> Seen {
        self.with(|seen| {
            seen.fleet.reach_laggards.push(laggard(proxy, why));
            seen.fleet.reach_broken |= any_more;
        })
    }

    /// All reach it without a break since then.
    pub(crate) fn reached_since(self, since: u64) -> Seen {
        self.with(|seen| seen.fleet.reached_since = since)
    }

    /// This proxy sent requests past the flag.
    pub(crate) fn strays(self, proxy: &str, what: &str) -> Seen {
        self.with(|seen| seen.fleet.strays.push(laggard(proxy, what)))
    }

    /// The filter came to this proxy then, and not before.
    pub(crate) fn filter_came(self, proxy: &str, came_ms: u64) -> Seen {
        self.with(|seen| seen.fleet.late_filters.push(LateFilter { proxy: proxy.to_owned(), came_ms }))
    }

    /// So many requests are open on the old version.
    pub(crate) fn busy(self, open: u64) -> Seen {
        self.with(|seen| seen.fleet.old = Quiet::Busy { open })
    }

    /// The old version is called by itself, and by others.
    pub(crate) fn called_by(self, members: &[&str], senders: &[&str]) -> Seen {
        let names = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        self.with(|seen| (seen.fleet.members, seen.fleet.senders) = (names(members), names(senders)))
    }

    /// Nothing has reached the old version since then.
    pub(crate) fn quiet_since(self, since: u64) -> Seen {
        self.with(|seen| seen.fleet.old = Quiet::Since(since))
    }

    /// Nobody knows whether the old version is used.
    pub(crate) fn quiet_unknown(self) -> Seen {
        self.with(|seen| seen.fleet.old = Quiet::Unknown)
    }

    /// Somebody comes past the flag, to this proxy, so often in a second.
    pub(crate) fn unmanaged(self, at: &str, from: &str, per_second: u64) -> Seen {
        let caller = UnmanagedCaller { at: at.to_owned(), from: from.to_owned(), per_second };
        self.with(|seen| seen.fleet.unmanaged.push(caller))
    }

    /// A proxy reports this epoch.
    pub(crate) fn reported(self, epoch: u64) -> Seen {
        self.with(|seen| seen.fleet.highest_epoch = epoch)
    }

    /// A version runs and is not ready.
    pub(crate) fn not_ready(self, version: &str) -> Seen {
        self.workload(version, |one| (one.ready, one.ready_since) = (false, None))
    }

    /// A version is declared and does not run.
    pub(crate) fn not_running(self, version: &str) -> Seen {
        self.workload(version, |one| *one = VersionState { declared: true, ..VersionState::default() })
    }

    /// A version does not run, and nobody knows how to start it.
    pub(crate) fn undeclared(self, version: &str) -> Seen {
        self.workload(version, |one| *one = VersionState::default())
    }

    /// A version runs, and nobody would know how to start it again.
    pub(crate) fn undeclared_and_runs(self, version: &str) -> Seen {
        self.workload(version, |one| *one = VersionState { declared: false, ..ready(0) })
    }

    /// A version ended by itself.
    pub(crate) fn exited(self, version: &str) -> Seen {
        self.exited_with(version, "exit status: 1")
    }

    /// The same, in this way.
    pub(crate) fn exited_with(self, version: &str, how: &str) -> Seen {
        self.not_running(version).workload(version, |one| one.exited = Some(how.to_owned()))
    }

    /// A version is not started, because somebody else is in the way.
    pub(crate) fn barred(self, version: &str) -> Seen {
        let why = "process 77 (python3) listens on 127.0.0.1:9002: end it";
        self.not_running(version).workload(version, |one| one.barred = Some(why.to_owned()))
    }

    /// A version ended, and is started again then.
    pub(crate) fn starts_again(self, version: &str, at: u64) -> Seen {
        self.exited(version).workload(version, |one| one.next_start = Some(UnixMs(at)))
    }

    /// Something happened outside.
    pub(crate) fn occurred(self, at: u64, event: Happening, message: &str) -> Seen {
        let one = Occurrence { at: UnixMs(at), event, message: message.to_owned() };
        self.with(|seen| seen.occurred.push(one))
    }

    /// A version was told to stop, and this of it still runs.
    pub(crate) fn stopping(self, version: &str, what: &[&str]) -> Seen {
        self.workload(version, |one| {
            *one = VersionState { declared: true, running: true, stopped: true, ..VersionState::default() };
            one.ending = what.iter().map(|one| (*one).to_owned()).collect();
        })
    }

    /// What made a version makes another one by now.
    pub(crate) fn relabelled(self, version: &str, object: &str) -> Seen {
        self.workload(version, |one| one.relabelled.push(object.to_owned()))
    }

    /// So many pods of a version serve, of so many that it is asked to have.
    pub(crate) fn pods(self, version: &str, serving: u32, asked: u32) -> Seen {
        self.workload(version, |one| {
            one.strength.insert("reviews".to_owned(), Strength { asked, serving });
            one.ready &= serving == asked;
        })
    }

    /// A version was marked to be kept at this epoch.
    pub(crate) fn kept(self, version: &str, epoch: u64) -> Seen {
        self.workload(version, |one| one.kept_at = Some(epoch))
    }

    /// Something of a version is there that can be deleted.
    pub(crate) fn exists(self, version: &str) -> Seen {
        self.workload(version, |one| one.exists = true)
    }

    /// Whether there is room for one version more.
    pub(crate) fn headroom(self, headroom: Headroom) -> Seen {
        self.with(|seen| seen.headroom = headroom)
    }

    /// Something is wrong with the routes.
    pub(crate) fn routes(self, reason: Reason) -> Seen {
        self.with(|seen| seen.routes = Some(Problem::new(reason, "a sentence on routes")))
    }

    /// Something has to be put right outside.
    pub(crate) fn problem(self, reason: Reason) -> Seen {
        self.with(|seen| seen.problem = Some(Problem::new(reason, "a sentence on the cluster")))
    }

    /// The last edit of the spec is not valid.
    pub(crate) fn spec_error(self, error: &str) -> Seen {
        self.with(|seen| seen.spec_error = Some(error.to_owned()))
    }

    /// No spec was ever valid.
    pub(crate) fn spec_unknown(self) -> Seen {
        self.with(|seen| seen.spec_unknown = true)
    }

    /// What the proxies show of the fence.
    pub(crate) fn fence(self, change: impl FnOnce(&mut FleetFence)) -> Seen {
        self.with(|seen| change(seen.fleet.fence.get_or_insert_default()))
    }

    /// All of them hold, and nothing is open on the old version.
    pub(crate) fn drained(self, waiting: u64) -> Seen {
        self.fence(|fence| (fence.drained, fence.waiting) = (true, waiting))
    }

    /// Another flag holds requests of the same callers.
    pub(crate) fn other_fence(self, name: &str) -> Seen {
        self.with(|seen| seen.other_fence = Some(name.to_owned()))
    }

    /// This of a version has no proxy beside it.
    pub(crate) fn beside(self, version: &str, uncovered: &[&str]) -> Seen {
        self.with(|seen| {
            seen.uncovered.insert(version.to_owned(), names(uncovered));
        })
    }

    /// The controller has led since then only.
    pub(crate) fn led_since(self, since: u64) -> Seen {
        self.with(|seen| seen.leads_since = UnixMs(since))
    }

    /// This controller is about to end.
    pub(crate) fn leaving(self) -> Seen {
        self.with(|seen| seen.leaving = true)
    }

    /// Proxies are sent a record with this gate.
    pub(crate) fn given_out(self, gate: Option<Gate>) -> Seen {
        self.with(|seen| seen.given_out = gate)
    }

    /// The platform keeps what serves running.
    pub(crate) fn kept_by(self, keeper: Keeper) -> Seen {
        self.with(|seen| seen.keeper = keeper)
    }

    /// Only these proxies are sent the record.
    pub(crate) fn audience(self, proxies: &[&str]) -> Seen {
        self.with(|seen| seen.audience = Some(names(proxies)))
    }

    /// A person asks for something; always by the same id.
    pub(crate) fn asked_for(self, action: Action) -> Seen {
        self.with(|seen| seen.request = Some(Request { id: "1".to_owned(), action, switch: None }))
    }

    /// A person asks for something of one version.
    pub(crate) fn ordered(self, order: Order) -> Seen {
        self.with(|seen| seen.order = Some(order))
    }

    /// So many requests are open on a version, as all proxies say.
    pub(crate) fn open(self, version: &str, open: u64) -> Seen {
        self.with(|seen| {
            seen.open.all_known = true;
            seen.open.versions.insert(version.to_owned(), open);
        })
    }

    /// The process of a version was started then.
    pub(crate) fn started(self, version: &str, at: u64) -> Seen {
        self.workload(version, |one| one.started = Some(UnixMs(at)))
    }

    /// The check `a` has had this verdict since then.
    pub(crate) fn checked(self, verdict: Verdict, since: u64) -> Seen {
        let answer = CheckAnswer { verdict, message: "because".to_owned(), since: UnixMs(since) };
        self.with(|seen| {
            seen.checks.insert("a".to_owned(), answer);
        })
    }

    /// The service is in a mesh, in this namespace, and its pods have this label.
    pub(crate) fn in_namespace(self, namespace: &str, selector: &str) -> Seen {
        self.with(|seen| {
            namespace.clone_into(&mut seen.namespace);
            seen.services.entry("reviews".to_owned()).or_default().selector = names(&[selector]);
        })
    }

    /// Routes can lead to this version of `reviews`.
    pub(crate) fn destination(self, version: &str, destination: Destination) -> Seen {
        self.with(|seen| {
            let facts = seen.services.entry("reviews".to_owned()).or_default();
            facts.destinations.insert(version.to_owned(), destination);
        })
    }

    /// This route object of `reviews` leads to these versions.
    pub(crate) fn routed(self, object: &str, versions: &[&str]) -> Seen {
        self.with(|seen| {
            let facts = seen.services.entry("reviews".to_owned()).or_default();
            facts.routed.insert(object.to_owned(), names(versions));
        })
    }
}

pub(crate) fn laggard(proxy: &str, why: &str) -> Laggard {
    Laggard { proxy: proxy.to_owned(), why: why.to_owned() }
}
