//! Which of two records of one flag is in effect. Pure.

use crate::record::Record;

/// What becomes of a record that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeOutcome {
    /// It takes effect.
    Adopt,
    /// It is what is in effect already.
    Same,
    /// It is older: the one in effect stays.
    Older,
    /// Same epoch, other content: somebody writes epochs twice. The one in effect stays, and
    /// this has to be seen.
    Conflict,
}

/// Decides between the record in effect and one that arrives, for the same uid.
pub fn judge(current: Option<&Record>, incoming: &Record) -> MergeOutcome {
    let Some(current) = current else {
        return MergeOutcome::Adopt;
    };
    match incoming.epoch.cmp(&current.epoch) {
        std::cmp::Ordering::Greater => MergeOutcome::Adopt,
        std::cmp::Ordering::Less => MergeOutcome::Older,
        std::cmp::Ordering::Equal if incoming.hash == current.hash => MergeOutcome::Same,
        std::cmp::Ordering::Equal => MergeOutcome::Conflict,
    }
}
