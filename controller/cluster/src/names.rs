//! The names that the controller and Istio give to things of a cluster. Pure.

/// Field manager of everything that the controller writes.
pub const MANAGER: &str = "versionflag";
/// Annotation by which people ask: a [`machine::action::Request`] as JSON.
pub const REQUEST: &str = "versionflag.io/request";
/// Label on the workloads of a version that is about to get requests: the epoch of the record by then.
pub const KEPT_AT: &str = "versionflag.io/kept-at";
/// Label of pods whose proxy runs the filter, with any value.
pub const PROXY: &str = "versionflag.io/proxy";
/// Label of a namespace that lets VersionFlags of others have its callers, gateways and hosts: `true`, or the namespace
/// of those flags.
pub const CALLERS: &str = "versionflag.io/callers";
/// Label of everything that the controller writes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Name of the container with Istio's proxy, and of the init container where sidecars are such.
pub const PROXY_CONTAINER: &str = "istio-proxy";
/// The account of a pod that names none.
pub const DEFAULT_ACCOUNT: &str = "default";
/// Label of a Deployment's pods: the revision of its template, by which their ReplicaSet is called too.
pub const TEMPLATE_HASH: &str = "pod-template-hash";
/// Label of a StatefulSet's pods: the revision of its template.
pub const REVISION_HASH: &str = "controller-revision-hash";
