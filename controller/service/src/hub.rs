//! Where the flag service and the driver of the state machine meet: one struct that owns what they share, and what
//! touches several parts of it at once. I/O: reads the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use flag::record::Gate;
use flag::report::{Report, ReportError};
use machine::action::Asked;
use machine::order::Order;
use machine::publication::Publication;
use machine::time::UnixMs;
use tokio::sync::Notify;

use crate::authenticator::Authenticator;
use crate::clock::now;
use crate::fences::Fences;
use crate::flip_times::Stopwatch;
use crate::metrics::{ApiRequests, ServiceMetrics};
use crate::pages::Pages;
use crate::peers::Peers;
use crate::publications::Publications;
use crate::readiness::Readiness;
use crate::refused::RefusedProxies;
use crate::reports::Reports;
use crate::requests::RequestQueue;
use crate::views::{FlagView, Views};

/// Reports of one address at a time: a proxy sends one after the other. This machine has no such limit.
const REPORTS_OF_ONE_ADDRESS: usize = 32;
/// For how long a controller that is told to end waits for its proxies to let go of what they hold.
pub const LEAVING: Duration = Duration::from_secs(2);

/// What the flag service and the driver share. Flags are told apart by name.
#[derive(Debug)]
pub struct Hub {
    /// Who may speak for a proxy.
    pub authenticator: Authenticator,
    /// What proxies have reported.
    pub reports: Reports,
    /// Requests by hand that wait for the driver.
    pub requests: RequestQueue,
    /// What is asked for of single versions and waits for the driver; `None`: its driver does no such thing.
    pub orders: Option<RequestQueue<Order>>,
    /// Whether this controller can serve proxies.
    pub readiness: Readiness,
    /// Which flags hold requests of which proxies.
    pub fences: Fences,
    /// How long flips take.
    pub stopwatch: Stopwatch,
    /// Since when this controller leads, in Unix milliseconds.
    led_since: AtomicU64,
    leaving: AtomicBool,
    /// Reports that are under way, by address.
    pub(crate) reporting: Peers,
    pub(crate) publications: Publications,
    pub(crate) views: Views,
    pub(crate) pages: Pages,
    refused: RefusedProxies,
    pub(crate) metrics: ServiceMetrics,
    driver: Notify,
}

impl Hub {
    /// A hub that has nothing to publish yet.
    pub fn new(authenticator: Authenticator) -> Hub {
        Hub {
            authenticator,
            reports: Reports::default(),
            requests: RequestQueue::default(),
            orders: None,
            readiness: Readiness::default(),
            fences: Fences::default(),
            stopwatch: Stopwatch::default(),
            led_since: AtomicU64::new(now().0),
            leaving: AtomicBool::new(false),
            reporting: Peers::new(REPORTS_OF_ONE_ADDRESS),
            publications: Publications::default(),
            views: Views::default(),
            pages: Pages::default(),
            refused: RefusedProxies::default(),
            metrics: ServiceMetrics::new(),
            driver: Notify::new(),
        }
    }

    /// The same hub, whose metrics also count the requests to the Kubernetes API.
    pub fn with_api_requests(self, requests: &ApiRequests) -> Hub {
        Hub { metrics: self.metrics.with_api_requests(requests), ..self }
    }

    /// The same hub, whose driver starts single versions anew and stops them.
    pub fn with_orders(self) -> Hub {
        Hub { orders: Some(RequestQueue::default()), ..self }
    }

    /// Has the driver look at its flags now, or at once after the look that is under way.
    pub fn wake_driver(&self) {
        self.driver.notify_one();
    }

    /// Waits for [`Hub::wake_driver`]. One that came before counts, once. Looks at a large fleet cost much, and each of
    /// its reports calls for one: they take a tenth of the time at most, or the proxies would wait for them.
    pub async fn driver_woken(&self) {
        tokio::time::sleep(self.reports.take_cost() * 9).await;
        self.driver.notified().await;
    }

    /// Whether this controller is the one that leads. Proxies that ask one that does not are sent away, those that wait
    /// for a change included: on a connection that stays open they would never find the one that does.
    pub fn set_leads(&self, leads: bool) {
        if self.publications.withhold(!leads) && leads {
            self.led_since.store(now().0, Ordering::SeqCst);
        }
    }

    /// Since when this controller leads without a break: another time is another controller, or it was away.
    pub fn leads_since(&self) -> UnixMs {
        UnixMs(self.led_since.load(Ordering::SeqCst))
    }

    /// This controller is about to end: nobody is held any more.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.wake_driver();
    }

    /// Whether this controller is about to end.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// The gate of the record of a flag that proxies are sent; `None`: they are sent none.
    pub fn given_out(&self, flag: &str, uid: &str) -> Option<Gate> {
        self.publications.gate_of(flag, uid)
    }

    /// Whether everybody who has to has acked what the proxies of these flags are sent.
    pub fn all_acked(&self, flags: &[String]) -> bool {
        flags.iter().flat_map(|flag| self.views.shown(Some(flag))).all(|view| view.fleet.all_acked())
    }

    /// Whether some flags are not published yet, while this controller begins: polls of proxies wait for all of them.
    pub fn set_incomplete(&self, incomplete: bool) {
        self.publications.set_incomplete(incomplete);
    }

    /// Publishes a record to its proxies; polls that wait are answered at once. Whether anything changed.
    pub fn publish(&self, publication: Publication) -> bool {
        if publication.record.gate == Gate::Open {
            self.fences.release(&publication.record.uid);
        }
        self.stopwatch.published(&publication.record);
        // The ledger knows of a flip before the first proxy can.
        self.publications.replace(publication, |uid, from, to| self.reports.note_flip(uid, from, to))
    }

    /// Replaces what `GET /v1/status` and the metrics show of a flag.
    pub fn show_flag(&self, view: FlagView) {
        let view = Arc::new(view);
        self.reports.count(&view.status.uid, &view.versions_at_work());
        self.metrics.flags.show(Arc::clone(&view));
        self.views.replace(view);
    }

    /// The metrics as OpenMetrics text.
    pub fn metrics_text(&self) -> String {
        let leads = !self.readiness.is_starting() && !self.publications.are_withheld();
        self.metrics.leader.set(i64::from(leads));
        let views = self.views.shown(None);
        let counted = self.reports.counted(views.iter().map(|view| view.status.uid.as_str()));
        self.metrics.flags.set_counted(views.iter().map(|view| view.name.as_str()).zip(counted));
        self.metrics.text()
    }

    /// Drops all that is known of a flag that is gone. Proxies keep what they have of it.
    pub fn forget_flag(&self, name: &str) {
        if let Some(view) = self.views.remove(name) {
            self.stopwatch.forget(&view.status.uid);
            self.reports.forget_flag(&view.status.uid);
        }
        self.metrics.flags.remove(name);
        if let Some(record) = self.publications.withdraw(name) {
            self.reports.forget_flag(&record.uid);
            self.fences.release(&record.uid);
        }
    }

    /// Observes in the metrics how long a flip of a flag took from its record to the last ack, and its parts.
    pub fn observe_flip(&self, uid: &str, seconds: f64) {
        self.metrics.observe_flip(seconds, self.stopwatch.ended(uid).as_ref());
    }

    /// Observes in the metrics that a hold has ended, whether what waited went to the new version, and after how long.
    pub fn observe_hold(&self, committed: bool, seconds: f64) {
        self.metrics.observe_hold(committed, seconds);
    }

    /// Whether a report wakes the driver from now on. One that has come since [`Reports::take_reporters`] does.
    pub fn wake_on_reports(&self, wake: bool) {
        if self.reports.set_wakes_driver(wake) {
            self.wake_driver();
        }
    }

    /// Counts in the metrics that something could not be written so often: `state`, or `proxies` for what they read.
    pub fn count_write_failures(&self, what: &str, failures: u64) {
        self.metrics.count_write_failures(what, failures);
    }

    /// Takes in the report of a proxy that was authenticated.
    pub(crate) fn take_in_report(&self, report: Report) -> Result<(), ReportError> {
        let now = now();
        let pace = self.publications.pace_of(&report.proxy);
        let acks = self.stopwatch.acks(&report);
        let (awaited, mut known) = self.reports.take_in(now, pace, report)?;
        acks.iter().for_each(|acks| self.stopwatch.acked(acks));
        if awaited {
            self.wake_driver();
        }
        if self.reports.begins_to_forget(now) {
            let views = self.views.shown(None);
            known = self.reports.forget_gone(now, |proxy| views.iter().any(|view| view.callers.contains(proxy)));
        }
        self.publications.set_known(known);
        Ok(())
    }

    /// Queues what is asked for by hand and wakes the driver for it; false: too many wait.
    pub(crate) fn submit<T: Asked>(&self, queue: &RequestQueue<T>, flag: &str, request: T) -> bool {
        let queued = queue.push(flag, request);
        if queued {
            self.wake_driver();
        }
        queued
    }

    /// The views of all flags, or of one, with the traffic as of now.
    pub(crate) fn current_views(&self, flag: Option<&str>) -> Vec<FlagView> {
        let now = now();
        let (views, refused) = (self.views.shown(flag), self.refused.shown(now));
        let traffic = self.reports.traffic(now, views.iter().map(|view| (view.status.uid.as_str(), &view.callers)));
        let views = views.iter().map(Arc::as_ref);
        views
            .zip(traffic)
            .map(|(view, traffic)| {
                let flip = self.stopwatch.shown(&view.status.uid);
                // Who was added to the list since is believed.
                let others = refused.iter().filter(|(name, _)| !view.callers.contains(name));
                let refused = others.map(|(_, one)| one.clone()).collect();
                let advice = view.status.advice().map(str::to_owned);
                FlagView { traffic, now, refused, flip, advice, ..view.without_secrets() }
            })
            .collect()
    }

    /// Takes note of a proxy that is not believed, where all that are expected are listed: somebody may have forgotten
    /// this one. `sender` describes it.
    pub(crate) fn note_refused(&self, proxy: &str, sender: &str) {
        if !matches!(self.authenticator, Authenticator::Listed(_)) {
            return;
        }
        let why = format!("it is not believed: its sender is {sender}");
        if self.refused.note(now(), proxy, why.clone()) {
            tracing::warn!(proxy = flag::quoted(&flag::shortened(proxy)), why, "a proxy is refused");
        }
    }
}
