//! What people ask for of one version on one machine: that it is started anew, or stopped. Pure.

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::action::Asked;
use crate::status::Status;
use crate::time::UnixMs;

/// Answered orders that are remembered.
const ANSWERED: usize = 8;

/// What is to be done with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Verb {
    /// Stop it, and start it as it is declared now.
    Restart,
    /// Stop it.
    Stop,
}

impl Verb {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by who asks; an order is answered once.
    pub id: String,
    /// What is to be done.
    pub verb: Verb,
    /// With which version.
    pub version: String,
    /// It is done even where requests may be lost by it.
    pub force: bool,
    /// When the version was started, in Unix milliseconds, as who asks has seen it: after another start it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<UnixMs>,
}

impl Asked for Order {
    fn id(&self) -> &str {
        &self.id
    }
}

/// An order that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AnsweredOrder {
    /// Its id.
    pub id: String,
    /// What was to be done.
    pub verb: Verb,
    /// With which version.
    pub version: String,
    /// Why it was refused; absent: it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// When that was.
    pub at: UnixMs,
}

impl Status {
    /// The answer to an order, if there is one.
    pub fn answered_order(&self, id: &str) -> Option<&AnsweredOrder> {
        self.orders.iter().find(|order| order.id == id)
    }

    /// Takes in the answer to an order.
    pub fn answer_order(&mut self, answer: AnsweredOrder) {
        self.orders.push(answer);
        self.orders.drain(..self.orders.len().saturating_sub(ANSWERED));
    }
}
