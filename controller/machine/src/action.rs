//! What people ask for by hand. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::time::UnixMs;

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Action {
    /// Let the new version in.
    Promote,
    /// Back to the version before.
    Rollback,
    /// Give up a switch that was not flipped yet.
    Abort,
    /// End an override, and try again.
    Retry,
    /// Let nothing move.
    Suspend,
    /// Let things move again.
    Resume,
}

impl Action {
    /// All that can be asked for.
    pub const ALL: &[Action] = Action::VARIANTS;

    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Bytes of the id of a request.
pub const ID_BYTES: usize = 64;

/// Something that is asked for by hand, and answered once.
pub trait Asked: Clone {
    /// Chosen by who asks.
    fn id(&self) -> &str;
}

impl Asked for Request {
    fn id(&self) -> &str {
        &self.id
    }
}

/// One request by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by who asks; a request is answered once.
    pub id: String,
    /// What is asked for.
    pub action: Action,
    /// When the switch began that it is about, as who asks has seen it; without, it is about any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<UnixMs>,
}
