//! A proxy of several workers, one VM instance each, with a clock that only the test moves, and the
//! flag service that it talks to.

mod requests;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use flag::fence::Fence;
use flag::probe::Probe;
use flag::record::{Gate, Member, Record};
use flag::report::Report;
use serde_json::{Value, json};
use wasmi::{Engine, Module};

use super::host::{Common, Vm, lock};
use super::order::Order;
pub(crate) use requests::{CLAIMED, Fate};

/// The first moment of every proxy, in Unix milliseconds.
const BEGIN_MS: u64 = 1_700_000_000_000;
const STEP_MS: u64 = 10;
/// More than workers have to tell each other at a time.
const MOST_RINGS: u32 = 100;

pub(crate) fn record(epoch: u64, active: &str) -> Record {
    let set = |name: String| BTreeSet::from([name]);
    let clusters = ["v1", "v2"].map(|version| (version.to_owned(), set(format!("reviews-{version}"))));
    let record = Record {
        uid: "uid".to_owned(),
        name: "reviews".to_owned(),
        namespace: String::new(),
        version_label: String::new(),
        epoch,
        active: active.to_owned(),
        gate: Gate::Open,
        members: vec![Member {
            service: "reviews".to_owned(),
            hosts: set("reviews".to_owned()),
            selector: BTreeSet::new(),
            clusters: BTreeMap::from(clusters),
        }],
        versions: BTreeSet::from(["v1".to_owned(), "v2".to_owned()]),
        preview: None,
        hash: String::new(),
    };
    record.seal().expect("a valid record")
}

/// The filter, compiled once.
pub(crate) struct Filter {
    engine: Engine,
    module: Module,
}

impl Filter {
    pub(crate) fn load() -> Result<Filter> {
        Filter::read(&harness::local::wasm()?)
    }

    /// The build of level 1.
    pub(crate) fn first() -> Result<Filter> {
        Filter::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("filters/level-1/versionflag.wasm"))
    }

    fn read(path: &Path) -> Result<Filter> {
        let engine = Engine::default();
        let module = Module::new(&engine, std::fs::read(path)?)?;
        Ok(Filter { engine, module })
    }
}

/// A call that Envoy makes.
struct Callback {
    worker: usize,
    export: &'static str,
    plugin: i32,
    queue: Option<i32>,
}

impl Callback {
    fn make(&self, vm: &mut Vm) -> Result<()> {
        let arguments: Vec<i32> = [self.plugin].into_iter().chain(self.queue).collect();
        vm.call(self.export, self.plugin, &arguments).map(drop)
    }
}

/// A VM instance, on a thread of its own.
struct Worker {
    vm: Vm,
    plugin: i32,
    /// Milliseconds since its last tick.
    since: u64,
    /// Its plugin was deleted.
    gone: bool,
}

impl Worker {
    /// Creates a plugin, beside the one that may be there.
    fn configure(&mut self, plugin: i32) -> Result<()> {
        let size = self.vm.store.data().configuration.len() as i32;
        self.vm.call("proxy_on_context_create", plugin, &[plugin, 0])?;
        self.vm.call("proxy_on_vm_start", plugin, &[plugin, 0])?;
        let taken = self.vm.call("proxy_on_configure", plugin, &[plugin, size])?;
        ensure!(taken == Some(1), "the configuration is refused");
        (self.plugin, self.since) = (plugin, 0);
        Ok(())
    }

    fn has(&self, plugin: i32) -> bool {
        !self.gone && self.plugin == plugin
    }
}

pub(crate) struct Proxy {
    pub(crate) shared: Common,
    configuration: Vec<u8>,
    order: Option<Arc<Order>>,
    workers: Vec<Worker>,
    /// The worker that Envoy does not let run.
    pub(crate) frozen: Option<usize>,
    /// The flag service cannot be reached.
    pub(crate) away: bool,
    /// Polls are answered at once, with nothing.
    pub(crate) hasty: bool,
    /// How many were.
    pub(crate) polls: usize,
    /// What polls are answered with.
    pub(crate) record: Record,
    /// What has to be reached, for those that can be asked; and with what status the version answers.
    pub(crate) probe: Option<Probe>,
    pub(crate) reached: &'static str,
    /// What is held back and refused, for those that can be told.
    pub(crate) fence: Option<Fence>,
    /// Another flag beside it.
    pub(crate) beside: Option<(Record, Fence)>,
    /// The flags whose routes are proved, and those whose answers are measured.
    pub(crate) prove_routes: Vec<String>,
    pub(crate) measure: Vec<String>,
    /// The sequence of the last report that was taken.
    seq: u64,
    /// Taken so far.
    pub(crate) reports: Vec<Report>,
    contexts: i32,
}

impl Proxy {
    /// Its configuration says v1 at epoch 5, the service v2 at epoch 10.
    pub(crate) fn start(filter: &Filter, workers: usize) -> Result<Proxy> {
        Proxy::start_with(filter, workers, BTreeMap::new(), [record(5, "v1"), record(10, "v2")])
    }

    /// One with these properties, the record of its configuration and that of the service.
    pub(crate) fn start_with(
        filter: &Filter,
        workers: usize,
        properties: BTreeMap<String, Vec<u8>>,
        [configured, record]: [Record; 2],
    ) -> Result<Proxy> {
        Proxy::configured(filter, workers, properties, json!({ "flags": [configured] }), record)
    }

    /// One whose configuration has these members besides those that all have.
    pub(crate) fn configured(
        filter: &Filter,
        workers: usize,
        properties: BTreeMap<String, Vec<u8>>,
        more: Value,
        record: Record,
    ) -> Result<Proxy> {
        let shared = Common::default();
        lock(&shared).now_ms = BEGIN_MS;
        lock(&shared).properties = properties;
        let mut configuration = json!({
            "protocol": flag::PROTOCOL,
            "service": { "cluster": "versionflag" },
            "firstAnswerMs": 500,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            configuration[name] = value.clone();
        }
        let configuration = serde_json::to_vec(&configuration)?;
        let mut proxy = Proxy {
            shared,
            configuration,
            order: None,
            workers: vec![],
            frozen: None,
            away: false,
            hasty: false,
            polls: 0,
            record,
            probe: None,
            reached: "200",
            fence: None,
            beside: None,
            prove_routes: vec![],
            measure: vec![],
            seq: 0,
            reports: vec![],
            contexts: 0,
        };
        for _ in 0..workers {
            proxy.add(filter)?;
        }
        Ok(proxy)
    }

    /// The worker that holds the lease.
    pub(crate) fn poller(&self) -> Result<usize> {
        let shared = lock(&self.shared);
        let call = shared.calls.iter().find(|call| call.path.starts_with("/v1/snapshot"));
        Ok(call.context("nobody polls")?.worker)
    }

    /// Starts another VM instance.
    pub(crate) fn add(&mut self, filter: &Filter) -> Result<()> {
        let mut vm = Vm::new(&filter.engine, &filter.module, self.shared.clone(), self.workers.len())?;
        vm.store.data_mut().order.clone_from(&self.order);
        vm.store.data_mut().configuration.clone_from(&self.configuration);
        let mut worker = Worker { vm, plugin: 0, since: 0, gone: false };
        worker.configure(self.next_context())?;
        self.workers.push(worker);
        Ok(())
    }

    fn next_context(&mut self) -> i32 {
        self.contexts += 1;
        self.contexts
    }

    /// Puts a new plugin in the place of every one, in the same instances.
    pub(crate) fn replace_plugins(&mut self) -> Result<()> {
        for place in 0..self.workers.len() {
            let new = self.next_context();
            let worker = &mut self.workers[place];
            let old = worker.plugin;
            worker.configure(new)?;
            worker.vm.delete(old)?;
            self.run(STEP_MS)?;
        }
        Ok(())
    }

    /// Puts a new instance in the place of every one.
    pub(crate) fn replace_instances(&mut self, filter: &Filter) -> Result<()> {
        for place in 0..self.workers.len() {
            self.add(filter)?;
            self.run(STEP_MS)?;
            let worker = &mut self.workers[place];
            worker.gone = true;
            worker.vm.delete(worker.plugin)?;
        }
        Ok(())
    }

    pub(crate) fn now_ms(&self) -> u64 {
        lock(&self.shared).now_ms
    }

    /// From now on workers run side by side.
    pub(crate) fn side_by_side(&mut self, seed: u64) {
        let order = Arc::new(Order::new(seed));
        for worker in &mut self.workers {
            worker.vm.store.data_mut().order = Some(order.clone());
        }
        self.order = Some(order);
    }

    /// Lets everything happen that happens within this time.
    pub(crate) fn run(&mut self, ms: u64) -> Result<()> {
        for _ in 0..ms / STEP_MS {
            lock(&self.shared).now_ms += STEP_MS;
            let due = self.due();
            self.calls(&due)?;
            self.ring()?;
            self.serve()?;
            self.ring()?;
        }
        Ok(())
    }

    fn due(&mut self) -> Vec<Callback> {
        let mut due = vec![];
        for (place, worker) in self.workers.iter_mut().enumerate() {
            worker.since += STEP_MS;
            let ticks = worker.vm.store.data().ticks.get(&worker.plugin);
            if self.frozen != Some(place) && !worker.gone && ticks.is_some_and(|period| worker.since >= *period) {
                worker.since = 0;
                due.push(Callback { worker: place, export: "proxy_on_tick", plugin: worker.plugin, queue: None });
            }
        }
        due
    }

    /// Makes these calls, those to different workers side by side if that is wanted.
    fn calls(&mut self, callbacks: &[Callback]) -> Result<()> {
        let Some(order) = self.order.clone() else {
            return callbacks.iter().try_for_each(|callback| callback.make(&mut self.workers[callback.worker].vm));
        };
        let busy: BTreeSet<usize> = callbacks.iter().map(|callback| callback.worker).collect();
        order.begin(busy.len());
        std::thread::scope(|scope| {
            let (order, busy) = (&order, &busy);
            let workers = self.workers.iter_mut().enumerate().filter(|(worker, _)| busy.contains(worker));
            let threads: Vec<_> = workers
                .map(|(worker, Worker { vm, .. })| {
                    scope.spawn(move || {
                        let _runs = order.runs(worker);
                        let mut own = callbacks.iter().filter(|callback| callback.worker == worker);
                        own.try_for_each(|callback| callback.make(vm))
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no worker panics"))
        })
    }

    /// Tells workers of what is in their queues, as Envoy does before it looks at anything else: who is
    /// woken for ever does nothing else any more.
    fn ring(&mut self) -> Result<()> {
        for _ in 0..MOST_RINGS {
            let mut rings = vec![];
            for (place, queue) in lock(&self.shared).queues.iter_mut().enumerate() {
                if queue.rings && self.frozen != Some(queue.worker) {
                    queue.rings = false;
                    if !self.workers[queue.worker].has(queue.plugin) {
                        continue;
                    }
                    let (worker, plugin, queue) = (queue.worker, queue.plugin, Some(place as i32 + 1));
                    rings.push(Callback { worker, export: "proxy_on_queue_ready", plugin, queue });
                }
            }
            if rings.is_empty() {
                return Ok(());
            }
            self.calls(&rings)?;
        }
        let shared = lock(&self.shared);
        let known = shared.data.iter().map(|(key, (value, _))| format!("\n{key}: {}", String::from_utf8_lossy(value)));
        bail!("workers wake each other for ever:{}", known.collect::<String>())
    }

    /// The workers whose plugin is still there.
    fn live(&self) -> Vec<usize> {
        (0..self.workers.len()).filter(|worker| !self.workers[*worker].gone).collect()
    }

    /// Waits until a complete report says that every instance has the service's record, on the
    /// proxy's own clock.
    pub(crate) fn settles(&mut self, within_ms: u64) -> Result<()> {
        let (before, mut waited) = (self.reports.len(), 0);
        let acks = |proxy: &Proxy, report: &Report| {
            let state = report.flags.get("uid");
            let all = report.instances.len() == proxy.live().len();
            report.complete && all && state.is_some_and(|state| state.hash == proxy.record.hash)
        };
        while !self.reports.iter().skip(before).any(|report| acks(self, report)) {
            ensure!(
                waited < within_ms,
                "no ack within {within_ms} ms; last: {:#?}; log: {:#?}",
                self.reports.last(),
                lock(&self.shared).log
            );
            self.run(50)?;
            waited += 50;
        }
        let active = self.record.active.clone();
        self.requests_go_to(&[active.as_str()])
    }
}
