//! The one VM instance of a proxy that talks to the flag service: elected by a lease, it keeps one
//! long poll open, publishes what comes, and reports for all. Hostcalls.
//!
//! A report goes out when every live instance has answered the round, or when the round has run
//! out of time, and then it says so. The next round begins after the answer to the report.

use flag::backoff;
use flag::instance::{combine, combine_findings};
use flag::lease::{Claim, LEASE_MS, Lease, claim};
use flag::level::{self, LEVEL};
use flag::limits;
use flag::report::Report;
use flag::snapshot::Snapshot;
use proxy_wasm::types::{BufferType, MapType};

use crate::call::Call;
use crate::hostcalls::{self, Failure};
use crate::request::property;
use crate::store;
use crate::vm::{Me, Vm, node, now_ms};

/// How long the flag service may hold a long poll.
const WAIT_MS: u32 = 20_000;
const POLL_TIMEOUT_MS: u32 = WAIT_MS + 5_000;
/// Between the beginnings of two polls, where the first brings nothing new.
const POLL_AGAIN_MS: u64 = 1_000;
const REPORT_TIMEOUT_MS: u32 = 5_000;
/// How long a round waits for an instance, and how often it looks for answers that woke nobody.
const ROUND_MS: u64 = 500;
const LOOK_MS: u32 = 10;
/// The slowest tick of the instance that polls: it renews the lease.
const TICK_MS: u32 = 500;

/// One kind of call, and when it is due again.
#[derive(Debug, Default)]
struct Line {
    call: Option<Call>,
    failures: u32,
    next_ms: u64,
}

impl Line {
    fn free(&mut self, vm: &Vm, now_ms: u64) -> bool {
        self.call.take_if(|call| call.is_lost(vm, now_ms));
        self.call.is_none() && self.next_ms <= now_ms && vm.may_call()
    }

    fn failed(&mut self, now_ms: u64, seed: u64) {
        self.failures = self.failures.saturating_add(1);
        self.next_ms = now_ms.saturating_add(backoff::wait_ms(self.failures, seed));
    }

    fn ends(&mut self, token: u32) -> Option<Call> {
        self.call.take_if(|call| call.token == token)
    }
}

/// A round of answers by all instances.
#[derive(Debug)]
struct Round {
    number: u64,
    missing: Vec<u32>,
    live: Vec<u32>,
    boot: String,
    until_ms: u64,
}

impl Round {
    /// An answer is there before its wake comes, and the wake may be lost with a plugin.
    fn look(&mut self) {
        for instance in store::instances(self.missing.iter()) {
            if instance.round >= self.number {
                self.missing.retain(|id| *id != instance.id);
            }
        }
    }
}

/// What the polling instance remembers. The others keep it empty.
#[derive(Debug, Default)]
pub(crate) struct Poller {
    polls: bool,
    poll: Line,
    report: Line,
    round: Option<Round>,
    /// A snapshot came while a report was under way.
    report_now: bool,
}

/// Renews or takes the lease, and does what is due. Returns when to tick again, if this instance
/// polls.
pub(crate) fn on_tick(vm: &Vm, me: Me) -> Option<u32> {
    vm.speaker()?;
    let now_ms = now_ms();
    let mut poller = vm.poller.borrow_mut();
    if !poller.renew(me, now_ms) {
        if vm.serves.get() {
            store::serves(me.id);
        }
        return None;
    }
    poller.start_poll(vm, me, now_ms);
    if let Some(round) = poller.round.as_mut() {
        round.look();
    }
    poller.advance_report(vm, me, now_ms);
    Some(match poller.round {
        Some(_) => LOOK_MS,
        None => vm.report_every_ms.get().min(TICK_MS),
    })
}

/// Others have published something, or answered the round.
pub(crate) fn on_wake(vm: &Vm, me: Me, from: &[u32]) {
    let mut poller = vm.poller.borrow_mut();
    if let Some(round) = poller.round.as_mut() {
        round.missing.retain(|id| !from.contains(id));
        poller.advance_report(vm, me, now_ms());
        return;
    }
    if poller.polls {
        // Somebody has news between two rounds.
        if !from.is_empty() {
            poller.report_soon();
            poller.advance_report(vm, me, now_ms());
        }
        return;
    }
    drop(poller);
    vm.sync(me);
    // Only the poller asks for a round, so the answer goes to who holds the lease.
    match store::lease().0.map(|lease| lease.holder) {
        // Somebody to whom no requests come has handed it over.
        Some(holder) if holder == me.id => drop(on_tick(vm, me)),
        Some(holder) => store::wake_instance(holder, me.id),
        None => {}
    }
}

/// The flag service answered a call, or did not.
pub(crate) fn on_answer(vm: &Vm, token: u32, body: usize) {
    let Some(me) = vm.me.get() else { return };
    let now_ms = now_ms();
    let status = hostcalls::header(MapType::HttpCallResponseHeaders, ":status").unwrap_or_default();
    let mut poller = vm.poller.borrow_mut();
    if let Some(call) = poller.poll.ends(token) {
        // Who stood still may have an older answer than the one that polls by now.
        if !poller.renew(me, now_ms) {
            return;
        }
        let revision = vm.revision.borrow().clone();
        match poller.answered(vm, me, &status, body) {
            Ok(()) => {
                poller.poll.failures = 0;
                // Answers that bring nothing new at once would make this a busy loop.
                let same = *vm.revision.borrow() == revision;
                // The clock may have been set back since.
                let again_ms =
                    call.began_ms.saturating_add(POLL_AGAIN_MS).clamp(now_ms, now_ms.saturating_add(POLL_AGAIN_MS));
                poller.poll.next_ms = if same { again_ms } else { now_ms };
            }
            Err(why) => {
                vm.metrics.service_failures.add(1);
                poller.poll.failed(now_ms, seed(me));
                log::warn!("the flag service gave no valid snapshot, the last good one stays: {why}");
            }
        }
        if poller.polls {
            poller.start_poll(vm, me, now_ms);
            poller.advance_report(vm, me, now_ms);
        }
    } else if poller.report.ends(token).is_some() {
        if status.as_slice() == b"200" {
            poller.report.failures = 0;
            let wait_ms = if poller.report_now { 0 } else { u64::from(vm.report_every_ms.get()) };
            poller.report.next_ms = now_ms.saturating_add(wait_ms);
        } else {
            vm.metrics.service_failures.add(1);
            poller.report.failed(now_ms, seed(me));
            log::warn!("the flag service did not take the report: {}", describe(&status, body));
        }
        poller.report_now = false;
        poller.advance_report(vm, me, now_ms);
    }
}

fn seed(me: Me) -> u64 {
    now_ms() ^ u64::from(me.id) << 32
}

fn describe(status: &[u8], body: usize) -> String {
    if status.is_empty() {
        return "no answer".to_owned();
    }
    let text = hostcalls::buffer(BufferType::HttpCallResponseBody, body.min(300));
    format!("status {}: {}", String::from_utf8_lossy(status), String::from_utf8_lossy(&text.unwrap_or_default()))
}

/// The name of this proxy.
fn name() -> String {
    flag::proxy::name(&property("xds\0node\0id").unwrap_or_default()).to_owned()
}

fn token() -> Option<String> {
    node(&["VERSIONFLAG_TOKEN"]).filter(|token| !token.is_empty())
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

// Six: what a request has.
fn call(vm: &Vm, method: &str, path: &str, body: &[u8], timeout_ms: u32, now_ms: u64) -> Option<Call> {
    let (plugin, service) = vm.speaker()?;
    let bearer = token().map(|token| format!("Bearer {token}"));
    let mut headers = vec![(":method", method), (":path", path), (":authority", service.authority.as_str())];
    if !body.is_empty() {
        headers.push(("content-type", "application/json"));
    }
    if let Some(bearer) = &bearer {
        headers.push(("authorization", bearer));
    }
    match hostcalls::http_call(&service.cluster, &headers, body, timeout_ms) {
        Ok(token) => Some(Call { token, plugin, began_ms: now_ms, timeout_ms }),
        Err(Failure(status)) => {
            log::warn!("cluster {} of the flag service cannot be called: status {status}", service.cluster);
            None
        }
    }
}

impl Poller {
    /// The clock was set back: what is due at a time would be due too late.
    pub(crate) fn hurry(&mut self) {
        (self.poll.next_ms, self.report.next_ms) = (0, 0);
        self.round = None;
    }

    /// The next round begins at once, or when the report that is under way is answered.
    fn report_soon(&mut self) {
        self.report.next_ms = 0;
        self.report_now = self.report.call.is_some();
    }

    /// Renews or takes the lease. False: another instance has it.
    fn renew(&mut self, me: Me, now_ms: u64) -> bool {
        let (current, cas) = store::lease();
        // Who is not listed has left, or registers again under another id. This instance is listed.
        let current = current.filter(|lease| lease.holder == me.id || store::queue_of(lease.holder).is_some());
        self.polls = match claim(current, me.id, now_ms) {
            Claim::Write(lease) => store::write_lease(lease, cas),
            Claim::Hold => true,
            Claim::Follow => false,
        };
        if !self.polls {
            // Whoever polls now asks for rounds: this instance answers them like any other.
            self.round = None;
        }
        self.polls
    }

    /// Leaves the lease to an instance that requests come to. It has answered the last round, so it does not stand still.
    fn hand_over(&mut self, me: Me, live: &[u32], now_ms: u64) {
        let Some(holder) = store::serving().filter(|id| *id != me.id && live.contains(id)) else { return };
        let lease = Lease { holder, until_ms: now_ms.saturating_add(LEASE_MS) };
        if store::write_lease(lease, store::lease().1) {
            self.polls = false;
            store::wake_instance(holder, me.id);
        }
    }

    fn start_poll(&mut self, vm: &Vm, me: Me, now_ms: u64) {
        if !self.poll.free(vm, now_ms) {
            return;
        }
        let path = format!(
            "/v1/snapshot?proxy={}&revision={}&waitMs={WAIT_MS}&level={LEVEL}",
            percent_encode(&name()),
            percent_encode(&vm.revision.borrow())
        );
        self.poll.call = call(vm, "GET", &path, &[], POLL_TIMEOUT_MS, now_ms);
        if self.poll.call.is_none() {
            vm.metrics.service_failures.add(1);
            self.poll.failed(now_ms, seed(me));
        }
    }

    /// Takes in the answer to a long poll: publishes it, wakes everybody, and asks for a round.
    fn answered(&mut self, vm: &Vm, me: Me, status: &[u8], body: usize) -> Result<(), String> {
        if status == b"204" {
            return Ok(());
        }
        if status != b"200" {
            return Err(describe(status, body));
        }
        if body > limits::SNAPSHOT_BYTES {
            return Err(format!("{body} bytes are too many: at most {} are read", limits::SNAPSHOT_BYTES));
        }
        let bytes = hostcalls::buffer(BufferType::HttpCallResponseBody, body).unwrap_or_default();
        let snapshot = Snapshot::parse(&bytes).map_err(|error| error.to_string())?;
        // What the others cannot have is asked for again.
        store::publish(&snapshot.revision, &bytes)
            .map_err(|Failure(status)| format!("it cannot be shared: status {status}"))?;
        vm.take(&snapshot);
        self.round = None;
        self.report_soon();
        if self.report_now {
            // The others need not wait for that round.
            self.wake_others(me);
        }
        Ok(())
    }

    fn wake_others(&self, me: Me) {
        for live in store::registry().unwrap_or_default().live.iter().filter(|live| live.id != me.id) {
            store::wake(live.queue, me.id);
        }
    }

    /// Begins a round when one is due, and reports when it is over.
    fn advance_report(&mut self, vm: &Vm, me: Me, now_ms: u64) {
        if self.round.is_none() {
            if !self.polls || !self.report.free(vm, now_ms) {
                return;
            }
            self.begin_round(vm, me, now_ms);
        }
        let over = |round: &mut Round| vm.may_call() && (round.missing.is_empty() || round.until_ms <= now_ms);
        if let Some(round) = self.round.take_if(over) {
            self.send_report(vm, me, &round, now_ms);
        }
    }

    fn begin_round(&mut self, vm: &Vm, me: Me, now_ms: u64) {
        // Without it nobody knows who has to answer; on its tick an instance makes it anew.
        let Some(registry) = store::registry() else { return };
        // Where it could not be read, this instance knows the last one itself: a report has to be later than the last.
        let number = store::round().max(vm.round.get()).saturating_add(1);
        if store::begin_round(number).is_err() {
            vm.metrics.store_failures.add(1);
            return;
        }
        vm.sync(me);
        self.wake_others(me);
        let live: Vec<u32> = registry.live.iter().map(|live| live.id).collect();
        let missing = live.iter().copied().filter(|id| *id != me.id).collect();
        let until_ms = now_ms.saturating_add(ROUND_MS);
        self.round = Some(Round { number, missing, live, boot: registry.boot, until_ms });
    }

    fn send_report(&mut self, vm: &Vm, me: Me, round: &Round, now_ms: u64) {
        let instances = store::instances(round.live.iter());
        let combined = combine(&round.live, round.number, &instances);
        let report = Report {
            protocol: flag::PROTOCOL,
            proxy: name(),
            boot: round.boot.clone(),
            // Rounds are counted for the whole proxy, so they go on when another instance polls.
            seq: round.number,
            revision: vm.revision.borrow().clone(),
            instances: round.live.clone(),
            complete: combined.is_some(),
            flags: combined.unwrap_or_default(),
            findings: Default::default(),
        };
        let Ok(mut body) = serde_json::to_vec(&report) else { return };
        if vm.tells_findings.get() {
            let findings = combine_findings(&round.live, round.number, &store::findings(round.live.iter()));
            body = level::joined(body, &serde_json::to_vec(&findings).unwrap_or_default());
        }
        self.report.call = call(vm, "POST", "/v1/report", &body, REPORT_TIMEOUT_MS, now_ms);
        if self.report.call.is_none() {
            vm.metrics.service_failures.add(1);
            self.report.failed(now_ms, seed(me));
        }
        if report.complete && !vm.serves.get() {
            self.hand_over(me, &round.live, now_ms);
        }
    }
}
