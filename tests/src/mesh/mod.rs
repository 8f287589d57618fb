//! A real Istio mesh without containers: the control plane of [`crate::kube`], istiod, a registry,
//! and pods with processes of their own. I/O: runs them and asks them.
//!
//! Each pod has a network namespace, in which a backend is its app and pilot-agent with Envoy its
//! sidecar, with Istio's own redirection. What is in the API is what would be in a cluster: the
//! injected template is written here, all else that Istio and Kubernetes make of it is theirs.
//!
//! ```no_run
//! use harness::mesh;
//!
//! mesh::story("requests-arrive", async |mesh| {
//!     mesh.deploy("reviews", "v1", 2).await?;
//!     mesh.caller("caller-a").await?;
//!     let load = mesh.load("caller-a", "reviews").await?;
//!     mesh.deploy("reviews", "v2", 2).await?;
//!     load.stop().await?.assert_no_failures();
//!     Ok(())
//! });
//! ```
//!
//! | module | its job |
//! | --- | --- |
//! | `plane` | istiod and the registry |
//! | `network` | namespaces of pods, and the router between them |
//! | `kubelet`, `pod`, `sidecar` | the processes of a pod as it comes and goes |
//! | `services` | kube-proxy, for pods without a sidecar |
//! | `partition` | what the flag service and pods do not hear of each other |
//! | `spans` | when requests were open at the apps |
//! | `objects` | what is written to the API |
//! | [`mtls`] | the controller with certificates of the mesh |
//! | `gateway` | ingress gateways, by either API |
//! | [`replica`] | another istiod, which can be kept from seeing what changes |
//! | [`switch`] | one VersionFlag: what is asked of it, and what it shows |
//! | [`fenced`] | a fenced switch of it: what it waits for, and who waits for it |
//! | [`flips`], [`churn`] | how long ways to move requests take, also while the mesh is busy |
//! | [`removals`] | how soon an old version goes after it was quiet |

pub mod churn;
pub mod fenced;
pub mod flips;
mod gateway;
mod kubelet;
pub mod mtls;
mod network;
mod objects;
mod partition;
mod plane;
mod pod;
pub mod removals;
pub mod replica;
mod services;
mod sidecar;
mod spans;
pub mod switch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DynamicObject, PostParams};
use kube::core::discovery::ApiResource;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

pub use self::objects::{Workload, flag_config, plugin, routed_by_header, routed_to, routes};
pub use self::pod::Pod;
pub use self::sidecar::Sidecar;

use self::kubelet::Kubelet;
use crate::client::{Answer, Call};
use crate::envoy;
use crate::kube::{Cluster, image};
use crate::load::{Load, LoadPlan};
use crate::netns::in_namespace;
use crate::process::{Process, program};
use crate::talk::{self, Talk};
use crate::wait::wait_for;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the apps listen.
const APP_PORT: u16 = 8080;
/// Where Services do.
const SERVICE_PORT: u16 = 80;
/// Where those listen that speak gRPC too.
const GRPC_PORT: u16 = 81;
/// Where their apps listen for it: a proxy speaks one protocol with a port.
const GRPC_APP_PORT: u16 = 8081;
/// Where proxies find istiod. Its certificate has a name.
const DISCOVERY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 19, 128, 3)), 15012);
/// Where they pull the filter from.
const REGISTRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 19, 128, 4)), 5000);
/// Where the controller has its flag service.
pub const CONTROLLER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 19, 128, 11)), 7070);
/// The domain of a cluster, unless a test asks for another one.
const DOMAIN: &str = "cluster.local";
const LIMIT: Duration = Duration::from_secs(120);

/// The directory of the programs, Istio's among them.
fn programs() -> Result<PathBuf> {
    let programs = crate::kube::programs()?;
    ensure!(programs.join("complete-mesh").exists(), "{} lacks Istio: tools/kube.sh --mesh", programs.display());
    Ok(programs)
}

/// Tells a test's story in a mesh of its own.
#[track_caller]
pub fn story(name: &str, tell: impl AsyncFnOnce(&mut Mesh<'_>) -> Result<()> + Send) {
    story_within(name, crate::story::LIMIT, tell);
}

/// The same with another limit.
#[track_caller]
pub fn story_within(name: &str, limit: Duration, tell: impl AsyncFnOnce(&mut Mesh<'_>) -> Result<()> + Send) {
    begin(name, DOMAIN, limit, tell);
}

/// The same in a cluster of another domain. What tests write themselves has names of the usual one.
#[track_caller]
pub fn story_in_domain(name: &str, domain: &str, tell: impl AsyncFnOnce(&mut Mesh<'_>) -> Result<()> + Send) {
    begin(name, domain, crate::story::LIMIT, tell);
}

#[track_caller]
fn begin(name: &str, domain: &str, limit: Duration, tell: impl AsyncFnOnce(&mut Mesh<'_>) -> Result<()> + Send) {
    // Inside, nothing could be fetched to build them.
    programs().expect("the programs of a mesh");
    envoy::binary().expect("an Envoy");
    in_namespace(|namespace| {
        crate::story::story_within(name, limit, async |dir| {
            let steps = Steps::begin();
            network::prepare()?;
            let registry = plane::registry(dir)?;
            let cluster = Cluster::start(dir, namespace).await?;
            steps.done("the control plane of Kubernetes");
            let kubelet = Kubelet::new(dir, cluster.client());
            let client = cluster.client();
            let told = async {
                let mut mesh = Mesh::start(cluster, registry, &kubelet, steps, domain).await?;
                tell(&mut mesh).await
            };
            tokio::select! {
                told = told => told,
                ended = kubelet.run() => ended.map(|never| match never {}),
                ended = services::run(client) => ended.map(|never| match never {}),
            }
        });
    });
}

/// Tells how long each step took.
struct Steps(std::cell::Cell<Instant>);

impl Steps {
    fn begin() -> Steps {
        Steps(Instant::now().into())
    }

    fn done(&self, what: &str) {
        println!("{:6.1} s  {what}", self.0.replace(Instant::now()).elapsed().as_secs_f64());
    }
}

/// A running mesh. It ends when this is dropped.
pub struct Mesh<'a> {
    /// Kubernetes below it.
    pub cluster: Cluster<'a>,
    kubelet: &'a Kubelet<'a>,
    istiod: Process,
    registry: Process,
    steps: Steps,
    envoy: String,
    domain: String,
}

impl<'a> Mesh<'a> {
    async fn start(
        cluster: Cluster<'a>,
        registry: Process,
        kubelet: &'a Kubelet<'a>,
        steps: Steps,
        domain: &str,
    ) -> Result<Mesh<'a>> {
        cluster.add_node("one", "64", "256Gi").await?;
        create(&cluster, &std::fs::read_to_string(programs()?.join("istio-crds.yaml"))?).await?;
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "istio-system" } });
        create(&cluster, &namespace.to_string()).await?;
        steps.done("Istio's resources");
        let mut istiod = plane::istiod(&cluster, domain)?;
        plane::istiod_is_ready(&mut istiod).await?;
        steps.done("istiod");
        let envoy = envoy::binary()?.to_string_lossy().into_owned();
        Ok(Mesh { cluster, kubelet, istiod, registry, steps, envoy, domain: domain.to_owned() })
    }

    /// So many pods of a version of a service, each with a sidecar. They are ready.
    pub async fn deploy(&self, name: &str, version: &str, replicas: u32) -> Result<()> {
        self.deploy_all(&[Workload::of(name, version, replicas)]).await
    }

    /// A pod with a sidecar that nobody calls.
    pub async fn caller(&self, name: &str) -> Result<Rc<Pod>> {
        self.deploy_all(&[Workload::named(name)]).await?;
        self.pod(name)
    }

    /// Workloads with their Services and accounts, all at once. Their pods are ready.
    pub async fn deploy_all(&self, workloads: &[Workload]) -> Result<()> {
        let objects =
            workloads.iter().flat_map(|it| [it.account(), it.service(), it.deployment(&self.envoy, &self.domain)]);
        self.apply_all(objects.collect()).await?;
        for workload in workloads {
            self.is_ready(workload).await?;
        }
        self.steps.done(&workloads.iter().map(Workload::full_name).collect::<Vec<_>>().join(", "));
        Ok(())
    }

    async fn is_ready(&self, workload: &Workload) -> Result<()> {
        wait_for(&workload.full_name(), LIMIT, async || {
            let name = format!("deployment/{}", workload.full_name());
            let ready = "--output=jsonpath={.status.readyReplicas}";
            let ready = self.cluster.kubectl(&["get", &name, "--namespace", &workload.namespace, ready]).await?;
            let ready = ready.parse().unwrap_or(0);
            ensure!(ready == workload.replicas, "{ready} of {} are ready", workload.replicas);
            Ok(())
        })
        .await
    }

    /// The pods whose name begins so, in order: `reviews-v1` are those of that version.
    pub fn pods(&self, prefix: &str) -> Vec<Rc<Pod>> {
        self.kubelet.pods().into_iter().filter(|pod| pod.name().starts_with(&format!("{prefix}-"))).collect()
    }

    /// The first of them.
    pub fn pod(&self, prefix: &str) -> Result<Rc<Pod>> {
        self.pods(prefix).into_iter().next().with_context(|| format!("no pod of {prefix} runs"))
    }

    /// Where a Service of the namespace `default` is.
    pub async fn service(&self, name: &str) -> Result<SocketAddr> {
        let service = self.cluster.api::<Service>("default").get(name).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a service without an address")?;
        Ok(SocketAddr::new(address.parse()?, SERVICE_PORT))
    }

    /// Load from a pod to a service, over HTTP/1.1 and HTTP/2.
    pub async fn load(&self, from: &str, service: &str) -> Result<Load> {
        self.load_with(from, service, LoadPlan::default()).await
    }

    /// The same, of another kind. The authority is set here.
    pub async fn load_with(&self, from: &str, service: &str, plan: LoadPlan) -> Result<Load> {
        let plan = LoadPlan { authority: service.to_owned(), ..plan };
        Ok(self.pod(from)?.load(self.service(service).await?, plan))
    }

    /// A stream from a pod to a service.
    pub async fn talk(&self, from: &str, service: &str, kind: talk::Kind) -> Result<Talk> {
        let mut to = self.service(service).await?;
        if kind == talk::Kind::Grpc {
            to.set_port(GRPC_PORT);
        }
        Talk::open_in(self.pod(from)?.network(), kind, to, service).await
    }

    /// One request from a pod to a service.
    pub async fn call(&self, from: &str, service: &str, path: &str) -> Result<Answer> {
        self.call_with(from, service, path, &[]).await
    }

    /// The same with headers.
    pub async fn call_with(&self, from: &str, service: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let call = Call::get(self.service(service).await?, path).host(service);
        let call = headers.iter().fold(call, |call, (name, value)| call.header(name, value));
        self.pod(from)?.call(call).await
    }

    /// Applies an object, or a `List` of them.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        self.cluster.apply(&object.to_string()).await.map(drop)
    }

    async fn apply_all(&self, objects: Vec<Value>) -> Result<()> {
        self.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects })).await
    }

    /// Changes fields of an object of Istio's in the namespace `default`.
    pub async fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<()> {
        self.cluster.kubectl(&["patch", kind, name, "--type=merge", "--patch", &patch.to_string()]).await.map(drop)
    }

    /// Pushes the filter as it was built to the registry, and gives its address there by digest.
    pub async fn push_filter(&self) -> Result<String> {
        plane::push(&filter_image()?).await
    }

    /// A controller with the rights of the manifests, at the address by which sidecars will know it
    /// once it leads; [`Cluster::install`] comes before. It is a process beside the pods.
    pub async fn controller(&self, log: &str, args: &[&str]) -> Result<Process> {
        // istiod takes no endpoint of a pod that does not exist.
        image::stands_for(&self.cluster, log, &CONTROLLER.ip().to_string()).await?;
        self.start_controller(log, args).await
    }

    async fn start_controller(&self, log: &str, args: &[&str]) -> Result<Process> {
        let mut command = Command::new(program("versionflag")?);
        command
            .args(["controller", "--identity", log, "--home", "versionflag"])
            .args(["--cluster-domain", &self.domain])
            .args(["--address", &CONTROLLER.ip().to_string(), "--listen", &CONTROLLER.to_string()])
            .args(args)
            .env("KUBECONFIG", self.cluster.kubeconfig_as("versionflag", "versionflag").await?);
        Process::start(self.cluster.dir(), log, command)
    }

    /// The controller with everything that an operator applies for Istio, and the filter in the registry.
    pub async fn install(&self) -> Result<Process> {
        self.cluster.install().await?;
        self.cluster.apply_manifests("kubernetes/istio").await?;
        self.cluster.apply_manifests("kubernetes/istio/routes").await?;
        let image = self.push_filter().await?;
        self.controller("one", &["--plugin-url", &image]).await
    }

    /// The address of the Service of the flag service.
    pub async fn flag_service(&self) -> Result<IpAddr> {
        let service = self.cluster.api::<Service>("versionflag").get("versionflag").await?;
        Ok(service.spec.and_then(|spec| spec.cluster_ip).context("a service without an address")?.parse()?)
    }

    /// Its process, to stop it where it stands.
    pub fn istiod(&mut self) -> &mut Process {
        &mut self.istiod
    }

    /// The registry's process.
    pub fn registry(&mut self) -> &mut Process {
        &mut self.registry
    }

    /// Kills istiod and starts it again.
    pub async fn restart_istiod(&mut self) -> Result<()> {
        self.istiod.kill();
        self.istiod = plane::istiod(&self.cluster, &self.domain)?;
        plane::istiod_is_ready(&mut self.istiod).await
    }

    /// Prints how long it took since the last step.
    pub fn step(&self, what: &str) {
        self.steps.done(what);
    }
}

/// The filter as an OCI image layout.
fn filter_image() -> Result<PathBuf> {
    let path = std::env::var_os("VERSIONFLAG_IMAGE").context("VERSIONFLAG_IMAGE is not set: run `make test-mesh`")?;
    Ok(path.into())
}

/// Creates every document of a YAML text. What is there already is an error.
async fn create(cluster: &Cluster<'_>, yaml: &str) -> Result<()> {
    for document in serde_saphyr::from_multiple::<Value>(yaml)? {
        if document.is_null() {
            continue;
        }
        let object: DynamicObject = serde_json::from_value(document)?;
        let types = object.types.clone().context("a document without a kind")?;
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let plural = match types.kind.as_str() {
            "CustomResourceDefinition" => "customresourcedefinitions",
            "Namespace" => "namespaces",
            kind => bail!("{kind} is not of the cluster"),
        };
        let kind = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: types.api_version.clone(),
            kind: types.kind.clone(),
            plural: plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(cluster.client(), &kind);
        api.create(&PostParams::default(), &object).await.with_context(|| object.name_any())?;
    }
    Ok(())
}
