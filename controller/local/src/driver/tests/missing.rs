//! Flags that stand in the files and have not begun.

use super::*;

/// The flag of this name, where it is shown.
fn flag<'a>(all: &'a Value, name: &str) -> Option<&'a Value> {
    all.as_array()?.iter().find(|view| view["name"].as_str().is_some_and(|shown| shown.ends_with(name)))
}

fn is_missing(all: &Value, name: &str) -> bool {
    flag(all, name).is_some_and(|view| view["status"]["blocked"]["reason"] == "InvalidSpec")
}

fn is_stable(all: &Value, name: &str) -> bool {
    let is = |view: &Value| view["status"]["phase"] == "Stable" && view["versions"]["v1"]["ready"] == true;
    flag(all, name).is_some_and(is)
}

/// T27: a controller that begins while a file is not valid looks after the other flags, shows that one, and leaves what
/// they share as it is, until all can be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_begins_beside_a_file_that_is_not_valid() {
    let mut world = World::start().await;
    world.end().await;
    world.kill();
    std::fs::remove_file(world.dir.path().join("reviews.state.json")).unwrap();
    world.source = world.dir.path().canonicalize().unwrap();
    let (filter, b, other) = (world.dir.path().join("filter.json"), world.dir.path().join("b.yaml"), free_address());
    let snapshot = "/v1/snapshot?proxy=edge&waitMs=50";
    world.write(&files());
    std::fs::write(&b, "a: {").unwrap();

    // Nothing is remembered.
    world.run(Audit::default()).await;
    let all = world
        .until_all("one of two", |all| {
            let told =
                flag(all, "reviews").is_some_and(|view| view["versions"]["v1"]["notes"].to_string().contains("b.yaml"));
            is_stable(all, "reviews") && is_missing(all, "/b.yaml") && told
        })
        .await;
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    assert!(!filter.exists(), "it has not all flags");
    assert_eq!(world.get(snapshot).await.unwrap(), "");
    assert!(world.get("/readyz").await.unwrap().contains("not every flag"));
    world.write_flag("b.yaml", "ratings", other, &files());
    world.until_all("both", |all| stable(all, &["ratings", "reviews"])).await;
    let both = |text: &str| text.contains("ratings-v1") && text.contains("reviews-v1");
    wait_for("the records of both", async || {
        let text = std::fs::read_to_string(&filter).unwrap_or_default();
        if both(&text) && both(&world.get(snapshot).await?) { Ok(()) } else { Err(text) }
    })
    .await;
    world.end().await;

    // Both are remembered, and one is asked for another version while the other one cannot be read.
    let valid = std::fs::read_to_string(&b).unwrap();
    std::fs::write(&b, valid.replace("\"version\":\"v1\"", "\"version\":\"v9\"")).unwrap();
    std::fs::remove_file(world.dir.path().join("routes.json")).unwrap();
    let kept = std::fs::read_to_string(&filter).unwrap();
    let v2 = free_address();
    world.edit(|file| {
        file["spec"]["version"] = json!("v2");
        file["spec"]["coexistence"] = json!({ "minReady": "0s", "headroom": "Ignore", "probe": { "mode": "None" } });
        file["local"]["versions"]["v2"] = json!({ "command": server(v2), "address": v2.to_string() });
    });
    world.run(Audit::default()).await;
    let held = |all: &Value| {
        let waits = flag(all, "reviews").is_some_and(|view| view["status"]["blocked"]["reason"] == "OtherFlagUnread");
        waits && is_missing(all, "ratings")
    };
    let all = world.until_all("what is held", held).await;
    assert_eq!(flag(&all, "ratings").unwrap()["status"]["activeVersion"], "v1", "it is shown as it is remembered");
    assert_eq!(flag(&all, "reviews").unwrap()["status"]["activeVersion"], "v1");
    assert_eq!(world.get(snapshot).await.unwrap(), "");
    // Away for a moment, as when it is saved.
    std::fs::remove_file(&b).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.get(snapshot).await.unwrap(), "");
    assert_eq!(std::fs::read_to_string(&filter).unwrap(), kept);
    assert!(!world.dir.path().join("routes.json").exists());
    std::fs::write(&b, &valid).unwrap();
    let goes_on = |all: &Value| is_stable(all, "ratings") && !held(all);
    world.until_all("it goes on", goes_on).await;
    wait_for("a snapshot of both", async || {
        let text = world.get(snapshot).await?;
        if both(&text) { Ok(()) } else { Err(text) }
    })
    .await;
    world.end().await;
}

/// T27: a state that is damaged is no reason to leave the other flags alone, and is looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn a_flag_that_cannot_begin_is_shown() {
    let mut world = World::start().await;
    world.end().await;
    world.source = world.dir.path().canonicalize().unwrap();
    world.write_flag("b.yaml", "ratings", free_address(), &[]);
    let state = world.dir.path().join("b.state.json");
    std::fs::write(&state, "{").unwrap();
    world.run(Audit::default()).await;
    let shown = |all: &Value| is_stable(all, "reviews") && is_missing(all, "ratings");
    let all = world.until_all("one of two", shown).await;
    assert!(all.to_string().contains("is damaged"), "{all}");
    std::fs::remove_file(&state).unwrap();
    world.until_all("both", |all| stable(all, &["ratings", "reviews"])).await;
    world.end().await;
}
