//! Which of two records of one flag is in effect. Pure.

use crate::record::Record;

/// What becomes of a record that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
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
pub fn judge(current: Option<&Record>, incoming: &Record) -> Verdict {
    let Some(current) = current else {
        return Verdict::Adopt;
    };
    match incoming.epoch.cmp(&current.epoch) {
        std::cmp::Ordering::Greater => Verdict::Adopt,
        std::cmp::Ordering::Less => Verdict::Older,
        std::cmp::Ordering::Equal if incoming.hash == current.hash => Verdict::Same,
        std::cmp::Ordering::Equal => Verdict::Conflict,
    }
}
