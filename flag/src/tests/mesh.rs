//! What a proxy of Istio's knows by itself: its name, its role, and the workload beside it.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{draft, nowhere};
use crate::config::{Role, Workload};
use crate::record::{Member, Record};
use crate::table::{Channel, Table};
use crate::{host, proxy, route};

#[test]
fn a_node_id_names_the_proxy() {
    let cases = [
        ("sidecar~10.0.0.7~web-0.shop~shop.svc.cluster.local", "web-0.shop", false),
        ("router~10.0.0.8~gateway-1.istio-system~istio-system.svc.cluster.local", "gateway-1.istio-system", true),
        ("waypoint~10.0.0.9~waypoint-2.shop~shop.svc.cluster.local", "waypoint-2.shop", false),
        ("edge", "edge", false),
        ("router", "router", false),
        ("router~a~b", "router~a~b", false),
        ("router~a~~c", "router~a~~c", false),
        ("router~a~b~c~d", "router~a~b~c~d", false),
        ("", "", false),
    ];
    for (id, name, gateway) in cases {
        assert_eq!((proxy::name(id), proxy::is_gateway(id)), (name, gateway), "{id}");
    }
}

#[test]
fn a_gateway_is_an_edge_and_says_nothing_of_a_given_role() {
    let (sidecar, gateway) = ("sidecar~1~web.shop~x", "router~1~gateway.shop~x");
    assert_eq!(Role::Auto.in_proxy(sidecar), Role::Auto);
    assert_eq!(Role::Auto.in_proxy(gateway), Role::Edge);
    assert_eq!(Role::Auto.in_proxy("plain"), Role::Auto);
    for role in [Role::Caller, Role::Edge, Role::Inbound] {
        assert_eq!(role.in_proxy(gateway), role);
    }
}

#[test]
fn a_cluster_of_istio_tells_its_host() {
    assert_eq!(host::istio_host("outbound|9080|v2|reviews.ns.svc"), Some("reviews.ns.svc"));
    assert_eq!(host::istio_host("outbound|9080||reviews.ns.svc"), Some("reviews.ns.svc"));
    assert_eq!(host::istio_host("inbound|9080||"), None);
}

/// Two services of namespace bookinfo that are switched together.
fn group() -> Record {
    let mut record = draft(5, "v1");
    let member = |service: &str, selector: &[&str]| Member {
        service: service.to_owned(),
        hosts: [format!("{service}.bookinfo.svc.cluster.local")].into(),
        selector: selector.iter().map(|label| (*label).to_owned()).collect(),
        clusters: Default::default(),
    };
    record.namespace = "bookinfo".to_owned();
    record.version_label = "version".to_owned();
    record.members = vec![member("ratings", &["app=ratings"]), member("reviews", &["app=reviews", "tier=back"])];
    record
}

fn taken(record: Record, namespace: &str, labels: &[(&str, &str)]) -> Table {
    let node = |path: &[&str]| match path {
        ["NAMESPACE"] => Some(namespace.to_owned()),
        ["LABELS", key] => labels.iter().find(|(name, _)| name == key).map(|(_, value)| (*value).to_owned()),
        _ => None,
    };
    let mut table = Table::default();
    table.apply(Channel::Service, &[record.seal().expect("valid")], &node);
    table
}

#[test]
fn labels_tell_the_workload_beside_a_proxy() {
    let (reviews, v2) = (("app", "reviews"), ("version", "v2"));
    let found = |service: &str| Some(Workload { service: service.into(), version: "v2".into() });
    let cases = [
        ("bookinfo", vec![reviews, ("tier", "back"), v2, ("more", "x")], found("reviews")),
        ("bookinfo", vec![("app", "ratings"), v2], found("ratings")),
        ("bookinfo", vec![reviews, v2], None),
        ("bookinfo", vec![reviews, ("tier", "front"), v2], None),
        ("bookinfo", vec![reviews, ("tier", "back")], None),
        ("bookinfo", vec![], None),
        ("elsewhere", vec![("app", "ratings"), v2], None),
    ];
    for (namespace, labels, expected) in cases {
        let table = taken(group(), namespace, &labels);
        let beside = table.beside(|| None).map(|(_, workload)| workload.clone());
        assert_eq!(beside, expected, "{namespace} {labels:?}");
    }
}

#[test]
fn a_service_without_a_selector_has_no_pods() {
    let mut record = group();
    record.members.iter_mut().for_each(|member| member.selector.clear());
    assert!(taken(record, "bookinfo", &[("app", "ratings"), ("version", "v2")]).beside(|| None).is_none());
}

#[test]
fn a_member_calls_its_own_version_by_its_labels() {
    let none = |_: &str| None;
    let of = |version: &'static str| taken(group(), "bookinfo", &[("app", "ratings"), ("version", version)]);
    let chosen = |table: &Table, caller: Option<&Workload>| {
        let flag = table.find("reviews.bookinfo.svc.cluster.local").expect("a flag");
        flag.choose(caller, none).version().to_owned()
    };
    assert_eq!(chosen(&of("v2"), None), "v2");
    assert_eq!(chosen(&of("v1"), None), "v1");
    assert_eq!(chosen(&of("v9"), None), "v1", "a version that the flag does not have");
    let configured = Workload { service: "reviews".into(), version: "v1".into() };
    assert_eq!(chosen(&of("v2"), Some(&configured)), "v1", "what is configured comes first");
    let stranger = Workload { service: "web".into(), version: "v1".into() };
    assert_eq!(chosen(&of("v2"), Some(&stranger)), "v2", "unless it is of no member");
}

#[test]
fn short_names_are_of_the_namespace() {
    assert!(taken(group(), "bookinfo", &[]).find("Reviews:9080").is_some());
    assert!(taken(group(), "elsewhere", &[]).find("reviews").is_none());
    assert!(taken(group(), "elsewhere", &[]).find("reviews.bookinfo.svc.cluster.local").is_some());
    let mut table = Table::default();
    table.apply(Channel::Config, &[group().seal().expect("valid")], &nowhere);
    assert!(table.find("reviews").is_none() && table.beside(|| None).is_none());
}

#[test]
fn what_stands_beside_two_groups_is_told_apart_by_host() {
    let other = Record { uid: "u-2".into(), name: "bookinfo/second".into(), ..group() };
    let mut other = Record { members: other.members[1..].to_vec(), ..other };
    other.members[0].hosts = ["other".to_owned()].into();
    other.members[0].service = "other".into();
    let labels = |path: &[&str]| {
        let value = match path {
            ["NAMESPACE"] => "bookinfo",
            ["LABELS", "app"] => "reviews",
            ["LABELS", "tier"] => "back",
            ["LABELS", "version"] => "v1",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let mut table = Table::default();
    table.apply(Channel::Config, &[group().seal().expect("valid"), other.seal().expect("valid")], &labels);
    let beside = |host: Option<&str>| {
        let host = host.map(str::to_owned);
        table.beside(|| host).map(|(_, workload)| workload.service.clone())
    };
    assert_eq!(beside(Some("other")).as_deref(), Some("other"));
    assert_eq!(beside(Some("reviews")).as_deref(), Some("reviews"));
    assert_eq!(beside(Some("who?")).as_deref(), Some("reviews"));
    assert_eq!(beside(None).as_deref(), Some("reviews"));
}

#[test]
fn a_route_of_istio_says_what_it_lacks() {
    let (mesh, plain) = (group().seal().expect("valid"), super::record(5, "v1"));
    let cases = [
        ("default", Some("no route of the flag reached it yet")),
        // F19.
        ("allow_any", Some("the Service is hidden from it")),
        ("block_all", Some("the Service is hidden from it")),
        ("versionflag:bookinfo/reviews:v1,v2:v1", None),
        ("mine-versionflag:bookinfo/reviews:v1,v2:v1", None),
        ("mine-versionflag:bookinfo/reviews:v1:v1", Some("does not list v2")),
        ("mine", None),
        ("", None),
    ];
    for (name, lacks) in cases {
        let found = route::lacks(name, &mesh, "v2");
        assert_eq!(found.is_some(), lacks.is_some(), "{name}: {found:?}");
        assert!(found.unwrap_or_default().contains(lacks.unwrap_or_default()), "{name}");
    }
    assert_eq!(route::lacks("default", &plain, "v2"), None, "elsewhere a route may have that name");
}

#[test]
fn a_rule_of_the_gateway_api_says_the_same() {
    let mesh = group().seal().expect("valid");
    let cases = [
        ("versionflag.0.v1.v1.v2", None),
        ("versionflag.12.v1.v1.v2", None),
        ("versionflag.0.v1.v1", Some("does not list v2")),
        ("versionflag.1.v2.v1.v2", Some("requests without a version still go to v2 there")),
        ("versionflag.1.v1.v1.v2.v3", Some("still leads to v3")),
        ("versionflag.1.0123456789ab", Some("is not the one for these versions")),
        ("versionflag.1", None),
        ("bookinfo.reviews.0", None),
    ];
    for (name, lacks) in cases {
        let found = route::lacks(name, &mesh, "v2");
        assert_eq!(found.is_some(), lacks.is_some(), "{name}: {found:?}");
        assert!(found.unwrap_or_default().contains(lacks.unwrap_or_default()), "{name}");
    }
    assert_eq!(route::rule_name(&mesh, 3), "versionflag.3.v1.v1.v2");
}

#[test]
fn any_versions_make_a_name_for_a_rule() {
    let labels = |name: &str| {
        name.split('.').all(|label| {
            let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            let inner = |byte: u8| edge(Some(byte)) || byte == b'-';
            edge(label.bytes().next()) && edge(label.bytes().last()) && label.bytes().all(inner)
        })
    };
    let long = |letter: &str| letter.repeat(63);
    let cases: [&[&str]; 5] = [
        &["v1", "v2"],
        &["1.2.0", "1.2.0-rc.1"],
        &["Pizza_A-1", "Z", "z", "zz", "a0"],
        &["9", "A", "a"],
        &[&long("A"), &long("b"), &long("z")],
    ];
    for versions in cases {
        let record = |active: &str, versions: &[&str]| {
            let mut record = group();
            record.active = active.to_owned();
            record.versions = versions.iter().map(|version| (*version).to_owned()).collect();
            record.seal().expect("valid")
        };
        let (first, last) = (versions[0], versions[versions.len() - 1]);
        let all = record(first, versions);
        let name = route::rule_name(&all, 15);
        assert!(name.len() <= 253 && labels(&name), "{name}");
        for version in versions {
            assert_eq!(route::lacks(&name, &all, version), None, "{name}");
            for active in versions {
                let committed = record(active, versions);
                assert_eq!(route::misses(&name, &committed, version), None, "{name}, whatever is active");
            }
        }
        assert!(route::lacks(&name, &record(last, versions), first).is_some(), "{name}: another default");
        assert!(route::lacks(&name, &record(first, &versions[..1]), first).is_some(), "{name}: one is gone");
        let fewer = route::rule_name(&record(first, &versions[..1]), 15);
        for says in [route::lacks, route::misses] {
            assert!(says(&name, &all, "v9").is_some(), "{name}: not listed");
            assert!(says(&fewer, &all, last).is_some(), "{fewer}: of fewer versions");
        }
    }
}

#[test]
fn a_cluster_leads_to_the_flag_of_its_service_or_of_a_version_of_it() {
    let mut record = group();
    let own = |version: &str| format!("outbound|80||ratings-{version}.bookinfo.svc.cluster.local");
    record.members[0].clusters =
        ["v1", "v2"].map(|version| (version.to_owned(), [own(version)].into())).into_iter().collect();
    let table = taken(record, "bookinfo", &[]);
    let found = |cluster: &str| table.of_cluster(cluster).is_some();
    assert!(found("outbound|80||reviews.bookinfo.svc.cluster.local") && found(&own("v1")) && found(&own("v2")));
    assert!(!found(&own("v3")) && !found("outbound|80||web.bookinfo.svc.cluster.local") && !found("inbound|80||"));
    let flag = table.of_cluster(&own("v2")).expect("a flag");
    assert_eq!(flag.served_by(&own("v2")).map(|counter| counter.version()), Some("v2"));
}
