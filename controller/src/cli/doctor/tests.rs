//! What is found, by what is in a cluster.

mod gateways;
mod mtls;

use kube::ResourceExt;
use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::facts::{Facts, Leader};
use super::judge::{Severity, judge};
use super::{needed, text};
use cluster::resource::definition;

/// Namespace shop, where everything is as it has to be, and the controller's.
const HEALTHY: &str = "
{kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}}
---
{kind: Namespace, metadata: {name: versionflag, labels: {kubernetes.io/metadata.name: versionflag}}}
---
{kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: app}, {name: istio-proxy}]}, status: {phase: Running}}
---
{kind: Pod, metadata: {name: job, namespace: shop}, spec: {containers: [{name: app}]}, status: {phase: Succeeded}}
---
{kind: Pod, metadata: {name: one, namespace: versionflag, labels: {app.kubernetes.io/name: versionflag}}, spec: {containers: [{name: versionflag}]}, status: {phase: Running}}
---
{kind: Service, metadata: {name: reviews, namespace: shop}, spec: {selector: {app: reviews}}}
---
{kind: Deployment, metadata: {name: reviews-v1, namespace: shop}, spec: {selector: {}, template: {metadata: {labels: {app: reviews, version: v1}}}}}
---
{kind: VersionFlag, metadata: {name: reviews, namespace: shop}, spec: {version: v1, services: [{name: reviews}]}}
---
{kind: NetworkPolicy, metadata: {name: versionflag, namespace: versionflag}, spec: {podSelector: {matchLabels: {app.kubernetes.io/name: versionflag}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}], ports: [{protocol: TCP, port: http}]}]}}
";

/// The controller with a sidecar.
const IN_MESH: &str = "{kind: Pod, metadata: {name: two, namespace: versionflag, labels: {app.kubernetes.io/name: \
     versionflag}}, spec: {containers: [{name: versionflag}, {name: istio-proxy}]}, status: {phase: Running}}";

fn parse<T: DeserializeOwned>(document: &Value) -> T {
    T::deserialize(document).unwrap_or_else(|error| panic!("{error}: {document}"))
}

fn add(facts: &mut Facts, yaml: &str) {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    for document in documents.iter().filter(|document| !document.is_null()) {
        let home = document["metadata"]["namespace"] == "versionflag";
        match document["kind"].as_str().expect("a kind") {
            "Namespace" => facts.namespaces.push(parse(document)),
            "Pod" if home => facts.controllers.push(parse(document)),
            "Pod" => facts.pods.push(parse(document)),
            "Service" => facts.services.push(parse(document)),
            "Deployment" => facts.deployments.push(parse(document)),
            "StatefulSet" => facts.stateful_sets.push(parse(document)),
            "VersionFlag" => facts.flags.push(parse(document)),
            "NetworkPolicy" => facts.network_policies.push(parse(document)),
            "Sidecar" => facts.sidecars.push(parse(document)),
            "AuthorizationPolicy" => facts.authorizations.push(parse(document)),
            "PeerAuthentication" => facts.authentications.push(parse(document)),
            "DestinationRule" => facts.rules.push(parse(document)),
            "WasmPlugin" => facts.plugins.push(parse(document)),
            "TrafficExtension" => facts.extensions.push(parse(document)),
            other => panic!("{other}"),
        }
    }
}

fn healthy() -> Facts {
    let mut facts = Facts {
        namespace: "shop".to_owned(),
        home: "versionflag".to_owned(),
        port: 7070,
        definition: Some(definition()),
        current: definition(),
        leader: Leader::Leads,
        ..Facts::default()
    };
    add(&mut facts, HEALTHY);
    facts
}

/// What is found when this is there as well: `CHECK: MESSAGE`, and how bad it is.
fn found(yaml: &str) -> Vec<(Severity, String)> {
    let mut facts = healthy();
    add(&mut facts, yaml);
    judge(&facts).into_iter().map(|one| (one.severity, format!("{}: {}", one.check, one.message))).collect()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(judge(&healthy()), []);
    assert_eq!(text(&[], "VersionFlags in shop from working"), "✓ nothing keeps VersionFlags in shop from working\n");
}

#[rstest]
#[case::hidden(
    "{kind: Sidecar, metadata: {name: mine, namespace: shop}, spec: {egress: [{hosts: ['./*']}]}}",
    "sidecar: Sidecar shop/mine hides the flag service"
)]
#[case::hidden_from_some(
    "{kind: Sidecar, metadata: {name: mine, namespace: shop}, spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ['./*', 'istio-system/*']}]}}",
    "sidecar: Sidecar shop/mine hides"
)]
#[case::hidden_by_the_mesh(
    "{kind: Sidecar, metadata: {name: all, namespace: istio-system}, spec: {egress: [{hosts: ['./*']}]}}",
    "sidecar: Sidecar istio-system/all hides"
)]
#[case::shown_by_a_default_of_its_own(
    "{kind: Sidecar, metadata: {name: all, namespace: istio-system}, spec: {egress: [{hosts: ['./*']}]}}\n---\n{kind: Sidecar, metadata: {name: mine, namespace: shop}, spec: {egress: [{hosts: ['*/*']}]}}",
    ""
)]
#[case::shown_by_name(
    "{kind: Sidecar, metadata: {name: mine, namespace: shop}, spec: {egress: [{hosts: ['./*', 'versionflag/versionflag.versionflag.svc.cluster.local']}]}}",
    ""
)]
#[case::shown_by_namespace(
    "{kind: Sidecar, metadata: {name: mine, namespace: shop}, spec: {egress: [{hosts: ['versionflag/*']}]}}",
    ""
)]
#[case::shown_by_pattern(
    "{kind: Sidecar, metadata: {name: mine, namespace: shop}, spec: {egress: [{hosts: ['*/*.versionflag.svc.cluster.local']}]}}",
    ""
)]
#[case::no_egress("{kind: Sidecar, metadata: {name: mine, namespace: shop}, spec: {ingress: []}}", "")]
#[case::nothing_leaves(
    "{kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {podSelector: {}, policyTypes: [Egress]}}",
    "network: NetworkPolicy deny in shop lets nothing pass to the flag service from pod web"
)]
#[case::only_dns_leaves(
    "{kind: NetworkPolicy, metadata: {name: dns, namespace: shop}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]}}",
    "network: NetworkPolicy dns"
)]
#[case::another_port_leaves(
    "{kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {podSelector: {}, egress: [{ports: [{port: 443}]}]}}",
    "network: NetworkPolicy web"
)]
#[case::only_the_namespace(
    "{kind: NetworkPolicy, metadata: {name: own, namespace: shop}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}}",
    "network: NetworkPolicy own"
)]
#[case::of_other_pods(
    "{kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {podSelector: {matchLabels: {app: other}}, policyTypes: [Egress]}}",
    ""
)]
#[case::of_all_but_those(
    "{kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}, policyTypes: [Egress]}}",
    ""
)]
#[case::one_lets_it(
    "{kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, spec: {podSelector: {}, policyTypes: [Egress]}}\n---\n{kind: NetworkPolicy, metadata: {name: flags, namespace: shop}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: versionflag}}}], ports: [{port: 7000, endPort: 7100}]}]}}",
    ""
)]
#[case::by_address(
    "{kind: NetworkPolicy, metadata: {name: net, namespace: shop}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}}",
    ""
)]
#[case::ingress_says_nothing(
    "{kind: NetworkPolicy, metadata: {name: in, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress]}}",
    ""
)]
#[case::not_asked_without_a_sidecar(
    "{kind: AuthorizationPolicy, metadata: {name: none, namespace: versionflag}, spec: {}}",
    ""
)]
#[case::a_plugin_of_that_name(
    "{kind: WasmPlugin, metadata: {name: versionflag, namespace: shop}, spec: {url: 'oci://a/b'}}",
    "plugin: WasmPlugin shop/versionflag is not the controller's"
)]
#[case::the_filter_by_others(
    "{kind: TrafficExtension, metadata: {name: mine, namespace: istio-system}, spec: {wasm: {url: 'oci://r/versionflag@sha256:00'}}}",
    "plugin: TrafficExtension istio-system/mine is not"
)]
#[case::another_plugin(
    "{kind: WasmPlugin, metadata: {name: auth, namespace: shop}, spec: {url: 'oci://r/auth', pluginName: auth}}",
    ""
)]
#[case::its_own(
    "{kind: WasmPlugin, metadata: {name: versionflag, namespace: shop, labels: {app.kubernetes.io/managed-by: versionflag}}, spec: {url: 'oci://r/versionflag'}}",
    ""
)]
#[case::both_kinds(
    "{kind: WasmPlugin, metadata: {name: versionflag, namespace: shop, labels: {app.kubernetes.io/managed-by: versionflag}}, spec: {}}\n---\n{kind: TrafficExtension, metadata: {name: versionflag, namespace: shop, labels: {app.kubernetes.io/managed-by: versionflag}}, spec: {}}",
    "plugin: namespace shop has the filter as WasmPlugin and as TrafficExtension"
)]
#[case::by_tls_without_sidecar(
    "{kind: DestinationRule, metadata: {name: tls, namespace: istio-system}, spec: {host: '*.local', trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}",
    "tls: DestinationRule istio-system/tls has callers speak to the flag service by TLS"
)]
#[case::plain_without_sidecar(
    "{kind: DestinationRule, metadata: {name: tls, namespace: istio-system}, spec: {host: '*.local', trafficPolicy: {tls: {mode: DISABLE}}}}",
    ""
)]
#[case::by_tls_to_others(
    "{kind: DestinationRule, metadata: {name: tls, namespace: shop}, spec: {host: ratings, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}",
    ""
)]
#[case::stalled(
    "{kind: VersionFlag, metadata: {name: ratings, namespace: shop}, spec: {version: v1, services: [{name: ratings}]}, status: {conditions: [{type: Stalled, status: 'True', reason: PluginUnknown, message: no filter, lastTransitionTime: '2026-11-24T00:00:00Z'}]}}",
    "flag: VersionFlag ratings is Stalled (PluginUnknown): no filter"
)]
fn what_keeps_flags_from_working_is_named(#[case] yaml: &str, #[case] expected: &str) {
    let found = found(yaml);
    if expected.is_empty() {
        assert_eq!(found, []);
    } else {
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, Severity::Error);
        assert!(found[0].1.starts_with(expected), "{found:?}");
    }
}

/// The flag service is known by its full name, which is another one in another domain.
#[rstest]
#[case("cluster.local", "corp.example", true)]
#[case("corp.example", "cluster.local", true)]
#[case("corp.example", "corp.example", false)]
fn the_flag_service_is_shown_by_its_name_in_the_cluster(
    #[case] domain: &str,
    #[case] shown: &str,
    #[case] is_hidden: bool,
) {
    let mut facts = Facts { domain: domain.parse().expect("a domain"), ..healthy() };
    let host = format!("versionflag/versionflag.versionflag.svc.{shown}");
    add(
        &mut facts,
        &format!(
            "{{kind: Sidecar, metadata: {{name: mine, namespace: shop}}, spec: {{egress: [{{hosts: ['{host}']}}]}}}}"
        ),
    );
    let found = judge(&facts);
    assert_eq!(found.len(), usize::from(is_hidden), "{found:?}");
    let fix = format!("add \"versionflag/versionflag.versionflag.svc.{domain}\" to its spec.egress[].hosts");
    assert!(found.iter().all(|one| one.fix == fix), "{found:?}");
}

#[rstest]
#[case::nothing_is_allowed(
    "{kind: AuthorizationPolicy, metadata: {name: none, namespace: versionflag}, spec: {}}",
    "authorization: AuthorizationPolicy versionflag/none does not allow shop the flag service"
)]
#[case::others_are_allowed(
    "{kind: AuthorizationPolicy, metadata: {name: some, namespace: versionflag}, spec: {rules: [{from: [{source: {namespaces: [web]}}]}]}}",
    "authorization: AuthorizationPolicy versionflag/some does not allow"
)]
#[case::another_port(
    "{kind: AuthorizationPolicy, metadata: {name: some, namespace: versionflag}, spec: {rules: [{to: [{operation: {ports: ['80']}}]}]}}",
    "authorization: "
)]
#[case::allowed(
    "{kind: AuthorizationPolicy, metadata: {name: some, namespace: versionflag}, spec: {rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {ports: ['7070']}}]}]}}",
    ""
)]
#[case::allowed_by_principal(
    "{kind: AuthorizationPolicy, metadata: {name: some, namespace: versionflag}, spec: {rules: [{from: [{source: {principals: ['cluster.local/ns/shop/sa/web']}}]}]}}",
    ""
)]
#[case::one_of_two_allows(
    "{kind: AuthorizationPolicy, metadata: {name: none, namespace: versionflag}, spec: {}}\n---\n{kind: AuthorizationPolicy, metadata: {name: all, namespace: istio-system}, spec: {rules: [{}]}}",
    ""
)]
#[case::denied(
    "{kind: AuthorizationPolicy, metadata: {name: deny, namespace: istio-system}, spec: {action: DENY, rules: [{from: [{source: {namespaces: ['*']}}]}]}}",
    "authorization: AuthorizationPolicy istio-system/deny denies the flag service to shop"
)]
#[case::others_are_denied(
    "{kind: AuthorizationPolicy, metadata: {name: deny, namespace: versionflag}, spec: {action: DENY, rules: [{from: [{source: {namespaces: [web]}}]}]}}",
    ""
)]
#[case::all_others_are_denied(
    "{kind: AuthorizationPolicy, metadata: {name: deny, namespace: versionflag}, spec: {action: DENY, rules: [{from: [{source: {notNamespaces: [shop]}}]}]}}",
    ""
)]
#[case::of_other_pods(
    "{kind: AuthorizationPolicy, metadata: {name: none, namespace: versionflag}, spec: {selector: {matchLabels: {app: other}}}}",
    ""
)]
#[case::plain_is_refused(
    "{kind: PeerAuthentication, metadata: {name: strict, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}\n---\n{kind: DestinationRule, metadata: {name: plain, namespace: shop}, spec: {host: versionflag.versionflag, trafficPolicy: {tls: {mode: DISABLE}}}}",
    "tls: DestinationRule shop/plain has callers speak to the flag service in plain text"
)]
#[case::plain_is_taken(
    "{kind: PeerAuthentication, metadata: {name: strict, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}\n---\n{kind: PeerAuthentication, metadata: {name: here, namespace: versionflag}, spec: {mtls: {mode: STRICT}, portLevelMtls: {'7070': {mode: PERMISSIVE}}}}\n---\n{kind: DestinationRule, metadata: {name: plain, namespace: shop}, spec: {host: versionflag.versionflag, trafficPolicy: {tls: {mode: DISABLE}}}}",
    ""
)]
#[case::strict_alone(
    "{kind: PeerAuthentication, metadata: {name: strict, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}",
    ""
)]
fn a_controller_with_a_sidecar_has_to_let_them_in(#[case] yaml: &str, #[case] expected: &str) {
    let mut facts = healthy();
    facts.controllers.clear();
    add(&mut facts, IN_MESH);
    add(&mut facts, yaml);
    let found: Vec<String> = judge(&facts).into_iter().map(|one| format!("{}: {}", one.check, one.message)).collect();
    assert_eq!(found.is_empty(), expected.is_empty(), "{found:?}");
    assert!(found.first().is_none_or(|first| first.starts_with(expected)), "{found:?}");
}

#[test]
fn the_controllers_own_policy_may_be_too_narrow() {
    let mut facts = healthy();
    facts.network_policies.clear();
    let narrow = "{kind: NetworkPolicy, metadata: {name: narrow, namespace: versionflag}, spec: {podSelector: {}, \
         policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {team: web}}}]}]}}";
    add(&mut facts, narrow);
    let [one] = judge(&facts).try_into().expect("one finding");
    assert_eq!(one.message, "NetworkPolicies in versionflag let nothing pass to the controller from pod web");
    facts.namespaces[0].labels_mut().insert("team".to_owned(), "web".to_owned());
    assert_eq!(judge(&facts), []);
}

#[test]
fn pods_without_a_sidecar_are_an_error_where_none_has_one() {
    let plain = "{kind: Pod, metadata: {name: plain, namespace: shop}, spec: {containers: [{name: app}]}, \
         status: {phase: Running}}";
    let [(severity, message)] = found(plain).try_into().expect("one finding");
    assert_eq!(severity, Severity::Warning);
    assert_eq!(message, "pods: requests of pod plain go past the flags, because there is no sidecar");
    let mut facts = healthy();
    facts.pods.clear();
    add(&mut facts, plain);
    let [one] = judge(&facts).try_into().expect("one finding");
    assert_eq!((one.severity, one.message.as_str()), (Severity::Error, "nothing in shop has a sidecar: pod plain"));
    // Without Istio nobody needs one.
    facts.flags.clear();
    add(
        &mut facts,
        "{kind: VersionFlag, metadata: {name: reviews, namespace: shop}, spec: {version: v1, services: [{name: \
         reviews}], routing: {provider: External}}}",
    );
    assert_eq!(judge(&facts), []);
    assert!(
        text(&found_in(&healthy(), plain), "VersionFlags in shop from working")
            .starts_with("! pods: requests of pod plain"),
        "a warning"
    );
}

fn found_in(facts: &Facts, yaml: &str) -> Vec<super::judge::Finding> {
    let mut all = Facts { leader: facts.leader.clone(), ..healthy() };
    add(&mut all, yaml);
    judge(&all)
}

#[test]
fn a_workload_of_a_version_has_to_be_selected() {
    let lost = "{kind: StatefulSet, metadata: {name: lost, namespace: shop}, spec: {selector: {}, serviceName: '', \
         template: {metadata: {labels: {app: lost, version: v2}}}}}";
    let [(severity, message)] = found(lost).try_into().expect("one finding");
    assert_eq!(severity, Severity::Warning);
    assert_eq!(message, "workloads: StatefulSet lost has the label version, and no Service selects its pods");
    assert_eq!(found(&lost.replace(", version: v2", "")), []);
}

#[rstest]
#[case::nobody(Leader::Nobody, "no controller has ever run in namespace versionflag")]
#[case::given_back(Leader::GivenBack, "no replica of the controller in versionflag acts")]
#[case::silent(Leader::Silent("one".to_owned()), "one, which should act in versionflag, is silent")]
#[case::unknown(Leader::Unknown, "the Lease versionflag in versionflag cannot be read")]
fn a_controller_has_to_act(#[case] leader: Leader, #[case] expected: &str) {
    let severity = if leader == Leader::Unknown { Severity::Warning } else { Severity::Error };
    let [one] = judge(&Facts { leader, ..healthy() }).try_into().expect("one finding");
    assert_eq!((one.check, one.severity), ("controller", severity));
    assert!(one.message.starts_with(expected), "{}", one.message);
}

#[test]
fn a_definition_that_is_missing_or_old_is_told() {
    let [one] = judge(&Facts { definition: None, ..healthy() }).try_into().expect("one finding");
    assert_eq!(one.message, "the cluster has no VersionFlags");
    let mut old: Value = serde_json::to_value(definition()).expect("JSON");
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let fields = old.pointer_mut(spec).and_then(Value::as_object_mut).expect("fields");
    assert!(fields.remove("preview").is_some());
    let [one] = judge(&Facts { definition: Some(parse(&old)), ..healthy() }).try_into().expect("one finding");
    assert!(
        one.message.starts_with("the definition of VersionFlags is older than this program: it lacks spec.preview")
    );
}

#[test]
fn what_the_controller_needs_depends_on_the_flags() {
    let rights = |yaml: &[&str]| {
        let specs: Vec<machine::spec::Spec> =
            yaml.iter().map(|yaml| serde_saphyr::from_str(yaml).expect("a spec")).collect();
        let needed = needed(&specs.iter().collect::<Vec<_>>());
        let mut manifests: Vec<&str> = needed.iter().map(|right| right.manifest).collect();
        manifests.dedup();
        manifests.iter().map(|it| it.trim_start_matches("manifests/kubernetes")).collect::<Vec<_>>().join(" ")
    };
    let spec = |more: &str| format!("{{version: v1, services: [{{name: a}}]{more}}}");
    assert_eq!(rights(&[]), " /istio /istio/routes");
    assert_eq!(rights(&[&spec("")]), " /istio /istio/routes");
    assert_eq!(rights(&[&spec(", routing: {provider: External}")]), "");
    assert_eq!(rights(&[&spec(", routing: {management: UserProvided}")]), " /istio");
    assert_eq!(rights(&[&spec(", routing: {provider: GatewayAPI}")]), " /istio /istio/gateway-api");
    assert_eq!(rights(&[&spec(", cleanup: {policy: Delete}")]), " /istio /istio/routes /delete");
    let denied = needed(&[]).into_iter().filter(|right| right.manifest.ends_with("routes")).collect();
    let [one] = judge(&Facts { denied, ..healthy() }).try_into().expect("one finding");
    assert_eq!(
        one.message,
        "the controller may not patch virtualservices.networking.istio.io, patch destinationrules.networking.istio.io \
         in shop"
    );
    assert_eq!(one.fix, "kubectl apply -k manifests/kubernetes/istio/routes");
}

#[test]
fn what_cannot_be_read_is_said_and_no_error() {
    let facts = Facts { unread: vec![("Sidecars", "you may not".to_owned())], ..healthy() };
    let [one] = judge(&facts).try_into().expect("one finding");
    assert_eq!(one.severity, Severity::Warning);
    assert_eq!(one.message, "Sidecars cannot be read, and are not looked at: you may not");
    let facts = Facts { missing_kinds: vec!["VirtualService", "HTTPRoute"], ..healthy() };
    let [one] = judge(&facts).try_into().expect("one finding");
    assert_eq!(one.message, "the cluster has no VirtualService, no HTTPRoute");
}
