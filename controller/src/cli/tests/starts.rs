//! What is shown of a version that does not run.

use super::*;

/// T14: when a version is tried again is shown, by `status` and by `why`; T8: and what people should know of it.
#[test]
fn when_a_version_is_started_again_is_shown() {
    let mut view = seen(settling());
    let v2 = view.versions.get_mut("v2").expect("v2");
    *v2 = VersionState {
        exited: Some("exit status: 7".to_owned()),
        next_start: Some(UnixMs(NOW.0 + 3_400)),
        notes: vec!["what it prints is lost".to_owned()],
        ..VersionState::default()
    };
    let model = Model::of_view(&view, "reviews.yaml");
    let (status, why) = (show::status(&model, "versionflag"), show::why(&model, "versionflag"));
    assert!(status.contains("v2 ● active  ended (exit status: 7)"), "{status}");
    assert!(status.contains("  next start in 3.4s\n│  └─ what it prints is lost\n"), "{status}");
    assert!(why.contains("  v2: ended (exit status: 7)") && why.contains("  next start in 3.4s\n"), "{why}");
}

/// T7: a version that nobody may start is not stopped, it is not started.
#[test]
fn a_version_that_is_not_started_is_shown_as_such() {
    let mut view = seen(settling());
    let v2 = view.versions.get_mut("v2").expect("v2");
    *v2 = VersionState { barred: Some("process 77 listens there".to_owned()), ..VersionState::default() };
    let status = show::status(&Model::of_view(&view, "reviews.yaml"), "versionflag");
    assert!(status.contains("v2 ● active  not started"), "{status}");
}

/// T22: why a version is not ready is beside it, whatever the flag waits for.
#[test]
fn what_a_version_lacks_is_beside_it() {
    let mut view = seen(settling());
    let v2 = view.versions.get_mut("v2").expect("v2");
    let lacks = Some("GET /healthz is answered by 503".to_owned());
    *v2 = VersionState { running: true, lacks, ..VersionState::default() };
    let status = show::status(&Model::of_view(&view, "reviews.yaml"), "versionflag");
    assert!(status.contains("v2 ● active  not ready: GET /healthz is answered by 503"), "{status}");
}

/// T22: what `list` calls ready is in effect at all proxies.
#[test]
fn nothing_is_ready_before_all_have_acked() {
    let mut view = seen(Status { blocked: None, ..settling() });
    view.refused = laggards();
    let ready = |view: &FlagView| Model::of_view(view, "reviews.yaml").ready;
    assert_eq!(ready(&view), "False");
    view.fleet.acked = view.fleet.expected;
    assert_eq!(ready(&view), "True");
    let status = show::status(&Model::of_view(&view, "reviews.yaml"), "versionflag");
    assert!(status.contains("├─ refused cart.shop  no report\n"), "{status}");
}

/// T19, T32: what was asked for of a version is said until it is done.
#[test]
fn what_was_ordered_is_said() {
    let mut status = settling();
    status.restarts.insert("v2".to_owned(), NOW);
    status.halted.insert("v1".to_owned());
    let mut view = seen(status);
    view.versions.insert("v1".to_owned(), VersionState::default());
    let status = show::status(&Model::of_view(&view, "reviews.yaml"), "versionflag");
    assert!(status.contains("│  └─ v2 is being started anew, as was asked for\n"), "{status}");
    assert!(
        status.contains("│  └─ v1 was stopped by request, until `versionflag restart reviews.yaml --version v1`"),
        "{status}"
    );
}

/// T32: an Envoy of the operator's that lacks the cluster of a version gets it by one command.
#[test]
fn a_cluster_that_is_missing_is_added_by_a_command() {
    let mut status = settling();
    status.enter(NOW, Phase::ProvingRoutes);
    let mut view = FlagView { name: "reviews".to_owned(), ..seen(status) };
    let why = |view: &FlagView| show::why(&Model::of_view(view, "reviews.yaml"), "versionflag");
    let command = "versionflag render envoy FILE --into ENVOYFILE";
    let lacks = |what: &str| vec![Laggard { proxy: "edge".to_owned(), why: format!("cluster reviews-v2: {what}") }];
    view.fleet.reach_laggards = lacks("no healthy host");
    assert!(!why(&view).contains(command), "{}", why(&view));
    view.fleet.reach_laggards = lacks("the proxy has no such cluster");
    assert!(why(&view).contains(command), "{}", why(&view));
    view.name = "shop/reviews".to_owned();
    assert!(!why(&view).contains(command), "in a cluster they are not the operator's files");
}
