//! The flip, and how a fence holds requests for it in mode Fenced. Pure.

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::{InboundProxies, Laggards, OnExpiry, Spec, SwitchMode};
use crate::duration::Millis;

/// A CEL rule of the whole spec: what [`NO_PREVIEW`] says.
pub(crate) const PREVIEW: &str =
    "!has(self.preview) || !has(self.switch) || !has(self.switch.mode) || self.switch.mode != 'Fenced'";
pub(crate) const NO_PREVIEW: &str = "spec.preview sends requests to both versions at once, which switch.mode Fenced promises not to: take one of both out";
/// The shortest hold: two ways of the flag take some milliseconds each.
const SHORTEST: Millis = Millis(100);

/// The flip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SwitchSpec {
    /// How it is done.
    pub mode: SwitchMode,
    /// How requests wait, in mode Fenced.
    pub fence: FenceSpec,
    /// What becomes of proxies that do not ack.
    pub laggards: Laggards,
    /// When they are named.
    pub ack_timeout: Millis,
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub(crate) max_hold: Former,
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub(crate) on_hold_timeout: Former,
}

impl SwitchSpec {
    /// Whether two versions may never have open streams at once.
    pub fn is_fenced(&self) -> bool {
        self.mode == SwitchMode::Fenced
    }
}

impl Default for SwitchSpec {
    fn default() -> Self {
        SwitchSpec {
            mode: SwitchMode::Immediate,
            fence: FenceSpec::default(),
            laggards: Laggards::Wait,
            ack_timeout: Millis(300_000),
            max_hold: Former,
            on_hold_timeout: Former,
        }
    }
}

/// A field from before there was a fence. It meant nothing, but stored objects have it, by its default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Former;

impl<'de> Deserialize<'de> for Former {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Former, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Former)
    }
}

/// How requests wait while the old version drains, in mode Fenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FenceSpec {
    /// How long a proxy holds requests at most: from 100ms to 60s. The old version has half of it to drain, so that it has
    /// to be more than twice as long as the longest request.
    pub max_hold: Millis,
    /// What becomes of the requests that wait in a proxy when it has held for `maxHold` and has heard nothing: Open sends
    /// them to the old version, Reject answers 503.
    pub on_expiry: OnExpiry,
    /// Whether every workload of both versions needs a proxy beside it that sees what arrives.
    pub inbound: InboundProxies,
    /// How often requests are held for one switch, where the old version does not drain, before a person has to ask for
    /// another try.
    #[schemars(schema_with = "attempts")]
    pub attempts: u32,
}

/// A Kubernetes API server knows no number without a sign.
fn attempts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": 100 })
}

impl Default for FenceSpec {
    fn default() -> Self {
        FenceSpec { max_hold: Millis(2_000), on_expiry: OnExpiry::Open, inbound: InboundProxies::Optional, attempts: 5 }
    }
}

impl FenceSpec {
    /// How long the old version may drain: half of the hold, so that both decisions come before it ends by itself.
    pub(crate) fn drain(max_hold: Millis) -> Millis {
        Millis(max_hold.0 / 2)
    }

    /// How long a proxy is asked to hold at most.
    pub(crate) fn max_hold_ms(max_hold: Millis) -> u32 {
        u32::try_from(max_hold.0).unwrap_or(u32::MAX).clamp(1, flag::limits::MAX_HOLD_MS)
    }
}

/// What is wrong with it in a spec.
pub(crate) fn validate(spec: &Spec) -> Vec<String> {
    let (fence, mut wrong) = (&spec.switch.fence, vec![]);
    let longest = Millis(flag::limits::MAX_HOLD_MS.into());
    if !(SHORTEST..=longest).contains(&fence.max_hold) {
        wrong.push(format!(
            "spec.switch.fence.maxHold is {}: it may be {SHORTEST} to {}s",
            fence.max_hold,
            longest.0 / 1_000
        ));
    }
    if !(1..=100).contains(&fence.attempts) {
        wrong.push(format!("spec.switch.fence.attempts is {}: it may be 1 to 100", fence.attempts));
    }
    if spec.switch.mode == SwitchMode::Fenced && spec.preview.is_some() {
        wrong.push(NO_PREVIEW.to_owned());
    }
    wrong
}
