//! Where proxies are led.

use cluster::leader::endpoints;
use rstest::rstest;

#[rstest]
#[case("198.18.0.7", "IPv4")]
#[case("2001:db8::7", "IPv6")]
fn the_service_has_one_endpoint_and_it_is_the_leader(#[case] address: &str, #[case] family: &str) {
    let of = |mtls| endpoints("versionflag", "versionflag-0", &[address.parse().unwrap()], 7070, mtls);
    assert_eq!(of(None).len(), 1);
    let slice = serde_json::to_value(&of(None)[0]).unwrap();
    assert_eq!(slice["metadata"]["name"], "versionflag");
    assert_eq!(slice["metadata"]["namespace"], "versionflag");
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "versionflag");
    assert_eq!(slice["addressType"], family);
    assert_eq!(slice["endpoints"].as_array().unwrap().len(), 1);
    assert_eq!(slice["endpoints"][0]["addresses"], serde_json::json!([address]));
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    assert_eq!((&slice["ports"][0]["name"], &slice["ports"][0]["port"]), (&"http".into(), &7070.into()));
    assert_eq!(slice["ports"].as_array().unwrap().len(), 1);
    let both = serde_json::to_value(&of(Some(7071))[0]).unwrap();
    assert_eq!(both["ports"][0], slice["ports"][0]);
    assert_eq!((&both["ports"][1]["name"], &both["ports"][1]["port"]), (&"http-mtls".into(), &7071.into()));
}

/// C39: a slice is of one family of addresses, and keeps it.
#[rstest]
#[case::one(&["198.18.0.7"], &[("versionflag", "IPv4")])]
#[case::two(&["198.18.0.7", "2001:db8::7"], &[("versionflag", "IPv4"), ("versionflag-second", "IPv6")])]
#[case::the_other_first(&["2001:db8::7", "198.18.0.7"], &[("versionflag", "IPv6"), ("versionflag-second", "IPv4")])]
#[case::two_of_one(&["198.18.0.7", "198.18.0.8"], &[("versionflag", "IPv4")])]
#[case::none(&[], &[])]
fn each_family_of_addresses_has_a_slice(#[case] addresses: &[&str], #[case] slices: &[(&str, &str)]) {
    let all: Vec<std::net::IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let found = endpoints("versionflag", "versionflag-0", &all, 7070, None);
    let named: Vec<_> = found.iter().map(|one| (one.metadata.name.as_deref().unwrap(), &*one.address_type)).collect();
    assert_eq!(named, slices);
    for (slice, address) in found.iter().zip(addresses) {
        assert_eq!(slice.endpoints[0].addresses, [*address]);
    }
}

/// C39.
#[tokio::test]
async fn the_flag_service_listens_on_both_families() {
    let listener = cluster::listener::listen("[::]:0".parse().unwrap()).await.unwrap();
    let at = listener.local_addr().unwrap();
    let reach = async |ip: &str| tokio::net::TcpStream::connect((ip, at.port())).await;
    assert!(reach("127.0.0.1").await.is_ok());
    // A machine without IPv6 has one family only.
    assert_eq!(reach("::1").await.is_ok(), at.is_ipv6());
}
