//! What cannot be done is said, each in one sentence: flags that do not fit their cluster, on a real
//! Kubernetes API, with a controller that has the rights of one namespace. No traffic.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{condition, deployment, story};
use harness::process::{Process, program};
use harness::wait_for;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);

fn service(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

fn http(app: &str) -> Value {
    json!({ "selector": { "app": app }, "ports": [{ "name": "http", "port": 80 }] })
}

/// A Deployment of another service.
fn of(app: &str, version: &str, replicas: u32) -> Value {
    let mut made = deployment(version, replicas);
    made["metadata"]["name"] = json!(format!("{app}-{version}"));
    for path in ["/spec/selector/matchLabels/app", "/spec/template/metadata/labels/app"] {
        *made.pointer_mut(path).expect("a label") = json!(app);
    }
    made
}

fn flag(name: &str, spec: Value) -> Value {
    let mut made = harness::kube::flag("v1");
    made["metadata"]["name"] = json!(name);
    made["spec"]["services"] = json!([{ "name": name }]);
    for (field, value) in spec.as_object().into_iter().flatten() {
        made["spec"][field] = value.clone();
    }
    made
}

/// Every flag, and what it is blocked by.
fn cases() -> Vec<(Value, &'static str, &'static str)> {
    let smoke = json!([{ "name": "smoke", "when": "BeforeFlip", "webhook": { "url": "http://127.0.0.1:1/" }, "interval": "1s" }]);
    let ignore = json!({ "minReady": "200ms", "headroom": "Ignore" });
    vec![
        (
            flag("asks", json!({ "coexistence": ignore, "checks": smoke })),
            "ChecksInconclusive",
            "check smoke has not passed: it cannot be reached",
        ),
        (flag("no-nodes", json!({})), "HeadroomUnknown", "it is not known whether v2 fits"),
        (flag("unknown", json!({})), "UnknownVersion", "no workload of the Services has the version v9; there is: v1"),
        (flag("empty", json!({})), "UnknownVersion", "no workload of the Services has the version v1; there is: none"),
        (
            flag("later", json!({ "version": "v2" })),
            "ActiveNotReady",
            "v2 is not ready, and v1 serves: a VersionFlag begins with what serves, so set spec.version to v1 first",
        ),
        (flag("missing", json!({})), "Workloads", "there is no Service missing in namespace bookinfo"),
        (
            flag("selectorless", json!({})),
            "Workloads",
            "Service selectorless has no selector: its workloads cannot be found",
        ),
        (
            flag("mysql", json!({})),
            "Workloads",
            "port 3306 of Service mysql is not HTTP by its word (mysql), and only HTTP can be switched",
        ),
        (
            flag("unlabelled", json!({ "versionLabel": "release" })),
            "Workloads",
            "Deployment/unlabelled-v1 is selected by Service unlabelled, but its pod template has no label release",
        ),
        (
            flag("second", json!({ "services": [{ "name": "asks" }] })),
            "ServiceTaken",
            "Service asks belongs to VersionFlag asks already: take it out of one of both",
        ),
        (
            flag(
                "borrows",
                json!({ "services": [{ "name": "borrows", "hosts": ["Asks.bookinfo.svc.cluster.local:8080"] }] }),
            ),
            "HostTaken",
            "host asks.bookinfo.svc.cluster.local of Service borrows belongs to VersionFlag bookinfo/asks already, for \
             Service asks: take it out of spec.services[].hosts of one of both, or put both Services into one",
        ),
        (
            flag(
                "circular",
                json!({ "services": [{ "name": "asks-a", "hosts": ["b.example"] }, { "name": "asks-b", "hosts": ["b.example"] }] }),
            ),
            "InvalidSpec",
            "\"b.example\" occurs twice",
        ),
        (
            flag("mine", json!({ "routing": { "provider": "External", "management": "UserProvided" } })),
            "NotSupported",
            "spec.routing.management UserProvided is not supported yet with provider External",
        ),
        (
            flag("often", json!({ "checks": [{ "name": "a", "webhook": { "url": "http://a" }, "interval": "10ms" }] })),
            "InvalidSpec",
            "interval 10ms is too short: at least 1s",
        ),
    ]
}

#[test]
fn what_does_not_fit_is_said_and_nothing_is_started() {
    story("kube-refused", async |cluster| {
        cluster.add_node("one", "32", "64Gi").await?;
        cluster.kubectl(&["create", "namespace", "bookinfo"]).await?;
        cluster.apply_manifests("kubernetes-namespaced").await?;
        let established = ["wait", "--for=condition=Established", "crd/versionflags.versionflag.io", "--timeout=30s"];
        cluster.kubectl(&established).await?;
        let mut items = vec![
            service("selectorless", json!({ "ports": [{ "name": "http", "port": 80 }] })),
            service("mysql", json!({ "selector": { "app": "mysql" }, "ports": [{ "name": "mysql", "port": 3306 }] })),
            of("mysql", "v1", 1),
            service("empty", http("empty")),
        ];
        for (app, strength) in [("asks", 0), ("no-nodes", 0), ("later", 0), ("unknown", 0), ("unlabelled", 0)] {
            items.extend([service(app, http(app)), of(app, "v1", 1), of(app, "v2", strength)]);
        }
        let made = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        let apply = async |list: &Value, namespace: &str| -> Result<()> {
            let file = cluster.dir().write("list.json", list.to_string());
            let place = format!("--namespace={namespace}");
            cluster.kubectl(&["apply", &place, "--filename", &file.to_string_lossy()]).await.map(drop)
        };
        apply(&made, "bookinfo").await?;
        let available =
            ["wait", "--for=condition=Available", "deployment/later-v1", "--namespace=bookinfo", "--timeout=60s"];
        cluster.kubectl(&available).await?;
        // The older of two that share a Service has it.
        let cases = cases();
        for (flag, _, _) in &cases {
            apply(flag, "bookinfo").await?;
            if flag["metadata"]["name"] == "asks" {
                // Ages are in whole seconds.
                let made = std::time::Instant::now();
                wait_for("another second", LIMIT, async || made.elapsed() > Duration::from_millis(1_100)).await?;
            }
        }
        apply(&flag("elsewhere", json!({ "services": [{ "name": "kubernetes" }] })), "default").await?;

        let mut command = Command::new(program("versionflag")?);
        command
            .args(["controller", "--listen", "127.0.0.1:7070", "--identity", "one", "--home", "versionflag"])
            .args(["--filter-path", "/filter.wasm", "--namespace", "bookinfo"])
            .env("KUBECONFIG", cluster.kubeconfig_as("versionflag", "versionflag").await?);
        let mut controller = Process::start(cluster.dir(), "controller", command)?;
        let get = async |name: &str, namespace: &str| -> Result<Value> {
            let place = format!("--namespace={namespace}");
            Ok(serde_json::from_str(&cluster.kubectl(&["get", "versionflag", name, &place, "--output=json"]).await?)?)
        };
        for (name, version) in [("asks", "v2"), ("no-nodes", "v2"), ("unknown", "v9")] {
            wait_for(&format!("{name} at rest"), LIMIT, async || {
                let phase = get(name, "bookinfo").await?["status"]["phase"].take();
                ensure!(phase == "Stable", "{phase}: {}", controller.log_tail(3));
                Ok(())
            })
            .await?;
            let ask = json!({ "spec": { "version": version } }).to_string();
            let patch = ["patch", "versionflag", name, "--namespace=bookinfo", "--type=merge", "--patch", &ask];
            cluster.kubectl(&patch).await?;
        }
        for (flag, reason, words) in cases.iter().rev() {
            let name = flag["metadata"]["name"].as_str().context("a name")?;
            wait_for(&format!("{name}: {words}"), LIMIT, async || {
                let resource = get(name, "bookinfo").await?;
                let message = resource["status"]["blockedBy"].as_str().unwrap_or_default().to_owned();
                ensure!(message.contains(words), "{message:?} {}", resource["status"]["phase"]);
                let said = [["Ready", "False"], ["Stalled", "True"]];
                for [kind, status] in said {
                    let wanted = [status.to_owned(), (*reason).to_owned(), message.clone()];
                    ensure!(
                        condition(&resource, kind).as_ref() == Some(&wanted),
                        "{kind}: {:?}",
                        condition(&resource, kind)
                    );
                }
                Ok(())
            })
            .await?;
        }
        // Of all versions that were asked for only the one whose check cannot be asked was started.
        let shown = "--output=jsonpath={range .items[?(@.spec.replicas>0)]}{.metadata.name} {end}";
        let running = cluster.kubectl(&["get", "deployments", "--namespace=bookinfo", shown]).await?;
        assert_eq!(running.trim(), "asks-v1 asks-v2 later-v1 mysql-v1 no-nodes-v1 unknown-v1 unlabelled-v1");
        assert_eq!(get("elsewhere", "default").await?["status"], Value::Null);
        controller.check_running()?;
        let log = std::fs::read_to_string(controller.log())?;
        assert!(!log.contains("forbidden"), "a right is missing: {log}");
        Ok(())
    });
}
