//! What is asked for by hand and waits for the driver: queues of bounded length. No I/O.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use machine::action::{Asked, Request};

use crate::lock::lock;

/// Requests of all flags that may wait in one queue at a time.
const LENGTH: usize = 64;

/// The requests, or what else is asked for, of all flags that wait, oldest first.
#[derive(Debug)]
pub struct RequestQueue<T = Request> {
    /// With the name of the flag that each is for.
    waiting: Mutex<VecDeque<(String, T)>>,
}

impl<T> Default for RequestQueue<T> {
    fn default() -> Self {
        RequestQueue { waiting: Mutex::default() }
    }
}

impl<T: Asked> RequestQueue<T> {
    /// The names of the flags that requests wait for.
    pub fn waiting_flags(&self) -> BTreeSet<String> {
        lock(&self.waiting).iter().map(|(flag, _)| flag.clone()).collect()
    }

    /// The oldest request for a flag. Those that are answered leave the queue; what is returned stays.
    pub fn next_request(&self, flag: &str, is_answered: impl Fn(&str) -> bool) -> Option<T> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|(of, request)| of != flag || !is_answered(request.id()));
        waiting.iter().find(|(of, _)| of == flag).map(|(_, request)| request.clone())
    }

    /// Queues a request for a flag; false: too many wait.
    pub fn push(&self, flag: &str, request: T) -> bool {
        let mut waiting = lock(&self.waiting);
        let fits = waiting.len() < LENGTH;
        if fits {
            waiting.push_back((flag.to_owned(), request));
        }
        fits
    }
}
