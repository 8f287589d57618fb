//! Which replica acts: the holder of a Lease. The decision is pure; the loop around it talks to the
//! Kubernetes API.
//!
//! Times of other machines are not believed: a holder is gone when its Lease has not changed for a
//! whole term as seen from here. Only what leaders remember for one another is counted by a clock that all
//! of them have: the API server's, which dates each write of the Lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use machine::duration::Millis;
use machine::time::UnixMs;
use service::clock;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a holder may be silent.
const TERM: Duration = Duration::from_secs(15);
/// Acting ends this long before others may take over.
const MARGIN: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_secs(2);

/// What to do about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionStep {
    /// It is ours: write it again.
    Renew,
    /// Nobody has it: write our name.
    Take,
    /// Somebody else acts.
    Follow,
}

/// The Lease, as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseView {
    /// Its holder; empty: it was given back.
    pub holder: String,
    /// For how long it has been seen unchanged.
    pub unchanged: Duration,
}

/// Whether the Kubernetes API remembers less than it did, because etcd was restored from a backup. No
/// watch tells: resource versions are whole numbers that else only grow.
pub fn went_back(before: &str, now: &str) -> bool {
    let number = |version: &str| version.parse::<u64>().ok();
    number(before).zip(number(now)).is_some_and(|(before, now)| now < before)
}

/// When the API server wrote the term into a Lease, in the middle of the second that it tells.
pub fn written_at(lease: &Lease) -> Option<UnixMs> {
    let entries = lease.metadata.managed_fields.iter().flatten();
    let renews = |fields: &serde_json::Value| fields.pointer("/f:spec/f:renewTime").is_some();
    let times = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| renews(&fields.0)));
    let latest = times.filter_map(|entry| Some(entry.time.as_ref()?.0.as_millisecond())).max()?;
    Some(UnixMs(u64::try_from(latest).ok()?).plus(Millis(500)))
}

/// What `me` has to do.
pub fn evaluate(me: &str, lease: Option<&LeaseView>) -> ElectionStep {
    match lease {
        Some(seen) if seen.holder == me => ElectionStep::Renew,
        Some(seen) if !seen.holder.is_empty() && seen.unchanged < TERM => ElectionStep::Follow,
        _ => ElectionStep::Take,
    }
}

/// Whether this replica may act.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// One that holds for as long as a test takes.
    #[cfg(test)]
    pub(crate) fn always() -> Leadership {
        Leadership(watch::channel(Some(Instant::now() + Duration::from_secs(3_600))).1)
    }

    /// Whether it may act now.
    pub fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }
}

/// Runs for the Lease until it is told to stop.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    until: watch::Sender<Option<Instant>>,
    /// Resource version of the Lease, and since when it has been that.
    last: Option<(String, Instant)>,
    /// The Lease is an older one than was seen before.
    restored: bool,
}

impl Election {
    /// For the Lease of this name, as `me`.
    pub fn new(client: Client, namespace: &str, name: &str, me: &str) -> (Election, Leadership) {
        let (until, leadership) = watch::channel(None);
        let api = Api::namespaced(client, namespace);
        (
            Election { api, name: name.to_owned(), me: me.to_owned(), until, last: None, restored: false },
            Leadership(leadership),
        )
    }

    /// Renews or takes the Lease, again and again; `changed` is told when this replica may act. Ends
    /// by itself only if nothing that was read from the Kubernetes API holds any more.
    pub async fn run(mut self, changed: impl Fn(), stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let before = self.until.borrow().is_some();
            if let Err(error) = self.turn().await {
                tracing::warn!(%error, lease = self.name, "the Lease cannot be renewed");
            }
            self.lapse();
            if self.restored {
                self.until.send_replace(None);
                return;
            }
            if self.until.borrow().is_some() != before {
                changed();
            }
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = &mut stop => break,
            }
        }
        self.release().await;
    }

    async fn turn(&mut self) -> Result<(), kube::Error> {
        let asked = Instant::now();
        let lease = tokio::time::timeout(RENEW, self.api.get_opt(&self.name)).await;
        let Ok(lease) = lease else { return Ok(()) };
        let lease = lease?;
        let seen = lease.as_ref().map(|lease| self.see(lease));
        if self.restored {
            return Ok(());
        }
        let verdict = evaluate(&self.me, seen.as_ref());
        if verdict == ElectionStep::Follow {
            if self.until.send_replace(None).is_some() {
                tracing::warn!(lease = self.name, "another replica has the Lease: this one acts no more");
            }
            return Ok(());
        }
        // Somebody had it meanwhile, and has given it back: what is remembered here may be out of date, and is forgotten
        // before it is taken again.
        if verdict == ElectionStep::Take && self.until.send_replace(None).is_some() {
            tracing::warn!(lease = self.name, "another replica has had the Lease: this one begins anew");
            return Ok(());
        }
        // Whoever wrote in between makes this a conflict, and is looked at in the next turn.
        let written = tokio::time::timeout(RENEW, self.write(lease, &self.me, verdict == ElectionStep::Take)).await;
        match written {
            Ok(Ok(lease)) => {
                // Before anything is read that another leader has remembered.
                if let Some(theirs) = written_at(&lease) {
                    clock::agree(theirs);
                }
                // The term began at the latest when the request was sent.
                if self.until.send_replace(Some(asked + TERM.saturating_sub(MARGIN))).is_none() {
                    tracing::info!(me = self.me, lease = self.name, "this replica acts now");
                }
                Ok(())
            }
            Ok(Err(error)) if super::writer::is_conflict(&error) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// What was not renewed in time is over, whether the API answers or not.
    fn lapse(&mut self) {
        let over = self.until.borrow().is_some_and(|until| until <= Instant::now());
        if over {
            self.until.send_replace(None);
            tracing::warn!(lease = self.name, "the Lease was not renewed in time: this replica acts no more");
        }
    }

    fn see(&mut self, lease: &Lease) -> LeaseView {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.last {
            Some((last, since)) if *last == version => *since,
            _ => Instant::now(),
        };
        self.restored |= self.last.as_ref().is_some_and(|(last, _)| went_back(last, &version));
        self.last = Some((version, since));
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        LeaseView { holder, unchanged: since.elapsed() }
    }

    async fn write(&self, lease: Option<Lease>, holder: &str, taken: bool) -> Result<Lease, kube::Error> {
        let now = i64::try_from(clock::now().0).unwrap_or(i64::MAX);
        let now = MicroTime(Timestamp::from_millisecond(now).unwrap_or(Timestamp::MAX));
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let before = lease.spec.take().unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(TERM.as_secs()).ok(),
            acquire_time: if taken { Some(now.clone()) } else { before.acquire_time.clone() },
            renew_time: Some(now),
            lease_transitions: Some(if taken { transitions.saturating_add(1) } else { transitions }),
            ..before
        });
        match lease.metadata.resource_version {
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            None => self.api.create(&PostParams::default(), &lease).await,
        }
    }

    /// Gives the Lease back, so that nobody has to wait for its end.
    async fn release(mut self) {
        if self.until.send_replace(None).is_none() {
            return;
        }
        let released = async {
            let lease = self.api.get_opt(&self.name).await?;
            let ours = lease.filter(|lease| self.see(lease).holder == self.me);
            match ours {
                Some(lease) => self.write(Some(lease), "", false).await.map(drop),
                None => Ok(()),
            }
        };
        match tokio::time::timeout(RENEW, released).await {
            Ok(Err(error)) => tracing::warn!(%error, "the Lease was not given back"),
            _ => tracing::info!(lease = self.name, "the Lease was given back"),
        }
    }
}

#[cfg(test)]
#[path = "tests/lease.rs"]
mod tests;
