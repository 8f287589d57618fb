//! What a proxy needs and does not get, in a real mesh: its routes, or the filter.

use anyhow::ensure;
use harness::Signal;
use harness::mesh::switch::{
    adopt, adopted, ask, ended_unused, goes_on, held_up_by, laggards, plan, reaches, shows, start, status, strength,
};
use harness::mesh::{Workload, story};

#[test]
fn routes_and_filters_that_do_not_come_hold_the_flip() {
    story("mesh-withheld", async |mesh| {
        let mut controller = start(mesh, &["reviews"]).await?;
        adopt(mesh, &["reviews"]).await?;
        adopted(mesh, 4).await?;
        let a = mesh.load_with("caller-a", "reviews", plan()).await?;
        goes_on(&a, 50).await?;

        // v2 runs, and istiod brings nobody a route to it.
        mesh.deploy("reviews", "v2", 2).await?;
        adopted(mesh, 6).await?;
        mesh.istiod().signal(Signal::SIGSTOP)?;
        ask(mesh, "v2").await?;
        // The one with requests has shown its route. Others may not have the cluster.
        let caller = format!("{}.default", mesh.pod("caller-a")?.name());
        let now = shows(mesh, "the routes hold it up", |status| {
            let (named, why) = laggards(status);
            status["phase"] == "ProvingRoutes" && named.contains(&caller.as_str()) && why.contains(&caller)
        })
        .await?;
        ensure!(now["activeVersion"] == "v1", "{now}");
        goes_on(&a, 300).await?;
        ensure!(
            status(mesh).await?["activeVersion"] == "v1" && !a.live().by_version.contains_key("v2"),
            "{:?}",
            a.live()
        );
        mesh.istiod().signal(Signal::SIGCONT)?;
        reaches(mesh, "Stable", "v2").await?;
        ended_unused(mesh, "v1").await?;

        // One that cannot pull the filter goes by the default route, and nobody believes that it knows the flag (C08).
        // Its way to the registry leads nowhere.
        let environment = vec![("HTTP_PROXY".to_owned(), "http://127.0.0.1:9".to_owned())];
        mesh.deploy_all(&[Workload { environment, ..Workload::named("broken") }]).await?;
        let broken = mesh.pod("broken")?;
        let b = mesh.load_with("broken", "reviews", plan()).await?;
        let named = format!("{}.default", broken.name());
        shows(mesh, "the proxy without a filter is named", |status| {
            status["proxies"]["summary"] == "4/5" && laggards(status).0 == [named.as_str()]
        })
        .await?;
        goes_on(&b, 100).await?;
        ask(mesh, "v1").await?;
        let now = held_up_by(mesh, "ProvingRoutes", &[broken.name()]).await?;
        goes_on(&a, 200).await?;
        ensure!(now["activeVersion"] == "v2" && strength(mesh, "v2").await? == "2", "{now}");
        let b = b.stop().await?;
        b.assert_no_failures();
        assert_eq!(b.by_version().keys().collect::<Vec<_>>(), ["v2"]);

        // Without it the switch comes to its end.
        mesh.cluster.kubectl(&["delete", "deployment", "broken", "--wait=false"]).await?;
        reaches(mesh, "Stable", "v1").await?;
        ended_unused(mesh, "v2").await?;
        goes_on(&a, 50).await?;
        controller.check_running()?;
        let a = a.stop().await?;
        a.assert_no_failures();
        assert_eq!(a.by_version().keys().collect::<Vec<_>>(), ["v1", "v2"]);
        Ok(())
    });
}
