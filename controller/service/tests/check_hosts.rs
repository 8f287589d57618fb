//! Which hosts checks may ask.

#![allow(clippy::unwrap_used)]

use rstest::rstest;
use service::check_hosts::{CheckHost, may_ask};

#[rstest]
#[case::named("http://prometheus.monitoring:9090/api", true)]
#[case::in_any_spelling("https://Prometheus.Monitoring.", true)]
#[case::below("http://a.hooks.svc/x", true)]
#[case::far_below("http://a.b.hooks.svc", true)]
#[case::an_address("http://198.18.0.7:80/", true)]
#[case::of_six("http://[fd00::7]:80/", true)]
#[case::the_domain_itself("http://hooks.svc/x", false)]
#[case::its_end_only("http://evilhooks.svc/x", false)]
#[case::metadata("http://169.254.169.254/latest", false)]
#[case::a_user_of_that_name("http://prometheus.monitoring@evil.example/", false)]
#[case::a_longer_name("http://prometheus.monitoring.evil.example/", false)]
#[case::nothing("nonsense", false)]
fn only_named_hosts_are_asked(#[case] url: &str, #[case] may: bool) {
    let named = ["prometheus.monitoring", "*.hooks.svc", "198.18.0.7", "[fd00::7]"];
    let hosts: Vec<CheckHost> = named.iter().map(|host| host.parse().unwrap()).collect();
    let answer = may_ask(Some(&hosts), url);
    assert_eq!(answer.is_ok(), may, "{answer:?}");
    assert!(answer.is_ok() || answer.unwrap_err().contains("--check-hosts"));
    assert_eq!(may_ask(None, url), Ok(()));
}

#[rstest]
#[case("")]
#[case("*.")]
#[case("http://a")]
#[case("a:80")]
#[case("a/b")]
#[case("a.*.b")]
fn what_is_no_host_is_refused(#[case] text: &str) {
    let error = text.parse::<CheckHost>().unwrap_err().to_string();
    assert!(error.contains("is no host: write it as prometheus.monitoring"), "{error}");
}
