//! What keeps the filter from proxies elsewhere, and gateways from the flag service.

use rstest::rstest;

use super::{Facts, Severity, add, healthy, judge, parse};

const FLAG: &str = "{kind: VersionFlag, metadata: {name: edge, namespace: shop}, spec: {version: v1, \
     services: [{name: reviews}], callers: {namespaces: [web], gateways: [{namespace: edge, matchLabels: {a: b}}]}}}";

fn plane(value: &str) -> serde_json::Value {
    let env = format!("[{{name: PILOT_FILTER_GATEWAY_CLUSTER_CONFIG, value: '{value}'}}]");
    let pod = format!("{{containers: [{{name: discovery, env: {env}}}]}}");
    let yaml = format!(
        "{{metadata: {{name: istiod, namespace: istio-system}}, spec: {{selector: {{}}, template: {{spec: {pod}}}}}}}"
    );
    serde_saphyr::from_str(&yaml).expect("YAML")
}

fn messages(facts: &Facts) -> Vec<String> {
    judge(facts).into_iter().filter(|one| one.severity == Severity::Error).map(|one| one.message).collect()
}

// F20
#[rstest]
#[case("true", true)]
#[case("false", false)]
fn an_istiod_that_hides_the_flag_service_from_gateways_is_found(#[case] value: &str, #[case] said: bool) {
    let mut facts = healthy();
    facts.planes.push(parse(&plane(value)));
    assert_eq!(messages(&facts), Vec::<String>::new(), "there are no gateways");
    add(&mut facts, FLAG);
    let found = messages(&facts);
    assert_eq!(found.len(), usize::from(said), "{found:?}");
    assert!(found.iter().all(|one| one.starts_with("istio-system/istiod has PILOT_FILTER_GATEWAY_CLUSTER_CONFIG")));
}

// E5
#[test]
fn a_namespace_that_cannot_pull_the_filter_is_found() {
    let mut facts = healthy();
    add(&mut facts, FLAG);
    assert_eq!(facts.pull_secret(), None);
    let env = "[{name: VERSIONFLAG_PLUGIN_PULL_SECRET, value: registry}]";
    add(
        &mut facts,
        &format!(
            "{{kind: Pod, metadata: {{name: two, namespace: versionflag}}, spec: {{containers: [{{name: versionflag, env: {env}}}]}}}}"
        ),
    );
    assert_eq!(facts.pull_secret().as_deref(), Some("registry"));
    assert_eq!(facts.caller_namespaces().into_iter().collect::<Vec<_>>(), ["edge", "shop", "web"]);
    facts.without_secret.insert(("web".to_owned(), "registry".to_owned()));
    assert_eq!(messages(&facts), ["namespace web has no Secret registry, with which its proxies pull the filter"]);
}
