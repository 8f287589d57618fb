//! Which VersionFlag has a turn when, and what is written for all of them together. No flag waits for another one:
//! turns go on beside each other, and beside what is taken in. I/O: through the turns.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use kube::ResourceExt;
use tokio::task::JoinHandle;

use super::cache::{Cache, Changes};
use super::consent::Consents;
use super::context::{Context, Headers};
use super::driver::{DriverError, Options};
use super::hosts::{Taken, claims, taken};
use super::istio::mesh::Mesh;
use super::istio::plugin::{Target, namespaces};
use super::leader;
use super::lease::Leadership;
use super::reading::Reading;
use super::resource::VersionFlag;
use super::work_queue::{Kept, News, TICK, Turned};
use super::writer::Writer;
use service::check_runner::CheckRunner;
use service::{Hub, LEAVING};

/// Flags that have a turn at the same time.
const AT_ONCE: usize = 64;
/// Those of one namespace, where everything may be slow.
const AT_ONCE_IN_NAMESPACE: usize = 8;
/// How long plugins wait for what every flag has to say, after this replica has begun to act.
const FIRST_LOOKS: Duration = Duration::from_secs(5);
/// How often it is looked whether proxies are led here.
const LEAD_LOOK: Duration = Duration::from_secs(10);
/// What has begun has this long to end, when the program is asked to.
const ENDING: Duration = Duration::from_secs(5);

/// What all turns work with.
pub(crate) struct Around {
    pub(super) options: Options,
    /// Of the flag service, in plain text and by mutual TLS.
    pub(super) ports: (u16, Option<u16>),
    pub(super) cache: Cache,
    pub(super) writer: Writer,
    pub(super) mesh: Mesh,
    pub(super) hub: Arc<Hub>,
    pub(super) checks: Arc<CheckRunner>,
    pub(super) leadership: Leadership,
}

/// What flags have to know of one another.
#[derive(Default)]
pub(crate) struct Neighbours {
    headers: Headers,
    taken: Taken,
    /// The names of all flags, by uid.
    names: BTreeMap<String, String>,
}

/// What has ended.
enum Ended {
    /// The turn of a flag, by its uid and name.
    Turn(String, String, Turned),
    Plugin(Target),
    /// A look whether proxies are led here; whether they are now.
    Led(bool),
}

/// The turns of all flags.
pub(super) struct Turns {
    around: Rc<Around>,
    neighbours: Rc<Neighbours>,
    /// What other namespaces have agreed to.
    consents: Rc<Consents>,
    /// By uid.
    flags: BTreeMap<String, Kept>,
    running: FuturesUnordered<LocalBoxFuture<'static, Ended>>,
    /// How many flags of each namespace have a turn now.
    busy: BTreeMap<String, usize>,
    /// The plugins that are written now.
    writing: BTreeSet<Target>,
    /// Since when this replica has acted.
    since: Option<Instant>,
    /// What is running began before this replica acted no more: it counts for nothing, and nothing begins beside it.
    deposed: bool,
    /// When to look again whether proxies are led here; `None`: that is done now.
    lead_at: Option<Instant>,
}

impl Turns {
    /// No flag is known yet.
    pub(super) fn new(around: Around) -> Turns {
        Turns {
            around: Rc::new(around),
            neighbours: Rc::default(),
            consents: Rc::new(Consents::NotAsked),
            flags: BTreeMap::new(),
            running: FuturesUnordered::new(),
            busy: BTreeMap::new(),
            writing: BTreeSet::new(),
            since: None,
            deposed: false,
            lead_at: None,
        }
    }

    /// One turn after the other, until `stop` ends, or `election` does by itself.
    pub(super) async fn run(
        &mut self,
        election: &mut JoinHandle<()>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), DriverError> {
        let hub = Arc::clone(&self.around.hub);
        // Who held requests when this replica was told to end, and until when they may let go of them.
        let mut left: Option<(Vec<String>, Instant)> = None;
        loop {
            let wait = self.begin();
            if left.as_ref().is_some_and(|(held, until)| self.has_let_go(held) || Instant::now() >= *until) {
                break;
            }
            tokio::select! {
                Some(ended) = self.running.next(), if !self.running.is_empty() => self.end(ended),
                () = hub.driver_woken() => {}
                () = tokio::time::sleep(wait) => {}
                _ = &mut *election => return Err(DriverError::Restored),
                () = &mut stop, if left.is_none() => {
                    hub.leave();
                    let held: Vec<_> = self.flags.values().filter(|kept| kept.holds()).map(|kept| kept.name.clone()).collect();
                    if held.is_empty() {
                        break;
                    }
                    left = Some((held, Instant::now() + LEAVING));
                }
            }
            // Those that have ended meanwhile, too: what comes after is for all of them.
            while let Some(Some(ended)) = self.running.next().now_or_never() {
                self.end(ended);
            }
        }
        // Nothing new begins.
        let _ = tokio::time::timeout(ENDING, async { while self.running.next().await.is_some() {} }).await;
        Ok(())
    }

    /// Whether these flags hold nothing any more, and all proxies know it; or are somebody else's by now.
    fn has_let_go(&self, held: &[String]) -> bool {
        self.around.hub.all_acked(held) && !self.flags.values().any(Kept::holds)
    }

    /// Takes in what has changed, and begins what is due. How long to wait for the next time.
    fn begin(&mut self) -> Duration {
        let around = Rc::clone(&self.around);
        self.deposed &= !self.running.is_empty();
        let leads = around.leadership.holds() && !self.deposed;
        around.hub.set_leads(leads);
        if !leads {
            self.forget();
            return TICK;
        }
        let now = Instant::now();
        if self.since.is_none() {
            (self.since, self.lead_at) = (Some(now), Some(now));
        }
        let Changes { flags, all, mut namespaces } = around.cache.changes();
        if namespaces.contains(&around.options.home) {
            // Whatever it was: in a second, as often as that may come.
            self.lead_at = self.lead_at.map(|at| at.min(now + TICK));
        }
        if flags || all || self.flags.is_empty() {
            self.consents = Rc::new(around.cache.consents());
        }
        if flags || self.flags.is_empty() {
            self.refresh(now, &mut namespaces);
        }
        self.lead(now);
        let (reported, asked) = (around.hub.reports.take_reporters(), around.hub.requests.waiting_flags());
        self.begin_turns(&News {
            now,
            all,
            namespaces: &namespaces,
            reported: &reported,
            asked: &asked,
            leaving: around.hub.is_leaving(),
        });
        around.hub.wake_on_reports(self.flags.values().any(Kept::awaits_reports));
        let pause = self.write_plugins(now).unwrap_or(TICK);
        let next = self.flags.values().filter_map(|kept| kept.wakes(now)).min();
        next.map_or(TICK, |next| next.saturating_duration_since(Instant::now()).min(TICK)).min(pause)
    }

    /// What was remembered may be out of date when this replica acts again. What has begun ends by itself: it looks
    /// whether it may act before every act.
    fn forget(&mut self) {
        self.deposed |= self.since.is_some() && !self.running.is_empty();
        for (_, kept) in std::mem::take(&mut self.flags) {
            self.around.hub.forget_flag(&kept.name);
        }
        self.busy.clear();
        self.writing.clear();
        (self.since, self.lead_at) = (None, None);
        self.around.mesh.forget();
    }

    /// Begins the turns that are due, as many as there may be.
    fn begin_turns(&mut self, news: &News<'_>) {
        let flags = self.flags.len();
        let mut due: Vec<(&String, &mut Kept)> =
            self.flags.iter_mut().filter_map(|(uid, kept)| kept.is_due(news).then_some((uid, kept))).collect();
        due.sort_by_key(|(_, kept)| kept.order());
        let mut room = AT_ONCE.saturating_sub(self.busy.values().sum());
        for (uid, kept) in due {
            let busy = self.busy.entry(kept.namespace()).or_default();
            if room == 0 || *busy >= AT_ONCE_IN_NAMESPACE {
                continue;
            }
            let Some((work, reading)) = kept.begin() else { continue };
            (*busy, room) = (*busy + 1, room - 1);
            let (around, neighbours) = (Rc::clone(&self.around), Rc::clone(&self.neighbours));
            let consents = Rc::clone(&self.consents);
            let (uid, name) = (uid.clone(), kept.name.clone());
            self.running.push(
                async move {
                    let turned = work.turn(&name, &reading, &context(&around, (&neighbours, &consents), flags)).await;
                    Ended::Turn(uid, name, turned)
                }
                .boxed_local(),
            );
        }
    }

    fn end(&mut self, ended: Ended) {
        match ended {
            Ended::Turn(_, name, _) if self.deposed => self.around.hub.forget_flag(&name),
            _ if self.deposed => {}
            Ended::Turn(uid, name, turned) => {
                let namespace = name.split_once('/').map_or("", |(namespace, _)| namespace);
                if let Some(busy) = self.busy.get_mut(namespace) {
                    *busy = busy.saturating_sub(1);
                }
                self.busy.retain(|_, busy| *busy > 0);
                if let Some(kept) = self.flags.get_mut(&uid) {
                    kept.end(turned);
                } else if self.flags.values().all(|kept| kept.name != name) {
                    // It is gone, and its last turn may have shown it once more.
                    self.around.hub.forget_flag(&name);
                }
            }
            Ended::Plugin(target) => drop(self.writing.remove(&target)),
            Ended::Led(led) => self.lead_at = Some(Instant::now() + if led { LEAD_LOOK } else { TICK }),
        }
    }

    /// Begins to write the plugins that are not as they have to be, when all flags have said what has to be in there.
    fn write_plugins(&mut self, now: Instant) -> Option<Duration> {
        let waits = self.since.is_some_and(|since| now.saturating_duration_since(since) < FIRST_LOOKS);
        if waits && !self.flags.values().all(Kept::was_looked_at) {
            return None;
        }
        let (due, wait) = self.around.mesh.due_plugins(&self.neighbours.names);
        for target in due {
            if !self.writing.insert(target.clone()) {
                continue;
            }
            let (around, neighbours) = (Rc::clone(&self.around), Rc::clone(&self.neighbours));
            self.running.push(
                async move {
                    around.mesh.write_plugin(&target, &neighbours.names).await;
                    Ended::Plugin(target)
                }
                .boxed_local(),
            );
        }
        wait
    }

    /// Takes in which flags there are. Where one was edited, came or went its neighbours are told:
    /// they may have the same Service.
    fn refresh(&mut self, now: Instant, told: &mut BTreeSet<String>) {
        let found = self.around.cache.flags();
        let found: BTreeMap<&str, &Arc<Reading>> =
            found.iter().filter_map(|reading| Some((reading.age().1?, reading))).collect();
        let mut other = self.flags.len() != found.len();
        self.flags.retain(|uid, kept| {
            let there = found.contains_key(uid.as_str());
            if !there {
                self.around.hub.forget_flag(&kept.name);
                told.insert(kept.namespace());
            }
            there
        });
        for (uid, reading) in found.iter().map(|(uid, reading)| (*uid, *reading)) {
            match self.flags.get_mut(uid) {
                Some(kept) => {
                    other |= !kept.has(reading) && claims(kept.reading()) != claims(reading);
                    if kept.update(reading, now) {
                        told.insert(kept.namespace());
                    }
                }
                None => {
                    other = true;
                    let kept = Kept::new(Arc::clone(reading), now);
                    told.insert(kept.namespace());
                    self.flags.insert(uid.to_owned(), kept);
                }
            }
        }
        if other {
            let (domain, readings) = (&self.around.options.domain, found.values().map(|reading| reading.as_ref()));
            self.neighbours = Rc::new(Neighbours {
                headers: headers(readings.clone().filter_map(Reading::flag)),
                taken: taken(domain, readings),
                names: self.flags.iter().map(|(uid, kept)| (uid.clone(), kept.name.clone())).collect(),
            });
        }
    }

    /// Begins to lead the proxies here, wherever somebody has led them. Until that has worked they keep what they have.
    fn lead(&mut self, now: Instant) {
        if self.around.options.addresses.is_empty() {
            return;
        }
        if self.lead_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let around = Rc::clone(&self.around);
        let led = async move {
            let (Options { home, identity, addresses, .. }, (http, mtls)) = (&around.options, around.ports);
            for here in leader::endpoints(home, identity, addresses, http, mtls) {
                if let Err(error) = around.writer.lead(&here, || around.leadership.holds()).await {
                    tracing::warn!(%error, "the proxies are not led here yet");
                    return Ended::Led(false);
                }
            }
            Ended::Led(true)
        };
        self.running.push(led.boxed_local());
    }
}

pub(crate) fn context<'a>(
    around: &'a Around,
    (neighbours, consents): (&'a Neighbours, &'a Consents),
    flags: usize,
) -> Context<'a> {
    Context {
        cache: &around.cache,
        hub: &around.hub,
        writer: &around.writer,
        leadership: &around.leadership,
        checks: &around.checks,
        audit: &around.options.audit,
        filter_path: &around.options.filter_path,
        flag_service_cluster: &around.options.flag_service_cluster,
        mesh: &around.mesh,
        domain: &around.options.domain,
        headers: &neighbours.headers,
        taken: &neighbours.taken,
        consents,
        flags,
    }
}

/// The routing header of the oldest flag in each namespace that has Istio's filter, and its name.
fn headers<'a>(flags: impl Iterator<Item = &'a VersionFlag>) -> Headers {
    let mut flags: Vec<&VersionFlag> = flags.filter(|flag| flag.spec.routing.in_mesh()).collect();
    let age =
        |flag: &VersionFlag| (flag.metadata.creation_timestamp.as_ref().map(|time| time.0), flag.metadata.uid.clone());
    flags.sort_by_key(|flag| age(flag));
    let mut headers = Headers::new();
    for flag in flags {
        let namespace = flag.namespace().unwrap_or_default();
        let name = format!("{namespace}/{}", flag.name_any());
        for place in namespaces(&namespace, &flag.spec.callers) {
            headers.entry(place).or_insert_with(|| (flag.spec.routing.header.clone(), name.clone()));
        }
    }
    headers
}

#[cfg(test)]
#[path = "tests/turns.rs"]
mod tests;
