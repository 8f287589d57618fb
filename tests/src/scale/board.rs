//! What the simulated proxies of one process have seen, and when, in microseconds of the machine's steady clock. No I/O.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Records whose times are remembered: a switch has three, and those of a flip are asked for before the next one.
const REMEMBERED: usize = 8;

/// How far the proxies are with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Its epoch.
    pub epoch: u64,
    /// How many have it.
    pub got: usize,
    /// The ack of how many was answered.
    pub acked: usize,
}

/// What happened to the proxies in all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// The highest epoch that one of them has; 0: none has any.
    pub epoch: u64,
    /// How often one got a record with a lower epoch than that of the one it had.
    pub set_back: u64,
    /// Polls that brought neither a snapshot nor the news that there is none.
    pub polls_failed: u64,
    /// Reports that were not taken.
    pub reports_failed: u64,
    /// Why the last of either failed.
    pub last_failure: String,
    /// What bad proxies did, and what came of it: how often.
    pub misdeeds: BTreeMap<String, u64>,
}

/// When one record came, at each proxy that has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// When the proxies had it.
    pub got: Vec<u64>,
    /// When the report with their ack was answered.
    pub acked: Vec<u64>,
}

#[derive(Debug)]
struct Epoch {
    epoch: u64,
    active: String,
    times: Times,
}

/// What all proxies of a process note.
#[derive(Debug)]
pub(super) struct Board {
    /// In the order of their epochs.
    epochs: VecDeque<Epoch>,
    /// When the last report of each proxy was answered; 0: none was.
    answered: Vec<u64>,
    counts: Counts,
}

impl Board {
    pub(super) fn new(proxies: usize) -> Board {
        Board { epochs: VecDeque::new(), answered: vec![0; proxies], counts: Counts::default() }
    }

    /// A proxy has a record of an epoch that it did not have.
    pub(super) fn got(&mut self, at_us: u64, epoch: u64, active: &str) {
        if self.epochs.back().is_none_or(|last| last.epoch < epoch) {
            self.epochs.push_back(Epoch { epoch, active: active.to_owned(), times: Times::default() });
            if self.epochs.len() > REMEMBERED {
                self.epochs.pop_front();
            }
        }
        if let Some(known) = self.of(epoch) {
            known.times.got.push(at_us);
        }
    }

    /// Its ack of that epoch was answered, for the first time.
    pub(super) fn acked(&mut self, at_us: u64, epoch: u64) {
        if let Some(known) = self.of(epoch) {
            known.times.acked.push(at_us);
        }
    }

    /// A report of a proxy was answered.
    pub(super) fn answered(&mut self, at_us: u64, proxy: usize) {
        if let Some(last) = self.answered.get_mut(proxy) {
            *last = at_us;
        }
    }

    /// A proxy was sent back to an earlier record.
    pub(super) fn set_back(&mut self) {
        self.counts.set_back += 1;
    }

    pub(super) fn poll_failed(&mut self, why: &anyhow::Error) {
        self.counts.polls_failed += 1;
        self.counts.last_failure = format!("a poll: {why:#}");
    }

    pub(super) fn report_failed(&mut self, why: &anyhow::Error) {
        self.counts.reports_failed += 1;
        self.counts.last_failure = format!("a report: {why:#}");
    }

    /// A bad proxy did what it does.
    pub(super) fn misdeed(&mut self, what: String) {
        *self.counts.misdeeds.entry(what).or_default() += 1;
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { epoch: self.epochs.back().map_or(0, |last| last.epoch), ..self.counts.clone() }
    }

    /// The first record that goes to this version, of this epoch or a later one.
    pub(super) fn progress(&self, from: u64, version: &str) -> Option<Progress> {
        let first = self.epochs.iter().find(|known| known.epoch >= from && known.active == version)?;
        let Times { got, acked } = &first.times;
        Some(Progress { epoch: first.epoch, got: got.len(), acked: acked.len() })
    }

    pub(super) fn times(&self, epoch: u64) -> Times {
        let known = self.epochs.iter().find(|known| known.epoch == epoch);
        known.map(|known| known.times.clone()).unwrap_or_default()
    }

    /// How many had a report answered at that time or later.
    pub(super) fn answered_since(&self, us: u64) -> usize {
        self.answered.iter().filter(|at| **at >= us).count()
    }

    fn of(&mut self, epoch: u64) -> Option<&mut Epoch> {
        self.epochs.iter_mut().find(|known| known.epoch == epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_the_last_records_are_kept_apart() {
        let mut board = Board::new(2);
        for (epoch, version) in (1..).zip(["v1", "v1", "v1", "v1", "v1", "v1", "v2", "v2", "v1", "v1"]) {
            board.got(epoch * 10, epoch, version);
            board.acked(epoch * 10 + 1, epoch);
        }
        board.got(110, 7, "v2");
        // One that is far behind takes no place of the others.
        board.got(120, 1, "v1");
        assert_eq!(board.counts().epoch, 10);
        assert_eq!(board.progress(5, "v2"), Some(Progress { epoch: 7, got: 2, acked: 1 }));
        assert_eq!(board.progress(8, "v2"), Some(Progress { epoch: 8, got: 1, acked: 1 }));
        assert_eq!(board.progress(9, "v2"), None);
        assert_eq!(board.times(7), Times { got: vec![70, 110], acked: vec![71] });
        assert_eq!(board.times(1), Times::default());
    }

    #[test]
    fn who_was_answered_since_is_counted_once() {
        let mut board = Board::new(3);
        board.answered(10, 0);
        board.answered(20, 1);
        board.answered(30, 1);
        assert_eq!((board.answered_since(20), board.answered_since(10)), (1, 2));
    }
}
