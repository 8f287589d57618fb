//! Tries whether this VM instance reaches the versions that the flag service asks about. By the same act its
//! connections to them are open when the traffic comes. Hostcalls.

use std::rc::Rc;

use flag::probe::{INSIDE, NOT_TRIED, Outcome, Place, Probe, Probed, REACHED, is_reached};
use proxy_wasm::types::{BufferType, MapType};

use crate::call::Call;
use crate::hostcalls::{self, Failure};
use crate::vm::Vm;

/// Between two tries of a cluster that was reached: less than any proxy keeps an idle connection.
const AGAIN_MS: u64 = 10_000;
/// The first and the longest wait after a try that failed.
const RETRY_MS: u64 = 50;
const RETRY_MOST_MS: u64 = 1_600;
/// What Envoy answers to a call of a cluster that it does not have, and of one in which nobody is healthy.
const BAD_ARGUMENT: u32 = 2;
const INTERNAL_FAILURE: u32 = 10;
/// Bytes of an unexpected answer that are shown.
const SHOWN: usize = 120;
/// So many tries in a row fail before a cluster that was reached is so no more: one may be reset when a pod ends.
const FAILURES: u32 = 3;

/// One cluster of one probe.
#[derive(Debug)]
struct Target {
    probe: Rc<Probe>,
    place: Place,
    outcome: String,
    call: Option<Call>,
    failures: u32,
    next_ms: u64,
}

/// What this instance tries.
#[derive(Debug, Default)]
pub(crate) struct Prober(Vec<Target>);

impl Prober {
    /// Takes over what is asked for. What was found out for the same question stays.
    pub(crate) fn ask(&mut self, probes: &[Probe]) {
        let mut known = std::mem::take(&mut self.0);
        for probe in probes {
            let probe = Rc::new(probe.clone());
            for place in &probe.clusters {
                let index = known.iter().position(|one| *one.probe == *probe && one.place == *place);
                self.0.push(match index {
                    Some(index) => known.swap_remove(index),
                    None => Target {
                        probe: Rc::clone(&probe),
                        place: place.clone(),
                        outcome: NOT_TRIED.to_owned(),
                        call: None,
                        failures: 0,
                        next_ms: 0,
                    },
                });
            }
        }
    }

    /// Tries what is due. A call belongs to the plugin whose callback runs.
    pub(crate) fn run(&mut self, vm: &Vm, now_ms: u64) {
        if !vm.may_call() {
            return;
        }
        for target in &mut self.0 {
            if target.call.take_if(|call| call.is_lost(vm, now_ms)).is_some() {
                target.failed("no answer".to_owned(), now_ms);
            }
            // The clock may have been set back.
            let due = target.next_ms <= now_ms || target.next_ms > now_ms.saturating_add(AGAIN_MS);
            if target.call.is_none() && due {
                target.run(vm, now_ms);
            }
        }
    }

    /// Takes in the answer to a call, if it is one of these.
    pub(crate) fn answered(&mut self, token: u32, body: usize, now_ms: u64) -> bool {
        let ours = |target: &&mut Target| target.call.as_ref().is_some_and(|call| call.token == token);
        let Some(target) = self.0.iter_mut().find(ours) else { return false };
        target.call = None;
        let status = hostcalls::header(MapType::HttpCallResponseHeaders, ":status").unwrap_or_default();
        let status = String::from_utf8(status).unwrap_or_default();
        let code: u32 = status.parse().unwrap_or_default();
        if (target.probe.lowest..=target.probe.highest).contains(&code) {
            target.reached(REACHED, now_ms);
        } else if status.is_empty() {
            target.failed("no answer".to_owned(), now_ms);
        } else {
            // Envoy's own answer says what was in the way: no connection, or TLS.
            let text = hostcalls::buffer(BufferType::HttpCallResponseBody, body.min(SHOWN)).unwrap_or_default();
            let text: String =
                text.iter().filter(|byte| (b' '..=b'~').contains(byte)).map(|byte| *byte as char).collect();
            target.failed(format!("status {status}: {text}"), now_ms);
        }
        true
    }

    /// Milliseconds until the next try at the latest, if one failed.
    pub(crate) fn tick_ms(&self) -> Option<u32> {
        let failed = self.0.iter().any(|target| target.failures > 0 || !is_reached(&target.outcome));
        failed.then_some(RETRY_MS as u32)
    }

    /// What came of the probe of a flag.
    pub(crate) fn probed(&self, uid: &str) -> Option<Probed> {
        let targets = || self.0.iter().filter(|target| target.probe.flag == uid);
        let id = targets().next()?.probe.id.clone();
        let outcome =
            |target: &Target| Outcome { cluster: target.place.cluster.clone(), outcome: target.outcome.clone() };
        Some(Probed { id, clusters: targets().map(outcome).collect() })
    }
}

impl Target {
    fn run(&mut self, vm: &Vm, now_ms: u64) {
        let probe = Rc::clone(&self.probe);
        if vm.never_calls(&probe.flag, &probe.version) {
            return self.reached(INSIDE, now_ms);
        }
        let Some(plugin) = vm.speaking() else { return };
        let marked = vm.routing_header().unwrap_or_default();
        let headers = [
            (":method", "GET"),
            (":path", &self.place.path),
            (":authority", &self.place.host),
            ("user-agent", "versionflag-probe"),
            (&marked, &probe.version),
        ];
        match hostcalls::http_call(&self.place.cluster, &headers, &[], probe.timeout_ms) {
            Ok(token) => self.call = Some(Call { token, plugin, began_ms: now_ms, timeout_ms: probe.timeout_ms }),
            Err(Failure(BAD_ARGUMENT)) => self.failed("the proxy has no such cluster".to_owned(), now_ms),
            Err(Failure(INTERNAL_FAILURE)) => self.failed("no healthy host".to_owned(), now_ms),
            Err(Failure(status)) => self.failed(format!("it cannot be called: {status}"), now_ms),
        }
    }

    fn reached(&mut self, outcome: &str, now_ms: u64) {
        outcome.clone_into(&mut self.outcome);
        (self.failures, self.next_ms) = (0, now_ms.saturating_add(AGAIN_MS));
    }

    fn failed(&mut self, outcome: String, now_ms: u64) {
        if !is_reached(&self.outcome) || self.failures + 1 >= FAILURES {
            self.outcome = outcome;
        }
        let wait_ms = (RETRY_MS << self.failures.min(5)).min(RETRY_MOST_MS);
        (self.failures, self.next_ms) = (self.failures.saturating_add(1), now_ms.saturating_add(wait_ms));
    }
}
