//! What to do when the new version fails after the flip. Pure.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::TargetFailureAction;
use crate::duration::Millis;

/// What to do when the new version fails after the flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct OnTargetFailure {
    /// What to do.
    pub action: TargetFailureAction,
    /// How long it may be not ready before it has failed. One that ended has failed at once.
    pub after: Millis,
}

impl Default for OnTargetFailure {
    fn default() -> Self {
        OnTargetFailure { action: TargetFailureAction::default(), after: hangs_after() }
    }
}

fn hangs_after() -> Millis {
    Millis(30_000)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Fields {
    #[serde(default)]
    action: TargetFailureAction,
    #[serde(default = "hangs_after")]
    after: Millis,
}

impl<'de> Deserialize<'de> for OnTargetFailure {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ActionOrFields)
    }
}

/// At first it was the action alone.
struct ActionOrFields;

impl<'de> Visitor<'de> for ActionOrFields {
    type Value = OnTargetFailure;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Wait, Rollback, or a map of action and after")
    }

    fn visit_str<E: serde::de::Error>(self, action: &str) -> Result<Self::Value, E> {
        let action = TargetFailureAction::deserialize(action.into_deserializer())?;
        Ok(OnTargetFailure { action, ..OnTargetFailure::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        let Fields { action, after } = Fields::deserialize(MapAccessDeserializer::new(fields))?;
        Ok(OnTargetFailure { action, after })
    }
}
