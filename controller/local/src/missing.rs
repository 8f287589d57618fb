//! Flags that stand in the files and have not begun: people are shown them, and what all flags share waits for those that
//! are missing since the controller began. I/O: reads their states, the flag service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use machine::fleet::ledger::Fleet;
use machine::order::AnsweredOrder;
use machine::reason::{Reason, SENTENCE, shortened};
use machine::status::{Blocked, LastRequest, Status};
use machine::time::UnixMs;
use service::clock::now;
use service::{FlagView, Hub};

use super::sources::{Found, find};
use super::store::StateFile;

/// A flag, or a whole file, that has not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The file, or the folder.
    pub(crate) path: PathBuf,
    /// The flag's name, as far as that can be read.
    pub(crate) flag: Option<String>,
    /// What is wrong.
    pub(crate) why: String,
}

impl Refused {
    /// Whether these flags, each with its file, have what was refused here.
    fn has_begun<'a>(&self, mut flags: impl Iterator<Item = (&'a str, &'a Path)>) -> bool {
        flags.any(|(name, path)| match &self.flag {
            Some(flag) => flag == name,
            None => path.starts_with(&self.path),
        })
    }
}

/// One that is shown.
#[derive(Debug)]
struct Shown {
    status: Status,
    version: String,
}

/// All flags that have not begun.
#[derive(Debug)]
pub(crate) struct Missing {
    refused: Vec<Refused>,
    /// By the name that people see.
    shown: BTreeMap<String, Shown>,
    /// What has been missing since the controller began, each with since when no file has it; `None`: all of them have
    /// begun once, and whoever comes later shares nothing yet.
    awaited: Option<Vec<(Refused, Option<UnixMs>)>>,
}

impl Missing {
    /// Nothing was read yet.
    pub(crate) fn new() -> Missing {
        Missing { refused: vec![], shown: BTreeMap::new(), awaited: Some(vec![]) }
    }

    /// Takes in a reading, with what was refused of it. `flags` are those that have begun, each with its file. What no
    /// file has any more is waited for until `gone_for` says that it has been away for long enough.
    pub(crate) fn take(
        &mut self,
        hub: &Hub,
        refused: Vec<Refused>,
        flags: &[(&str, &Path)],
        gone_for: impl Fn(UnixMs) -> bool,
    ) {
        for one in refused.iter().filter(|one| !self.refused.contains(one)) {
            tracing::error!(flag = one.flag, error = one.why, "a flag is not valid, and is not begun");
        }
        self.awaited = self.awaited.take().and_then(|before| {
            let of_before = before.into_iter().filter_map(|(one, since)| {
                let is_there = refused.iter().any(|now| now.path == one.path);
                if is_there || one.has_begun(flags.iter().copied()) {
                    return None;
                }
                let since = since.unwrap_or_else(now);
                (!gone_for(since)).then_some((one, Some(since)))
            });
            let all: Vec<_> = of_before.chain(refused.iter().map(|one| (one.clone(), None))).collect();
            (!all.is_empty()).then_some(all)
        });
        self.refused = refused;
        self.name(hub, flags);
    }

    /// Whether something is to be read again, though no file has changed: what is missing may begin for other reasons.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.as_ref().is_some_and(|all| !all.is_empty())
    }

    /// Why what flags share is left as it is, if it is.
    pub(crate) fn holds(&self) -> Option<String> {
        let all = self.awaited.as_ref()?.iter().map(|(one, gone)| match gone {
            Some(_) => format!("{} is gone", one.path.display()),
            None => one.why.clone(),
        });
        Some(format!(
            "nothing that proxies read is written, and nothing is flipped or removed, before every flag has begun: {}",
            all.collect::<Vec<_>>().join("; ")
        ))
    }

    /// Finds names for all of them, and what is remembered of each.
    fn name(&mut self, hub: &Hub, flags: &[(&str, &Path)]) {
        let mut before = std::mem::take(&mut self.shown);
        for one in &self.refused {
            let (found, state) = remembered(one);
            let named = one.flag.clone().or_else(|| state.as_ref().map(|status| status.name.clone()));
            let taken = |name: &String| flags.iter().any(|(flag, _)| flag == name) || self.shown.contains_key(name);
            let name = named.filter(|name| !taken(name)).unwrap_or_else(|| one.path.display().to_string());
            // Whoever has asked something meanwhile waits for the answer.
            let answered = before.remove(&name).map(|shown| shown.status);
            let status = answered.or(state).unwrap_or_else(|| Status::new("", &name, now()));
            let since = status.blocked.as_ref().filter(|old| old.reason == Reason::InvalidSpec).map(|old| old.since);
            let message = shortened(format!("it is not begun: {}", one.why), SENTENCE);
            let since = since.unwrap_or_else(now);
            let blocked = Some(Blocked { reason: Reason::InvalidSpec, message, since });
            let version = found.and_then(|found| found.version).unwrap_or_default();
            self.shown.insert(name, Shown { status: Status { blocked, ..status }, version });
        }
        for name in before.keys().filter(|name| !flags.iter().any(|(flag, _)| flag == name)) {
            hub.forget_flag(name);
        }
    }

    /// Shows all of them as they are now, and refuses what was asked of them.
    pub(crate) fn show(&mut self, hub: &Hub) {
        let now = now();
        for (name, Shown { status, version }) in &mut self.shown {
            refuse(hub, name, status, now);
            hub.show_flag(FlagView {
                spec_version: version.clone(),
                waiting: status.blocked.as_ref().map(|blocked| blocked.message.clone()).unwrap_or_default(),
                ..FlagView::of(name.clone(), Arc::new(status.clone()), Fleet::unknown(0), now)
            });
        }
    }
}

/// What its file says as far as that can be read, and what its state remembers.
fn remembered(one: &Refused) -> (Option<Found>, Option<Status>) {
    let all = if one.path.is_dir() { vec![] } else { find(std::slice::from_ref(&one.path)).unwrap_or_default() };
    let found = all.into_iter().find(|found| one.flag.is_none() || found.flag == one.flag);
    let state = found.as_ref().and_then(|found| StateFile::peek(&found.state)).map(|state| state.status);
    let is_its = |status: &Status| one.flag.as_ref().is_none_or(|flag| *flag == status.name);
    (found, state.filter(is_its))
}

/// Nobody could do what is asked of it, now or later.
fn refuse(hub: &Hub, name: &str, status: &mut Status, at: UnixMs) {
    let refused = || Some("the flag has not begun: `status` says why".to_owned());
    while let Some(request) = hub.requests.next_request(name, |id| status.has_answered(id)) {
        status.answer(LastRequest { id: request.id, action: request.action, refused: refused(), at });
    }
    let next = |status: &Status| hub.orders.as_ref()?.next_request(name, |id| status.answered_order(id).is_some());
    while let Some(order) = next(status) {
        status.answer_order(AnsweredOrder {
            id: order.id,
            verb: order.verb,
            version: order.version,
            refused: refused(),
            at,
        });
    }
}

#[cfg(test)]
mod tests;
