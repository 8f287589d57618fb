//! What other namespaces have to agree to.

use cluster::consent::Consents;
use cluster::domain::Domain;
use cluster::resource::VersionFlag;
use rstest::rstest;

use crate::objects::parse;

fn refusal(spec: &str, namespaces: &[(&str, Option<&str>)]) -> Option<String> {
    let flag: VersionFlag = parse(&format!(
        "{{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {{name: reviews, namespace: shop}}, \
         spec: {{version: v1, {spec}}}}}"
    ));
    let all = namespaces.iter().map(|(name, word)| ((*name).to_owned(), word.map(str::to_owned))).collect();
    Consents::of(all).refusal(&Domain::default(), &flag)
}

const OWN: &str = "services: [{name: reviews}]";
const CALLERS: &str = "services: [{name: reviews}], callers: {namespaces: [web, shop]}";
const GATEWAY: &str = "services: [{name: reviews}], callers: {gateways: [{namespace: web, matchLabels: {a: b}}]}";
const ATTACHED: &str =
    "services: [{name: reviews}], routing: {provider: GatewayAPI, gateways: [{name: edge, namespace: web}]}";

fn host(host: &str) -> String {
    format!("services: [{{name: reviews, hosts: ['{host}']}}]")
}

// C13
#[rstest]
#[case::nothing_of_others(OWN, None, None)]
#[case::callers(CALLERS, None, Some("being in spec.callers.namespaces"))]
#[case::callers_of_a_consent(CALLERS, Some("true"), None)]
#[case::of_one_for_its_flags(CALLERS, Some("shop"), None)]
#[case::of_one_for_others(CALLERS, Some("backend"), Some("being in spec.callers.namespaces"))]
#[case::of_one_taken_back(CALLERS, Some("false"), Some("being in spec.callers.namespaces"))]
#[case::a_gateway(GATEWAY, None, Some("being in spec.callers.gateways"))]
#[case::a_gateway_of_a_consent(GATEWAY, Some("true"), None)]
#[case::an_attached_gateway(ATTACHED, None, Some("spec.routing.gateways"))]
#[case::a_host(&host("pay.web.svc.cluster.local"), None, Some("its host pay.web.svc.cluster.local"))]
#[case::a_shorter_one(&host("pay.web.svc"), None, Some("its host pay.web.svc"))]
#[case::the_shortest_one(&host("Pay.Web:80"), None, Some("its host Pay.Web:80"))]
#[case::of_one_pod(&host("pay-0.pay.web.svc.cluster.local"), None, Some("its host pay-0"))]
#[case::a_host_of_a_consent(&host("pay.web"), Some("true"), None)]
#[case::its_own_host(&host("reviews.shop.svc.cluster.local"), None, None)]
// No namespace has it.
#[case::a_domain(&host("reviews.example"), None, None)]
#[case::a_longer_domain(&host("shop.web.example"), None, None)]
#[case::a_word(&host("pay"), None, None)]
fn another_namespace_has_to_agree(#[case] spec: &str, #[case] word: Option<&str>, #[case] why: Option<&str>) {
    let refused = refusal(spec, &[("shop", None), ("web", word)]);
    assert_eq!(refused.is_some(), why.is_some(), "{refused:?}");
    let Some((message, why)) = refused.zip(why) else { return };
    assert!(message.starts_with("namespace web does not agree to ") && message.contains(why), "{message}");
    assert!(message.contains("`kubectl label namespace web versionflag.io/callers=shop`"), "{message}");
}

// C13
#[test]
fn what_nobody_may_read_is_no_consent() {
    let refused = refusal(CALLERS, &[]).unwrap();
    assert!(refused.contains("may not read namespaces") && refused.contains("apply manifests/kubernetes"), "{refused}");
    assert_eq!(refusal(OWN, &[]), None);
    let flag: VersionFlag = parse(
        "{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {name: reviews, namespace: shop}, \
         spec: {version: v1, services: [{name: reviews}], callers: {namespaces: [web]}}}",
    );
    assert_eq!(Consents::NotAsked.refusal(&Domain::default(), &flag), None);
}
