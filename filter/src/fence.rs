//! The fences of this VM instance: what has to be told at once. Hostcalls.

use std::cell::Cell;
use std::rc::Rc;

use flag::count::Counter;
use flag::table::{Flag, Table};

use crate::store;
use crate::vm::Vm;

/// A flag that has a fence.
#[derive(Debug)]
pub(crate) struct FencedFlag {
    pub(crate) flag: Rc<Flag>,
    /// Of the version that is left: what is sent to it, and what arrives there.
    old: [Rc<Counter>; 2],
    /// It was shown that its hold has run out.
    expired: Cell<bool>,
}

impl FencedFlag {
    /// Those of a table.
    pub(crate) fn all(table: &Table) -> Vec<FencedFlag> {
        let of = |flag: &Rc<Flag>| {
            Some(FencedFlag { old: flag.draining()?, flag: Rc::clone(flag), expired: Cell::default() })
        };
        table.flags().filter_map(|(_, flag)| of(flag)).collect()
    }

    /// Whether this counts requests to the version that is left.
    pub(crate) fn drains(&self, counter: &Rc<Counter>) -> bool {
        self.old.iter().any(|old| Rc::ptr_eq(old, counter))
    }

    fn holds(&self) -> bool {
        self.flag.observed.gate.holds(&self.flag.record)
    }
}

impl Vm {
    /// The last stream of a version has ended here. Whoever waits for that is told at once.
    pub(crate) fn drained(&self, counter: &Rc<Counter>) {
        let awaited = self
            .fenced
            .borrow()
            .iter()
            .any(|one| one.holds() && one.drains(counter) && one.old.iter().all(|old| old.is_idle()));
        if awaited {
            self.hurry();
        }
    }

    /// Has the instance that polls report now.
    #[cold]
    fn hurry(&self) {
        let Some(me) = self.me.get() else { return };
        self.sync(me);
        if let Some(lease) = store::lease().0 {
            store::wake_instance(lease.holder, me.id);
        }
    }

    /// Whether anything here may change with the time of a moment; what has run out since is told.
    pub(crate) fn watch_fences(&self) -> bool {
        let now_ms = self.seen_ms.get();
        let runs_out =
            |one: &FencedFlag| one.holds() && one.flag.observed.gate.runs_out(now_ms) && !one.expired.replace(true);
        let (ran_out, holds) = {
            let fenced = self.fenced.borrow();
            (fenced.iter().filter(|one| runs_out(one)).count() > 0, fenced.iter().any(FencedFlag::holds))
        };
        if ran_out {
            self.hurry();
        }
        holds || !self.waiting.is_empty()
    }
}
