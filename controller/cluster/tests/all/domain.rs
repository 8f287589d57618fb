//! How a cluster names its Services.

use cluster::domain::Domain;
use rstest::rstest;

fn other() -> Domain {
    "k8s.corp-1.example".parse().unwrap()
}

#[rstest]
#[case::usual("cluster.local", "")]
#[case::one_label("internal", "")]
#[case::more("k8s.corp-1.example", "")]
#[case::empty("", "it is empty: leave it out for cluster.local")]
#[case::of_services(
    "svc.cluster.local",
    "svc. belongs to the names of Services, not to the domain: did you mean cluster.local?"
)]
#[case::a_dot_before(".cluster.local", "\"\" in it is no label")]
#[case::a_dot_behind("cluster.local.", "\"\" in it is no label")]
#[case::large("Cluster.local", "\"Cluster\" in it is no label of a domain")]
#[case::space("cluster.local ", "\"local \" in it is no label")]
#[case::pattern("*.local", "\"*\" in it is no label")]
#[case::port("cluster.local:80", "\"local:80\" in it is no label")]
#[case::dash_before("-a.local", "\"-a\" in it is no label")]
#[case::dash_behind("a-.local", "\"a-\" in it is no label")]
#[case::long_label(&"a".repeat(64), "is no label of a domain: small letters, digits and - in between, at most 63")]
#[case::as_long_as_can_be(&["a"; 61].join("."), "")]
#[case::too_long(&["a"; 62].join("."), "it is longer than 121 bytes")]
fn what_is_no_domain_is_refused(#[case] text: &str, #[case] why: &str) {
    match text.parse::<Domain>() {
        Ok(domain) => assert_eq!((domain.to_string().as_str(), why), (text, "")),
        Err(error) => assert!(!why.is_empty() && error.to_string().contains(why), "{text}: {error}"),
    }
}

#[test]
fn unless_told_it_is_the_usual_one() {
    assert_eq!(Domain::default().to_string(), "cluster.local");
}

#[test]
fn all_names_of_a_service_end_in_it() {
    assert_eq!(other().host("reviews", "shop"), "reviews.shop.svc.k8s.corp-1.example");
    let hosts = ["reviews.shop", "reviews.shop.svc", "reviews.shop.svc.k8s.corp-1.example"];
    assert_eq!(other().hosts("reviews", "shop"), hosts.map(String::from).into());
    // The longest that there can be is a name that a proxy takes.
    let (label, domain) = ("a".repeat(63), ["a"; 61].join("."));
    let host = domain.parse::<Domain>().unwrap().host(&label, &label);
    assert_eq!(host.len(), flag::limits::NAME_BYTES);
}

#[rstest]
#[case("reviews", "shop", true, true)]
#[case("reviews", "other", false, false)]
#[case("reviews.shop", "other", true, true)]
#[case("reviews.shop.svc", "other", true, true)]
#[case("Reviews.shop.svc.cluster.local.", "other", true, false)]
#[case("Reviews.shop.svc.k8s.corp-1.example.", "other", false, true)]
#[case("reviews.other", "shop", false, false)]
#[case("*.shop.svc.cluster.local", "shop", false, false)]
#[case("ratings", "shop", false, false)]
fn a_service_has_many_names(#[case] host: &str, #[case] place: &str, #[case] usually: bool, #[case] elsewhere: bool) {
    assert_eq!(Domain::default().means(host, place, "reviews", "shop"), usually);
    assert_eq!(other().means(host, place, "reviews", "shop"), elsewhere);
}
