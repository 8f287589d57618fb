//! The programs of a control plane: how each is run, and how it says that it is ready. No I/O but
//! finding the programs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Result;

use super::credentials::Credentials;
use super::{API, LOOPBACK};
use crate::dir::TestDir;
use crate::process::tool;

/// One program. All listen where they do everywhere: in a namespace the ports are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The API server's memory.
    Etcd,
    /// The API server.
    ApiServer,
    /// Deployments, ReplicaSets, EndpointSlices, garbage, ...
    ControllerManager,
    /// Gives pods a node.
    Scheduler,
    /// Plays the kubelet of every node.
    Kwok,
}

const PODS: &str = "198.18.0.0/16";
const SERVICES: &str = "198.19.0.0/17";
/// Of every node. Nothing but pods and services has to differ.
pub(super) const NODE: &str = "198.19.128.1";

impl Part {
    /// All of them, each after those that it needs.
    pub const ALL: [Part; 5] = [Part::Etcd, Part::ApiServer, Part::ControllerManager, Part::Scheduler, Part::Kwok];

    /// The name of the program, and of its log.
    pub fn name(self) -> &'static str {
        match self {
            Part::Etcd => "etcd",
            Part::ApiServer => "kube-apiserver",
            Part::ControllerManager => "kube-controller-manager",
            Part::Scheduler => "kube-scheduler",
            Part::Kwok => "kwok",
        }
    }

    /// Where it says that it is ready: an address, a path, and whether by TLS.
    pub(super) fn readiness(self) -> (SocketAddr, &'static str, bool) {
        match self {
            Part::Etcd => (local(2379), "/readyz", false),
            Part::ApiServer => (API, "/readyz", true),
            Part::ControllerManager => (local(10257), "/healthz", true),
            Part::Scheduler => (local(10259), "/readyz", true),
            Part::Kwok => (local(10247), "/healthz", false),
        }
    }

    pub(super) fn command(self, dir: &TestDir, credentials: &Credentials) -> Result<Command> {
        let mut args = Args(Command::new(programs()?.join(self.name())));
        let (ready, _, _) = self.readiness();
        match self {
            Part::Etcd => args
                .path("data-dir", &dir.file("etcd"))
                .set("listen-client-urls", format!("http://{ready}"))
                .set("advertise-client-urls", format!("http://{ready}"))
                .set("listen-peer-urls", format!("http://{}", local(2380)))
                .set("log-level", "warn")
                // It may lose what it knew when the machine fails, not when it is killed.
                .set("unsafe-no-fsync", true),
            Part::ApiServer => args
                .set("etcd-servers", format!("http://{}", Part::Etcd.readiness().0))
                .set("advertise-address", API.ip())
                .set("secure-port", API.port())
                .set("service-cluster-ip-range", SERVICES)
                .path("cert-dir", &dir.file("kube-apiserver"))
                .path("tls-cert-file", &credentials.certificate)
                .path("tls-private-key-file", &credentials.key)
                .path("token-auth-file", &credentials.users)
                .set("authorization-mode", "RBAC")
                .set("service-account-issuer", "https://kubernetes.default.svc")
                .path("service-account-signing-key-file", &credentials.signing_key)
                .path("service-account-key-file", &credentials.checking_key)
                .set("allow-privileged", true)
                // Nobody here would take the taint of a new node off again.
                .set("disable-admission-plugins", "TaintNodesByCondition"),
            Part::ControllerManager => args
                .secure(ready, credentials)
                // They would evict the pods of nodes that have no heartbeat.
                .set("controllers", "*,-node-lifecycle-controller,-taint-eviction-controller")
                .path("service-account-private-key-file", &credentials.signing_key)
                .path("root-ca-file", &credentials.certificate),
            Part::Scheduler => args.secure(ready, credentials),
            Part::Kwok => args
                .path("kubeconfig", &credentials.kubeconfig)
                .path("config", &dir.write("stages.yaml", include_str!("stages.yaml")))
                .set("manage-all-nodes", true)
                .set("server-address", ready)
                .set("node-ip", NODE)
                .set("cidr", PODS),
        };
        Ok(args.0)
    }
}

struct Args(Command);

impl Args {
    fn set(&mut self, flag: &str, value: impl std::fmt::Display) -> &mut Args {
        self.0.arg(format!("--{flag}={value}"));
        self
    }

    fn path(&mut self, flag: &str, path: &Path) -> &mut Args {
        self.set(flag, path.display())
    }

    /// What the two clients of the API server that are servers themselves have in common.
    fn secure(&mut self, listen: SocketAddr, credentials: &Credentials) -> &mut Args {
        self.path("kubeconfig", &credentials.kubeconfig)
            .path("authentication-kubeconfig", &credentials.kubeconfig)
            .path("authorization-kubeconfig", &credentials.kubeconfig)
            .set("bind-address", listen.ip())
            .set("secure-port", listen.port())
            .path("tls-cert-file", &credentials.certificate)
            .path("tls-private-key-file", &credentials.key)
            .set("leader-elect", false)
            .set("kube-api-qps", 500)
            .set("kube-api-burst", 1000)
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((LOOPBACK, port))
}

/// The directory of the programs: `$VERSIONFLAG_KUBE`, or what `tools/kube.sh` finds or builds.
pub fn programs() -> Result<PathBuf> {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PROGRAMS.get() {
        return Ok(path.clone());
    }
    let path = tool("VERSIONFLAG_KUBE", "tools/kube.sh")?;
    Ok(PROGRAMS.get_or_init(|| path).clone())
}

/// The definitions of the Gateway API's resources, in the version that Istio was built for.
pub fn gateway_api_crds() -> Result<PathBuf> {
    Ok(programs()?.join("gateway-api-crds.yaml"))
}

/// The definitions of Istio's resources: `$VERSIONFLAG_ISTIO_CRDS`, or what `tools/kube.sh --mesh` put
/// beside the programs.
pub fn istio_crds() -> Result<PathBuf> {
    match std::env::var_os("VERSIONFLAG_ISTIO_CRDS") {
        Some(path) => Ok(path.into()),
        None => Ok(programs()?.join("istio-crds.yaml")),
    }
}
