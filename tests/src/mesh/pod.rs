//! One pod: its network, its app and its sidecar, as the containers of its template say. I/O: asks
//! the API for what a kubelet mounts, starts and ends processes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod as Object, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::network::attach;
use super::sidecar::{self, Sidecar};
use super::{APP_PORT, LOOPBACK};
use crate::Signal;
use crate::client::{Answer, Call};
use crate::dir::TestDir;
use crate::load::{Load, LoadPlan};
use crate::netns::Network;
use crate::process::{Process, program};
use crate::wait::wait_for;

pub(super) const SIDECAR: &str = "istio-proxy";
const APP: SocketAddr = SocketAddr::new(LOOPBACK, APP_PORT);
const LIMIT: Duration = Duration::from_secs(60);
/// What a kubelet gives a pod to end, by default.
const GRACE: Duration = Duration::from_secs(30);

/// A pod with processes.
#[derive(Debug)]
pub struct Pod {
    name: String,
    ip: Ipv4Addr,
    network: Network,
    app: Option<RefCell<Process>>,
    sidecar: Option<RefCell<Rc<Sidecar>>>,
    container: sidecar::Container,
    command: Vec<String>,
}

impl Pod {
    /// Starts what the pod's containers are, once it has an address.
    pub(super) async fn start(dir: &TestDir, client: &Client, object: &Object) -> Result<Pod> {
        let ip = object.status.as_ref().and_then(|status| status.pod_ip.clone()).context("a pod without an address")?;
        let ip: Ipv4Addr = ip.parse()?;
        let containers = object.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let proxy = containers.iter().find(|container| container.name == SIDECAR);
        let app = containers.iter().find(|container| container.name != SIDECAR);
        let redirected = proxy.is_some() && app.is_some();
        let attached = tokio::task::spawn_blocking(move || {
            attach(ip, |network| if redirected { sidecar::redirect(network) } else { Ok(()) })
        });
        let files = if proxy.is_some() { volumes(client, object).await? } else { BTreeMap::new() };
        let mut pod = Pod {
            name: object.name_any(),
            ip,
            network: attached.await??,
            app: None,
            sidecar: None,
            container: sidecar::Container {
                name: object.name_any(),
                arguments: proxy.and_then(|proxy| proxy.args.clone()).unwrap_or_default(),
                environment: proxy.map(|proxy| environment(proxy, object)).transpose()?.unwrap_or_default(),
                files,
            },
            command: app.and_then(|app| app.args.clone()).unwrap_or_default(),
        };
        if app.is_some() {
            pod.app = Some(RefCell::new(pod.start_app(dir)?));
        }
        if proxy.is_some() {
            pod.sidecar = Some(RefCell::new(Rc::new(Sidecar::start(dir, &pod.network, &pod.container)?)));
        }
        Ok(pod)
    }

    fn start_app(&self, dir: &TestDir) -> Result<Process> {
        let mut command = self.network.command(program("backend")?);
        command.args(&self.command).arg("--spans").arg(dir.file(&format!("{}.spans", self.name)));
        Process::start(dir, &format!("{}.app", self.name), command)
    }

    /// Its name in the API.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The network that only its containers are in.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its sidecar, or the proxy that it is, as it runs now.
    pub fn sidecar(&self) -> Result<Rc<Sidecar>> {
        Ok(self.sidecar.as_ref().with_context(|| format!("{} has no sidecar", self.name))?.borrow().clone())
    }

    /// A request that its app sends.
    pub async fn call(&self, call: Call) -> Result<Answer> {
        self.network.run(async move || call.send().await).await
    }

    /// Load that its app makes.
    pub fn load(&self, target: SocketAddr, plan: LoadPlan) -> Load {
        Load::start_in(&self.network, target, plan)
    }

    /// Whether the probes of all containers pass.
    pub async fn is_ready(&self) -> Result<()> {
        if self.app.is_some() {
            // Not by the pod's address: the kubelet's probes are no traffic for the sidecar.
            let answer = self.call(Call::get(APP, "/healthz")).await?;
            ensure!(answer.status == 200, "the app is not ready: {}", answer.status);
        }
        if self.sidecar.is_some() {
            sidecar::is_ready(self.ip).await?;
        }
        Ok(())
    }

    /// Starts again what has ended by itself; whether anything had.
    pub(super) fn revive(&self, dir: &TestDir) -> Result<bool> {
        let mut revived = false;
        if let Some(app) = &self.app
            && !app.borrow_mut().is_running()
        {
            app.replace(self.start_app(dir)?);
            revived = true;
        }
        if let Some(sidecar) = &self.sidecar
            && !sidecar.borrow().is_running()
        {
            sidecar.replace(Rc::new(Sidecar::start(dir, &self.network, &self.container)?));
            revived = true;
        }
        Ok(revived)
    }

    /// Asks all containers to end, at once, as a kubelet does, and waits until they have.
    pub(super) async fn end(&self) -> Result<()> {
        if let Some(app) = &self.app {
            let _ = app.borrow().signal(Signal::SIGTERM);
        }
        if let Some(sidecar) = &self.sidecar {
            let _ = sidecar.borrow().terminate();
        }
        // What is still there after that is killed when this is dropped.
        let ended = async || {
            let app = self.app.as_ref().is_some_and(|app| app.borrow_mut().is_running());
            let sidecar = self.sidecar.as_ref().is_some_and(|sidecar| sidecar.borrow().is_running());
            !app && !sidecar
        };
        let _ = wait_for(&format!("the end of {}", self.name), GRACE, ended).await;
        Ok(())
    }
}

/// The variables of a container, those that name a field of the pod included.
pub(super) fn environment(container: &Container, object: &Object) -> Result<BTreeMap<String, String>> {
    let spec = object.spec.as_ref().context("a pod without a spec")?;
    let status = object.status.as_ref().context("a pod without a status")?;
    let value = |variable: &EnvVar| -> Result<String> {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let Some(field) = field.map(|field| field.field_path.as_str()) else {
            return Ok(variable.value.clone().unwrap_or_default());
        };
        let found = match field {
            "metadata.name" => Some(object.name_any()),
            "metadata.namespace" => object.namespace(),
            "spec.serviceAccountName" => spec.service_account_name.clone(),
            "spec.nodeName" => spec.node_name.clone(),
            "status.podIP" => status.pod_ip.clone(),
            "status.hostIP" => status.host_ip.clone(),
            _ => None,
        };
        found.with_context(|| format!("{} is the field {field}, which is not known here", variable.name))
    };
    let variables = container.env.iter().flatten();
    variables.map(|variable| Ok((variable.name.clone(), value(variable)?))).collect()
}

/// The files that the volumes of an injected pod hold.
pub(super) async fn volumes(client: &Client, object: &Object) -> Result<BTreeMap<&'static str, String>> {
    let namespace = object.namespace().context("a pod without a namespace")?;
    let account = object.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let request: TokenRequest = serde_json::from_value(json!({ "spec": {
        "audiences": ["istio-ca"],
        "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": object.name_any(), "uid": object.uid() },
    } }))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let account = account.context("a pod without an account")?;
    let answer: TokenRequest = accounts.create_subresource("token", &account, &PostParams::default(), &request).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    // A kubelet too waits for a ConfigMap that a pod needs.
    let root = wait_for("istio-ca-root-cert", LIMIT, async || {
        let map = maps.get_opt("istio-ca-root-cert").await?.context("there is none")?;
        map.data.unwrap_or_default().remove("root-cert.pem").context("it has no root-cert.pem")
    })
    .await?;
    let lines = |values: &BTreeMap<String, String>| {
        values.iter().map(|(key, value)| format!("{key}={value:?}\n")).collect::<String>()
    };
    Ok(BTreeMap::from([
        ("var/run/secrets/tokens/istio-token", answer.status.context("an answer without a token")?.token),
        ("var/run/secrets/istio/root-cert.pem", root),
        ("etc/istio/pod/labels", lines(object.labels())),
        ("etc/istio/pod/annotations", lines(object.annotations())),
    ]))
}
