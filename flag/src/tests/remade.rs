//! P3: a flag is deleted and made again, and a proxy lives through it.

use std::rc::Rc;

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{draft, nowhere};
use crate::config::Workload;
use crate::record::Record;
use crate::table::{Channel, Table};

/// The flag of this uid.
fn flag(uid: &str, epoch: u64, active: &str) -> Record {
    Record { uid: uid.to_owned(), ..draft(epoch, active) }.seal().expect("valid")
}

fn active(table: &Table) -> String {
    table.find("reviews").expect("has a flag").choose(None, |_| None).version().to_owned()
}

/// Epoch that is reported for a flag, and the epoch of its rival.
fn says(table: &Table, uid: &str) -> (u64, u64) {
    let flag = table.get(uid).expect("known");
    (flag.state(0).epoch, flag.observed.rival_epoch.get())
}

/// P3: whichever uid sorts first, and whichever epoch is higher.
#[test]
fn what_the_service_lists_decides() {
    for (old, new) in [("a", "b"), ("b", "a")] {
        for epoch in [4, 5, 6] {
            let mut table = Table::default();
            table.apply(Channel::Service, &[flag(old, 5, "v1")], &nowhere);
            table.apply(Channel::Service, &[flag(new, epoch, "v2")], &nowhere);
            assert_eq!(active(&table), "v2", "{new} at epoch {epoch}");
            let of_cluster = table.of_version("reviews-v1").map(|(flag, _)| flag.record.uid.clone());
            assert_eq!(of_cluster.as_deref(), Some(new), "by the cluster, too");
            let workload = Workload { service: "reviews".into(), version: "v1".into() };
            assert_eq!(table.of_workload(&workload).expect("a flag").record.uid, new, "and by the workload");
            assert_eq!(says(&table, new), (epoch, 5));
            assert_eq!(says(&table, old), (0, epoch), "it has no host any more");
        }
    }
}

/// P3: a flag that does not have all its hosts has not taken effect.
#[test]
fn a_flag_without_its_hosts_is_not_acked() {
    let mut table = Table::default();
    table.apply(Channel::Service, &[flag("a", 5, "v1")], &nowhere);
    table.apply(Channel::Config, &[flag("b", 9, "v2")], &nowhere);
    assert_eq!(active(&table), "v1", "the service does not list the other one yet");
    assert_eq!((says(&table, "a"), says(&table, "b")), ((5, 9), (0, 5)));
    table.apply(Channel::Service, &[flag("b", 9, "v2")], &nowhere);
    assert_eq!((says(&table, "a").0, says(&table, "b").0), (0, 9));
    // Of two that nobody but the configuration knows, the one that it lists.
    let mut table = Table::default();
    table.apply(Channel::Config, &[flag("a", 5, "v1")], &nowhere);
    table.apply(Channel::Config, &[flag("b", 4, "v2")], &nowhere);
    assert_eq!((active(&table).as_str(), says(&table, "b")), ("v2", (4, 5)));
}

/// P3: what is open stays open, under the new flag, until it has ended; and nothing is counted for two flags.
#[test]
fn open_requests_are_carried_over() {
    let mut table = Table::default();
    table.apply(Channel::Service, &[flag("a", 5, "v1")], &nowhere);
    let old = table.get("a").expect("known");
    let (sent, arrived) = (Rc::clone(old.choose(None, |_| None)), old.observed.arrived.of("v1"));
    sent.start();
    sent.start();
    sent.finish();
    arrived.start();
    table.apply(Channel::Service, &[flag("b", 6, "v1")], &nowhere);
    let open = |table: &Table, uid: &str| {
        let state = table.get(uid).expect("known").state(0);
        [state.sent, state.arrived].map(|totals| totals.get("v1").and_then(|totals| totals.open()).unwrap_or(0))
    };
    assert_eq!(open(&table, "b"), [1, 1]);
    // New ones are the new flag's alone.
    let new = Rc::clone(table.find("reviews").expect("has a flag").choose(None, |_| None));
    new.start();
    assert_eq!((open(&table, "a"), open(&table, "b")), ([0, 0], [2, 1]));
    // Another time: they go on to the third one.
    table.apply(Channel::Service, &[flag("c", 7, "v2")], &nowhere);
    assert_eq!(open(&table, "c"), [2, 1]);
    for counter in [&sent, &new, &arrived] {
        counter.finish();
    }
    assert_eq!(open(&table, "c"), [0, 0]);
    let kept = *table.get("c").expect("known").state(0).sent.get("v1").expect("counted");
    assert_eq!((kept.started, kept.finished), (3, 3), "totals never fall");
}

/// P3: the old flag had another host besides. It is over as a whole: nobody would count what it sends there.
#[test]
fn a_flag_that_was_replaced_is_over_as_a_whole() {
    let mut table = Table::default();
    let mut wide = draft(5, "v1");
    wide.uid = "a".to_owned();
    wide.members[0].hosts.insert("other".to_owned());
    table.apply(Channel::Service, &[wide.seal().expect("valid")], &nowhere);
    table.find("other").expect("has a flag").choose(None, |_| None).start();
    table.apply(Channel::Service, &[flag("b", 6, "v2")], &nowhere);
    assert!(table.find("other").is_none());
    assert_eq!(table.of_version("reviews-v1").map(|(flag, _)| flag.record.uid.as_str()), Some("b"));
    let open = |uid: &str| table.get(uid).expect("known").state(0).sent.get("v1").expect("counted").open();
    assert_eq!(open("b"), Some(1), "what was open stays open");
}
