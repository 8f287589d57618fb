//! The proxies of a simulated world: who has to ack, who does, and what they say of the old version. Pure.

use std::collections::BTreeMap;

use super::fence::Holds;
use super::sight::{PROXIES, numbered};
use crate::duration::Millis;
use crate::fleet::ledger::{Fleet, Laggard, Quiet};
use crate::fleet::unmanaged::UnmanagedCaller;
use crate::time::UnixMs;

/// From the last ack until the proxies have reported so often that nothing was on its way any more.
const PROVED_AFTER: Millis = Millis(200);

/// Who acks.
#[derive(Debug)]
pub(super) enum Acked {
    /// All but these, each with why; empty: that is seen from its epoch.
    AllBut(BTreeMap<String, String>),
}

/// What is said of requests to the old version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Old {
    Unknown,
    /// So many are open.
    Busy(u64),
    /// From now on there are none, once everybody has acked.
    Quiet,
}

/// One proxy.
#[derive(Debug, Default)]
struct Proxy {
    name: String,
    /// The epoch of the record in effect; 0: it has none.
    epoch: u64,
    /// Whether it has reported since the controller began.
    reports: bool,
    /// When it has what was published.
    due: Option<UnixMs>,
    /// Why it lags, as the script says.
    lags: Option<String>,
}

/// All proxies.
#[derive(Debug)]
pub(super) struct Proxies {
    all: Vec<Proxy>,
    published: u64,
    /// Since when all of them have what was published.
    acked_at: Option<UnixMs>,
    /// The version that has to get quiet, and since when nothing is sent there.
    left: Option<(String, UnixMs)>,
    old: Option<Old>,
    /// Since when the script says that the old version is quiet.
    quiet_from: UnixMs,
    pub(super) config_laggards: BTreeMap<String, String>,
    pub(super) route_laggards: BTreeMap<String, String>,
    pub(super) without_filter: Vec<String>,
    pub(super) ahead: Option<Millis>,
    pub(super) holds: Holds,
}

impl Proxies {
    pub(super) fn new() -> Proxies {
        let mut proxies = Proxies {
            all: vec![],
            published: 0,
            acked_at: None,
            left: None,
            old: None,
            quiet_from: UnixMs(0),
            config_laggards: BTreeMap::new(),
            route_laggards: BTreeMap::new(),
            without_filter: vec![],
            ahead: None,
            holds: Holds::default(),
        };
        proxies.expect(&numbered(PROXIES), None);
        proxies
    }

    /// Says who has to ack. Who is new there reports at `due`.
    pub(super) fn expect(&mut self, names: &[String], due: Option<UnixMs>) {
        let mut before: BTreeMap<String, Proxy> =
            std::mem::take(&mut self.all).into_iter().map(|proxy| (proxy.name.clone(), proxy)).collect();
        let new = |name: &String| Proxy { name: name.clone(), due, ..Proxy::default() };
        self.all = names.iter().map(|name| before.remove(name).unwrap_or_else(|| new(name))).collect();
    }

    /// Says who acks. Who lags no more acks at once.
    pub(super) fn see(&mut self, now: UnixMs, Acked::AllBut(late): &Acked) {
        for proxy in &mut self.all {
            proxy.lags = late.get(&proxy.name).cloned();
            proxy.due = if proxy.lags.is_none() { Some(now) } else { None };
        }
    }

    pub(super) fn see_old(&mut self, now: UnixMs, old: Old) {
        if old == Old::Quiet {
            self.quiet_from = now;
        }
        self.old = Some(old);
    }

    /// Sends a record to all of them, which they have at `due`.
    pub(super) fn publish(&mut self, epoch: u64, due: Option<UnixMs>) -> bool {
        let new = self.published != epoch;
        if new {
            self.published = epoch;
            self.acked_at = None;
            self.all.iter_mut().filter(|proxy| proxy.lags.is_none()).for_each(|proxy| proxy.due = due);
        }
        new
    }

    /// The controller begins again: nobody has reported to it, until `due`.
    pub(super) fn forget(&mut self, due: Option<UnixMs>) {
        (self.acked_at, self.left) = (None, None);
        for proxy in &mut self.all {
            (proxy.reports, proxy.due) = (false, due);
        }
    }

    /// When the next of them reports, or the old version gets quiet.
    pub(super) fn due(&self, now: UnixMs) -> Option<UnixMs> {
        let quiet = self.proved_at().filter(|at| *at > now).into_iter().chain(self.holds.due(now));
        self.all.iter().filter_map(|proxy| proxy.due).chain(quiet).min()
    }

    /// Has happen what is due, and tells of it.
    pub(super) fn happen(&mut self, now: UnixMs) -> Option<String> {
        let due = self.all.iter_mut().filter(|proxy| proxy.due.is_some_and(|due| due <= now));
        let mut told = false;
        for proxy in due {
            (proxy.due, proxy.reports) = (None, true);
            if proxy.lags.is_none() && proxy.epoch < self.published {
                proxy.epoch = self.published;
                told = true;
            }
        }
        let count = self.all.iter().filter(|proxy| self.acks(proxy)).count();
        let all = count == self.all.len() && count > 0;
        self.acked_at = if all { self.acked_at.or(Some(now)) } else { None };
        if all {
            self.holds.acked(now);
        }
        told.then(|| format!("{count} of {} proxies acked epoch {}", self.all.len(), self.published))
    }

    fn acks(&self, proxy: &Proxy) -> bool {
        proxy.reports && proxy.lags.is_none() && proxy.epoch == self.published
    }

    /// Since when a version is quiet: as long after the first ack of all that sends no more there, whatever is
    /// published later.
    pub(super) fn leave(&mut self, old: &str, takes: Option<Millis>) {
        let known = self.left.take().filter(|(left, _)| left == old);
        let takes = if self.old == Some(Old::Quiet) { Some(Millis(0)) } else { takes };
        let since = || Some(self.acked_at.filter(|_| !old.is_empty())?.plus(takes?));
        let since = known.map(|(_, since)| since).or_else(since);
        self.left = since.map(|since| (old.to_owned(), since));
    }

    /// When it is proved that the old version is quiet.
    fn proved_at(&self) -> Option<UnixMs> {
        let (_, since) = self.left.as_ref()?;
        Some((*since).max(self.quiet_from).max(self.acked_at?.plus(PROVED_AFTER)))
    }

    /// What they say of the record of `epoch`.
    pub(super) fn fleet(&self, now: UnixMs, epoch: u64) -> Fleet {
        let late = |proxy: &&Proxy| !self.acks(proxy) || proxy.epoch != epoch;
        let laggards: Vec<_> = self.all.iter().filter(late).map(Proxy::laggard).collect();
        let ahead = self.ahead.map_or(0, |ahead| now.plus(ahead).0);
        let at = self.all.first().map(|proxy| proxy.name.clone()).unwrap_or_default();
        let unmanaged = |from: &String| UnmanagedCaller { at: at.clone(), from: from.clone(), per_second: 0 };
        Fleet {
            acked: self.all.len().saturating_sub(laggards.len()),
            fence: self.fence(now, &laggards),
            old: self.quiet(now, !laggards.is_empty()),
            laggards,
            config_laggards: named(&self.config_laggards),
            route_laggards: named(&self.route_laggards),
            unmanaged: self.without_filter.iter().map(unmanaged).collect(),
            highest_epoch: self.all.iter().map(|proxy| proxy.epoch).fold(ahead, u64::max),
            ..Fleet::unknown(self.all.len())
        }
    }

    /// What the script says of requests to the old version.
    pub(super) fn said(&self) -> Option<Old> {
        self.old
    }

    /// The name of the first of them.
    pub(super) fn first(&self) -> Option<String> {
        self.all.first().map(|proxy| proxy.name.clone())
    }

    fn quiet(&self, now: UnixMs, late: bool) -> Quiet {
        let silent = |proxy: &Proxy| !proxy.reports || proxy.lags.as_ref().is_some_and(|why| !why.is_empty());
        match self.old {
            Some(Old::Unknown) => Quiet::Unknown,
            _ if self.all.iter().any(silent) => Quiet::Unknown,
            Some(Old::Busy(open)) => Quiet::Busy { open },
            _ if !self.without_filter.is_empty() => Quiet::Busy { open: 0 },
            _ if late => Quiet::Unknown,
            _ => match self.left.as_ref().filter(|_| self.proved_at().is_some_and(|at| at <= now)) {
                Some((_, since)) => Quiet::Since((*since).max(self.quiet_from).0),
                // It is in use for as long as that takes; then two rounds have to show that it is not.
                None if self.left.as_ref().is_none_or(|(_, since)| *since > now) => Quiet::Busy { open: 0 },
                None => Quiet::Unknown,
            },
        }
    }
}

impl Proxy {
    fn laggard(&self) -> Laggard {
        let why = match self.lags.as_ref().filter(|why| !why.is_empty()) {
            Some(why) => why.clone(),
            None if !self.reports => "it has not reported yet".to_owned(),
            None if self.epoch == 0 => "it has no such flag".to_owned(),
            None => format!("it has epoch {}", self.epoch),
        };
        Laggard { proxy: self.name.clone(), why }
    }
}

pub(super) fn named(all: &BTreeMap<String, String>) -> Vec<Laggard> {
    let why = |why: &String| if why.is_empty() { "behind".to_owned() } else { why.clone() };
    all.iter().map(|(proxy, said)| Laggard { proxy: proxy.clone(), why: why(said) }).collect()
}
