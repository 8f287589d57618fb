//! Who is sent what, and who is woken by a change.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use machine::observation::Observation;
use machine::record::Draft;
use machine::spec::Spec;
use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// One flag, at an epoch, for these proxies.
fn publication(name: &str, epoch: u64, audience: Option<BTreeSet<String>>) -> Publication {
    let spec: Spec = serde_saphyr::from_str(&format!("{{version: v1, services: [{{name: {name}}}]}}")).unwrap();
    let versions = BTreeSet::from(["v1".to_owned()]);
    let draft = Draft { uid: name, name, epoch, active: "v1", versions: &versions, preview: None, before: None };
    let record = draft.record(&spec, &Observation::unknown()).seal().unwrap();
    let (probe, health, fence) = (None, None, None);
    let report_every = Millis(100);
    Publication { record, report_every, prove_routes: false, measure: false, probe, health, fence, audience }
}

fn some(proxies: &[&str]) -> Option<BTreeSet<String>> {
    Some(proxies.iter().map(|proxy| (*proxy).to_owned()).collect())
}

#[rstest]
#[case::one_came(1, some(&["a", "b"]), 1, some(&["a", "b", "c"]), some(&["c"]))]
#[case::one_went(1, some(&["a", "b"]), 1, some(&["a"]), some(&["b"]))]
#[case::another_record(1, some(&["a", "b"]), 2, some(&["b", "c"]), some(&["a", "b", "c"]))]
#[case::for_all_from_now_on(1, some(&["a"]), 1, None, None)]
#[case::for_some_from_now_on(1, None, 1, some(&["a"]), None)]
#[case::another_record_for_all(1, None, 2, None, None)]
fn a_change_concerns_those_who_are_sent_something_else(
    #[case] epoch: u64,
    #[case] audience: Concerned,
    #[case] then: u64,
    #[case] next: Concerned,
    #[case] expected: Concerned,
) {
    let mut all = Catalogue { cores: 1, ..Catalogue::default() };
    assert_eq!(all.put(publication("reviews", epoch, audience.clone())), audience);
    assert_eq!(all.put(publication("reviews", then, next)), expected);
}

/// C17: a pod more or less in a namespace of many flags with many proxies.
#[test]
fn one_proxy_more_wakes_nobody_else_and_makes_no_snapshot_anew() {
    let proxies = |count: usize| -> Concerned { Some((0..count).map(|number| format!("proxy-{number}")).collect()) };
    let flags: Vec<Publication> = (0..200).map(|flag| publication(&format!("flag-{flag}"), 1, None)).collect();
    let mut all = Catalogue { cores: 4, ..Catalogue::default() };
    for flag in &flags {
        all.put(Publication { audience: proxies(500), ..flag.clone() });
    }
    let names = all.names_for("proxy-0");
    let before = all.ready(names.clone(), LEVEL);
    for flag in flags {
        let concerned = all.put(Publication { audience: proxies(501), ..flag });
        assert_eq!(concerned, some(&["proxy-500"]));
    }
    assert_eq!(all.names_for("proxy-500"), names);
    assert!(Arc::ptr_eq(&before, &all.ready(names, LEVEL)));
}

/// Who reports less often from now on is told.
#[test]
fn another_pace_concerns_all() {
    let proxies = |count: usize| -> Concerned { Some((0..count).map(|number| format!("proxy-{number}")).collect()) };
    let mut all = Catalogue { cores: 1, ..Catalogue::default() };
    all.put(publication("reviews", 1, proxies(10)));
    assert_eq!(all.put(publication("reviews", 1, proxies(4_000))), proxies(4_000));
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u64, Option<BTreeSet<u8>>),
    Take(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let audience = proptest::option::of(proptest::collection::btree_set(0..6_u8, 0..6));
    prop_oneof![
        4 => (0..3_u8, 1..3_u64, audience).prop_map(|(flag, epoch, audience)| Step::Put(flag, epoch, audience)),
        1 => (0..3_u8).prop_map(Step::Take),
    ]
}

proptest! {
    #[test]
    fn everybody_is_sent_what_is_for_them_and_told_of_it(steps in proptest::collection::vec(step(), 1..30)) {
        let mut all = Catalogue { cores: 1, ..Catalogue::default() };
        let mut plain: BTreeMap<String, Publication> = BTreeMap::new();
        let sent = |all: &mut Catalogue, proxy: &str| {
            let names = all.names_for(proxy);
            all.ready(names, LEVEL).revision.clone()
        };
        for step in steps {
            let before: Vec<String> = (0..6).map(|proxy| sent(&mut all, &format!("p{proxy}"))).collect();
            let concerned = match step {
                Step::Put(flag, epoch, audience) => {
                    let audience = audience.map(|all| all.into_iter().map(|proxy| format!("p{proxy}")).collect());
                    let new = publication(&format!("f{flag}"), epoch, audience);
                    plain.insert(new.record.name.clone(), new.clone());
                    all.put(new)
                }
                Step::Take(flag) => {
                    plain.remove(&format!("f{flag}"));
                    all.take(&format!("f{flag}")).map_or(some(&[]), |old| old.audience)
                }
            };
            for (number, before) in before.into_iter().enumerate() {
                let proxy = format!("p{number}");
                let is_for = |one: &&Publication| one.audience.as_ref().is_none_or(|all| all.contains(&proxy));
                let expected: Vec<&str> = plain.values().filter(is_for).map(|one| one.record.name.as_str()).collect();
                let names = all.names_for(&proxy);
                prop_assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
                let told = concerned.as_ref().is_none_or(|all| all.contains(&proxy));
                prop_assert!(told || sent(&mut all, &proxy) == before, "{} is not told", proxy);
            }
        }
    }
}
