//! The plugin: its configuration, its ticks, and what wakes it. Hostcalls.

use std::rc::Rc;
use std::time::Duration;

use flag::config::{Config, Role};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, RootContext};

use crate::poller;
use crate::request::{Settings, release};
use crate::store;
use crate::vm::{Plugin, Vm, now_ms};

/// Until the first answer every millisecond counts; later a tick is only a safety net.
const STARTING: Duration = Duration::from_millis(10);
const FOLLOWING: Duration = Duration::from_millis(500);

pub(crate) struct Root {
    vm: Rc<Vm>,
    id: u32,
    tick: Duration,
}

impl Root {
    pub(crate) fn new(id: u32) -> Root {
        let vm = Vm::get();
        vm.add_root(id);
        Root { vm, id, tick: Duration::ZERO }
    }

    fn set_tick(&mut self, tick: Duration) {
        if self.tick != tick && hostcalls::set_tick_period(tick).is_ok() {
            self.tick = tick;
        }
    }

    /// The role, where the configuration leaves it to the listener.
    fn role(configured: Role) -> Role {
        const INBOUND: u8 = 1;
        match configured {
            Role::Auto => {
                let direction = hostcalls::get_property(vec!["xds", "listener_direction"]).ok().flatten();
                match direction.and_then(|bytes| bytes.first().copied()) {
                    Some(INBOUND) => Role::Inbound,
                    _ => Role::Caller,
                }
            }
            role => role,
        }
    }

    fn end_wait(&self) {
        if self.vm.waits_until_ms.get().is_some_and(|until| until <= now_ms()) {
            log::warn!("no answer from the flag service in time: going on with the flags of the configuration");
            self.vm.waits_until_ms.set(None);
        }
        if self.vm.waits_until_ms.get().is_none() {
            release(&self.vm, self.id);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, _headers: usize, body: usize, _trailers: usize) {
        self.vm.enter(self.id);
        poller::on_answer(&self.vm, token, body);
        self.end_wait();
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let bytes = self.get_plugin_configuration().filter(|_| size > 0).unwrap_or_default();
        match Config::parse(&bytes) {
            Err(error) => {
                self.vm.metrics.config_refused.add(1);
                log::error!("versionflag: this configuration is refused, the last good one stays: {error}");
                false
            }
            Ok(config) => {
                let role = Root::role(config.role);
                let settings = Rc::new(Settings { role, header: config.header, workload: config.workload });
                let plugin = Plugin { settings, flags: config.flags, service: config.service };
                self.vm.configure(self.id, plugin, config.first_answer_ms);
                self.set_tick(STARTING);
                true
            }
        }
    }

    fn on_tick(&mut self) {
        self.vm.enter(self.id);
        self.end_wait();
        if !self.vm.speaks(self.id) {
            return;
        }
        let Some(me) = self.vm.me(self.id) else { return };
        if self.vm.missed() {
            poller::on_wake(&self.vm, me, &[]);
            self.end_wait();
        }
        let tick = poller::on_tick(&self.vm, me).unwrap_or(FOLLOWING);
        let waits = self.vm.waits_until_ms.get().is_some();
        self.set_tick(if waits { STARTING } else { tick });
    }

    fn on_queue_ready(&mut self, _queue: u32) {
        self.vm.enter(self.id);
        let Some(me) = self.vm.me.get() else { return };
        poller::on_wake(&self.vm, me, &store::drain(me.queue));
        self.end_wait();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.vm.forget(self.id);
    }
}
