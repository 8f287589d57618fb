//! Which record, which epoch, which version, who polls, when again.

use std::collections::BTreeSet;
use std::rc::Rc;

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{draft, nowhere, record};
use crate::backoff::wait_ms;
use crate::config::Workload;
use crate::health::HealthChecks;
use crate::lease::{Claim, LEASE_MS, Lease, claim};
use crate::merge::{MergeOutcome, judge};
use crate::record::Preview;
use crate::table::{Channel, ROUTE_STAYS_MS, Table};
use crate::{epoch, host, limits, route};

#[test]
fn the_higher_epoch_wins() {
    let current = record(5, "v1");
    assert_eq!(judge(None, &current), MergeOutcome::Adopt);
    assert_eq!(judge(Some(&current), &record(6, "v2")), MergeOutcome::Adopt);
    assert_eq!(judge(Some(&current), &record(5, "v1")), MergeOutcome::Same);
    assert_eq!(judge(Some(&current), &record(5, "v2")), MergeOutcome::Conflict);
    assert_eq!(judge(Some(&current), &record(4, "v2")), MergeOutcome::Older);
}

#[test]
fn epochs_go_on_above_everything_known() {
    assert_eq!(epoch::next(0, 0, 1_000), Ok(1_000));
    assert_eq!(epoch::next(1_000, 0, 1_000), Ok(1_001));
    assert_eq!(epoch::next(1_000, 5_000, 1_000), Ok(5_001));
    assert_eq!(epoch::next(9_000, 0, 1_000), Ok(9_001));
    assert!(epoch::next(0, u64::MAX, 1_000).is_err());
    assert!(epoch::next(86_401_000, 0, 1_000).expect_err("a day ahead").to_string().contains("set the clock"));
}

#[test]
fn hosts_compare_without_port_case_and_dot() {
    // P2: with any number of colons.
    for spelling in ["reviews", "Reviews", "reviews:9080", "REVIEWS.", "Reviews.:80", "reviews:", "reviews:80:90"] {
        assert_eq!(host::normalize(spelling), "reviews");
    }
    assert_eq!(host::normalize("[::1]:80"), "[::1]");
    assert_eq!(host::normalize("[::1]"), "[::1]");
    assert_eq!(host::normalize("[::1]:80:90"), "[::1]");
    assert_eq!(host::normalize(":80"), "");
    assert_eq!(host::normalize(""), "");
}

#[test]
fn a_host_is_neither_a_pattern_nor_a_url() {
    for host in ["reviews", "Reviews.shop.svc.cluster.local.", "reviews:9080", "10.0.0.7", "[::1]", "[::1]:80", "a_b"] {
        assert!(host::is_host(host), "{host}");
    }
    for other in ["", ".", "*", "*.example", "http://reviews.example/", "reviews/", "a b", "reviews:x", "reviews:80:90"]
    {
        assert!(!host::is_host(other), "{other}");
    }
    for other in ["[]", "[::1", "::1", "reviews:99999", "reviews:"] {
        assert!(!host::is_host(other), "{other}");
    }
}

#[test]
fn an_istio_cluster_tells_its_subset() {
    assert_eq!(host::istio_subset("outbound|9080|v2|reviews.ns.svc"), Some(("v2", "reviews.ns.svc")));
    for other in ["outbound|9080||reviews.ns.svc", "inbound|9080||", "reviews-v2", "outbound|", ""] {
        assert_eq!(host::istio_subset(other), None);
    }
}

/// P6, F01: a proxy lives through any number of releases, and what is open is never forgotten.
#[test]
fn versions_that_are_over_are_forgotten() {
    let mut table = Table::default();
    let mut kept = None;
    for release in 1..=200_u64 {
        let mut record = draft(release, "v1");
        record.active = format!("r{release}");
        record.versions = [record.active.clone(), format!("r{}", release - 1)].into();
        record.members[0].clusters.clear();
        table.apply(Channel::Service, &[record.seal().expect("valid")], &nowhere);
        let flag = table.find("reviews").expect("has a flag");
        let counter = flag.choose(None, |_| None);
        counter.start();
        if release == 7 {
            // A stream that never ends.
            kept = Some(Rc::clone(counter));
        } else {
            counter.finish();
        }
        let state = flag.state(0);
        assert!(state.sent.len() <= limits::COUNTED + 2, "{} versions", state.sent.len());
        assert_eq!(state.sent.get("r7").is_some_and(|one| one.open() == Some(1)), release >= 7);
    }
    assert_eq!(kept.map(|counter| counter.version().to_owned()).as_deref(), Some("r7"));
}

/// P6: so it does through any number of flags.
#[test]
fn flags_that_came_and_went_are_forgotten() {
    let mut table = Table::default();
    for number in 1..=limits::FLAGS as u64 + 20 {
        let mut record = draft(number, "v1");
        record.uid = format!("u-{number}");
        record.members[0].hosts = [format!("host-{number}")].into();
        record.members[0].clusters.clear();
        table.apply(Channel::Service, &[record.seal().expect("valid")], &nowhere);
        if number == 1 {
            table.find("host-1").expect("has a flag").choose(None, |_| None).start();
        }
    }
    assert_eq!(table.flags().count(), limits::FLAGS);
    let known = |number: usize| table.find(&format!("host-{number}")).is_some();
    assert!(known(1), "it has a request open");
    assert!(!known(2) && known(22) && known(limits::FLAGS + 20));
}

fn table(active: &str) -> Table {
    let mut record = draft(5, active);
    record.preview = Some(Preview { header: "x-try".into(), value: "yes".into(), version: "v2".into() });
    let mut table = Table::default();
    assert!(table.apply(Channel::Service, &[record.seal().expect("valid")], &nowhere));
    table
}

#[test]
fn a_request_goes_to_one_version_by_rule() {
    let table = table("v1");
    let flag = table.find("Reviews:80").expect("has a flag");
    let member = |version: &str| Workload { service: "reviews".into(), version: version.into() };
    let stranger = Workload { service: "productpage".into(), version: "v2".into() };
    let none = |_: &str| None;
    let meets = |name: &str| (name == "x-try").then(|| "yes".to_owned());
    assert_eq!(flag.choose(None, none).version(), "v1");
    assert_eq!(flag.choose(Some(&stranger), none).version(), "v1");
    assert_eq!(flag.choose(Some(&member("v2")), none).version(), "v2", "a member stays in its version");
    assert_eq!(flag.choose(Some(&member("v9")), none).version(), "v1", "a version that is gone is not followed");
    assert_eq!(flag.choose(None, meets).version(), "v2", "preview");
    assert_eq!(flag.choose(Some(&member("v1")), meets).version(), "v1", "inside the group nothing mixes");
    assert!(table.find("other").is_none());
}

#[test]
fn the_cluster_tells_who_served() {
    let table = table("v1");
    let flag = table.find("reviews").expect("has a flag");
    let served = |cluster| flag.served_by(cluster).map(|counter| counter.version().to_owned());
    assert_eq!(served("reviews-v2").as_deref(), Some("v2"));
    assert_eq!(served("outbound|9080|v1|reviews.bookinfo.svc.cluster.local").as_deref(), Some("v1"));
    assert_eq!(served("outbound|9080|v1|ratings.bookinfo.svc.cluster.local"), None);
    assert_eq!(served("blackhole"), None);
}

#[test]
fn counts_outlive_the_record() {
    let mut table = table("v1");
    let old = table.find("reviews").expect("has a flag").choose(None, |_| None).clone();
    old.start();
    table.apply(Channel::Service, &[record(6, "v2")], &nowhere);
    let open =
        |table: &Table| table.find("reviews").expect("has a flag").state(0).sent.get("v1").expect("counted").open();
    assert_eq!(open(&table), Some(1));
    old.finish();
    assert_eq!(open(&table), Some(0));
}

#[test]
fn a_route_counts_while_requests_come() {
    let table = table("v1");
    let flag = table.find("reviews").expect("has a flag");
    let request = |route: &str| {
        flag.observed.route.replace(Some(route.to_owned()));
        flag.choose(None, |_| None).start();
    };
    let shown = |now_ms| flag.state(now_ms).routes.into_iter().next();
    request("old");
    assert_eq!(shown(1_000).as_deref(), Some("old"));
    request("old");
    assert_eq!(shown(10_500).as_deref(), Some("old"));
    assert_eq!(shown(10_500 + ROUTE_STAYS_MS).as_deref(), Some("old"));
    assert_eq!(shown(10_501 + ROUTE_STAYS_MS), None, "what was matched long ago may have changed unseen");
    request("new");
    assert_eq!(shown(40_000).as_deref(), Some("new"));
}

#[test]
fn what_waits_has_the_routes_of_when_it_came() {
    let mut table = table("v1");
    let shown = |table: &Table, now_ms| table.find("reviews").expect("has a flag").state(now_ms).routes;
    let flag = Rc::clone(table.find("reviews").expect("has a flag"));
    flag.observed.gate.waiting.set(2);
    let [early, late] = ["versionflag:reviews:v1", "versionflag:reviews:v1,v2"].map(str::to_owned);
    flag.observed.waits(Some(early.clone()));
    flag.observed.waits(Some(late.clone()));
    (0..100).for_each(|route| flag.observed.waits(Some(format!("says-nothing-{route}"))));
    let both = BTreeSet::from([early, late]);
    assert_eq!(shown(&table, 1_000), both);
    table.apply(Channel::Service, &[record(9, "v2")], &nowhere);
    assert_eq!(shown(&table, 2_000 + ROUTE_STAYS_MS), both, "as long as it waits, whatever the record is by now");
    (0..100).for_each(|route| flag.observed.waits(Some(format!("{route}/versionflag:reviews:v1,v2"))));
    let many = shown(&table, 3_000);
    assert_eq!(many.len(), limits::ROUTES + 1);
    let misses = |route: &&String| route::misses(route, &record(9, "v2"), "v2").is_some();
    assert_eq!(many.iter().filter(misses).collect::<Vec<_>>(), ["versionflag:reviews:v1", route::MORE]);
    flag.observed.gate.waiting.set(0);
    assert_eq!(shown(&table, 4_000), BTreeSet::new());
}

#[test]
fn configuration_and_service_never_fight() {
    let mut table = Table::default();
    let state = |table: &Table| {
        let flag = table.find("reviews").expect("has a flag");
        (flag.record.epoch, flag.state(0).config_epoch)
    };
    table.apply(Channel::Config, &[record(5, "v1")], &nowhere);
    assert_eq!(state(&table), (5, Some(5)));
    table.apply(Channel::Service, &[record(7, "v2")], &nowhere);
    assert_eq!(state(&table), (7, Some(5)), "a restart would still give 5");
    table.apply(Channel::Config, &[record(6, "v1")], &nowhere);
    assert_eq!(state(&table), (7, Some(6)));
    table.apply(Channel::Config, &[record(7, "v2")], &nowhere);
    assert_eq!(state(&table), (7, Some(7)));
    table.apply(Channel::Config, &[record(7, "v1")], &nowhere);
    assert_eq!(state(&table), (7, None), "other content under the same epoch counts for nothing");
    assert_eq!(table.find("reviews").expect("has a flag").state(0).conflicts, 1);
    table.apply(Channel::Service, &[], &nowhere);
    assert_eq!(state(&table).0, 7, "a deleted flag stays where it is");
    // Nor does one go that the configuration lists no longer: that a restart would not know it is told.
    table.apply(Channel::Config, &[record(7, "v2")], &nowhere);
    assert_eq!(state(&table), (7, Some(7)));
    table.apply(Channel::Config, &[], &nowhere);
    assert_eq!(state(&table), (7, None));
}

#[test]
fn one_instance_holds_the_lease() {
    let lease = |holder, until_ms| Some(Lease { holder, until_ms });
    let mine = Claim::Write(Lease { holder: 1, until_ms: 10_000 + LEASE_MS });
    for (current, expected) in [
        (None, mine),
        (lease(2, 10_000), mine),
        (lease(2, 10_001), Claim::Follow),
        (lease(1, 10_000 + LEASE_MS), Claim::Hold),
        (lease(1, 10_001), mine),
        (lease(2, 10_001 + LEASE_MS), mine),
        (lease(2, u64::MAX), mine),
    ] {
        assert_eq!(claim(current, 1, 10_000), expected, "{current:?}");
    }
}

#[test]
fn backoff_doubles_within_bounds_and_spreads() {
    for seed in 0..100 {
        assert!((25..=50).contains(&wait_ms(1, seed)));
        assert!((50..=100).contains(&wait_ms(2, seed)));
        assert!((2_500..=5_000).contains(&wait_ms(u32::MAX, seed)));
    }
    let waits: std::collections::BTreeSet<u64> = (0..100).map(|seed| wait_ms(8, seed)).collect();
    assert!(waits.len() > 50, "{} different waits of 100", waits.len());
}

/// P8: a plugin that drains is not what a proxy would start anew with.
#[test]
fn only_the_newest_plugin_says_what_the_configuration_has() {
    let mut table = Table::default();
    table.apply(Channel::Draining, &[record(7, "v2")], &nowhere);
    table.apply(Channel::Config, &[record(5, "v1")], &nowhere);
    let (_, flag) = table.flags().next().expect("a flag");
    let state = flag.state(0);
    assert_eq!((state.epoch, state.config_epoch), (7, Some(5)), "the higher epoch wins all the same");
    table.apply(Channel::Draining, &[record(9, "v2")], &nowhere);
    table.apply(Channel::Config, &[], &nowhere);
    let (_, flag) = table.flags().next().expect("a flag");
    assert_eq!((flag.state(0).epoch, flag.state(0).config_epoch), (9, None));
}

/// F14: a health check is told apart by what it says of itself, and no header is read for nothing.
#[test]
fn health_checks_are_told_apart_and_counted() {
    let names = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let checks = |agents: &[&str], paths: &[&str]| HealthChecks {
        flag: "u-1".into(),
        user_agents: names(agents),
        paths: names(paths),
    };
    let mut table = Table::default();
    table.apply(Channel::Service, &[record(5, "v1")], &nowhere);
    let is_check = |table: &Table, headers: &[(&str, &str)]| {
        let (_, flag) = table.flags().next().expect("a flag");
        flag.observed.is_check(|name| {
            let found = headers.iter().find(|(known, _)| *known == name);
            found.unwrap_or_else(|| panic!("{name} was read")).1.to_owned().into()
        })
    };
    assert!(!is_check(&table, &[]), "nobody has said what is one");
    table.ask_health(&[checks(&["kube-probe/", "Prometheus/"], &[])]);
    assert!(is_check(&table, &[("user-agent", "kube-probe/1.34")]));
    assert!(!is_check(&table, &[("user-agent", "a kube-probe/1.34")]));
    table.ask_health(&[checks(&[], &["/healthz"])]);
    assert!(is_check(&table, &[(":path", "/healthz?deep=1")]));
    assert!(!is_check(&table, &[(":path", "/healthz/deep")]));
    assert_eq!(table.flags().next().map(|(_, flag)| flag.observed.checked.get()), Some(2));
    table.ask_health(&[]);
    assert!(!is_check(&table, &[]));
    for empty in [checks(&[""], &[]), checks(&[], &[""])] {
        assert!(empty.check().is_err(), "it would mean every request");
    }
}

/// L4: a flag that nothing is asked of pays nothing for another one.
#[test]
fn each_flag_is_asked_for_itself() {
    let mut table = Table::default();
    let mut other = draft(5, "v1");
    other.uid = "u-2".into();
    other.members[0].hosts = ["ratings".into()].into();
    other.members[0].clusters.clear();
    table.apply(Channel::Service, &[record(5, "v1"), other.seal().expect("valid")], &nowhere);
    let asked = |table: &Table| -> Vec<(bool, bool)> {
        table.flags().map(|(_, flag)| (flag.observed.proves_routes.get(), flag.observed.measured.get())).collect()
    };
    table.ask(&["u-1".into()], &["u-2".into()]);
    assert_eq!(asked(&table), [(true, false), (false, true)]);
    table.ask(&[], &[]);
    assert_eq!(asked(&table), [(false, false); 2]);
}
