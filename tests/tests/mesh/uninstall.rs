//! E8: the product goes again, by the commands that `versionflag uninstall --check` lists, while requests come.

use anyhow::{Context, Result, ensure};
use harness::load::Load;
use harness::mesh::Mesh;
use harness::mesh::switch::{LIMIT, goes_on};
use harness::process::Process;
use harness::wait_for;
use serde_json::Value;

/// Does all that is listed, in its order. `load` goes on, and whoever made it checks every request.
pub(crate) async fn uninstall(mesh: &Mesh<'_>, mut controller: Process, load: &Load) -> Result<()> {
    let (mut routed, mut runs) = (true, true);
    for one in left(mesh).await? {
        let command = one["command"].as_str().context("a command")?;
        match one["kind"].as_str() {
            Some("DestinationRule" | "Service") if routed => {
                nowhere(mesh, "versionflag:default/", "dynamic_route_configs").await?;
                routed = false;
            }
            Some("Namespace") if runs => {
                nowhere(mesh, "versionflag", "ecds_filters").await?;
                controller.check_running()?;
                controller.kill();
                runs = false;
            }
            _ => {}
        }
        println!("{command}");
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        mesh.cluster.kubectl(&words).await?;
        goes_on(load, 10).await?;
    }
    ensure!(!routed && !runs, "neither routes nor roles were listed");
    goes_on(load, 100).await?;
    let left = left(mesh).await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

async fn left(mesh: &Mesh<'_>) -> Result<Vec<Value>> {
    let output = mesh.cluster.versionflag(&["uninstall", "--check", "--output", "json"]).await?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(said["unread"].as_array().is_some_and(Vec::is_empty), "{said}");
    Ok(said["left"].as_array().context("what is left")?.clone())
}

/// Waits until no caller has this name in this part of its configuration.
async fn nowhere(mesh: &Mesh<'_>, name: &str, part: &str) -> Result<()> {
    let what = format!("no {name} in {part}");
    wait_for(&what, LIMIT, async || {
        for pod in mesh.pods("caller") {
            let dump = pod.sidecar()?.admin(&format!("/config_dump?resource={part}")).await?.body;
            ensure!(!dump.contains(name), "{} has it", pod.name());
        }
        Ok(())
    })
    .await?;
    mesh.step(&what);
    Ok(())
}
