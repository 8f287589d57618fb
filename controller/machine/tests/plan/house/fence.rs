//! Proxies that hold requests: what each does with a fence, what it shows of it, and what must be so when requests go to
//! another version.

use flag::fence::Fence;
use flag::record::{Gate, Record};
use machine::fleet::fence::FleetFence;
use machine::fleet::ledger::Laggard;
use machine::publication::Publication;
use machine::spec::Spec;
use machine::status::{Phase, Status};

use super::House;
use super::proxies::{Proxies, Proxy};

/// What one proxy knows of a fence.
#[derive(Debug, Default)]
pub(crate) struct Held {
    fence: Option<Fence>,
    /// The hold that it began last, until when it lasts, and whether it has run out.
    since: u64,
    until: u64,
    expired: bool,
    /// Requests are open on the version that is left.
    pub(crate) busy: bool,
}

impl Proxy {
    /// Takes over what is asked with the record that is in effect.
    pub(super) fn hear_fence(&mut self, now: u64, published: Option<&Publication>) {
        let Some(published) = published.filter(|one| self.record.as_ref() == Some(&one.record)) else { return };
        let held = &mut self.held;
        held.fence.clone_from(&published.fence);
        if let Some(fence) = published.fence.as_ref().filter(|fence| fence.since > held.since) {
            (held.since, held.until) = (fence.since, now + u64::from(fence.max_hold_ms));
            held.expired = false;
        }
    }

    /// Whether requests wait here under this very record.
    pub(super) fn holds(&self, now: u64, record: &Record) -> bool {
        let same = self.record.as_ref() == Some(record);
        let fence = self.held.fence.as_ref().is_some_and(|fence| fence.epoch == record.epoch);
        same && fence && record.gate == Gate::Hold && !self.has_expired(now)
    }

    fn has_expired(&self, now: u64) -> bool {
        self.held.since > 0 && (self.held.expired || now >= self.held.until)
    }

    /// New requests go to the version that is left, or those that are open end.
    pub(super) fn serve(&mut self, now: u64, busy: bool) {
        let holds = self.record.clone().is_some_and(|record| self.holds(now, &record));
        self.held.busy = busy && (self.held.busy || !holds);
    }
}

impl Proxies {
    /// Whoever holds for too long does not any more.
    pub(super) fn run_out(&mut self, now: u64) {
        for proxy in &mut self.all {
            proxy.held.expired = proxy.has_expired(now);
        }
    }

    /// What they show of the fence of a status.
    pub(super) fn fence(&self, now: u64, spec: &Spec, status: &Status) -> Option<FleetFence> {
        let (asked, record) = (status.asked(spec).fence?, status.record.as_ref()?);
        let mut fence = FleetFence::default();
        for (number, proxy) in self.all.iter().enumerate() {
            let laggard = || Laggard { proxy: format!("proxy-{number}"), why: "behind".to_owned() };
            let has = proxy.held.fence.as_ref().is_some_and(|fence| fence.epoch == record.epoch);
            if !proxy.speaks || !has {
                fence.unable.push(laggard());
            }
            if proxy.speaks && asked.since > 0 && proxy.held.since >= asked.since && proxy.has_expired(now) {
                fence.expired.push(laggard());
            }
            if !proxy.speaks || !proxy.holds(now, record) {
                fence.not_holding.push(laggard());
            }
            if !proxy.speaks || proxy.held.busy {
                fence.open.push(laggard());
            }
        }
        fence.drained = fence.unable.is_empty() && fence.in_the_way().next().is_none();
        Some(fence)
    }
}

impl House {
    /// What waits is let go to the new version by the fence: nobody's hold has run out by then. What is gone back to
    /// because the other one died does not wait for that.
    pub(super) fn guard_opening(&self, record: &Record) {
        let held = self.published.as_ref().is_some_and(|before| before.record.gate == Gate::Hold);
        let opens =
            self.disk.switch.as_ref().and_then(|one| one.fence.as_ref()).is_some_and(|fence| fence.opened_at.is_some());
        if held && opens && self.disk.phase == Phase::Switching && record.gate == Gate::Open {
            assert!(!self.proxies.all.iter().any(|one| one.has_expired(self.now)), "opened when a hold had run out");
        }
    }

    /// Requests go to another version, or will.
    pub(super) fn guard_fence(&self, next: &Status) {
        use Phase::{Committing, Holding, Switching};
        let (from, to) = (self.memory.phase, next.phase);
        let record = self.memory.record.as_ref();
        let proved = || {
            let record = record.unwrap();
            self.proxies.all.iter().all(|one| one.speaks && one.holds(self.now, record) && !one.held.busy)
        };
        let moves = next.active_version != self.memory.active_version;
        if to == Committing && from != Committing {
            assert!(from == Holding && proved(), "committed without the proof");
        }
        if to == Switching && from == Committing {
            assert!(!moves && proved(), "opened without the proof");
            return;
        }
        if to == Switching && moves && self.spec.switch.is_fenced() && self.memory.record.is_some() {
            let switch = next.switch.as_ref().unwrap();
            assert!(switch.rollback && !self.is_ready(&switch.from), "{from:?}: flipped without a fence");
        }
        let committed = |status: &Status| status.record.as_ref().map(|record| record.gate) == Some(Gate::Hold);
        // C: what was let in by nobody is taken back before anybody goes there.
        if from == Committing && to != from && to != Switching {
            assert!(to == Holding && (committed(next) || next.record == self.memory.record), "let go too early");
        }
    }
}
