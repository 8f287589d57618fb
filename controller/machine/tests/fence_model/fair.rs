//! What becomes of a state when nothing goes wrong any more.

use flag::fence::Held;
use machine::duration::Millis;
use machine::reason::Reason;
use machine::spec::{OnExpiry, Spec};
use machine::status::{Phase, Status};
use machine::time::UnixMs;

use crate::UID;
use crate::controller::{Controller, Looked};
use crate::model_parts::{Kept, hash};
use crate::proxy::{Event, Proxy, Sent};
use crate::world::{Place, Protocol, State};

/// More than any switch takes.
const ROUNDS: usize = 200;

/// A spec that asks for a version.
fn spec(version: &str, on_expiry: &str, inbound: bool, attempts: u32) -> Spec {
    let inbound = if inbound { "Required" } else { "Optional" };
    let fence = format!("{{maxHold: 2s, attempts: {attempts}, onExpiry: {on_expiry}, inbound: {inbound}}}");
    let yaml = format!(
        "{{version: {version}, services: [{{name: reviews}}], coexistence: {{minReady: 0s}}, \
         switch: {{mode: Fenced, fence: {fence}}}}}"
    );
    serde_saphyr::from_str(&yaml).unwrap()
}

impl State {
    /// Everybody does all that can be done, once. In how long the controller asks to look again.
    fn round(&mut self, leader: usize, spec: &Spec) -> Option<Millis> {
        let wake = loop {
            match self.step(leader, spec) {
                Looked::Decided(next) => self.write(leader, next),
                Looked::Published(wake) => break wake.map(Millis),
            }
        };
        let published = self.controllers[leader].published;
        for proxy in 0..self.proxies.len() {
            for vm in 0..self.proxies[proxy].vms.len() {
                let log = &mut self.proxies[proxy].vms[vm].log;
                let news = published.map(Event::Snapshot);
                if news.is_some() && log.iter().rev().find(|event| matches!(event, Event::Snapshot(_))) != news.as_ref()
                {
                    log.extend(news);
                }
                self.release((proxy, vm));
            }
        }
        while let Some(stream) = self.streams.first() {
            match stream.place {
                Place::Underway => self.arrive(0, 0),
                Place::Open(_) => self.serve(0),
                Place::Ended => self.end(0),
            }
        }
        for proxy in 0..self.proxies.len() {
            while self.has_news(proxy, leader, true) {
                self.proxies[proxy].answers = None;
                let sent = self.report(proxy, true);
                self.controllers[leader].heard.push(sent);
            }
        }
        wake
    }

    /// The switch is over, or says what is in its way; nobody holds anything.
    fn is_over(&self) -> bool {
        let status = &self.disk.0.status;
        let says = status.blocked.as_ref().is_some_and(|blocked| blocked.reason == Reason::FenceAborted);
        let vms = || self.proxies.iter().flat_map(|proxy| &proxy.vms);
        let holds = vms().any(|vm| vm.waiting > 0 || vm.view(&self.published).held() == Some(Held::Holding));
        let ends = status.phase == Phase::Settling || (status.phase == Phase::ProvingRoutes && says);
        ends && !holds
    }

    /// A process that has ended reports no more, and its late reports have been forgotten.
    fn forget_rivals(&mut self, leader: usize) {
        let mut newest = vec![0; self.proxies.len()];
        self.controllers[leader].heard.retain(|sent| {
            let newest = &mut newest[sent.proxy];
            *newest = sent.boot.max(*newest);
            sent.boot == *newest
        });
    }

    /// Where it stands, but for the clock.
    fn stands(&self, leader: usize) -> (Kept, usize, Vec<Proxy>) {
        (self.controllers[leader].memory.clone(), self.controllers[leader].heard.len(), self.proxies.clone())
    }
}

impl Protocol {
    pub(crate) fn new(on_expiry: &str, inbound: bool, callers: usize, vms: usize, attempts: u32) -> Protocol {
        let spec = spec("v2", on_expiry, inbound, attempts);
        let mut proxies = vec![Proxy::new(None, vms); callers];
        if inbound {
            proxies.extend([Proxy::new(Some(0), 1), Proxy::new(Some(1), 1)]);
        }
        let disk = (Kept::new(Status::new(UID, "reviews", UnixMs(1))), 0);
        let mut state = State {
            published: vec![],
            proxies,
            controllers: vec![Controller::new(disk.clone(), 1, 0)],
            disk,
            streams: vec![],
            begun: 0,
            ended: 0,
            late: None,
            late_by: 0,
            came: 0,
            faults: 0,
            jumps: 0,
            expired: false,
            joined: false,
            wrong: None,
        };
        let before = self::spec("v1", on_expiry, inbound, attempts);
        for _ in 0..5 {
            state.round(0, &before);
        }
        assert_eq!(state.phase(), Phase::Stable);
        let start = state.before_the_hold(&spec);
        Protocol {
            spec,
            start,
            requests: 2,
            faults: 0,
            jumps: 1,
            jump_ms: 2_000,
            one_by_one: false,
            strangers: false,
            passes: false,
            only_older: false,
            memory: usize::MAX,
            sample: 1,
        }
    }

    pub(crate) fn rejects(&self) -> bool {
        self.spec.switch.fence.on_expiry == OnExpiry::Reject
    }

    /// Whether all goes on to its end from here, where nothing goes wrong any more. Of some states.
    pub(crate) fn ends(&self, state: &State) -> bool {
        if !hash(state).is_multiple_of(self.sample) || state.wrong.is_some() {
            return true;
        }
        let (mut state, leader) = (state.clone(), state.controllers.len() - 1);
        state.controllers[leader].decided = None;
        state.forget_rivals(leader);
        for _ in 0..ROUNDS {
            if state.is_over() {
                return true;
            }
            let before = state.stands(leader);
            let wake = state.round(leader, &self.spec);
            if state.wrong.is_some() {
                return false;
            }
            if before == state.stands(leader) {
                let Some(wake) = wake else { break };
                state.controllers[leader].clock += wake.0.max(1);
            }
        }
        println!("it stands still: {:#?}", state.disk.0.status);
        false
    }
}

impl State {
    /// The state in which the next look begins a hold, without what led to it.
    fn before_the_hold(mut self, spec: &Spec) -> State {
        let mut before = self.clone();
        for _ in 0..20 {
            if self.phase() == Phase::Holding {
                return before.forgets();
            }
            before = self.clone();
            self.round(0, spec);
        }
        panic!("it never holds: {:#?}", self.disk);
    }

    fn forgets(mut self) -> State {
        let last = self.controllers[0].published.unwrap();
        self.published = vec![self.published[usize::from(last)].clone()];
        self.controllers[0].published = Some(0);
        self.disk.1 = 0;
        self.controllers[0].known.1 = 0;
        self.controllers[0].heard.clear();
        for (number, proxy) in self.proxies.iter_mut().enumerate() {
            proxy.vms.iter_mut().for_each(|vm| vm.log = vec![Event::Snapshot(0)]);
            let answers: Vec<_> = proxy.vms.iter().cloned().map(Some).collect();
            for round in 1..=2 {
                proxy.round = round;
                self.controllers[0].heard.push(Sent::new(number, proxy, answers.clone(), &self.published));
            }
        }
        self
    }
}
