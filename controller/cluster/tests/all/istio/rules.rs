//! Which DestinationRules callers go by, and what of them is in the way.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::istio::check::{IstioObjects, managed, user_provided};
use cluster::istio::rules::export_to;
use rstest::rstest;
use serde_json::Value;

use super::check::{asked, rule, service, written};
use crate::objects::parse;

const SUBSETS: &str = "subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]";

/// Whether every caller has the controller's subset of v2.
fn led_to(found: &IstioObjects) -> bool {
    let seen = std::cell::Cell::new(false);
    asked(|wanted| {
        seen.set(wanted.is_led_to("v2", found));
        None
    });
    seen.get()
}

// F02
#[rstest]
#[case::of_the_service("web/theirs", "{host: reviews.shop.svc.cluster.local, trafficPolicy: {}}", true)]
#[case::of_the_namespace("web/theirs", "{host: '*.shop.svc.cluster.local'}", true)]
#[case::of_all_services("web/theirs", "{host: '*.svc.cluster.local'}", true)]
#[case::of_the_domain("web/theirs", "{host: '*.local'}", true)]
#[case::of_everything("web/theirs", "{host: '*'}", true)]
#[case::shown_to_all("web/theirs", "{host: '*.local', exportTo: ['*']}", true)]
#[case::shown_to_itself("web/theirs", "{host: '*.local', exportTo: ['.']}", true)]
#[case::shown_to_others_only("web/theirs", "{host: '*.local', exportTo: [backend]}", false)]
#[case::for_some_pods("web/theirs", "{host: '*.local', workloadSelector: {matchLabels: {app: a}}}", true)]
#[case::of_another_service("web/theirs", "{host: reviews}", false)]
#[case::of_another_namespace("web/theirs", "{host: '*.web.svc.cluster.local'}", false)]
#[case::where_a_gateway_is("edge/theirs", "{host: '*.local'}", true)]
// Nobody calls from there, and Istio does not look there for others.
#[case::where_no_caller_is("backend/theirs", "{host: '*.local'}", false)]
// The controller's is found before.
#[case::in_the_root("istio-system/theirs", "{host: '*.local'}", false)]
#[case::less_exact_than_the_controllers("shop/theirs", "{host: '*.local'}", false)]
fn a_rule_that_takes_the_place_of_the_controllers_is_named(
    #[case] name: &str,
    #[case] spec: &str,
    #[case] in_the_way: bool,
) {
    let mut found = written();
    rule(&mut found, name, spec);
    let problem = asked(|wanted| managed(wanted, &found));
    assert_eq!(problem.is_some(), in_the_way, "{problem:?}");
    // Nothing is routed to what a caller has no subset for.
    assert_eq!(led_to(&found), !in_the_way);
    let Some(problem) = problem else { return };
    assert_eq!(problem.reason.name(), "RouteConflict");
    assert!(problem.message.starts_with(&format!("DestinationRule {name} (host ")), "{}", problem.message);
    assert!(problem.message.contains("the subsets v1, v2"), "{}", problem.message);
    // What is asked for is enough.
    let fix: Value = parse(&problem.fix);
    if fix.get("kind").is_some() {
        found.rules.push(Arc::new(parse(&problem.fix)));
    } else {
        let theirs: MeshRule = found.rules.pop().unwrap();
        let mut theirs = (*theirs).clone();
        theirs.spec["subsets"] = fix["subsets"].clone();
        found.rules.push(Arc::new(theirs));
    }
    assert_eq!(asked(|wanted| managed(wanted, &found)), None);
    assert!(led_to(&found));
}

type MeshRule = Arc<cluster::istio::object::MeshObject<cluster::istio::object::DestinationRule>>;

// F02
#[test]
fn a_rule_that_repeats_the_subsets_is_in_nobodys_way() {
    for (subsets, conflict) in [(SUBSETS, false), ("subsets: [{name: v1, labels: {version: v1}}]", true)] {
        let mut found = written();
        rule(&mut found, "web/theirs", &format!("{{host: '*.local', {subsets}}}"));
        assert_eq!(asked(|wanted| managed(wanted, &found)).is_some(), conflict, "{subsets}");
    }
    // Several of one namespace are one.
    let mut found = written();
    for one in ["{name: v1, labels: {version: v1}}", "{name: v2, labels: {version: v2}}"] {
        rule(&mut found, &format!("web/{}", &one[7..9]), &format!("{{host: reviews.shop, subsets: [{one}]}}"));
    }
    assert_eq!(asked(|wanted| managed(wanted, &found)), None);
    assert!(led_to(&found));
    // But not where they are for others.
    rule(&mut found, "web/v3", "{host: reviews.shop, exportTo: ['.']}");
    let problem = asked(|wanted| managed(wanted, &found)).unwrap();
    assert!(problem.message.starts_with("DestinationRule web/v3 "), "{}", problem.message);
    assert!(!led_to(&found), "Istio takes one of both");
}

// F02
#[test]
fn the_operators_subsets_are_those_that_callers_have() {
    let mut found = IstioObjects::default();
    rule(&mut found, "shop/mine", &format!("{{host: reviews, {SUBSETS}}}"));
    let route = |version: &str| {
        format!(
            "{{match: [{{headers: {{x-versionflag: {{exact: {version}}}}}}}], route: [{{destination: {{host: reviews, subset: {version}}}}}]}}"
        )
    };
    let default = "{route: [{destination: {host: reviews, subset: v1}}]}";
    service(
        &mut found,
        "shop/mine",
        &format!("{{hosts: [reviews], http: [{}, {}, {default}]}}", route("v1"), route("v2")),
    );
    assert_eq!(asked(|wanted| user_provided(wanted, &found)), None);
    rule(&mut found, "web/theirs", "{host: '*.local'}");
    let problem = asked(|wanted| user_provided(wanted, &found)).unwrap();
    let expected = "callers of Service reviews in web go by DestinationRule web/theirs, which has no subset for v1";
    assert_eq!(problem.message, expected);
}

// F03
#[rstest]
#[case::alone(&[], "*", None)]
#[case::of_the_meshs_default(&["{host: reviews}"], "", None)]
#[case::for_all(&["{host: reviews, exportTo: ['*']}"], "*", None)]
#[case::a_pattern_is_not_merged(&["{host: '*.local'}"], "*", None)]
#[case::both(&["{host: reviews}", "{host: reviews, exportTo: ['*']}"], "", Some("in both"))]
#[case::for_its_own(&["{host: reviews, exportTo: ['.']}"], "*", Some("set its exportTo"))]
#[case::for_some(&["{host: reviews, exportTo: [shop, web]}"], "*", Some("set its exportTo"))]
fn what_is_written_is_merged_with_a_rule_beside_it(
    #[case] others: &[&str],
    #[case] expected: &str,
    #[case] why: Option<&str>,
) {
    let mut found = IstioObjects { rules: vec![], ..written() };
    for (index, spec) in others.iter().enumerate() {
        rule(&mut found, &format!("shop/theirs-{index}"), spec);
    }
    let problem = asked(|wanted| managed(wanted, &found));
    asked(|wanted| {
        let shown: BTreeSet<String> = export_to(wanted, &found).into_iter().collect();
        assert_eq!(shown.into_iter().collect::<Vec<_>>().join(" "), expected);
        None
    });
    assert_eq!(problem.is_some(), why.is_some(), "{problem:?}");
    if let Some((problem, why)) = problem.zip(why) {
        assert!(problem.message.contains(why), "{}", problem.message);
    }
}
