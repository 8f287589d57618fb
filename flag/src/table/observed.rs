//! What a VM instance counts of one flag. Pure.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use crate::count::Counters;
use crate::fence::Gatekeeper;
use crate::health::HealthChecks;
use crate::{limits, route};

/// How long a route that was matched says something, if no request comes, in milliseconds.
pub const ROUTE_STAYS_MS: u64 = 10_000;

/// What a VM instance counts of one flag, whichever record is in effect.
#[derive(Debug, Default)]
pub struct Observed {
    /// Requests by the version they were sent to.
    pub sent: Counters,
    /// Requests by the version they arrived at, on the inbound side.
    pub arrived: Counters,
    /// Those of them that arrived at a version that is not active and that no filter sent there, by the
    /// address that they came from, since the record is in effect.
    pub(super) strangers: Counters,
    /// Responses that came from another version than the intended one.
    pub unroutable: Cell<u64>,
    /// Records refused because their epoch was used for other content.
    pub conflicts: Cell<u64>,
    /// Name of the route that an ordinary request matched before the filter changed it, since the
    /// record is in effect: what was seen earlier says nothing about the routes for this one.
    pub route: RefCell<Option<String>>,
    /// The same of requests that wait, whichever record was in effect when they came: Envoy gives a request its routes when
    /// it begins.
    waiting_routes: RefCell<Vec<String>>,
    /// Whether its routes are to be proven.
    pub proves_routes: Cell<bool>,
    /// Whether its answers are to be measured.
    pub measured: Cell<bool>,
    /// What is no traffic.
    pub(super) health: RefCell<HealthChecks>,
    /// How much of that came.
    pub checked: Cell<u64>,
    /// Whether the flag service listed the flag last.
    pub(super) listed: Cell<bool>,
    /// Whether the flag has all hosts of its record: where it does not, the record is not in effect as a whole.
    pub(super) owns_hosts: Cell<bool>,
    /// Requests that were open in an earlier round too, and of which it is not known which version serves them.
    pub unplaced: Cell<u64>,
    /// What is held back and refused.
    pub gate: Gatekeeper,
    /// The highest epoch of another flag that claims one of its hosts; 0: none does.
    pub rival_epoch: Cell<u64>,
    /// How many requests had been sent when that grew last, and when it was seen to.
    last_sent: Cell<(u64, u64)>,
}

impl Observed {
    /// Counts a request that no filter sent. Whoever comes when there is no more room has no address.
    pub fn stranger(&self, address: &str) {
        self.strangers.of_some(address, limits::STRANGERS).start();
    }

    /// Whether a request that no filter sent is a health check. It is counted as such.
    pub fn is_check(&self, header: impl Fn(&str) -> Option<String>) -> bool {
        let is = self.health.borrow().matches(header);
        self.checked.set(self.checked.get().saturating_add(u64::from(is)));
        is
    }

    /// The requests that are open at a flag that has had the same hosts until now: whoever has them now has these too.
    pub(super) fn take_over(&self, before: &Observed) {
        self.sent.take_over(&before.sent);
        self.arrived.take_over(&before.arrived);
    }

    /// Whether no request is open.
    pub(super) fn idle(&self) -> bool {
        self.sent.open() == 0 && self.arrived.open() == 0
    }

    /// A request waits that matched this route. Of one that says nothing of versions nothing is kept, and what there is no
    /// more room for is not known to lead anywhere.
    pub fn waits(&self, route: Option<String>) {
        let mut routes = self.waiting_routes.borrow_mut();
        let Some(route) = route.filter(|route| route::says(route) && !routes.contains(route)) else { return };
        if routes.len() < limits::ROUTES {
            routes.push(route);
        } else if routes.len() == limits::ROUTES {
            routes.push(route::MORE.to_owned());
        }
    }

    /// The routes of what waits, and the one that was matched lately. One that was matched before traffic stopped, or went
    /// where this filter does not see it, would say the same for ever, whatever the routes are by now.
    pub(super) fn routes(&self, now_ms: u64) -> BTreeSet<String> {
        let (known, since_ms) = self.last_sent.get();
        let sent = self.sent.started();
        if sent != known {
            self.last_sent.set((sent, now_ms));
        } else if now_ms.saturating_sub(since_ms) > ROUTE_STAYS_MS {
            self.route.take();
        }
        let mut waiting = self.waiting_routes.borrow_mut();
        if self.gate.waiting.get() == 0 {
            waiting.clear();
        }
        // Collecting would sort first: see `insert_all`.
        let mut routes = BTreeSet::new();
        routes.extend(self.route.borrow().clone());
        routes.extend(waiting.iter().cloned());
        routes
    }
}
