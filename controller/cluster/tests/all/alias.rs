//! Other names of a flag's Service.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::alias::unlisted;
use rstest::rstest;

use crate::istio::check::asked;
use crate::objects::parse;

// F21
#[rstest]
#[case::the_whole_name("web", "reviews.shop.svc.cluster.local", &[], true)]
#[case::a_shorter_name("web", "reviews.shop", &[], true)]
#[case::of_its_own_namespace("shop", "reviews.shop.svc", &[], true)]
#[case::listed("web", "reviews.shop.svc.cluster.local", &["alias.web.svc.cluster.local"], false)]
#[case::listed_otherwise("web", "reviews.shop.svc.cluster.local", &["Alias.web:80"], false)]
#[case::listed_elsewhere("web", "reviews.shop.svc.cluster.local", &["alias.shop"], true)]
#[case::of_another_service("web", "ratings.shop.svc.cluster.local", &[], false)]
#[case::of_somebody_outside("web", "example.com", &[], false)]
fn another_name_of_a_service_is_named(
    #[case] place: &str,
    #[case] to: &str,
    #[case] listed: &[&str],
    #[case] said: bool,
) {
    let spec = format!("{{type: ExternalName, externalName: {to}}}");
    let services = [Arc::new(parse(&format!("{{metadata: {{name: alias, namespace: {place}}}, spec: {spec}}}")))];
    let listed: BTreeSet<String> = listed.iter().map(|&it| it.to_owned()).collect();
    let problem = asked(|wanted| unlisted(wanted, &listed, &services));
    assert_eq!(problem.is_some(), said, "{problem:?}");
    if let Some(problem) = problem {
        let begin = format!("Service {place}/alias (ExternalName) is another name of Service reviews");
        assert!(problem.message.starts_with(&begin), "{}", problem.message);
        assert!(problem.message.contains(&format!("add alias.{place}.svc.cluster.local to its hosts")), "{problem:?}");
    }
}
