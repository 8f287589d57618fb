//! State of this VM instance. It belongs to the instance and not to a plugin: a changed
//! configuration puts a second plugin beside the draining one, and the counts go on. Hostcalls for
//! shared data.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use flag::config::FlagService;
use flag::instance::{Findings, Instance, InstanceFindings};
use flag::snapshot::Snapshot;
use flag::table::{Channel, Flag, Table};
use rustc_hash::FxHashMap;

use crate::fence::FencedFlag;
use crate::hostcalls;
use crate::metrics::Metrics;
use crate::plugin::{self, Plugin, Settings};
use crate::poller::Poller;
use crate::prober::Prober;
use crate::request::{Stream, correct_open, property};
use crate::store::{self, Live};
use crate::strays::StrayList;
use crate::waiting::Waiting;

thread_local! {
    static VM: Vm = Vm::new();
}

/// This instance in the registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Me {
    pub(crate) id: u32,
    pub(crate) queue: u32,
    /// The plugin that its queue wakes.
    plugin: u32,
}

impl Me {
    fn live(self) -> Live {
        Live { id: self.id, queue: self.queue }
    }
}

#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) table: RefCell<Table>,
    /// With their context ids; the newest one, the last, does the talking.
    plugins: RefCell<Vec<(u32, Plugin)>>,
    pub(crate) me: Cell<Option<Me>>,
    /// Revision of the snapshot in effect.
    pub(crate) revision: RefCell<String>,
    pub(crate) report_every_ms: Cell<u32>,
    pub(crate) poller: RefCell<Poller>,
    pub(crate) metrics: Metrics,
    /// Until when requests wait for the first answer; `None`: they do not.
    pub(crate) waits_until_ms: Cell<Option<u64>>,
    /// They have waited for it: no later configuration has them wait again.
    waited: Cell<bool>,
    /// The order of the requests that wait.
    pub(crate) waiting: Waiting,
    /// Counted requests whose stream has not ended, and those that wait, by context id.
    pub(crate) open: RefCell<FxHashMap<u32, Stream>>,
    /// The flags that have a fence.
    pub(crate) fenced: RefCell<Vec<FencedFlag>>,
    /// What it tries to reach.
    pub(crate) prober: RefCell<Prober>,
    /// What went past the flags.
    pub(crate) strays: RefCell<StrayList>,
    /// The flag service knows what level 2 adds.
    pub(crate) tells_findings: Cell<bool>,
    /// What all plugins have in common, so that nobody has to ask whose a request is.
    common: RefCell<Option<Rc<Settings>>>,
    /// The last round that was answered.
    pub(crate) round: Cell<u64>,
    /// A request has come here: this instance is no trial, and not the main thread's, which stands still at times.
    pub(crate) serves: Cell<bool>,
    /// The plugin whose callback runs.
    running: Cell<u32>,
    /// The clock when it was looked at last.
    pub(crate) seen_ms: Cell<u64>,
}

/// The metadata of Envoy's node.
pub(crate) fn node(path: &[&str]) -> Option<String> {
    property(&[&["xds", "node", "metadata"], path].concat().join("\0"))
}

/// Milliseconds of the proxy's clock.
pub(crate) fn now_ms() -> u64 {
    hostcalls::now_ns() / 1_000_000
}

impl Vm {
    pub(crate) fn with<T>(action: impl FnOnce(&Vm) -> T) -> T {
        VM.with(action)
    }

    fn new() -> Vm {
        Vm {
            table: RefCell::default(),
            plugins: RefCell::default(),
            me: Cell::default(),
            revision: RefCell::default(),
            report_every_ms: Cell::new(1_000),
            poller: RefCell::default(),
            metrics: Metrics::new(),
            waits_until_ms: Cell::default(),
            waiting: Waiting::new(),
            fenced: RefCell::default(),
            open: RefCell::default(),
            prober: RefCell::default(),
            strays: RefCell::default(),
            tells_findings: Cell::default(),
            common: RefCell::default(),
            waited: Cell::default(),
            round: Cell::default(),
            serves: Cell::default(),
            running: Cell::default(),
            seen_ms: Cell::default(),
        }
    }

    /// A plugin was configured. Nothing is shared yet: this may be the trial instance that Envoy
    /// makes of a new configuration and throws away.
    pub(crate) fn configure(&self, context: u32, plugin: Plugin, first_answer_ms: u32) {
        let waits = plugin.service.is_some() && self.revision.borrow().is_empty() && first_answer_ms > 0;
        if waits && !self.waited.replace(true) {
            let now_ms = now_ms();
            self.seen_ms.set(now_ms);
            self.waits_until_ms.set(Some(now_ms.saturating_add(first_answer_ms.into())));
        }
        let mut plugins = self.plugins.borrow_mut();
        plugins.retain(|(id, _)| *id != context);
        plugins.push((context, plugin));
        plugin::warn_of_twins(&plugins);
        drop(plugins);
        self.apply_plugins();
    }

    /// A plugin is gone. The last one takes the instance with it, unless requests are still open.
    pub(crate) fn forget(&self, context: u32) {
        self.plugins.borrow_mut().retain(|(id, _)| *id != context);
        if self.plugins.borrow().is_empty() {
            self.retire();
        } else {
            self.apply_plugins();
        }
    }

    fn apply_plugins(&self) {
        plugin::merge(&mut self.plugins.borrow_mut());
        *self.common.borrow_mut() = plugin::common(&self.plugins.borrow());
        let (plugins, mut table) = (self.plugins.borrow(), self.table.borrow_mut());
        let Some(((_, newest), draining)) = plugins.split_last() else { return };
        for (_, plugin) in draining {
            table.apply(Channel::Draining, &plugin.flags, &node);
        }
        table.apply(Channel::Config, &newest.flags, &node);
    }

    /// Called at the end of a stream too: a retired instance leaves when its last request ends.
    pub(crate) fn retire(&self) {
        if self.plugins.borrow().is_empty() && self.open.borrow().is_empty() {
            self.leave();
        }
    }

    #[cold]
    fn leave(&self) {
        if let Some(me) = self.me.take() {
            store::deregister(me.id);
        }
    }

    /// Does something with the settings for the request in context.
    pub(crate) fn with_settings<T>(&self, action: impl FnOnce(&Rc<Settings>) -> T) -> Option<T> {
        if let Some(settings) = &*self.common.borrow() {
            return Some(action(settings));
        }
        let settings = plugin::of_request(&self.plugins.borrow())?;
        Some(action(&settings))
    }

    /// Whether this plugin is the one that talks.
    pub(crate) fn speaks(&self, context: u32) -> bool {
        self.speaking() == Some(context)
    }

    /// A plugin's callback begins.
    pub(crate) fn enter(&self, context: u32) {
        self.running.set(context);
        self.watch_clock();
    }

    /// Nothing waits longer because the clock was set back.
    fn watch_clock(&self) {
        let now_ms = now_ms();
        if now_ms < self.seen_ms.replace(now_ms) {
            self.poller.borrow_mut().hurry();
            self.fenced.borrow().iter().for_each(|one| one.flag.observed.gate.expire());
            self.waits_until_ms.set(self.waits_until_ms.get().map(|_| now_ms));
        }
    }

    /// Whether a call made now would be answered: it belongs to the plugin whose callback runs,
    /// and goes with it.
    pub(crate) fn may_call(&self) -> bool {
        self.speaks(self.running.get())
    }

    /// The plugin that talks, and to which flag service.
    pub(crate) fn speaker(&self) -> Option<(u32, FlagService)> {
        let plugins = self.plugins.borrow();
        let (id, plugin) = plugins.last()?;
        Some((*id, plugin.service.clone()?))
    }

    /// The context of the plugin that talks.
    pub(crate) fn speaking(&self) -> Option<u32> {
        self.plugins.borrow().last().map(|(id, _)| *id)
    }

    /// The routing header of the plugin that talks.
    pub(crate) fn routing_header(&self) -> Option<String> {
        self.plugins.borrow().last().map(|(_, plugin)| plugin.settings.header.clone())
    }

    /// Whether the proxy never sends requests to a version of a flag: it stands beside another one of the group, which
    /// calls its own; or it is told what it stands beside, and may not have the group's clusters at all.
    pub(crate) fn never_calls(&self, uid: &str, version: &str) -> bool {
        let (table, plugins) = (self.table.borrow(), self.plugins.borrow());
        let Some(flag) = table.get(uid) else { return false };
        let told = plugins.last().and_then(|(_, plugin)| plugin.settings.workload.as_ref());
        let own = flag.beside(told);
        // One that the record does not name calls the active version.
        own.is_some_and(|own| flag.lists(&own.version) && (own.version != version || told == Some(own)))
    }

    /// Tries what is due, in a callback of a plugin.
    pub(crate) fn probe(&self) {
        if self.tells_findings.get() {
            self.prober.borrow_mut().run(self, self.seen_ms.get());
        }
    }

    /// The first request comes, maybe before the first tick: this instance is one of those that answer for the proxy, and
    /// goes by what the others know. Ends in the context of the request.
    #[cold]
    pub(crate) fn join(&self, request: u32) {
        let Some(plugin) = self.speaking().filter(|plugin| hostcalls::set_effective_context(*plugin).is_ok()) else {
            return;
        };
        self.enter(plugin);
        if let Some(me) = self.me(plugin)
            && self.missed()
        {
            self.sync(me);
        }
        hostcalls::go_back_to(request);
    }

    /// This instance, registered at the first tick or request: a trial instance never has one. When the
    /// plugin that spoke is gone, its queue has to wake the one that speaks now.
    pub(crate) fn me(&self, plugin: u32) -> Option<Me> {
        let registry = store::registry();
        let listed = |me: &Me| registry.as_ref().is_some_and(|registry| registry.lists(me.live()));
        let me = match self.me.get().filter(listed) {
            Some(me) if me.plugin == plugin => return Some(me),
            Some(me) => Me { queue: store::listen(&registry?.boot, me.id)?, plugin, ..me },
            None => {
                let Live { id, queue } = store::register(hostcalls::now_ns(), self.me.get().map(Me::live))?;
                log::info!("VM instance {id} of versionflag serves");
                Me { id, queue, plugin }
            }
        };
        self.me.set(Some(me));
        Some(me)
    }

    /// Whether others have published or asked for something that did not wake this instance.
    pub(crate) fn missed(&self) -> bool {
        store::revision() != *self.revision.borrow() || store::round() != self.round.get()
    }

    /// Takes over what another instance published, and answers the round that is under way.
    pub(crate) fn sync(&self, me: Me) {
        // The round first: what was published before it was asked for is then seen below.
        let round = store::round();
        if store::revision() != *self.revision.borrow()
            && let Some((first, second)) = store::snapshot()
        {
            match Snapshot::of_parts(&first, second.as_deref()) {
                Ok(snapshot) => self.take(&snapshot),
                Err(error) => {
                    self.metrics.store_failures.add(1);
                    log::warn!("the shared snapshot is not valid, the last good one stays: {error}");
                }
            }
        }
        correct_open(self, self.running.get(), round);
        let table = self.table.borrow();
        let flags = table.flags().map(|(uid, flag)| (uid.clone(), flag.state(self.seen_ms.get()))).collect();
        let instance = Instance { id: me.id, round, flags };
        self.round.set(round);
        let findings = self.tells_findings.get().then(|| self.findings(me, round));
        if store::write_instance(&instance, findings.as_ref()).is_err() {
            self.metrics.store_failures.add(1);
        }
    }

    /// This instance's part of what level 2 adds to a report.
    fn findings(&self, me: Me, round: u64) -> InstanceFindings {
        let (table, prober, strays) = (self.table.borrow(), self.prober.borrow(), self.strays.borrow());
        let of = |(uid, flag): (&String, &Rc<Flag>)| Findings {
            flag: uid.clone(),
            probed: prober.probed(uid),
            strays: strays.of(uid),
            unplaced: flag.observed.unplaced.get(),
            checked: flag.observed.checked.get(),
            rival_epoch: flag.observed.rival_epoch.get(),
            fenced: flag.fenced(self.seen_ms.get()),
        };
        let flags = table.flags().map(of).filter(Findings::any).collect();
        InstanceFindings { id: me.id, round, flags }
    }

    /// Puts a snapshot into effect here.
    pub(crate) fn take(&self, snapshot: &Snapshot) {
        let mut table = self.table.borrow_mut();
        table.apply(Channel::Service, &snapshot.flags, &node);
        table.ask(&snapshot.prove_routes, &snapshot.measure);
        table.ask_health(snapshot.asks.as_ref().map_or(&[], |asks| &asks.health));
        if let Some(asks) = &snapshot.asks {
            table.ask_fences(&asks.fences, &snapshot.flags, self.seen_ms.get());
        }
        *self.fenced.borrow_mut() = FencedFlag::all(&table);
        drop(table);
        self.report_every_ms.set(snapshot.report_every_ms);
        self.revision.borrow_mut().clone_from(&snapshot.revision);
        self.waits_until_ms.set(None);
        self.tells_findings.set(snapshot.asks.is_some());
        if let Some(asks) = &snapshot.asks {
            self.prober.borrow_mut().ask(&asks.probes);
        }
        self.metrics.snapshots.add(1);
    }
}
