//! A real Kubernetes control plane without containers: etcd, API server, controller manager and
//! scheduler, and kwok, which plays the nodes' kubelets. I/O: runs them and asks them.
//!
//! A pod is a record with an address of its own and no process. Every address answers in the
//! network namespace of the cluster, so one program that is bound to 0.0.0.0 can play all pods.
//! Nothing routes the addresses of Services: no kube-proxy runs.
//!
//! ```no_run
//! use harness::kube;
//!
//! kube::story("a-namespace", async |cluster| {
//!     cluster.add_node("one", "4", "8Gi").await?;
//!     cluster.kubectl(&["create", "namespace", "shop"]).await?;
//!     Ok(())
//! });
//! ```

mod credentials;
pub mod crowd;
pub mod image;
pub mod istio;
mod kubelet;
pub mod measure;
mod part;
mod sidecars;
mod switch;
mod walk;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::Request;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

pub use self::kubelet::Kubelet;
pub use self::part::{Part, gateway_api_crds, istio_crds, programs};
pub use self::sidecars::Sidecars;
pub use self::switch::{Switch, condition, deployment, example_story, flag, switch_story, switch_story_within, world};
pub use self::walk::Walk;

use self::credentials::Credentials;
use crate::Signal;
use crate::client::Call;
use crate::dir::{DIR_ENV, TestDir};
use crate::netns::{Namespace, in_namespace};
use crate::process::{Process, program};
use crate::wait::wait_for;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the API server is. It may not say of itself that it is on loopback.
pub const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 19, 128, 2)), 6443);

const START_LIMIT: Duration = Duration::from_secs(120);
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Tells a test's story in a cluster of its own.
#[track_caller]
pub fn story(name: &str, tell: impl AsyncFnOnce(&mut Cluster<'_>) -> Result<()> + Send) {
    story_within(name, crate::story::LIMIT, tell);
}

/// The same with another limit.
#[track_caller]
pub fn story_within(name: &str, limit: Duration, tell: impl AsyncFnOnce(&mut Cluster<'_>) -> Result<()> + Send) {
    // Inside, nothing could be fetched to build them.
    programs().expect("the programs of a cluster");
    in_namespace(|namespace| {
        crate::story::story_within(name, limit, async |dir| tell(&mut Cluster::start(dir, namespace).await?).await);
    });
}

/// A running control plane. It ends when this is dropped.
pub struct Cluster<'a> {
    dir: &'a TestDir,
    credentials: Credentials,
    client: Client,
    parts: BTreeMap<Part, Process>,
}

impl<'a> Cluster<'a> {
    /// Starts one, without nodes, and waits until all of it is ready.
    pub async fn start(dir: &'a TestDir, _: &Namespace) -> Result<Cluster<'a>> {
        let credentials = Credentials::new(dir)?;
        let client = credentials.admin(&format!("https://{API}")).await?;
        let mut cluster = Cluster { dir, credentials, client, parts: BTreeMap::new() };
        // The API server waits for etcd by itself; the others would end without an API server.
        cluster.run(&[Part::Etcd, Part::ApiServer]).await?;
        cluster.run(&[Part::ControllerManager, Part::Scheduler, Part::Kwok]).await?;
        // The controller manager says that it is ready before it has done anything.
        let accounts: Api<ServiceAccount> = cluster.api("default");
        wait_for("the default service account", START_LIMIT, async || Ok(accounts.get("default").await?)).await?;
        Ok(cluster)
    }

    async fn run(&mut self, parts: &[Part]) -> Result<()> {
        for part in parts {
            let process = Process::start(self.dir, part.name(), part.command(self.dir, &self.credentials)?)?;
            self.parts.insert(*part, process);
        }
        for part in parts {
            self.wait_ready(*part).await?;
        }
        Ok(())
    }

    async fn wait_ready(&mut self, part: Part) -> Result<()> {
        let (at, path, by_tls) = part.readiness();
        let tls = self.credentials.admin(&format!("https://{at}")).await?;
        let process = self.process(part);
        wait_for(part.name(), START_LIMIT, async || -> Result<()> {
            process.check_running()?;
            if by_tls {
                tls.request_text(Request::get(path).body(Vec::new())?).await?;
            } else {
                let answer = Call::get(at, path).limit(LOOK_LIMIT).send().await?;
                ensure!(answer.status == 200, "not ready: {}", answer.body.trim());
            }
            Ok(())
        })
        .await
    }

    /// The directory of the test.
    pub fn dir(&self) -> &'a TestDir {
        self.dir
    }

    /// As the administrator, who may do anything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// One kind of object in a namespace, as the administrator.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client(), namespace)
    }

    /// As a service account, with what RBAC lets it do.
    pub async fn client_as(&self, namespace: &str, account: &str) -> Result<Client> {
        credentials::client(self.account(namespace, account).await?).await
    }

    /// A kubeconfig for the administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.credentials.kubeconfig
    }

    /// A kubeconfig for a service account.
    pub async fn kubeconfig_as(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let content = self.account(namespace, account).await?;
        Ok(self.dir.write(&format!("{namespace}.{account}.kubeconfig"), content.to_string()))
    }

    /// A token of an account, and the certificate by which to know the API server.
    pub async fn token(&self, namespace: &str, account: &str) -> Result<(String, String)> {
        let token = self.issue(namespace, account).await?;
        Ok((token, self.credentials.authority()?))
    }

    async fn account(&self, namespace: &str, account: &str) -> Result<Value> {
        let token = self.issue(namespace, account).await?;
        Ok(self.credentials.kubeconfig(&format!("https://{API}"), &token))
    }

    async fn issue(&self, namespace: &str, account: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = self.api(namespace);
        let answer: TokenRequest = accounts
            .create_subresource("token", account, &PostParams::default(), &TokenRequest::default())
            .await
            .with_context(|| format!("a token for {namespace}/{account}"))?;
        Ok(answer.status.context("an answer without a token")?.token)
    }

    /// Runs kubectl as the administrator, and gives what it prints.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = tokio::process::Command::new(programs()?.join("kubectl"))
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.dir.file("kubectl"))
            .env(DIR_ENV, self.dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command of `versionflag` as the administrator.
    pub async fn versionflag(&self, args: &[&str]) -> Result<Output> {
        versionflag(self.kubeconfig(), args).await
    }

    /// `kubectl apply` of YAML documents.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        let file = self.dir.write("applied.yaml", yaml);
        self.kubectl(&["apply", "--filename", &file.to_string_lossy()]).await
    }

    /// Applies a directory of the manifests.
    pub async fn apply_manifests(&self, directory: &str) -> Result<String> {
        let path = crate::root().join("manifests").join(directory);
        self.kubectl(&["apply", "--kustomize", &path.to_string_lossy()]).await
    }

    /// Applies the manifests of the controller, and waits until the API server knows the resource.
    pub async fn install(&self) -> Result<()> {
        self.apply_manifests("kubernetes").await?;
        let established = ["wait", "--for=condition=Established", "crd/versionflags.versionflag.io", "--timeout=30s"];
        self.kubectl(&established).await.map(drop)
    }

    /// Installs definitions of resources, and waits until the API server knows them.
    pub async fn install_crds(&self, file: &Path) -> Result<()> {
        self.kubectl(&["apply", "--server-side", "--filename", &file.to_string_lossy()]).await?;
        let established = ["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"];
        self.kubectl(&established).await.map(drop)
    }

    /// A node with room for so much, and for 1000 pods.
    pub async fn add_node(&self, name: &str, cpu: &str, memory: &str) -> Result<()> {
        let room = json!({ "cpu": cpu, "memory": memory, "pods": "1000" });
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": part::NODE }],
                "capacity": room,
                "allocatable": room,
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        }))?;
        Api::all(self.client()).create(&PostParams::default(), &node).await?;
        Ok(())
    }

    /// The process of one of its programs, to stop it where it stands or to end it.
    pub fn process(&mut self, part: Part) -> &mut Process {
        self.parts.get_mut(&part).expect("all parts were started")
    }

    /// Kills one of its programs, if it still runs, starts it again and waits until it is ready.
    pub async fn restart(&mut self, part: Part) -> Result<()> {
        self.process(part).kill();
        self.run(&[part]).await
    }

    /// A copy of all that etcd has written by now.
    pub fn back_up(&mut self) -> Result<()> {
        self.process(Part::Etcd).signal(Signal::SIGSTOP)?;
        copy(&self.dir.file("etcd"), &self.dir.file("etcd.copy"))?;
        self.process(Part::Etcd).signal(Signal::SIGCONT)
    }

    /// Kills the API.
    pub fn kill_api(&mut self) {
        self.process(Part::ApiServer).kill();
        self.process(Part::Etcd).kill();
    }

    /// Starts the API with the copy, once, and all others anew, as Kubernetes asks for after that.
    pub async fn restore(&mut self) -> Result<()> {
        self.kill_api();
        std::fs::remove_dir_all(self.dir.file("etcd"))?;
        std::fs::rename(self.dir.file("etcd.copy"), self.dir.file("etcd"))?;
        self.run(&[Part::Etcd, Part::ApiServer]).await?;
        for part in [Part::ControllerManager, Part::Scheduler, Part::Kwok] {
            self.restart(part).await?;
        }
        Ok(())
    }

    /// Makes etcd forget all but its latest revision.
    pub async fn compact(&self) -> Result<()> {
        let etcd = Part::Etcd.readiness().0;
        let key = json!({ "key": "AA==" }).to_string();
        let found: Value = Call::post(etcd, "/v3/kv/range", &key).send().await?.json()?;
        let body = json!({ "revision": found["header"]["revision"], "physical": true }).to_string();
        let answer = Call::post(etcd, "/v3/kv/compaction", &body).send().await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        Ok(())
    }

    /// The memory that its programs occupy together.
    pub fn memory_kib(&self) -> Result<u64> {
        self.parts.values().map(Process::memory_kib).sum()
    }
}

/// A kustomization of the controller with mutual TLS, as an operator writes it.
pub fn with_mtls(dir: &TestDir) -> Result<PathBuf> {
    let folder = dir.file("with-mtls");
    std::fs::create_dir_all(&folder)?;
    // Only relative paths are allowed there.
    let up = "../".repeat(folder.canonicalize()?.components().count() - 1);
    let root = crate::root().canonicalize()?;
    let base = format!("{up}{}", root.strip_prefix("/")?.join("manifests/kubernetes").display());
    let content = format!("resources: [{base}]\ncomponents: [{base}/mtls]\n");
    std::fs::write(folder.join("kustomization.yaml"), content)?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Runs a command of `versionflag` as whoever this is, and gives what it prints, whether it succeeds or not.
pub async fn versionflag(kubeconfig: &Path, args: &[&str]) -> Result<Output> {
    let mut command = tokio::process::Command::new(program("versionflag")?);
    command.args(args).env("KUBECONFIG", kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command.output().await?)
}
