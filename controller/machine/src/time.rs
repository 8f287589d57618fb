//! A point in time. Pure: nothing here reads a clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Millis;

/// A point in time, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The point so much later, at the most the last one that there is.
    #[must_use]
    pub fn plus(self, duration: Millis) -> UnixMs {
        UnixMs(self.0.saturating_add(duration.0))
    }

    /// How long ago an earlier point was; nothing where it is later.
    pub fn since(self, earlier: UnixMs) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}
