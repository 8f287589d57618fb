//! Which of several workers that run side by side goes on, whenever one touches what they share: the
//! same order for the same seed.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Order {
    turns: Mutex<Turns>,
    moved: Condvar,
}

#[derive(Debug)]
struct Turns {
    random: fastrand::Rng,
    /// Workers that run, besides those that wait.
    running: usize,
    waiting: BTreeSet<usize>,
    next: Option<usize>,
}

impl Turns {
    /// One goes on when all the others wait.
    fn choose(&mut self) {
        if self.running == 0 {
            self.next = self.random.choice(self.waiting.iter().copied());
        }
    }
}

/// A worker that runs; dropped when it is done.
pub(crate) struct Runs<'a>(&'a Order);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns();
        turns.running -= 1;
        turns.choose();
        self.0.moved.notify_all();
    }
}

impl Order {
    pub(crate) fn new(seed: u64) -> Order {
        let turns = Turns { random: fastrand::Rng::with_seed(seed), running: 0, waiting: BTreeSet::new(), next: None };
        Order { turns: Mutex::new(turns), moved: Condvar::new() }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().expect("nobody panics with it")
    }

    /// So many are about to run.
    pub(crate) fn begin(&self, workers: usize) {
        self.turns().running = workers;
    }

    /// One of them begins.
    pub(crate) fn runs(&self, worker: usize) -> Runs<'_> {
        self.turn(worker);
        Runs(self)
    }

    /// Waits for the worker's turn, unless it runs alone.
    pub(crate) fn turn(&self, worker: usize) {
        let mut turns = self.turns();
        if turns.running == 0 {
            return;
        }
        turns.running -= 1;
        turns.waiting.insert(worker);
        turns.choose();
        self.moved.notify_all();
        let mut turns =
            self.moved.wait_while(turns, |turns| turns.next != Some(worker)).expect("nobody panics with it");
        turns.next = None;
        turns.waiting.remove(&worker);
        turns.running += 1;
    }
}
