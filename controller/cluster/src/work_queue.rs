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

/// Looks in a second at flags at rest, of all together.
const RESTING_LOOKS: u32 = 100;

/// One of them.
#[derive(Debug)]
pub(super) struct Kept {
    /// `NAMESPACE/NAME`.
    pub(super) name: String,
    reading: Arc<Reading>,
    /// `None`: it has a turn now.
    work: Option<Box<Work>>,
    due: Instant,
    /// It is due then because of the clock.
    timed: bool,
    looked_at: bool,
    /// Something has come up during its turn.
    again: bool,
    moving: bool,
    holds: bool,
    awaits_reports: bool,
}

/// What a turn of a flag works with, and nobody else meanwhile.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// As soon as it could be read once.
    flag: Option<Reconciler>,
    stalled: Stalled,
}

/// What a turn leaves.
#[derive(Debug)]
pub(super) struct Turned {
    work: Box<Work>,
    /// Until the next one.
    wait: Duration,
    timed: bool,
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
    /// This replica is about to end.
    pub(super) leaving: bool,
}

impl Kept {
    /// One that has to be looked at now.
    pub(super) fn new(reading: Arc<Reading>, now: Instant) -> Kept {
        let name = format!("{}/{}", reading.namespace().unwrap_or_default(), reading.name_any());
        Kept {
            name,
            reading,
            work: Some(Box::default()),
            due: now,
            timed: false,
            looked_at: false,
            again: false,
            moving: false,
            holds: false,
            awaits_reports: false,
        }
    }

    /// Takes in how it is now. Whether its neighbours may have to know.
    pub(super) fn update(&mut self, reading: &Arc<Reading>, now: Instant) -> bool {
        if self.has(reading) {
            return false;
        }
        let edited = self.reading.meta().generation != reading.meta().generation;
        self.reading = Arc::clone(reading);
        self.due = now;
        self.again = true;
        edited
    }

    /// Whether it is exactly this that was read last.
    pub(super) fn has(&self, reading: &Arc<Reading>) -> bool {
        Arc::ptr_eq(&self.reading, reading)
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

    /// Takes in what may be a reason to look at it. Whether it has to be looked at, and can be: one that has a turn now
    /// has the next one after it.
    pub(super) fn is_due(&mut self, news: &News<'_>) -> bool {
        let told = || {
            news.all
                || (news.leaving && self.holds)
                || news.namespaces.contains(&self.namespace())
                || news.asked.contains(&self.name)
                || self.concerns(news.namespaces, news.reported)
        };
        if self.work.is_none() {
            self.again = self.again || told();
            return false;
        }
        if self.due > news.now && told() {
            self.due = news.now;
        }
        self.due <= news.now
    }

    /// Whether changes in these namespaces, or reports of these proxies, may move it. Whose they are is not known
    /// while it has a turn.
    fn concerns(&self, namespaces: &BTreeSet<String>, reported: &BTreeSet<String>) -> bool {
        match &self.work {
            Some(work) => work.flag.as_ref().is_some_and(|flag| flag.concerns(namespaces, reported)),
            None => !namespaces.is_empty() || !reported.is_empty(),
        }
    }

    /// By this those come first that are on their way, and then those that have waited longest.
    pub(super) fn order(&self) -> (bool, Instant) {
        (!self.moving, self.due)
    }

    /// When to look again, if that is later; one at rest is looked at when others are.
    pub(super) fn wakes(&self, now: Instant) -> Option<Instant> {
        (self.work.is_some() && self.due > now && (self.timed || self.moving)).then_some(self.due)
    }

    /// Whether proxies hold requests for it.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// Whether a report may be what it waits for.
    pub(super) fn awaits_reports(&self) -> bool {
        self.awaits_reports
    }

    /// Gives out what its turn works with; `None`: it has one.
    pub(super) fn begin(&mut self) -> Option<(Box<Work>, Arc<Reading>)> {
        let work = self.work.take()?;
        self.again = false;
        Some((work, Arc::clone(&self.reading)))
    }

    /// Takes in what its turn has left.
    pub(super) fn end(&mut self, turned: Turned) {
        let Turned { work, wait, timed } = turned;
        self.moving = work.flag.as_ref().is_some_and(Reconciler::is_moving);
        self.holds = work.flag.as_ref().is_some_and(Reconciler::holds);
        self.awaits_reports = work.flag.as_ref().is_some_and(Reconciler::awaits_reports);
        (self.looked_at, self.timed) = (true, timed || self.again);
        self.due = Instant::now() + if self.again { Duration::ZERO } else { wait };
        self.work = Some(work);
    }
}

/// How long flags at rest are not looked at, where there are so many.
fn rest(flags: usize) -> Duration {
    REST.max(Duration::from_secs(1) * u32::try_from(flags).unwrap_or(u32::MAX) / RESTING_LOOKS)
}

impl Work {
    /// One look at a flag, and everything that can be done now.
    pub(super) async fn turn(mut self: Box<Self>, name: &str, reading: &Reading, context: &Context<'_>) -> Turned {
        let resource = match reading {
            Reading::Unreadable(unreadable) => {
                self.stalled.tell(name, unreadable, context.writer).await;
                return Turned { work: self, wait: REST, timed: false };
            }
            Reading::Flag(resource) => resource,
        };
        self.stalled = Stalled::default();
        let flag = self.flag.get_or_insert_with(|| Reconciler::new(resource, now()));
        let neighbours = context.cache.flags_of(resource.metadata.namespace.as_deref().unwrap_or_default());
        let claimed = claimed_by_older(reading, &neighbours);
        let (wait, timed) = match flag.turn(resource, claimed.as_deref(), context).await {
            Ok(wait) => {
                let most = if flag.is_moving() { TICK } else { rest(context.flags) };
                (wait.map_or(most, |wait| Duration::from_millis(wait.0).min(most)), wait.is_some())
            }
            Err(error) => {
                tracing::warn!(flag = name, %error, "is tried again");
                (TICK, false)
            }
        };
        Turned { work: self, wait, timed }
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
