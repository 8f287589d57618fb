//! Streams that stay open for long in a real mesh: a plugin that is replaced cuts none and forgets none, and
//! a flip leaves each where it began.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::mesh::switch::{
    LIMIT, adopt, adopted, ask, ended_unused, goes_on, plan, reaches, shows, status, strength,
};
use harness::mesh::{CONTROLLER, Mesh, Workload, story};
use harness::talk::{Kind, Talk};
use harness::{Call, LoadPlan, wait_for};
use serde_json::{Value, json};

#[test]
fn streams_outlive_plugins_and_end_where_they_began() {
    story("mesh-streams", async |mesh| {
        let mut controller = mesh.install().await?;
        let reviews = |version, replicas| Workload { grpc: true, ..Workload::of("reviews", version, replicas) };
        let callers = ["caller-a", "caller-b"].map(Workload::named);
        mesh.deploy_all(&[[reviews("v1", 2), reviews("v2", 0)].as_slice(), &callers].concat()).await?;
        adopt(mesh, &["reviews"]).await?;
        adopted(mesh, 4).await?;
        let plan = LoadPlan { stream: Some(Duration::from_secs(2)), ..plan() };
        let load = mesh.load_with("caller-b", "reviews", plan).await?;
        goes_on(&load, 50).await?;
        let old = one_of_each(mesh, "v1").await?;
        let mut started = 0;

        // Another host makes another record, and another plugin.
        let caller = mesh.pod("caller-a")?.sidecar()?;
        for host in ["one.example", "two.example", "three.example"] {
            let services = json!({ "spec": { "services": [{ "name": "reviews", "hosts": [host] }] } });
            mesh.patch("versionflag", "reviews", &services).await?;
            wait_for("the plugin in the sidecar", LIMIT, async || {
                ensure!(caller.config().await?.to_string().contains(host), "it has no {host}");
                Ok(())
            })
            .await?;
            for talk in &old {
                talk.goes_on().await?;
            }
            goes_on(&load, 50).await?;
            started = wait_for("the counts", LIMIT, async || {
                let (now, open) = counted().await?;
                ensure!(open >= 3 && now > started, "{open} requests are open of {now}, before of {started}");
                Ok(now)
            })
            .await?;
            mesh.step(&format!("a plugin with {host}"));
        }
        shows(mesh, "all have the plugin", |status| status["proxies"]["summary"] == "4/4").await?;

        ask(mesh, "v2").await?;
        reaches(mesh, "Settling", "v2").await?;
        let new = one_of_each(mesh, "v2").await?;
        // Each holds v1 as long as it is open.
        for talk in old.into_iter().rev() {
            talk.goes_on().await?;
            goes_on(&load, 200).await?;
            let now = status(mesh).await?;
            ensure!(now["phase"] == "Settling" && strength(mesh, "v1").await? == "2", "{now}");
            ensure!(talk.version() == "v1", "it is with {}", talk.version());
            talk.end().await?;
        }
        reaches(mesh, "Stable", "v2").await?;
        ended_unused(mesh, "v1").await?;
        for talk in new {
            talk.end().await?;
        }
        goes_on(&load, 50).await?;
        controller.check_running()?;
        load.stop_served_by(&["v1", "v2"]).await?;
        Ok(())
    });
}

/// A stream of each kind, all of which this version answers.
async fn one_of_each(mesh: &Mesh<'_>, version: &str) -> Result<Vec<Talk>> {
    let mut talks = Vec::new();
    for kind in Kind::ALL {
        let talk = mesh.talk("caller-a", "reviews", kind).await?;
        ensure!(talk.version() == version, "{kind:?} is with {}", talk.version());
        talks.push(talk);
    }
    mesh.step(&format!("streams to {version}"));
    Ok(talks)
}

/// How many requests the proxies have sent to v1, and how many of them are open.
async fn counted() -> Result<(u64, u64)> {
    let flags: Value = Call::get(CONTROLLER, "/v1/status").send().await?.json()?;
    let totals = &flags[0]["fleet"]["sent"]["v1"];
    let of = |field: &str| totals[field].as_u64().with_context(|| format!("no {field} in {flags}"));
    Ok((of("started")?, of("started")? - of("finished")?))
}
