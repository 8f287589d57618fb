//! Requests in flight by version. Pure.
//!
//! Counters only grow: open is started minus finished, and two equal totals prove that nothing
//! happened between them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use serde::Serialize;

use crate::answers::{BUCKETS, bucket};
use crate::named::Named;
use crate::read_fields;

/// Totals of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Requests ever sent to the version.
    pub started: u64,
    /// Those of them whose stream has ended.
    pub finished: u64,
}

read_fields! { Totals { started: "started", finished: "finished" } }

impl Totals {
    /// Requests in flight; `None` where the totals contradict themselves.
    pub fn open(self) -> Option<u64> {
        self.started.checked_sub(self.finished)
    }

    /// The sum of two parts.
    pub fn plus(self, other: Totals) -> Totals {
        Totals {
            started: self.started.saturating_add(other.started),
            finished: self.finished.saturating_add(other.finished),
        }
    }
}

/// The counter of one version in one VM instance. Shared by its open requests.
#[derive(Debug)]
pub struct Counter {
    version: Box<str>,
    totals: Cell<Totals>,
    /// By latency.
    answers: [Cell<Totals>; BUCKETS],
    /// It counts no new request: another flag has taken it over.
    closed: Cell<bool>,
}

impl Counter {
    /// The version that this counts.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A request is sent.
    pub fn start(&self) {
        let totals = self.totals.get();
        self.totals.set(Totals { started: totals.started.wrapping_add(1), ..totals });
    }

    /// Its stream has ended.
    pub fn finish(&self) {
        let totals = self.totals.get();
        self.totals.set(Totals { finished: totals.finished.wrapping_add(1), ..totals });
    }

    /// Whether none of its streams is open.
    pub fn is_idle(&self) -> bool {
        self.totals.get().open() == Some(0)
    }

    /// It was answered.
    pub fn answered(&self, ms: u64, failed: bool) {
        if let Some(answers) = self.answers.get(bucket(ms)) {
            let Totals { started, finished } = answers.get();
            let finished = finished.wrapping_add(u64::from(!failed));
            answers.set(Totals { started: started.wrapping_add(1), finished });
        }
    }
}

/// The counters of one flag by version. They outlive changes of the flag. A list: there are a
/// handful of versions.
#[derive(Debug, Default)]
pub struct Counters(RefCell<Vec<Rc<Counter>>>);

impl Counters {
    /// The counter of a version, made when first asked for.
    pub fn of(&self, version: &str) -> Rc<Counter> {
        let mut counters = self.0.borrow_mut();
        if let Some(counter) = counters.iter().find(|counter| counter.version() == version && !counter.closed.get()) {
            return Rc::clone(counter);
        }
        let counter = Rc::new(Counter {
            version: version.into(),
            totals: Cell::default(),
            answers: Default::default(),
            closed: Cell::default(),
        });
        counters.push(Rc::clone(&counter));
        counter
    }

    /// Counts on what is open at the counters of another flag, which has others for its new requests from now on.
    pub fn take_over(&self, before: &Counters) {
        let mut counters = self.0.borrow_mut();
        for counter in before.0.borrow().iter().filter(|counter| counter.totals.get().open() != Some(0)) {
            counter.closed.set(true);
            if !counters.iter().any(|known| Rc::ptr_eq(known, counter)) {
                counters.push(Rc::clone(counter));
            }
        }
    }

    /// The same where anybody may come: whoever does when there are so many counters shares one.
    pub fn of_some(&self, name: &str, most: usize) -> Rc<Counter> {
        let counters = self.0.borrow();
        let room = counters.len() < most || counters.iter().any(|counter| counter.version() == name);
        drop(counters);
        self.of(if room { name } else { "" })
    }

    /// Drops what others have taken over.
    pub fn forget_taken(&self) {
        self.0.borrow_mut().retain(|counter| !counter.closed.get());
    }

    /// Drops the oldest that nobody names and that have nothing open, until there are few enough: a proxy lives
    /// through any number of releases.
    pub fn forget_over(&self, named: &BTreeSet<String>, most: usize) {
        let mut counters = self.0.borrow_mut();
        let mut over = counters.len().saturating_sub(most);
        counters.retain(|counter| {
            let named = named.contains(counter.version()) && !counter.closed.get();
            let stays = over == 0 || named || counter.totals.get().open() != Some(0);
            over -= usize::from(!stays);
            stays
        });
    }

    /// Begins anew.
    pub fn forget(&self) {
        self.0.borrow_mut().clear();
    }

    /// Requests ever sent, to any version.
    pub fn started(&self) -> u64 {
        self.0.borrow().iter().fold(0, |sum, counter| sum.saturating_add(counter.totals.get().started))
    }

    /// Requests that are open, to any version.
    pub fn open(&self) -> u64 {
        let open = |counter: &Rc<Counter>| counter.totals.get().open().unwrap_or(u64::MAX);
        self.0.borrow().iter().map(open).fold(0, u64::saturating_add)
    }

    /// The totals of all versions.
    pub fn totals(&self) -> Named<Totals> {
        let mut totals = Named::<Totals>::new();
        for counter in self.0.borrow().iter() {
            let sum = totals.get(counter.version()).copied().unwrap_or_default();
            totals.insert(counter.version().to_owned(), sum.plus(counter.totals.get()));
        }
        totals
    }

    /// Answers by version and latency: see [`crate::answers`].
    pub fn answers(&self) -> Named<Totals> {
        let mut answers = Named::new();
        for counter in self.0.borrow().iter().filter(|counter| !counter.closed.get()) {
            let some = counter.answers.iter().enumerate().filter(|(_, totals)| totals.get().started > 0);
            answers.extend(some.map(|(bucket, totals)| (format!("{}/{bucket}", counter.version()), totals.get())));
        }
        answers
    }

    /// What was answered earlier says nothing about the record that is in effect now.
    pub fn forget_answers(&self) {
        for counter in self.0.borrow().iter() {
            counter.answers.iter().for_each(|totals| totals.set(Totals::default()));
        }
    }
}
