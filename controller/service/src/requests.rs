//! Requests by hand that wait for the driver: a queue of bounded length. No I/O.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use machine::action::Request;

use crate::lock::lock;

/// Requests of all flags that may wait at a time.
const LENGTH: usize = 64;

/// The requests of all flags that wait, oldest first.
#[derive(Debug, Default)]
pub struct RequestQueue {
    /// With the name of the flag that each is for.
    waiting: Mutex<VecDeque<(String, Request)>>,
}

impl RequestQueue {
    /// The names of the flags that requests wait for.
    pub fn waiting_flags(&self) -> BTreeSet<String> {
        lock(&self.waiting).iter().map(|(flag, _)| flag.clone()).collect()
    }

    /// The oldest request for a flag. Those that are answered leave the queue; what is returned stays.
    pub fn next_request(&self, flag: &str, is_answered: impl Fn(&str) -> bool) -> Option<Request> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|(of, request)| of != flag || !is_answered(&request.id));
        waiting.iter().find(|(of, _)| of == flag).map(|(_, request)| request.clone())
    }

    /// Queues a request for a flag; false: too many wait.
    pub fn push(&self, flag: &str, request: Request) -> bool {
        let mut waiting = lock(&self.waiting);
        let fits = waiting.len() < LENGTH;
        if fits {
            waiting.push_back((flag.to_owned(), request));
        }
        fits
    }
}
