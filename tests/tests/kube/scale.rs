//! Many VersionFlags at once: all of them get their status, nothing is written while nothing
//! changes, and one that cannot be read hides no other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::kube::crowd::{Controller, Crowd, Requests, writes};
use harness::kube::measure::measure;
use harness::kube::{Cluster, story};
use harness::wait_for;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a look at every flag that nothing has called for.
const IDLE: Duration = Duration::from_secs(12);

async fn get(cluster: &Cluster<'_>, namespace: &str, flag: &str) -> Result<Value> {
    let namespace = format!("--namespace={namespace}");
    Ok(serde_json::from_str(&cluster.kubectl(&["get", "versionflag", flag, &namespace, "--output=json"]).await?)?)
}

async fn replace(cluster: &Cluster<'_>, flag: &Value, part: &str) -> Result<()> {
    let file = cluster.dir().write("replaced.json", flag.to_string());
    let mut args = vec!["replace", "--filename"];
    let file = file.to_string_lossy();
    args.push(&file);
    if !part.is_empty() {
        args.extend(["--subresource", part]);
    }
    cluster.kubectl(&args).await.map(drop)
}

/// Looks for a while, and gives what was written in it.
async fn written_while_idle(controller: &Controller) -> Result<Requests> {
    let (before, start) = (controller.requests().await?, Instant::now());
    wait_for("the end of the idle time", LIMIT, async || {
        let more = writes(&before, &controller.requests().await?);
        // Nothing that comes later could put that right.
        if more.is_empty() && start.elapsed() < IDLE {
            anyhow::bail!("it is not over");
        }
        Ok(more)
    })
    .await
}

async fn reaches(cluster: &Cluster<'_>, namespace: &str, flag: &str, path: &str, want: &Value) -> Result<Value> {
    wait_for(&format!("{path} of {namespace}/{flag}"), LIMIT, async || {
        let resource = get(cluster, namespace, flag).await?;
        let found = resource.pointer(path).unwrap_or(&Value::Null);
        ensure!(found == want, "it is {found}: {}", resource["status"]["blockedBy"]);
        Ok(resource)
    })
    .await
}

/// As many as one controller is meant for. What it costs is written to target/bench/kube.json.
#[test]
fn a_thousand_flags_get_their_status_and_then_nothing_is_written() {
    story("kube-scale", async |cluster| {
        let measured = measure(Crowd { namespaces: 100, each: 10, pods: 1 }, IDLE, cluster).await?;
        measured.report()?;
        assert_eq!(measured.idle_writes, Requests::new());
        let status = ("update".to_owned(), "versionflags/status".to_owned());
        // Adopted, and at rest. Who comes next knows it all.
        let written = measured.requests.get(&status).copied().unwrap_or_default();
        assert!((2_000..2_020).contains(&written), "{:?}", measured.requests);
        assert_eq!(measured.again_writes.get(&status), None, "{:?}", measured.again_writes);
        let most = measured.memory_kib.into_iter().max().unwrap_or_default().max(measured.again_memory_kib);
        // Two thirds of it is what is known of the cluster: 110 to 115 MB. A build without optimisations is larger itself.
        assert!(cfg!(debug_assertions) || most * 1_024 < 130_000_000, "{most} KiB");

        // Only who is concerned is written to.
        let ask = json!({ "spec": { "version": "v2", "cleanup": { "policy": "Retain" } } }).to_string();
        let name = ["patch", "versionflag", "service-3", "--namespace=team-2", "--type=merge"];
        let before = Crowd::read(cluster).await?;
        cluster.kubectl(&[name.as_slice(), &["--patch", &ask]].concat()).await?;
        reaches(cluster, "team-2", "service-3", "/status/targetVersion", &json!("v2")).await?;
        let version = |flags: &[kube::core::DynamicObject]| {
            let other = flags.iter().filter(|flag| {
                (flag.metadata.namespace.as_deref(), flag.metadata.name.as_deref())
                    != (Some("team-2"), Some("service-3"))
            });
            other.map(|flag| flag.metadata.resource_version.clone()).collect::<Vec<_>>()
        };
        assert_eq!(version(&Crowd::read(cluster).await?), version(&before));
        Ok(())
    });
}

#[test]
fn a_flag_that_cannot_be_read_is_told_of_and_hides_no_other() {
    story("kube-unreadable", async |cluster| {
        let crowd = Crowd { namespaces: 1, each: 3, pods: 1 };
        crowd.create(cluster).await?;
        // The definition of a later release has one field more.
        let field = json!([{
            "op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/later",
            "value": { "type": "string" },
        }]);
        let crd = ["patch", "crd", "versionflags.versionflag.io", "--type=json", "--patch", &field.to_string()];
        cluster.kubectl(&crd).await?;
        wait_for("the later definition", LIMIT, async || {
            let mut flag = get(cluster, "team-0", "service-0").await?;
            flag["spec"]["later"] = json!("x");
            replace(cluster, &flag, "").await?;
            ensure!(get(cluster, "team-0", "service-0").await?["spec"]["later"] == "x", "it was dropped");
            Ok(())
        })
        .await?;
        // A later controller has left what this one does not know.
        let mut flag = get(cluster, "team-0", "service-1").await?;
        let machine = json!({ "uid": flag["metadata"]["uid"], "phase": "Fencing", "epoch": 7 });
        flag["status"] = json!({ "machine": machine, "activeVersion": "v1" });
        replace(cluster, &flag, "status").await?;

        let mut controller = Controller::start(cluster).await?;
        controller.settles(1).await?;
        reaches(cluster, "team-0", "service-2", "/status/phase", &json!("Stable")).await?;
        let conditions = |flag: &Value| {
            let all = flag["status"]["conditions"].as_array().cloned().unwrap_or_default();
            all.iter().map(|one| json!([one["type"], one["status"], one["reason"]])).collect::<Vec<_>>()
        };
        for (name, reason, says) in [
            ("service-0", "UnreadableSpec", "spec.later is not a field"),
            ("service-1", "NewerController", "status.machine was written by a newer controller: upgrade this one"),
        ] {
            let flag = reaches(cluster, "team-0", name, "/status/conditions/0/reason", &json!(reason)).await?;
            let message = flag["status"]["blockedBy"].as_str().context("a sentence")?;
            assert!(message.contains(says), "{message}");
            assert_eq!(conditions(&flag), [json!(["Ready", "False", reason]), json!(["Stalled", "True", reason])]);
            // By which kstatus takes it for failed, and not for one that nobody has looked at.
            assert_eq!(flag["status"]["observedGeneration"], flag["metadata"]["generation"]);
            let field = format!("--field-selector=involvedObject.name={name},reason={reason}");
            wait_for("an Event", LIMIT, async || {
                let events = cluster.kubectl(&["get", "events", "--namespace=team-0", &field, "--output=name"]).await?;
                ensure!(!events.trim().is_empty(), "no Event");
                Ok(())
            })
            .await?;
        }
        assert_eq!(get(cluster, "team-0", "service-1").await?["status"]["machine"], machine);
        assert_eq!(written_while_idle(&controller).await?, Requests::new());
        assert_eq!(get(cluster, "team-0", "service-1").await?["status"]["machine"], machine);

        // What was wrong is put right.
        let mut flag = get(cluster, "team-0", "service-0").await?;
        flag["spec"].as_object_mut().context("a spec")?.remove("later");
        replace(cluster, &flag, "").await?;
        reaches(cluster, "team-0", "service-0", "/status/phase", &json!("Stable")).await?;
        Ok(())
    });
}
