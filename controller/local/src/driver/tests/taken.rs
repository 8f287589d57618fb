//! What another controller has: its state, what runs by it, and the files of its proxies.

use super::*;

/// Why a controller of this file ends at once.
async fn ends(file: &Path) -> String {
    let sources = [file.to_owned()];
    let ended = run(&sources, Audit::default(), |_| {}, std::future::pending());
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap_err().to_string()
}

/// T29: what runs of another flag is left alone by whoever has its state.
#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_another_flag_is_refused() {
    let mut world = World::start().await;
    let kept = world.processes();
    let state = |name: &str| world.dir.path().join(name);
    std::fs::copy(state("reviews.state.json"), state("b.state.json")).unwrap();
    std::fs::create_dir(state("other")).unwrap();
    std::fs::copy(state("reviews.state.json"), state("other/reviews.state.json")).unwrap();
    world.write_flag("b.yaml", "ratings", free_address(), &[]);
    world.write_flag("other/reviews.yaml", "reviews", world.v1, &[]);
    let refused = async |file: &str| ends(&state(file)).await;
    let why = refused("b.yaml").await;
    assert!(
        why.contains("has the state of the flag \"reviews\", and not of \"ratings\": give ratings another"),
        "{why}"
    );
    let why = refused("other/reviews.yaml").await;
    assert!(why.contains("/reviews.state.json, by which v1 was started (process"), "{why}");
    assert_eq!(world.processes(), kept);

    // Whose folder was moved goes on with what it has.
    world.end().await;
    for name in ["reviews.state.json", "b.state.json"] {
        std::fs::remove_file(world.dir.path().join(name)).unwrap();
    }
    world.source = world.dir.path().canonicalize().unwrap().join("other/reviews.yaml");
    world.run(Audit::default()).await;
    world.until("v1 is found again", |view| view["versions"]["v1"]["ready"] == true).await;
    assert_eq!(world.processes(), kept);
    world.end().await;
}

/// T30: a second controller with the same files for Envoy, and another state, ends with the pid of the first one.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_controller_does_not_write_the_same_files() {
    let mut world = World::start().await;
    world.write(&files());
    let filter = world.dir.path().join("filter.json");
    wait_for("the first one writes", async || if filter.exists() { Ok(()) } else { Err(String::new()) }).await;
    world.write_flag("b.yaml", "ratings", free_address(), &files());
    let ended = ends(&world.dir.path().join("b.yaml")).await;
    let who = format!("filter.json is in use by another controller, process {}", std::process::id());
    assert!(ended.contains(&who), "{ended}");
    assert!(!world.dir.path().join("b.state.json").exists(), "it has not begun");
    world.end().await;
}
