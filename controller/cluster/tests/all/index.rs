//! Objects by namespace, and where something changed.

use std::collections::BTreeSet;

use cluster::index::Index;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use rstest::rstest;

use crate::objects::parse;

fn pod(namespace: &str, name: &str, version: u32) -> Pod {
    parse(&format!("{{metadata: {{name: {name}, namespace: {namespace}, resourceVersion: '{version}'}}}}"))
}

fn listed(pods: &[(&str, &str, u32)]) -> Vec<Event<Pod>> {
    let pods = pods.iter().map(|(namespace, name, version)| Event::InitApply(pod(namespace, name, *version)));
    [Event::Init].into_iter().chain(pods).chain([Event::InitDone]).collect()
}

fn take(index: &mut Index<Pod>, events: Vec<Event<Pod>>) -> BTreeSet<String> {
    events.into_iter().flat_map(|event| index.apply(event)).collect()
}

fn names(index: &Index<Pod>, namespace: &str) -> Vec<String> {
    index.of(namespace).map(|pod| pod.metadata.name.clone().unwrap()).collect()
}

#[rstest]
#[case::another_one(vec![Event::Apply(pod("shop", "c", 3))], &["shop"], &["a", "b", "c"], 4)]
#[case::a_new_state(vec![Event::Apply(pod("shop", "b", 3))], &["shop"], &["a", "b"], 3)]
#[case::another_place(vec![Event::Apply(pod("bank", "a", 3))], &["bank"], &["a", "b"], 4)]
#[case::gone(vec![Event::Delete(pod("shop", "a", 3))], &["shop"], &["b"], 2)]
#[case::the_last_of_its_place(vec![Event::Delete(pod("mall", "a", 3))], &["mall"], &["a", "b"], 2)]
#[case::unknown_and_gone(vec![Event::Delete(pod("shop", "x", 3))], &["shop"], &["a", "b"], 3)]
#[case::the_same_list(listed(&[("shop", "a", 1), ("shop", "b", 1), ("mall", "a", 1)]), &[], &["a", "b"], 3)]
#[case::one_changed(listed(&[("shop", "a", 1), ("shop", "b", 2), ("mall", "a", 1)]), &["shop"], &["a", "b"], 3)]
#[case::one_gone(listed(&[("shop", "a", 1), ("mall", "a", 1)]), &["shop"], &["a"], 2)]
#[case::a_place_gone(listed(&[("shop", "a", 1), ("shop", "b", 1)]), &["mall"], &["a", "b"], 2)]
#[case::a_new_place(
    listed(&[("shop", "a", 1), ("shop", "b", 1), ("mall", "a", 1), ("bank", "a", 1)]), &["bank"], &["a", "b"], 4
)]
// Until a list is complete, what was known stays.
#[case::half_a_list(vec![Event::Init, Event::InitApply(pod("shop", "c", 1))], &[], &["a", "b"], 3)]
// One that broke off leaves nothing behind.
#[case::a_list_and_a_half(
    [vec![Event::Init, Event::InitApply(pod("bank", "a", 1))], listed(&[("shop", "a", 1)])].into_iter().flatten().collect(),
    &["mall", "shop"], &["a"], 1
)]
fn what_is_told_is_known(
    #[case] events: Vec<Event<Pod>>,
    #[case] touched: &[&str],
    #[case] in_shop: &[&str],
    #[case] all: usize,
) {
    let mut index = Index::default();
    let first = take(&mut index, listed(&[("shop", "a", 1), ("shop", "b", 1), ("mall", "a", 1)]));
    assert_eq!(first.into_iter().collect::<Vec<_>>(), ["mall", "shop"]);
    let found = take(&mut index, events);
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), touched);
    assert_eq!(names(&index, "shop"), in_shop);
    assert_eq!(index.all().count(), all);
}

/// Pods by the app that they are labelled with.
fn by_app() -> Index<Pod> {
    Index::by(|pod: &Pod| pod.metadata.labels.iter().flatten().map(|(_, app)| app.clone()).collect())
}

fn of_app(name: &str, app: &str) -> Pod {
    parse(&format!("{{metadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}}}"))
}

#[test]
fn what_has_a_key_is_found_by_it() {
    let mut index = by_app();
    let found = |index: &Index<Pod>, app: &str| {
        index.by_key(app).map(|pod| pod.metadata.name.clone().unwrap()).collect::<Vec<_>>()
    };
    take(&mut index, vec![Event::Init, Event::InitApply(of_app("a", "web")), Event::InitDone]);
    assert_eq!(found(&index, "web"), ["a"]);
    take(&mut index, vec![Event::Apply(of_app("b", "web")), Event::Apply(of_app("a", "api"))]);
    assert_eq!((found(&index, "web"), found(&index, "api")), (vec!["b".to_owned()], vec!["a".to_owned()]));
    take(&mut index, vec![Event::Delete(of_app("b", "other"))]);
    assert_eq!(found(&index, "web"), Vec::<String>::new());
    take(&mut index, vec![Event::Init, Event::InitApply(of_app("c", "web")), Event::InitDone]);
    assert_eq!((found(&index, "web"), found(&index, "api")), (vec!["c".to_owned()], vec![]));
}
