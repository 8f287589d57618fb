//! What the proxy of a pod may still do, and so whether it has to ack: only what is proven not to send a request is not
//! waited for. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};

use machine::time::UnixMs;

use super::pods;
use super::resource::unix_ms;

/// Fencing as the API has it: who sets it vouches that nothing on the node runs any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Its kubelet has not been heard of: what is said of its pods is old.
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// By these words a container was not started, and is not without somebody's help.
const NOT_STARTED: [&str; 8] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "SignatureValidationFailed",
];
/// Those that come before it have not ended.
const INITIALIZING: &str = "PodInitializing";

/// A pod with a proxy, and what is known of where it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lives<'a> {
    pod: &'a Pod,
    /// The container of the proxy; `None`: it may be any.
    proxy: Option<&'a str>,
    /// `None`: nobody can tell which nodes there are.
    nodes: Option<&'a [Arc<Node>]>,
}

impl<'a> Lives<'a> {
    pub(super) fn new(pod: &'a Pod, proxy: Option<&'a str>, nodes: Option<&'a [Arc<Node>]>) -> Lives<'a> {
        Lives { pod, proxy, nodes }
    }

    /// Whether its proxy may run, or be about to. Each line is a rule of the page on Kubernetes.
    pub(super) fn may_act(self) -> bool {
        is_placed(self.pod)
            && !pods::ended(self.pod)
            && !(self.is_ending() && (self.is_fenced() || self.has_stopped()))
            && !self.never_started()
            && !self.is_done()
    }

    /// Until when it is waited for, in words.
    pub(super) fn until(self) -> String {
        let node = self.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let lost = self.nodes.is_some() && self.node().is_none_or(|node| has_taint(node, UNREACHABLE));
        let phase = self.phase();
        match (self.is_ending(), lost) {
            (true, true) => format!(
                "until its pod, which is terminating on the node {node} that does not answer, is gone: an unreachable \
                 node may still run it, so delete the node, or give it the taint {OUT_OF_SERVICE} once it is shut down"
            ),
            (true, false) => "until its pod, which is terminating, is gone".to_owned(),
            (false, _) if phase == "Pending" => {
                "until its pod, which is starting, has ended, or its proxy is said to be unable to start".to_owned()
            }
            (false, _) => format!("until its pod, which is {phase}, has ended"),
        }
    }

    fn phase(self) -> &'a str {
        self.pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown")
    }

    fn is_ending(self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    fn node(self) -> Option<&'a Node> {
        let name = self.pod.spec.as_ref()?.node_name.as_deref();
        self.nodes?.iter().map(Arc::as_ref).find(|node| node.metadata.name.as_deref() == name)
    }

    /// Its node is gone from the API, or said to be shut down.
    fn is_fenced(self) -> bool {
        self.nodes.is_some() && self.node().is_none_or(|node| has_taint(node, OUT_OF_SERVICE))
    }

    /// The statuses of the containers that may be the proxy, if there is one of each.
    fn proxies(self) -> Option<Vec<&'a ContainerStatus>> {
        let spec = self.pod.spec.as_ref()?;
        let beside =
            spec.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
        let names = spec.containers.iter().chain(beside).map(|one| one.name.as_str());
        let names: Vec<&str> = names.filter(|name| self.proxy.is_none_or(|proxy| proxy == *name)).collect();
        let found: Option<Vec<_>> = names.into_iter().map(|name| self.status(name)).collect();
        found.filter(|found| !found.is_empty())
    }

    /// When the first of the containers that may be the proxy was started last, if all of them run.
    pub(crate) fn started_at(self) -> Option<UnixMs> {
        let running = |one: &ContainerStatus| Some(one.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0);
        let all: Option<Vec<_>> = self.proxies()?.into_iter().map(running).collect();
        all?.into_iter().min().map(unix_ms)
    }

    fn status(self, name: &str) -> Option<&'a ContainerStatus> {
        let status = self.pod.status.as_ref()?;
        let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        all.into_iter().find(|one| one.name == name)
    }

    /// A container of a pod that is terminating is not started again.
    fn has_stopped(self) -> bool {
        self.proxies().is_some_and(|all| all.iter().all(|one| has_ended(one)))
    }

    /// Its kubelet, which is heard of, says that the proxy was never started, and what keeps it from that.
    fn never_started(self) -> bool {
        self.phase() == "Pending"
            && self.proxies().is_some_and(|all| all.iter().all(|one| waits_to_start(one)))
            && self.node().is_some_and(|node| !has_taint(node, UNREACHABLE))
    }

    /// All other containers have ended, and none is started again: a Job whose proxy was left behind.
    fn is_done(self) -> bool {
        let (Some(proxy), Some(spec)) = (self.proxy, self.pod.spec.as_ref()) else { return false };
        let again = spec.restart_policy.as_deref().filter(|again| *again != "Always");
        let over = |name: &str| {
            self.status(name).is_some_and(|one| match again {
                Some("Never") => has_ended(one),
                Some("OnFailure") => exit_code(one) == Some(0),
                _ => false,
            })
        };
        let mut others = spec.containers.iter().filter(|one| one.name != proxy).peekable();
        again.is_some() && others.peek().is_some() && others.all(|one| over(&one.name))
    }
}

/// Whether it has a node. Without one it has never started, and starts with the record of that time.
pub(super) fn is_placed(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// The node that has to be looked at before more can be said of a pod.
pub(super) fn asks_for_node(pod: &Pod) -> Option<&str> {
    let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let asks = !runs || pod.metadata.deletion_timestamp.is_some();
    pod.spec.as_ref()?.node_name.as_deref().filter(|_| asks)
}

fn has_taint(node: &Node, key: &str) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.taints.iter().flatten().any(|taint| taint.key == key))
}

fn exit_code(one: &ContainerStatus) -> Option<i32> {
    Some(one.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn has_ended(one: &ContainerStatus) -> bool {
    exit_code(one).is_some()
}

fn waits_to_start(one: &ContainerStatus) -> bool {
    let before = one.restart_count > 0 || one.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
    let why = one.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.as_deref());
    !before && why.is_some_and(|why| why == INITIALIZING || NOT_STARTED.contains(&why))
}
