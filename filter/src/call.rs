//! A call to a cluster that is under way, and belongs to a plugin. Pure, but for asking whether that one still speaks.

use crate::vm::Vm;

/// How much later than its time-out an answer may come.
const LATE_MS: u64 = 1_000;

/// A call under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) token: u32,
    pub(crate) plugin: u32,
    pub(crate) began_ms: u64,
    pub(crate) timeout_ms: u32,
}

impl Call {
    /// Envoy answers every call, in time or with a failure; but one of a plugin that goes.
    pub(crate) fn is_lost(&self, vm: &Vm, now_ms: u64) -> bool {
        let until_ms = self.began_ms.saturating_add(self.timeout_ms.into()).saturating_add(LATE_MS);
        !vm.speaks(self.plugin) || until_ms < now_ms
    }
}
