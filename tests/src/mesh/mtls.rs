//! The controller as `manifests/kubernetes/mtls` runs it: beside it is a sidecar that only writes the certificates of
//! its workload, signed by istiod. I/O: runs both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Container as Template;
use serde_json::{Value, json};

use super::pod::{environment, volumes};
use super::sidecar::{Container, Sidecar};
use super::{CONTROLLER, Mesh, Workload};
use crate::client::Call;
use crate::kube::{image, with_mtls};
use crate::netns::Network;
use crate::process::Process;
use crate::wait::wait_for;

/// How long a certificate of the controller's is good: it is renewed while a test runs.
pub const TTL: Duration = Duration::from_secs(30);

/// A controller with its sidecar.
#[derive(Debug)]
pub struct Certified {
    /// The controller.
    pub process: Process,
    /// Where its certificates are.
    pub certs: PathBuf,
    _sidecar: Sidecar,
}

impl Mesh<'_> {
    /// [`Mesh::install`] with mutual TLS. The certificates come when the controller already runs.
    pub async fn install_with_mtls(&self) -> Result<Certified> {
        let dir = self.cluster.dir();
        let folder = with_mtls(dir)?;
        self.cluster.kubectl(&["apply", "--kustomize", &folder.to_string_lossy()]).await?;
        self.cluster.apply_manifests("kubernetes/istio").await?;
        self.cluster.apply_manifests("kubernetes/istio/routes").await?;
        let plugin = self.push_filter().await?;

        let certs = dir.file("certs");
        let output = |name: &str, value: String| (name.to_owned(), value);
        let workload = Workload {
            namespace: "versionflag".to_owned(),
            environment: vec![
                output("OUTPUT_CERTS", certs.to_string_lossy().into_owned()),
                output("SECRET_TTL", format!("{}s", TTL.as_secs())),
            ],
            ..Workload::named("versionflag")
        };
        let mut proxy = workload.proxy("sidecar", &self.envoy, &self.domain);
        // No node has this pod.
        let variables = proxy["env"].as_array_mut().context("no variables")?;
        variables.retain(|one| !matches!(one["name"].as_str(), Some("ISTIO_META_NODE_NAME" | "HOST_IP")));
        let mut sidecar = proxy.clone();
        sidecar["securityContext"] = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
        let pod = image::stands_for_with(&self.cluster, "one", &CONTROLLER.ip().to_string(), |pod| {
            pod["metadata"]["labels"]["security.istio.io/tlsMode"] = json!("istio");
            pod["metadata"]["annotations"] = json!({ "traffic.sidecar.istio.io/includeInboundPorts": "" });
            pod["spec"]["containers"].as_array_mut().into_iter().for_each(|all| all.push(sidecar.clone()));
        })
        .await?;
        let (given, listen) = (certs.to_string_lossy(), format!("{}:7071", CONTROLLER.ip()));
        let args = ["--plugin-url", &plugin, "--mtls-certs", &given, "--mtls-listen", &listen];
        let process = self.start_controller("one", &args).await?;
        wait_for("the controller waits for certificates", super::LIMIT, async || {
            let answer = Call::get(CONTROLLER, "/readyz").send().await?;
            ensure!(answer.status == 503 && answer.body.contains("is not there"), "{} {}", answer.status, answer.body);
            Ok(())
        })
        .await?;

        std::fs::create_dir(&certs)?;
        let container: Template = serde_json::from_value::<Template>(proxy)?;
        let container = Container {
            name: "one".to_owned(),
            arguments: container.args.clone().unwrap_or_default(),
            environment: environment(&container, &pod)?,
            files: volumes(&self.cluster.client(), &pod).await?,
        };
        // Nothing is led through it.
        let sidecar = Sidecar::start(dir, &Network::current()?, &container)?;
        wait_for("the controller with its certificates", super::LIMIT, async || {
            let answer = Call::get(CONTROLLER, "/readyz").send().await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
            Ok(())
        })
        .await?;
        self.steps.done("the controller with certificates");
        Ok(Certified { process, certs, _sidecar: sidecar })
    }

    /// What the flag service did with reports, by the word of its metric.
    pub async fn reports(&self) -> Result<BTreeMap<String, u64>> {
        let metrics = Call::get(CONTROLLER, "/metrics").send().await?.body;
        let parse = |line: &str| {
            let (result, count) = line.strip_prefix("versionflag_reports_total{result=\"")?.split_once("\"} ")?;
            Some((result.to_owned(), count.parse().ok()?))
        };
        Ok(metrics.lines().filter_map(parse).collect())
    }

    /// A token of a pod, for the flag service.
    pub async fn pod_token(&self, pod: &str) -> Result<String> {
        let object: Value = serde_json::from_str(&self.cluster.kubectl(&["get", "pod", pod, "--output=json"]).await?)?;
        let account = object["spec"]["serviceAccountName"].as_str().context("no account")?;
        let bound = [format!("--bound-object-name={pod}"), "--bound-object-kind=Pod".to_owned()];
        let args = ["create", "token", account, "--audience=versionflag", &bound[0], &bound[1]];
        Ok(self.cluster.kubectl(&args).await?.trim().to_owned())
    }
}
