//! The manifests and the custom resource, as a real API server takes them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::kube::{Cluster, story};
use harness::wait_for;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

const ACCOUNT: &str = "system:serviceaccount:versionflag:versionflag";

/// The smallest one.
const REVIEWS: &str = "
apiVersion: versionflag.io/v1alpha1
kind: VersionFlag
metadata: {name: reviews, namespace: shop}
spec:
  version: v1
  services: [{name: reviews}]
";

/// Applies the manifests and makes a namespace for flags.
async fn install(cluster: &Cluster<'_>) -> Result<()> {
    cluster.install().await?;
    cluster.kubectl(&["create", "namespace", "shop"]).await?;
    Ok(())
}

async fn get(cluster: &Cluster<'_>, flag: &str) -> Result<Value> {
    let text = cluster.kubectl(&["get", "versionflag", flag, "--namespace=shop", "--output=json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Whether the controller may do this to `RESOURCE[/NAME][:SUBRESOURCE]`.
async fn can(cluster: &Cluster<'_>, verb: &str, resource: &str, namespace: &str) -> bool {
    let (resource, part) = resource.split_once(':').unwrap_or((resource, ""));
    let asked = ["auth", "can-i", verb, resource, "--subresource", part, "--as", ACCOUNT, "--namespace", namespace];
    cluster.kubectl(&asked).await.is_ok()
}

#[test]
fn what_is_installed_runs_with_the_least_rights() {
    story("install", async |cluster| {
        cluster.add_node("one", "4", "8Gi").await?;
        install(cluster).await?;
        for directory in ["kubernetes", "kubernetes/delete", "kubernetes/protect", "kubernetes/confine"] {
            let path = harness::root().join("manifests").join(directory);
            cluster.kubectl(&["apply", "--dry-run=server", "--kustomize", &path.to_string_lossy()]).await?;
        }
        // Again: an upgrade.
        let again = cluster.apply_manifests("kubernetes").await?;
        assert!(!again.contains("created"), "{again}");
        // The namespace takes only pods that give every right away.
        cluster
            .kubectl(&["rollout", "status", "deployment/versionflag", "--namespace=versionflag", "--timeout=60s"])
            .await?;

        for (verb, resource, namespace, may) in [
            ("watch", "pods", "shop", true),
            ("list", "nodes", "shop", true),
            ("watch", "versionflags.versionflag.io", "shop", true),
            ("update", "versionflags.versionflag.io:status", "shop", true),
            ("update", "versionflags.versionflag.io", "shop", false),
            ("patch", "versionflags.versionflag.io", "shop", false),
            ("update", "deployments.apps:scale", "shop", true),
            ("patch", "statefulsets.apps", "shop", true),
            ("delete", "deployments.apps", "shop", false),
            ("patch", "services", "shop", false),
            ("delete", "pods", "shop", false),
            ("get", "configmaps", "shop", true),
            ("patch", "configmaps", "shop", true),
            ("get", "secrets", "shop", false),
            ("create", "events.events.k8s.io", "shop", true),
            ("create", "tokenreviews.authentication.k8s.io", "shop", true),
            ("get", "leases.coordination.k8s.io/versionflag", "versionflag", true),
            ("get", "leases.coordination.k8s.io/another", "versionflag", false),
            ("create", "leases.coordination.k8s.io", "shop", false),
            ("patch", "endpointslices.discovery.k8s.io/versionflag", "versionflag", true),
            ("patch", "endpointslices.discovery.k8s.io/versionflag", "shop", false),
        ] {
            assert_eq!(can(cluster, verb, resource, namespace).await, may, "{verb} {resource} in {namespace}");
        }
        cluster.apply_manifests("kubernetes/delete").await?;
        for (resource, may) in [("deployments.apps", true), ("statefulsets.apps", true), ("pods", false)] {
            wait_for(resource, LIMIT, async || can(cluster, "delete", resource, "shop").await == may).await?;
        }
        Ok(())
    });
}

#[test]
fn a_flag_is_admitted_with_its_defaults_and_shown_in_columns() {
    story("flags", async |cluster| {
        install(cluster).await?;
        cluster.apply(REVIEWS).await?;
        let flag = get(cluster, "reviews").await?;
        assert_eq!(
            flag["spec"],
            json!({
                "version": "v1",
                "services": [{ "name": "reviews" }],
                "versionLabel": "version",
                "suspend": false,
                "coexistence": {
                    "readyTimeout": "10m", "minReady": "10s", "ready": "100%", "replicas": "MatchActive",
                    "headroom": "Require",
                    "probe": { "mode": "Require", "expect": "200-399", "timeout": "1s" },
                },
                "promotion": { "mode": "Automatic", "after": "0s" },
                "switch": {
                    "mode": "Immediate", "laggards": "Wait", "ackTimeout": "5m",
                    "fence": { "maxHold": "2s", "onExpiry": "Open", "inbound": "Optional", "attempts": 5 },
                },
                "settle": {
                    "quietPeriod": "10s", "bake": "0s", "timeout": "10m", "onTimeout": "Wait",
                    "healthChecks": {
                        "userAgents": ["ELB-HealthChecker/", "GoogleHC/", "Prometheus/", "kube-probe/"], "paths": [],
                    },
                },
                "cleanup": { "policy": "ScaleToZero", "retainFor": "1h" },
                "routing": { "provider": "Istio", "management": "Managed", "header": "x-versionflag" },
                "onTargetFailure": { "action": "Wait", "after": "30s" },
            })
        );

        // The status is another thing to write: neither write changes the other's half.
        let status = json!({
            "activeVersion": "v1", "phase": "Switching", "blockedBy": "it is a test",
            "proxies": { "expected": 3, "acked": 2, "summary": "2/3" },
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "Testing", "message": "it is a test",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
            }],
            "machine": { "anything": { "is": ["kept"] } },
        });
        let mut written = flag.clone();
        written["status"] = status.clone();
        written["spec"]["version"] = json!("v2");
        let file = cluster.dir().write("status.json", written.to_string());
        let file = file.to_string_lossy();
        cluster.kubectl(&["replace", "--subresource=status", "--filename", &file]).await?;
        let found = get(cluster, "reviews").await?;
        assert_eq!(found["status"], status);
        assert_eq!(found["spec"], flag["spec"]);
        cluster
            .apply(&format!("{}status: {{phase: Stable}}\n", REVIEWS.replace("version: v1\n", "version: v2\n")))
            .await?;
        let found = get(cluster, "reviews").await?;
        assert_eq!((&found["status"], &found["spec"]["version"]), (&status, &json!("v2")));
        assert_eq!(found["metadata"]["generation"], json!(2));

        let table = cluster.kubectl(&["get", "vf", "--namespace=shop"]).await?;
        let mut lines = table.lines();
        let columns: Vec<&str> = lines.next().context("a header")?.split_whitespace().collect();
        assert_eq!(columns, ["NAME", "TARGET", "ACTIVE", "PHASE", "PROXIES", "READY", "BLOCKED-BY", "AGE"]);
        let row = lines.next().context("a row")?;
        for (index, value) in ["reviews", "v2", "v1", "Switching", "2/3", "False"].into_iter().enumerate() {
            assert_eq!(row.split_whitespace().nth(index), Some(value), "{table}");
        }
        assert!(row.contains("it is a test"), "{table}");
        Ok(())
    });
}

#[test]
fn what_is_wrong_is_refused_with_a_sentence() {
    story("refused", async |cluster| {
        install(cluster).await?;
        cluster.apply(REVIEWS).await?;
        let (long, mut other) = ("v".repeat(64), vec![]);
        for (field, value, why) in [
            (
                "version",
                json!("v 1"),
                "spec.version: Invalid value: \"string\": \"v 1\" has to be a label value: letters,",
            ),
            ("version", json!("-v1"), "has to be a label value"),
            ("version", json!(long), "spec.version: Too long: may not be more than 63 bytes"),
            ("services", json!([]), "spec.services in body should have at least 1 items"),
            (
                "services",
                json!([{ "name": "a" }, { "name": "a" }]),
                "spec.services[1]: Duplicate value: {\"name\":\"a\"}",
            ),
            ("coexistence", json!({ "probe": { "path": "ready" } }), "\"ready\" has to begin with /"),
            // F10, F14.
            ("coexistence", json!({ "ready": "0%" }), "\"0%\" would let a version without pods be ready"),
            ("coexistence", json!({ "ready": "101%" }), "\"101%\" is not a share"),
            ("settle", json!({ "healthChecks": { "userAgents": [""] } }), "an empty one would mean every request"),
            ("settle", json!({ "healthChecks": { "paths": ["metrics"] } }), "has to begin with /"),
            ("coexistence", json!({ "probe": { "expect": "2xx" } }), "\"2xx\" has to be a status or a range of them"),
            (
                "coexistence",
                json!({ "minReady": "-1s" }),
                "spec.coexistence.minReady: Invalid value: \"string\": \"-1s\" has to be a length of time: write it as 500ms,",
            ),
            (
                "settle",
                json!({ "quietPeriod": "10" }),
                "spec.settle.quietPeriod: Invalid value: \"string\": \"10\" has to be a length",
            ),
            ("settle", json!({ "quietPeriod": "" }), "\"\" has to be a length of time"),
            ("settle", json!({ "quietPeriod": "9999999d" }), "\"9999999d\" has to be a length of time"),
            ("settle", json!({ "onTimeout": "Hope" }), "supported values: \"Wait\", \"Proceed\", \"Rollback\""),
            ("settle", json!({ "quietPriod": "10s" }), "unknown field \"spec.settle.quietPriod\""),
            ("switch", json!({ "fence": { "attempts": 0 } }), "spec.switch.fence.attempts: Invalid value: 0"),
            ("checks", json!([{ "name": "errors" }]), "exactly one of builtin, prometheus and webhook"),
            ("checks", json!([{ "name": "errors", "builtin": {} }]), "set maxErrorRate, maxLatency or both"),
            ("checks", json!([{ "name": "errors", "builtin": { "maxErrorRate": "101%" } }]), "\"101%\" is not a share"),
            ("checks", json!([{ "name": "smoke", "webhook": { "url": "smoke" } }]), "\"smoke\" is not a URL"),
            (
                "checks",
                json!([{ "name": "up", "prometheus": { "address": "http://prometheus", "query": "up" } }]),
                "set min, max or both",
            ),
            (
                "checks",
                json!([{ "name": "a", "webhook": { "url": "http://a" } }, { "name": "a", "webhook": { "url": "http://b" } }]),
                "spec.checks[1]: Duplicate value",
            ),
            (
                "routing",
                json!({ "header": "X-Version" }),
                "\"X-Version\" has to begin with x- and to contain the word version",
            ),
            ("preview", json!({ "header": "x-preview", "value": "" }), "spec.preview.value"),
            (
                "versionLabel",
                json!("release"),
                "spec.versionLabel: Invalid value: \"string\": \"release\" cannot be changed",
            ),
        ] {
            let mut flag = get(cluster, "reviews").await?;
            flag["spec"][field] = value.clone();
            let file = cluster.dir().write("flag.json", flag.to_string());
            let file = file.to_string_lossy();
            let refused = cluster.kubectl(&["replace", "--validate=strict", "--filename", &file]).await;
            let refused = refused.err().with_context(|| format!("{field}: {value} was taken"))?.to_string();
            if !refused.contains(why) {
                other.push(format!("{field}: {value}: {refused}"));
            }
        }
        assert!(other.is_empty(), "refused for other reasons:\n{}", other.join("\n"));
        Ok(())
    });
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {containers: [{name: app, image: example.test/app}]}
";

#[test]
fn what_serves_is_neither_deleted_nor_scaled_to_zero() {
    story("protect", async |cluster| {
        install(cluster).await?;
        for name in ["reviews-v1", "reviews-v2"] {
            cluster.apply(&DEPLOYMENT.replace("NAME", name)).await?;
        }
        cluster.apply_manifests("kubernetes/protect").await?;
        cluster.apply(REVIEWS).await?;
        let protect = async |workloads: Value| -> Result<()> {
            let patch = json!({ "status": { "protectedWorkloads": workloads } }).to_string();
            let name = ["patch", "versionflag", "reviews", "--namespace=shop", "--subresource=status", "--type=merge"];
            cluster.kubectl(&[name.as_slice(), &["--patch", &patch]].concat()).await.map(drop)
        };
        protect(json!(["Deployment/reviews-v1"])).await?;

        let refusal = "Deployment/reviews-v1 serves requests, says VersionFlag reviews";
        let scale = async |name: &str, replicas: u32| {
            cluster.kubectl(&["scale", "deployment", name, "--namespace=shop", &format!("--replicas={replicas}")]).await
        };
        let refused = |answer: Result<String>| -> Result<()> {
            let error = answer.err().context("it was allowed")?.to_string();
            ensure!(error.contains(refusal), "{error}");
            Ok(())
        };
        // The policy takes hold a moment after it was written.
        wait_for("the policy", LIMIT, async || {
            let answer = scale("reviews-v1", 0).await;
            if answer.is_ok() {
                scale("reviews-v1", 2).await?;
            }
            refused(answer)
        })
        .await?;
        refused(cluster.kubectl(&["delete", "deployment", "reviews-v1", "--namespace=shop"]).await)?;
        // C12: the request to delete a whole collection has no name.
        let all: Api<Deployment> = Api::namespaced(cluster.client(), "shop");
        let one = ListParams::default().fields("metadata.name=reviews-v1");
        let error = all.delete_collection(&DeleteParams::default(), &one).await.err().context("it was allowed")?;
        ensure!(error.to_string().contains(refusal), "{error}");
        let patch = ["patch", "deployment", "reviews-v1", "--namespace=shop", "--patch", "{\"spec\":{\"replicas\":0}}"];
        refused(cluster.kubectl(&patch).await)?;
        // F23, C41: nor does it become another version in place.
        for template in [
            json!({ "metadata": { "labels": { "version": "v2" } } }),
            json!({ "spec": { "containers": [{ "name": "app", "image": "example.test/other" }] } }),
        ] {
            let change = json!({ "spec": { "template": template } }).to_string();
            let patch = ["patch", "deployment", "reviews-v1", "--namespace=shop", "--patch", &change];
            let error = cluster.kubectl(&patch).await.err().context("it was allowed")?.to_string();
            ensure!(error.contains("would become another version in place"), "{error}");
        }
        cluster.kubectl(&["rollout", "restart", "deployment", "reviews-v1", "--namespace=shop"]).await?;
        scale("reviews-v1", 1).await?;
        cluster.kubectl(&["label", "deployment", "reviews-v1", "--namespace=shop", "versionflag.io/kept-at=1"]).await?;
        scale("reviews-v2", 0).await?;

        protect(json!(["Deployment/reviews-v2"])).await?;
        wait_for("the other version", LIMIT, async || scale("reviews-v1", 0).await).await?;
        // At zero already: it may be edited.
        cluster.kubectl(&["annotate", "deployment", "reviews-v2", "--namespace=shop", "a=b"]).await?;
        cluster.kubectl(&["delete", "versionflag", "reviews", "--namespace=shop"]).await?;
        wait_for("no flag", LIMIT, async || {
            cluster.kubectl(&["delete", "deployment", "reviews-v2", "--namespace=shop"]).await
        })
        .await?;
        Ok(())
    });
}

/// C34: the rights of RBAC are for whole objects. With the policy the controller's account changes what it needs to.
#[test]
fn the_controller_writes_no_more_than_it_needs_to() {
    story("confine", async |cluster| {
        install(cluster).await?;
        cluster.apply(&DEPLOYMENT.replace("NAME", "reviews-v1")).await?;
        cluster.kubectl(&["create", "configmap", "theirs", "--namespace=shop"]).await?;
        cluster.apply_manifests("kubernetes/confine").await?;
        let by_controller =
            async |args: &[&str]| cluster.kubectl(&[args, &["--namespace=shop", "--as", ACCOUNT]].concat()).await;
        let patch = async |kind: &str, name: &str, patch: &str| {
            by_controller(&["patch", kind, name, "--type=merge", "--patch", patch]).await
        };
        let refused = |answer: Result<String>, words: &str| -> Result<()> {
            let error = answer.err().context("it was allowed")?.to_string();
            ensure!(error.contains(words), "{error}");
            Ok(())
        };
        let (deployment, config) = ("deployment", "configmap");
        // The policy takes hold a moment after it was written. What was allowed before changes nothing when it is asked
        // for again.
        let mut tries = 0;
        wait_for("the policy", LIMIT, async || {
            tries += 1;
            let containers = json!([{ "name": "app", "image": format!("evil.test/app:{tries}") }]);
            let image = json!({ "spec": { "template": { "spec": { "containers": containers } } } }).to_string();
            refused(patch(deployment, "reviews-v1", &image).await, "writes no spec of a workload")
        })
        .await?;
        for (labels, words) in [
            (r#"{"metadata":{"labels":{"a":"b"}}}"#, "writes no label of a workload but"),
            (r#"{"metadata":{"annotations":{"a":"b"}}}"#, "writes no annotation, finalizer or owner"),
            (r#"{"metadata":{"finalizers":["a.example/b"]}}"#, "writes no annotation, finalizer or owner"),
            (r#"{"spec":{"replicas":0}}"#, "writes no spec of a workload"),
        ] {
            refused(patch(deployment, "reviews-v1", labels).await, words)?;
        }
        refused(patch(config, "theirs", r#"{"data":{"a":"b"}}"#).await, "writes only what it has made itself")?;
        // What it does needs no more.
        for epoch in ["1", "2"] {
            let mark = format!(r#"{{"metadata":{{"labels":{{"versionflag.io/kept-at":"{epoch}"}}}}}}"#);
            patch(deployment, "reviews-v1", &mark).await?;
        }
        let scale = [
            "patch",
            "deployment",
            "reviews-v1",
            "--subresource=scale",
            "--type=merge",
            "--patch",
            r#"{"spec":{"replicas":1}}"#,
        ];
        by_controller(&scale).await?;
        let ours = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "versionflag-reviews", "labels": { "app.kubernetes.io/managed-by": "versionflag" } },
        });
        let file = cluster.dir().write("ours.json", ours.to_string());
        by_controller(&["create", "--filename", &file.to_string_lossy()]).await?;
        patch(config, "versionflag-reviews", r#"{"data":{"a":"b"}}"#).await?;
        // Everybody else is as free as before.
        cluster.kubectl(&["annotate", "deployment", "reviews-v1", "--namespace=shop", "a=b"]).await?;
        Ok(())
    });
}
