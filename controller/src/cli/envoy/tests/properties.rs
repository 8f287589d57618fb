//! Route tables of every kind: merging twice is merging once, and what is not of the flag is as it was. T17

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::merge::{Choice, merge};
use super::super::node::Node;
use super::super::routes::destinations;
use super::super::write::yaml;
use super::{again, config, flag, texts};

fn cluster_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["reviews", "reviews-v2", "web", "other"])
}

fn action() -> impl Strategy<Value = (String, Value)> {
    prop_oneof![
        (cluster_name(), any::<bool>()).prop_map(|(name, long)| {
            let timeout = if long { json!("60s") } else { json!("1s") };
            (
                "route".to_owned(),
                json!({ "cluster": name, "timeout": timeout, "retry_policy": { "retry_on": "reset" } }),
            )
        }),
        (cluster_name(), cluster_name(), 0..100u32).prop_map(|(one, other, weight)| {
            let clusters = json!([{ "name": one, "weight": weight }, { "name": other, "weight": 100 - weight }]);
            ("route".to_owned(), json!({ "weighted_clusters": { "clusters": clusters } }))
        }),
        Just(("redirect".to_owned(), json!({ "https_redirect": true }))),
        Just(("direct_response".to_owned(), json!({ "status": 403 }))),
        Just(("route".to_owned(), json!({ "cluster_header": "x-cluster" }))),
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let header = prop::sample::select(vec!["x-tenant", "x-user"]);
    (prop::sample::select(vec!["prefix", "path"]), "/[a-c]{0,2}", prop::option::of(header)).prop_map(
        |(by, path, header)| {
            let mut condition = json!({ by: path });
            if let Some(name) = header {
                condition["headers"] = json!([{ "name": name, "present_match": true }]);
            }
            condition
        },
    )
}

fn one_route() -> impl Strategy<Value = Value> {
    (condition(), action(), prop::option::of("[a-z]{1,4}")).prop_map(|(condition, (field, action), name)| {
        let mut route = json!({ "match": condition, field: action });
        if let Some(name) = name {
            route["name"] = name.into();
        }
        route
    })
}

fn virtual_host(domains: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::vec(one_route(), 0..5)
        .prop_map(move |routes| json!({ "name": domains[0], "domains": domains, "routes": routes }))
}

/// A bootstrap whose first virtual host serves the flag, and leads to a version in its last route.
fn bootstrap() -> impl Strategy<Value = Value> {
    let hosts = (
        virtual_host(&["reviews.example", "reviews.example:*", "reviews.example.", "reviews.example.:*"]),
        virtual_host(&["*.example"]),
        virtual_host(&["*"]),
    );
    (hosts, cluster_name()).prop_map(|((mut first, second, third), name)| {
        let last = json!({ "match": { "prefix": "/" }, "route": { "cluster": "reviews" } });
        first["routes"].as_array_mut().unwrap().push(last);
        let kind = "x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let router = json!({ "name": "router", "typed_config": { "@type": "x/envoy.extensions.filters.http.router.v3.Router" } });
        let manager = json!({
            "@type": kind,
            "route_config": { "virtual_hosts": [first, second, third] },
            "http_filters": [router],
        });
        let chains = json!([{ "filters": [{ "name": "hcm", "typed_config": manager }] }]);
        let clusters = json!([{ "name": name, "connect_timeout": "3s" }]);
        json!({ "static_resources": { "listeners": [{ "name": "l", "filter_chains": chains }], "clusters": clusters } })
    })
}

const MANAGER: &str = "static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// The virtual hosts of the only table.
fn hosts(tree: &Node) -> &[Node] {
    tree.list_at(&format!("{MANAGER}/route_config/virtual_hosts"))
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(bootstrap in bootstrap(), as_json in any::<bool>(), websocket in any::<bool>()) {
        let text = if as_json { bootstrap.to_string() } else { yaml(&Node::from(bootstrap)) };
        let choice = Choice { websocket, ..Choice::default() };
        let before = config(&text);
        let (once, _) = merge(&flag(), before.clone(), &choice).unwrap();
        let (first, is_kept) = texts(&before, &once);
        prop_assert!(is_kept, "{}", first[0]);
        let read = again(&before, &first);
        prop_assert_eq!(&read.files[0].tree, &once.files[0].tree);
        let (twice, _) = merge(&flag(), read.clone(), &choice).unwrap();
        prop_assert_eq!(texts(&read, &twice), (first, true));
    }

    #[test]
    fn what_is_not_of_the_flag_is_as_it_was(bootstrap in bootstrap()) {
        let before = config(&yaml(&Node::from(bootstrap)));
        let (after, _) = merge(&flag(), before.clone(), &Choice::default()).unwrap();
        let (old, new) = (&before.files[0].tree, &after.files[0].tree);
        prop_assert_eq!(&hosts(old)[1..], &hosts(new)[1..], "virtual hosts of others");
        // Every route of before is there, in its order; only where it leads and its name may differ.
        let is_marked = |route: &&Node| route.list_at("match/headers").iter().any(|one| one.text_at("name") == Some("x-versionflag"));
        let (old, new) = (hosts(old)[0].list_at("routes"), hosts(new)[0].list_at("routes"));
        let unmarked: Vec<&Node> = new.iter().filter(|route| !is_marked(route)).collect();
        prop_assert_eq!(old.len(), unmarked.len());
        for (old, new) in old.iter().zip(&unmarked) {
            let of_flag = destinations(old).iter().any(|name| name.starts_with("reviews"));
            if of_flag {
                prop_assert!(destinations(new).iter().all(|name| *name != "reviews-v2"), "v1 serves what has no version");
                prop_assert_eq!(old.find("match"), new.find("match"));
                prop_assert_eq!(old.find("route/timeout"), new.find("route/timeout"));
                prop_assert_eq!(old.find("route/retry_policy"), new.find("route/retry_policy"));
            } else {
                prop_assert_eq!(&old, new);
            }
        }
        // One for each version comes right before each of them.
        for (index, route) in new.iter().enumerate() {
            let of_flag = destinations(route).iter().any(|name| name.starts_with("reviews"));
            if !of_flag || is_marked(&route) {
                continue;
            }
            for (version, copy) in ["v1", "v2"].iter().zip(&new[index - 2..index]) {
                prop_assert!(is_marked(&copy));
                let cluster = if *version == "v1" { "reviews" } else { "reviews-v2" };
                prop_assert!(destinations(copy).iter().all(|name| !name.starts_with("reviews") || *name == cluster));
                let headers = copy.list_at("match/headers");
                prop_assert_eq!(headers.last().unwrap().text_at("string_match/exact"), Some(*version));
            }
        }
    }
}
