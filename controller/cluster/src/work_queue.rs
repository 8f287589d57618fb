//! One VersionFlag that the driver keeps, and when it has to be looked at again. I/O: a turn of its
//! state machine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::{Resource, ResourceExt};

use super::context::Context;
use super::reading::Reading;
use super::reconciler::Reconciler;
use super::stalled::Stalled;
use service::clock::now;

/// The longest time without a look at a flag that is on its way.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// The same for one at rest. What changes it is told at once; this is for reports that stay away.
const REST: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Debug)]
pub(super) struct Kept {
    /// `NAMESPACE/NAME`.
    pub(super) name: String,
    reading: Arc<Reading>,
    /// As soon as it could be read once.
    flag: Option<Reconciler>,
    stalled: Stalled,
    due: Instant,
    /// It is due then because of the clock.
    timed: bool,
    looked_at: bool,
}

/// What may be a reason to look at a flag.
#[derive(Debug)]
pub(super) struct News<'a> {
    pub(super) now: Instant,
    /// Something has changed that any flag may wait for.
    pub(super) all: bool,
    /// Where something has changed.
    pub(super) namespaces: &'a BTreeSet<String>,
    /// The proxies that have reported.
    pub(super) reported: &'a BTreeSet<String>,
    /// The flags that people ask something of.
    pub(super) asked: &'a BTreeSet<String>,
}

impl Kept {
    /// One that has to be looked at now.
    pub(super) fn new(reading: Arc<Reading>, now: Instant) -> Kept {
        let name = format!("{}/{}", reading.namespace().unwrap_or_default(), reading.name_any());
        Kept { name, reading, flag: None, stalled: Stalled::default(), due: now, timed: false, looked_at: false }
    }

    /// Takes in how it is now. Whether its neighbours may have to know.
    pub(super) fn update(&mut self, reading: &Arc<Reading>, now: Instant) -> bool {
        if Arc::ptr_eq(&self.reading, reading) {
            return false;
        }
        let edited = self.reading.meta().generation != reading.meta().generation;
        self.reading = Arc::clone(reading);
        self.due = now;
        edited
    }

    /// As it was read last.
    pub(super) fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Whether it had a turn.
    pub(super) fn was_looked_at(&self) -> bool {
        self.looked_at
    }

    /// Its namespace.
    pub(super) fn namespace(&self) -> String {
        self.reading.namespace().unwrap_or_default()
    }

    /// Whether it has to be looked at.
    pub(super) fn is_due(&mut self, news: &News<'_>) -> bool {
        let told = || {
            news.all
                || news.namespaces.contains(&self.namespace())
                || news.asked.contains(&self.name)
                || self.flag.as_ref().is_some_and(|flag| flag.concerns(news.namespaces, news.reported))
        };
        if self.due > news.now && told() {
            self.due = news.now;
        }
        self.due <= news.now
    }

    /// By this those come first that are on their way, and then those that have waited longest.
    pub(super) fn order(&self) -> (bool, Instant) {
        (!self.is_moving(), self.due)
    }

    /// When to look again; one at rest is looked at when others are.
    pub(super) fn wakes(&self) -> Option<Instant> {
        (self.timed || self.is_moving()).then_some(self.due)
    }

    /// Whether a report may be what it waits for.
    pub(super) fn awaits_reports(&self) -> bool {
        self.flag.as_ref().is_some_and(Reconciler::awaits_reports)
    }

    fn is_moving(&self) -> bool {
        self.flag.as_ref().is_some_and(Reconciler::is_moving)
    }

    /// One look at it, and everything that can be done now.
    pub(super) async fn turn(&mut self, context: &Context<'_>) {
        self.timed = false;
        let wait = match self.reading.as_ref() {
            Reading::Unreadable(reading) => {
                self.stalled.tell(&self.name, reading, context.writer).await;
                REST
            }
            Reading::Flag(resource) => {
                self.stalled = Stalled::default();
                let flag = self.flag.get_or_insert_with(|| Reconciler::new(resource, now()));
                let neighbours = context.cache.flags_of(resource.metadata.namespace.as_deref().unwrap_or_default());
                let claimed = claimed_by_older(&self.reading, &neighbours);
                match flag.turn(resource, claimed.as_deref(), context).await {
                    Ok(wait) => {
                        self.timed = wait.is_some();
                        let most = if flag.is_moving() { TICK } else { REST };
                        wait.map_or(most, |wait| Duration::from_millis(wait.0).min(most))
                    }
                    Err(error) => {
                        tracing::warn!(flag = self.name, %error, "is tried again");
                        TICK
                    }
                }
            }
        };
        self.looked_at = true;
        self.due = Instant::now() + wait;
    }
}

/// Which service another, older VersionFlag of the namespace has already, in a sentence.
fn claimed_by_older(reading: &Reading, all: &[Arc<Reading>]) -> Option<String> {
    let others = all.iter().filter(|other| other.age() < reading.age());
    let mut shared = others.flat_map(|other| {
        let ours = reading.services().filter(|one| other.services().any(|it| it == *one));
        ours.map(move |service| (other, service))
    });
    shared.next().map(|(other, service)| {
        let name = other.name_any();
        format!("Service {service} belongs to VersionFlag {name} already: take it out of one of both")
    })
}
