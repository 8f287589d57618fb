//! The audit log: one JSON object a line for everything that happens to a flag. I/O: appends to a file
//! or to stdout, on a thread of its own.
//!
//! At least once: what was told after the status was written is told again, as `replayed`, when a
//! controller begins with a flag, as far back as its history goes. Lines of one thing have the same
//! `uid`, `time`, `event` and `message`. What cannot be written is logged and lost, and holds nothing up.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use machine::history::Entry;
use machine::order::AnsweredOrder;
use machine::status::{Phase, Status};
use machine::time::UnixMs;

/// Lines that may wait to be written.
const WAITING: usize = 1_024;
/// The longest wait for the last lines to be written.
const LAST: Duration = Duration::from_secs(1);

/// One line of the audit log: one thing that happened to a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditLine<'a> {
    /// When it happened: RFC 3339, with milliseconds.
    pub time: String,
    /// The namespace of the flag, in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
    /// The name of the flag.
    pub name: &'a str,
    /// The uid of the flag.
    pub uid: &'a str,
    /// The epoch of the record by then.
    pub epoch: u64,
    /// What happened, as one CamelCase word: of the history, or `Blocked`, `Unblocked`, `Refused`.
    pub event: &'a str,
    /// What happened, as one sentence.
    pub message: &'a str,
    /// What blocks, as one CamelCase word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Where the flag stood after it; not known of what is replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The version that is left, in a switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<&'a str>,
    /// The version that is gone to, in a switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<&'a str>,
    /// The request by hand that led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<AuditRequest<'a>>,
    /// Whether it may be in the log already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
}

/// A request by hand, in a line of the audit log. Who made it is known to the API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRequest<'a> {
    /// The id of the request, chosen by who asked.
    pub id: &'a str,
    /// What was asked for, in one word.
    pub action: &'a str,
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(Timestamp::MAX))
}

/// The entries of a history that were not in it before. The history is added to at its end and cut at its
/// beginning, so that times, which may be equal, need not be compared.
pub fn new_entries<'a>(before: &[Entry], after: &'a [Entry]) -> &'a [Entry] {
    let same =
        |one: &Entry, other: &Entry| (one.at, one.event, &one.message) == (other.at, other.event, &other.message);
    let kept = (0..=before.len()).find_map(|cut| {
        let kept = before.get(cut..)?;
        let fits = kept.len() <= after.len() && kept.iter().zip(after).all(|(one, other)| same(one, other));
        fits.then_some(kept.len())
    });
    after.get(kept.unwrap_or_default()..).unwrap_or_default()
}

/// One line for each change from one status to the next; without a status before, for everything that is remembered.
fn lines_of_change<'a>(now: UnixMs, before: Option<&Status>, after: &'a Status) -> Vec<AuditLine<'a>> {
    let (namespace, name) = match after.name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, after.name.as_str()),
    };
    let under_way = |status: &Status| !matches!(status.phase, Phase::Adopting | Phase::Stable);
    let switch = before.and(after.switch.as_ref()).filter(|_| under_way(after) || before.is_some_and(under_way));
    let last = after.last_request.as_ref();
    let asked = last.filter(|last| before.is_none_or(|before| before.last_request.as_ref() != Some(*last)));
    let request = asked.map(|last| AuditRequest { id: &last.id, action: last.action.name() });
    let known = |order: &AnsweredOrder| before.is_some_and(|before| before.answered_order(&order.id).is_some());
    let orders = after.orders.iter().filter(|order| !known(order));
    let of_order = |order: &'a AnsweredOrder| AuditRequest { id: &order.id, action: order.verb.name() };
    let line = |at: UnixMs, event: &'a str, message: &'a str| AuditLine {
        time: time(at.0),
        namespace,
        name,
        uid: &after.uid,
        epoch: after.epoch(),
        event,
        message,
        reason: None,
        phase: before.map(|_| after.phase),
        from: switch.map(|switch| switch.from.as_str()),
        to: switch.map(|switch| switch.to.as_str()),
        request: None,
        replayed: before.is_none(),
    };
    let new = new_entries(before.map_or(&[], |before| &before.history), &after.history);
    let mut lines: Vec<AuditLine<'a>> = new
        .iter()
        .map(|event| AuditLine {
            epoch: event.epoch,
            request: request.clone().filter(|_| asked.is_some_and(|asked| asked.at == event.at)).or_else(|| {
                let of_event = |order: &&AnsweredOrder| order.at == event.at && order.refused.is_none();
                orders.clone().find(of_event).map(of_order)
            }),
            ..line(event.at, event.event.name(), &event.message)
        })
        .collect();
    if let Some(asked) = asked
        && let Some(why) = &asked.refused
    {
        lines.push(AuditLine { request, ..line(asked.at, "Refused", why) });
    }
    lines.extend(orders.clone().filter_map(|order| {
        let why = order.refused.as_deref()?;
        Some(AuditLine { request: Some(of_order(order)), ..line(order.at, "Refused", why) })
    }));
    let blocked = before.and_then(|before| before.blocked.as_ref()).map(|blocked| blocked.reason);
    match &after.blocked {
        Some(new) if blocked != Some(new.reason) => {
            lines.push(AuditLine { reason: Some(new.reason.name()), ..line(new.since, "Blocked", &new.message) });
        }
        None if blocked.is_some() => lines.push(line(now, "Unblocked", "it goes on")),
        _ => {}
    }
    lines
}

/// The audit log; by default there is none, and lines go nowhere.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    to: Option<SyncSender<String>>,
}

/// The end of the thread that writes an audit log.
#[derive(Debug)]
pub struct AuditEnd(Receiver<()>);

impl AuditEnd {
    /// Waits until everything is written, but not for ever. No [`Audit`] of this log may be left.
    pub fn wait(&self) {
        // Nothing is ever sent: the end of the writer is what is waited for.
        if self.0.recv_timeout(LAST) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the end of the audit log could not be written in time and is lost");
        }
    }
}

impl Audit {
    /// An audit log that is appended to a file; `-` is stdout.
    pub fn open(path: &Path) -> std::io::Result<(Audit, AuditEnd)> {
        let out: Box<dyn Write + Send> = match path.as_os_str() == "-" {
            true => Box::new(std::io::stdout()),
            false => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        Ok(Audit::to(out))
    }

    fn to(mut out: Box<dyn Write + Send>) -> (Audit, AuditEnd) {
        let (to, from) = sync_channel::<String>(WAITING);
        let (open, written) = channel();
        std::thread::spawn(move || {
            for line in from {
                if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
                    tracing::error!(%error, line = line.trim_end(), "a line of the audit log is lost");
                }
            }
            drop(open);
        });
        (Audit { to: Some(to) }, AuditEnd(written))
    }

    /// Writes a line for each change from one status to the next; without a status before, for everything that is
    /// remembered.
    pub fn record_change(&self, now: UnixMs, before: Option<&Status>, after: &Status) {
        let Some(to) = &self.to else { return };
        for line in lines_of_change(now, before, after) {
            let Ok(text) = serde_json::to_string(&line) else { continue };
            match to.try_send(format!("{text}\n")) {
                Ok(()) => {}
                Err(TrySendError::Full(line) | TrySendError::Disconnected(line)) => {
                    tracing::error!(
                        line = line.trim_end(),
                        "a line of the audit log is lost: writing it takes too long"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use machine::action::Action;
    use machine::history::Happening;
    use machine::order::Verb;
    use machine::reason::Reason;
    use machine::status::{Blocked, LastRequest, Switch};

    const NOW: UnixMs = UnixMs(1_800_000_000_123);

    const A: Happening = Happening::Started;
    const B: Happening = Happening::Flipped;
    const C: Happening = Happening::Settled;
    const D: Happening = Happening::Removed;

    fn entry(at: UnixMs, event: Happening) -> Entry {
        Entry { at, event, message: String::new(), epoch: 1 }
    }

    #[rstest]
    #[case::nothing(&[], &[], 0)]
    #[case::first(&[], &[A], 1)]
    #[case::same(&[A, B], &[A, B], 0)]
    #[case::one_more(&[A, B], &[A, B, C], 1)]
    #[case::cut(&[A, B], &[B, C, D], 2)]
    #[case::all_new(&[A, B], &[C, D], 2)]
    // All of them at one time: only a millisecond.
    #[case::alike(&[A, A], &[A, A, A], 1)]
    fn what_is_new_is_found_without_the_clock(
        #[case] before: &[Happening],
        #[case] after: &[Happening],
        #[case] expected: usize,
    ) {
        let events = |kinds: &[Happening]| kinds.iter().map(|kind| entry(NOW, *kind)).collect::<Vec<_>>();
        let (before, after) = (events(before), events(after));
        let found = new_entries(&before, &after);
        assert_eq!(found, &after[after.len() - expected..]);
    }

    fn before() -> Status {
        Status { phase: Phase::AwaitingPromotion, ..Status::new("u-1", "shop/reviews", UnixMs(NOW.0 - 5)) }
    }

    /// A promotion was granted.
    fn promoted() -> Status {
        let mut after = Status { phase: Phase::ProvingRoutes, ..before() };
        after.switch = Some(Switch { from: "v1".to_owned(), to: "v2".to_owned(), ..Switch::default() });
        after.history = vec![Entry { message: "promote was asked for".to_owned(), ..entry(NOW, Happening::Requested) }];
        after.last_request = Some(LastRequest { id: "7".to_owned(), action: Action::Promote, refused: None, at: NOW });
        after
    }

    fn told(before: Option<&Status>, after: &Status) -> Vec<serde_json::Value> {
        lines_of_change(NOW, before, after).iter().map(|line| serde_json::to_value(line).expect("JSON")).collect()
    }

    #[test]
    fn a_line_says_what_when_from_where_to_where_and_at_whose_wish() {
        let expected = json!({
            "time": "2027-01-15T08:00:00.123Z", "namespace": "shop", "name": "reviews", "uid": "u-1", "epoch": 1,
            "event": "Requested", "message": "promote was asked for", "phase": "ProvingRoutes",
            "from": "v1", "to": "v2", "request": { "id": "7", "action": "promote" },
        });
        assert_eq!(told(Some(&before()), &promoted()), [expected]);
        assert_eq!(told(Some(&promoted()), &promoted()), [] as [serde_json::Value; 0]);
    }

    #[test]
    fn what_is_remembered_is_told_again_at_the_start() {
        let expected = json!({
            "time": "2027-01-15T08:00:00.123Z", "namespace": "shop", "name": "reviews", "uid": "u-1", "epoch": 1,
            "event": "Requested", "message": "promote was asked for",
            "request": { "id": "7", "action": "promote" }, "replayed": true,
        });
        assert_eq!(told(None, &promoted()), [expected]);
    }

    #[test]
    fn refusals_and_blockers_are_told_once() {
        let mut after = before();
        let refused = Some("there is no previous version to go back to".to_owned());
        after.last_request = Some(LastRequest { id: "8".to_owned(), action: Action::Rollback, refused, at: NOW });
        let blocked =
            |message: &str| Some(Blocked { reason: Reason::Laggards, message: message.to_owned(), since: NOW });
        after.blocked = blocked("1 of 2");
        let lines = told(Some(&before()), &after);
        let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap_or_default()).collect();
        assert_eq!(events, ["Refused", "Blocked"]);
        assert_eq!(lines[0]["request"], json!({ "id": "8", "action": "rollback" }));
        assert_eq!(lines[1]["reason"], "Laggards");
        let reworded = Status { blocked: blocked("2 of 2"), ..after.clone() };
        assert!(told(Some(&after), &reworded).is_empty());
        let free = Status { blocked: None, ..after.clone() };
        assert_eq!(told(Some(&after), &free)[0]["event"], "Unblocked");
    }

    /// T19
    #[test]
    fn orders_are_told_with_who_asked_for_them() {
        let granted =
            AnsweredOrder { id: "9".to_owned(), verb: Verb::Restart, version: "v2".to_owned(), refused: None, at: NOW };
        let refused = Some("v1 serves".to_owned());
        let orders = vec![granted.clone(), AnsweredOrder { id: "10".to_owned(), verb: Verb::Stop, refused, ..granted }];
        let history = vec![entry(NOW, Happening::Requested)];
        let after = Status { orders, history, ..before() };
        let lines = told(Some(&before()), &after);
        let events: Vec<_> = lines.iter().map(|line| (&line["event"], &line["request"])).collect();
        let (restart, stop) = (json!({ "id": "9", "action": "restart" }), json!({ "id": "10", "action": "stop" }));
        assert_eq!(events, [(&json!("Requested"), &restart), (&json!("Refused"), &stop)]);
        assert_eq!(told(Some(&after), &after), [] as [serde_json::Value; 0]);
    }

    #[test]
    fn lines_are_appended_to_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        for _ in 0..2 {
            let (audit, written) = Audit::open(&path).expect("a file");
            audit.record_change(NOW, Some(&before()), &promoted());
            drop(audit);
            written.wait();
        }
        let text = std::fs::read_to_string(&path).expect("lines");
        let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        assert_eq!(events.map(|line| line["event"].clone()).collect::<Vec<_>>(), ["Requested", "Requested"]);
    }
}
