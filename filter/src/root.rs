//! The plugin: its configuration, its ticks, and what wakes it. Hostcalls.

use std::cell::RefCell;
use std::rc::Rc;

use flag::config::Config;
use proxy_wasm::types::BufferType;

use crate::hostcalls;
use crate::plugin::{Plugin, Settings};
use crate::poller;
use crate::request::property;
use crate::store;
use crate::vm::{Vm, now_ms};
use crate::waiting::release;

/// Until the first answer every millisecond counts; later a tick is only a safety net.
const STARTING_MS: u32 = 10;
const FOLLOWING_MS: u32 = 500;

thread_local! {
    /// The plugins of this VM instance: one, or two while one drains.
    static ROOTS: RefCell<Vec<Root>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
pub(crate) struct Root {
    id: u32,
    tick_ms: u32,
}

/// Envoy configures a plugin, which may be a new one. It would say so when it creates one, if there
/// were a callback for that; but it would then call that for every request too.
pub(crate) fn create(id: u32) {
    ROOTS.with_borrow_mut(|roots| {
        if !roots.iter().any(|root| root.id == id) {
            roots.push(Root { id, tick_ms: 0 });
        }
    });
}

/// Lets a plugin do something, if it is one.
pub(crate) fn with<T>(id: u32, action: impl FnOnce(&mut Root, &Vm) -> T) -> Option<T> {
    ROOTS.with_borrow_mut(|roots| {
        let root = roots.iter_mut().find(|root| root.id == id)?;
        Some(Vm::with(|vm| action(root, vm)))
    })
}

/// A plugin is gone, if it was one.
#[inline(never)]
pub(crate) fn delete(id: u32) {
    let gone = ROOTS.with_borrow_mut(|roots| {
        let place = roots.iter().position(|root| root.id == id);
        place.map(|place| roots.swap_remove(place)).is_some()
    });
    if gone {
        Vm::with(|vm| vm.forget(id));
    }
}

impl Root {
    fn set_tick(&mut self, tick_ms: u32) {
        if self.tick_ms != tick_ms && hostcalls::set_tick_period_ms(tick_ms).is_ok() {
            self.tick_ms = tick_ms;
        }
    }

    fn end_wait(&self, vm: &Vm) {
        if vm.waits_until_ms.get().is_some_and(|until| until <= now_ms()) {
            log::warn!("no answer from the flag service in time: going on with the flags of the configuration");
            vm.waits_until_ms.set(None);
        }
        release(vm, self.id);
    }

    /// When to look again at the latest, for requests that wait.
    fn soon(vm: &Vm, tick_ms: u32) -> u32 {
        let soon = vm.prober.borrow().tick_ms().unwrap_or(tick_ms);
        if vm.watch_fences() { STARTING_MS } else { soon.min(tick_ms) }
    }

    pub(crate) fn on_http_call_response(&mut self, vm: &Vm, token: u32, body: usize) {
        vm.enter(self.id);
        if !vm.prober.borrow_mut().answered(token, body, now_ms()) {
            poller::on_answer(vm, token, body);
        }
        self.probe(vm);
        self.end_wait(vm);
    }

    /// Tries what is due, and sees to it that what failed is tried again soon.
    fn probe(&mut self, vm: &Vm) {
        vm.probe();
        self.set_tick(Root::soon(vm, self.tick_ms));
    }

    pub(crate) fn on_configure(&mut self, vm: &Vm, size: usize) -> bool {
        let bytes = hostcalls::buffer(BufferType::PluginConfiguration, size).unwrap_or_default();
        match Config::parse(&bytes) {
            Err(error) => {
                vm.metrics.config_refused.add(1);
                log::error!("versionflag: this configuration is refused, the last good one stays: {error}");
                false
            }
            Ok(config) => {
                let name = property("plugin_name").unwrap_or_default();
                let role = config.role.in_proxy(&property("xds\0node\0id").unwrap_or_default());
                let (header, workload) = (config.header, config.workload);
                let own = Settings { role, header, other_headers: vec![], workload };
                let settings = Rc::new(own.clone());
                let plugin = Plugin { name, own, settings, flags: config.flags, service: config.service };
                vm.configure(self.id, plugin, config.first_answer_ms);
                self.set_tick(STARTING_MS);
                true
            }
        }
    }

    pub(crate) fn on_tick(&mut self, vm: &Vm) {
        vm.enter(self.id);
        let me = if vm.speaks(self.id) { vm.me(self.id) } else { None };
        // Before the wait for the first answer ends: another instance may have it.
        if let Some(me) = me.filter(|_| vm.missed()) {
            poller::on_wake(vm, me, &[]);
        }
        self.end_wait(vm);
        let Some(me) = me else { return };
        let tick_ms = poller::on_tick(vm, me).unwrap_or(FOLLOWING_MS);
        vm.probe();
        let tick_ms = Root::soon(vm, tick_ms);
        let waits = vm.waits_until_ms.get().is_some();
        self.set_tick(if waits { STARTING_MS } else { tick_ms });
    }

    pub(crate) fn on_queue_ready(&mut self, vm: &Vm) {
        vm.enter(self.id);
        let Some(me) = vm.me.get() else { return };
        poller::on_wake(vm, me, &store::drain(me.queue));
        self.probe(vm);
        self.end_wait(vm);
    }
}
