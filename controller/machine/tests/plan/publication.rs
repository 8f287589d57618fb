//! What the proxies are sent of a flag besides the record.

use machine::plan::Effect;
use machine::publication::Publication;
use machine::status::Phase;
use rstest::rstest;

use crate::fixtures::*;

/// What is published in a phase in which nothing may move.
fn published(more: &str, phase: Phase, seen: &Seen) -> Publication {
    let spec = spec(&format!("suspend: true, {more}"));
    let status = pass(&spec, &switching(phase), seen).status;
    let plan = pass(&spec, &status, seen);
    let published = plan.effects.into_iter().find_map(|effect| match effect {
        Effect::Publish(published) => Some(*published),
        _ => None,
    });
    let published = published.unwrap();
    assert_eq!(Some(&published.record), status.record.as_ref(), "what is remembered is what is published");
    published
}

#[rstest]
#[case(Phase::Adopting, 1_000, false)]
#[case(Phase::Stable, 1_000, false)]
#[case(Phase::Coexisting, 1_000, true)]
#[case(Phase::AwaitingPromotion, 1_000, true)]
#[case(Phase::ProvingRoutes, 100, true)]
#[case(Phase::Switching, 100, true)]
#[case(Phase::Settling, 100, true)]
#[case(Phase::Retaining, 1_000, true)]
#[case(Phase::Removing, 100, true)]
fn reports_come_quickly_where_any_may_move_the_flag(
    #[case] phase: Phase,
    #[case] every_ms: u64,
    #[case] proves_routes: bool,
) {
    let published = published("", phase, &seen());
    assert_eq!((published.report_every.0, published.prove_routes), (every_ms, proves_routes));
    assert_eq!(published.audience, None, "every proxy that asks");
}

const MEASURED: &str = "builtin: {maxErrorRate: 1%}";
const WEBHOOK: &str = "webhook: {url: 'http://a'}";

#[rstest]
#[case::after_the_flip(Phase::Settling, "AfterFlip", MEASURED, true)]
#[case::still_after_it(Phase::Retaining, "AfterFlip", MEASURED, true)]
#[case::not_before_it(Phase::AwaitingPromotion, "AfterFlip", MEASURED, false)]
#[case::not_once_it_is_removed(Phase::Removing, "AfterFlip", MEASURED, false)]
#[case::only_what_proxies_measure(Phase::Settling, "AfterFlip", WEBHOOK, false)]
#[case::before_the_flip(Phase::AwaitingPromotion, "BeforeFlip", MEASURED, true)]
#[case::not_after_it(Phase::Settling, "BeforeFlip", MEASURED, false)]
fn answers_are_measured_where_a_check_asks_for_them(
    #[case] phase: Phase,
    #[case] when: &str,
    #[case] check: &str,
    #[case] measures: bool,
) {
    let checks = format!("checks: [{{name: a, when: {when}, {check}}}]");
    assert_eq!(published(&checks, phase, &seen()).measure, measures);
}

#[test]
fn a_rollback_measures_nothing() {
    let spec = spec(&format!("suspend: true, checks: [{{name: a, {MEASURED}}}]"));
    let status = pass(&spec, &going_back(Phase::Settling), &seen()).status;
    let effects = pass(&spec, &status, &seen()).effects;
    let measures = effects.iter().any(|effect| matches!(effect, Effect::Publish(published) if published.measure));
    assert!(!measures);
}

#[test]
fn only_the_audience_is_sent_it() {
    let published = published("", Phase::Stable, &seen().audience(&["a.shop", "b.shop"]));
    assert_eq!(published.audience, Some(names(&["a.shop", "b.shop"])));
}

/// F14: while a switch is under way proxies are told which requests are no traffic.
#[rstest]
#[case::at_rest(Phase::Stable, "", None)]
#[case::by_default(
    Phase::Settling,
    "",
    Some((&["ELB-HealthChecker/", "GoogleHC/", "Prometheus/", "kube-probe/"][..], &[][..]))
)]
#[case::as_the_spec_says(
    Phase::Settling,
    "settle: {healthChecks: {userAgents: [], paths: [/metrics]}}",
    Some((&[][..], &["/metrics"][..]))
)]
fn proxies_are_told_what_is_no_traffic(
    #[case] phase: Phase,
    #[case] more: &str,
    #[case] told: Option<(&[&str], &[&str])>,
) {
    let health = published(more, phase, &seen()).health;
    let names = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let told = told.map(|(agents, paths)| (names(agents), names(paths)));
    assert_eq!(health.map(|health| (health.user_agents, health.paths)), told);
}
