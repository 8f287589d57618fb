//! Where proxies are led.

use cluster::leader::endpoints;
use rstest::rstest;

#[rstest]
#[case("198.18.0.7", "IPv4")]
#[case("2001:db8::7", "IPv6")]
fn the_service_has_one_endpoint_and_it_is_the_leader(#[case] address: &str, #[case] family: &str) {
    let of = |mtls| endpoints("versionflag", "versionflag-0", address.parse().unwrap(), 7070, mtls);
    let slice = serde_json::to_value(of(None)).unwrap();
    assert_eq!(slice["metadata"]["name"], "versionflag");
    assert_eq!(slice["metadata"]["namespace"], "versionflag");
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "versionflag");
    assert_eq!(slice["addressType"], family);
    assert_eq!(slice["endpoints"].as_array().unwrap().len(), 1);
    assert_eq!(slice["endpoints"][0]["addresses"], serde_json::json!([address]));
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    assert_eq!((&slice["ports"][0]["name"], &slice["ports"][0]["port"]), (&"http".into(), &7070.into()));
    assert_eq!(slice["ports"].as_array().unwrap().len(), 1);
    let both = serde_json::to_value(of(Some(7071))).unwrap();
    assert_eq!(both["ports"][0], slice["ports"][0]);
    assert_eq!((&both["ports"][1]["name"], &both["ports"][1]["port"]), (&"http-mtls".into(), &7071.into()));
}
