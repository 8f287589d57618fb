//! The Helm chart gives exactly what the kustomize base gives, and a real API server takes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::TestDir;
use harness::kube::{programs, story, with_mtls};
use serde_json::{Value, json};

fn manifests() -> PathBuf {
    harness::root().join("manifests")
}

/// What a program of the cluster's prints.
fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(programs()?.join(program)).args(args).output()?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn template(more: &[&str]) -> Result<String> {
    let chart = manifests().join("helm/versionflag");
    let chart = chart.to_string_lossy();
    run(
        "helm",
        &[&["template", "versionflag", &chart, "--namespace=versionflag", "--kube-version=1.34.0"], more].concat(),
    )
}

/// By kind and name, without the labels that the two tools set on all objects.
fn objects(yaml: &str) -> Result<BTreeMap<String, Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    let named = documents.into_iter().filter(|object| !object.is_null()).map(|mut object| {
        let metadata = object["metadata"].as_object_mut().context("no metadata")?;
        metadata.remove("labels");
        let name = metadata["name"].as_str().context("no name")?.to_owned();
        let elsewhere = metadata.get("namespace").and_then(Value::as_str).filter(|place| *place != "versionflag");
        let place = elsewhere.map(|place| format!(" in {place}")).unwrap_or_default();
        let kind = object["kind"].as_str().context("no kind")?.to_owned();
        Ok((format!("{kind} {name}{place}"), object))
    });
    named.collect()
}

fn kustomize(directory: &str) -> BTreeMap<String, Value> {
    kustomized(&manifests().join(directory))
}

fn kustomized(directory: &Path) -> BTreeMap<String, Value> {
    let yaml = run("kubectl", &["kustomize", &directory.to_string_lossy()]).expect("a kustomization");
    objects(&yaml).expect("objects")
}

#[test]
fn the_chart_with_mutual_tls_is_the_base_with_the_component() {
    let dir = TestDir::new("helm-mtls");
    let mut base = kustomized(&with_mtls(&dir).expect("a kustomization"));
    for apart in ["Namespace versionflag", "CustomResourceDefinition versionflags.versionflag.io"] {
        base.remove(apart).expect(apart);
    }
    let chart = objects(&template(&["--set=mtls.enabled=true"]).expect("the chart")).expect("objects");
    assert_eq!(chart.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    for (name, object) in &chart {
        assert_eq!(object, &base[name], "{name}");
    }
    let plain = objects(&template(&[]).expect("the chart")).expect("objects");
    let more: Vec<&String> = chart.keys().filter(|name| !plain.contains_key(*name)).collect();
    assert_eq!(more, ["DestinationRule versionflag", "Sidecar versionflag"]);
}

#[test]
fn the_chart_with_istio_has_its_rights_and_knows_the_filter() {
    let plain = objects(&template(&[]).expect("the chart")).expect("objects");
    let url = "istio.plugin.url=oci://registry.example/filter@sha256:00";
    let with = |more: &[&str]| {
        let args = [&["--set=istio.enabled=true", "--set", url], more].concat();
        objects(&template(&args).expect("the chart")).expect("objects")
    };
    let (all, fewer) = (with(&["--set=istio.gatewayApi=true"]), with(&["--set=istio.routes=false"]));
    let mut expected = plain.keys().cloned().collect::<Vec<_>>();
    for (name, object) in kustomize("kubernetes/istio") {
        assert_eq!((&all[&name], &fewer[&name]), (&object, &object), "{name}");
        expected.push(name);
    }
    expected.sort();
    assert_eq!(fewer.keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    let routes = ["kubernetes/istio/routes", "kubernetes/istio/gateway-api"].map(kustomize);
    for (name, object) in routes.into_iter().flatten() {
        assert_eq!(all[&name], object, "{name}");
        expected.push(name);
    }
    assert_eq!(all.len(), expected.len());
    let environment = &all["Deployment versionflag"]["spec"]["template"]["spec"]["containers"][0]["env"];
    let known = environment.as_array().expect("an environment").last().expect("a variable");
    assert_eq!(known["name"], "VERSIONFLAG_PLUGIN_URL");
    assert_eq!(known["value"], "oci://registry.example/filter@sha256:00");
    let without = template(&["--set=istio.enabled=true"]).expect_err("no filter").to_string();
    assert!(without.contains("istio.plugin.url is needed"), "{without}");
}

#[test]
fn the_chart_is_the_base() {
    let one = ["--set", "namespace=bookinfo"];
    let delete = ["--set", "deleteWorkloads=true"];
    let cases: [(&[&str], &[&str]); 3] =
        [(&[], &["kubernetes"]), (&one, &["kubernetes-namespaced"]), (&delete, &["kubernetes", "kubernetes/delete"])];
    for (values, directories) in cases {
        let mut base = BTreeMap::new();
        for directory in directories {
            base.extend(kustomize(directory));
        }
        // Helm makes the namespace itself, and never upgrades custom resources.
        for apart in ["Namespace versionflag", "CustomResourceDefinition versionflags.versionflag.io"] {
            base.remove(apart).expect(apart);
        }
        let chart = objects(&template(values).expect("the chart")).expect("objects");
        assert_eq!(chart.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
        for (name, object) in &chart {
            assert_eq!(object, &base[name], "{name} with {values:?}");
        }
    }
}

#[test]
fn values_are_checked() {
    let off = template(&["--set", "networkPolicy.enabled=false,replicas=3,image.tag=1.2.3"]).expect("valid values");
    let off = objects(&off).expect("objects");
    assert!(!off.contains_key("NetworkPolicy versionflag"));
    let deployment = &off["Deployment versionflag"]["spec"];
    assert_eq!(deployment["replicas"], 3);
    assert_eq!(deployment["template"]["spec"]["containers"][0]["image"], "versionflag:1.2.3");
    let other = objects(&template(&["--set", "clusterDomain=corp.example"]).expect("valid values")).expect("objects");
    let container = &other["Deployment versionflag"]["spec"]["template"]["spec"]["containers"][0];
    let domain = json!({ "name": "VERSIONFLAG_CLUSTER_DOMAIN", "value": "corp.example" });
    assert!(container["env"].as_array().expect("an environment").contains(&domain), "{container}");
    for (wrong, why) in [
        ("clusterDomain=Corp.example", "clusterDomain"),
        ("replicas=0", "replicas"),
        ("replica=3", "replica"),
        ("mtls.enabled=yes", "enabled"),
        ("image.tag=", "tag"),
        ("serviceMonitor.interval=often", "interval"),
        ("prometheusRule.runbooks=https://wiki.example", "runbooks"),
    ] {
        let error = template(&["--set", wrong]).expect_err(wrong).to_string();
        assert!(error.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn the_chart_has_the_alerts_and_a_service_monitor_for_who_asks() {
    let plain = objects(&template(&[]).expect("the chart")).expect("objects");
    let asked = "serviceMonitor.enabled=true,serviceMonitor.labels.release=monitoring,prometheusRule.enabled=true,\
                 prometheusRule.runbooks=https://wiki.example/";
    let chart = objects(&template(&["--set", asked]).expect("the chart")).expect("objects");
    let more: Vec<&String> = chart.keys().filter(|name| !plain.contains_key(*name)).collect();
    assert_eq!(more, ["PrometheusRule versionflag", "Service versionflag-metrics", "ServiceMonitor versionflag"]);
    let rules = std::fs::read_to_string(manifests().join("monitoring/alerts.yaml")).expect("the alerts");
    let rules = rules.replace("runbook_url: ", "runbook_url: https://wiki.example/");
    let rules: Value = serde_saphyr::from_str(&rules).expect("rules");
    assert_eq!(chart["PrometheusRule versionflag"]["spec"], rules);
    let service = &chart["Service versionflag-metrics"]["spec"];
    let pod = &chart["Deployment versionflag"]["spec"]["template"];
    assert_eq!(service["selector"], pod["metadata"]["labels"]);
    let ports = pod["spec"]["containers"][0]["ports"].as_array().expect("ports");
    assert!(ports.iter().any(|port| port["name"] == service["ports"][0]["targetPort"]), "{service}");
    let endpoint = &chart["ServiceMonitor versionflag"]["spec"]["endpoints"][0];
    assert_eq!(endpoint["port"], service["ports"][0]["name"]);
}

#[test]
fn a_release_is_installed_and_removed() {
    story("helm", async |cluster| {
        cluster.add_node("one", "4", "8Gi").await?;
        let crd = manifests().join("kubernetes/crd.yaml");
        cluster.kubectl(&["apply", "--filename", &crd.to_string_lossy()]).await?;
        let (chart, config) = (manifests().join("helm/versionflag"), cluster.kubeconfig().to_string_lossy());
        let chart = chart.to_string_lossy();
        let at = ["versionflag", &chart, "--namespace=versionflag", "--kubeconfig", &config];
        run("helm", &[&["install"], at.as_slice(), &["--create-namespace", "--wait", "--timeout=60s"]].concat())?;
        run("helm", &[&["upgrade"], at.as_slice(), &["--set", "replicas=3", "--wait", "--timeout=60s"]].concat())?;
        let ready = [
            "get",
            "deployment",
            "versionflag",
            "--namespace=versionflag",
            "--output=jsonpath={.status.readyReplicas}",
        ];
        assert_eq!(cluster.kubectl(&ready).await?, "3");
        let as_account = ["auth", "can-i", "update", "deployments", "--subresource=scale", "--namespace=default"];
        let account = "--as=system:serviceaccount:versionflag:versionflag";
        assert_eq!(cluster.kubectl(&[as_account.as_slice(), &[account]].concat()).await?.trim(), "yes");
        run("helm", &["uninstall", "versionflag", "--namespace=versionflag", "--kubeconfig", &config, "--wait"])?;
        // The custom resource, and with it every VersionFlag, outlives the release.
        cluster.kubectl(&["get", "crd", "versionflags.versionflag.io"]).await?;
        Ok(())
    });
}
