//! The words of `versionflag controller`, and of what prints what it would do. Pure.

use std::path::PathBuf;

use clap::Args;

use super::Names;
use service::check_hosts::CheckHost;

#[derive(Debug, Args)]
pub(in crate::cli) struct Controller {
    /// The only namespace to look after; all of them unless given
    #[arg(long, env = "VERSIONFLAG_NAMESPACE")]
    pub(in crate::cli) namespace: Option<String>,
    /// Where the flag service listens; [::] is both families of addresses
    #[arg(long, default_value = "[::]:7070")]
    pub(in crate::cli) listen: std::net::SocketAddr,
    /// Where probes and metrics are served besides, so that they wait for no proxy
    #[arg(long, env = "VERSIONFLAG_HEALTH_LISTEN", value_name = "ADDRESS")]
    pub(in crate::cli) health_listen: Option<std::net::SocketAddr>,
    /// Let VersionFlags have callers, gateways and hosts of other namespaces without the label versionflag.io/callers there
    #[arg(long, env = "VERSIONFLAG_CALLERS_WITHOUT_CONSENT")]
    pub(in crate::cli) callers_without_consent: bool,
    #[command(flatten)]
    pub(in crate::cli) mtls: MtlsArgs,
    /// Name of this replica
    #[arg(long, env = "POD_NAME")]
    pub(in crate::cli) identity: String,
    /// Namespace of the controller itself, with its Lease and its Service
    #[arg(long, env = "POD_NAMESPACE", default_value = "versionflag")]
    pub(in crate::cli) home: String,
    /// Addresses of this replica, to which the Service leads while it acts: one of each family
    #[arg(long, env = "POD_IPS", value_delimiter = ',')]
    pub(in crate::cli) address: Vec<std::net::IpAddr>,
    /// Where the proxies find the filter
    #[arg(long, default_value = "/etc/versionflag/versionflag.wasm")]
    pub(in crate::cli) filter_path: PathBuf,
    /// Envoy cluster of the flag service in the proxies
    #[arg(long, default_value = "versionflag")]
    pub(in crate::cli) flag_service_cluster: String,
    #[command(flatten)]
    pub(in crate::cli) names: Names,
    #[command(flatten)]
    pub(in crate::cli) plugin: PluginArgs,
    /// The only hosts that checks may ask, such as prometheus.monitoring,*.hooks.svc; all of them unless given
    #[arg(long, env = "VERSIONFLAG_CHECK_HOSTS", value_name = "HOST", value_delimiter = ',')]
    pub(in crate::cli) check_hosts: Option<Vec<CheckHost>>,
    /// Append one JSON object per line to this file for everything that happens; - for stdout
    #[arg(long, env = "VERSIONFLAG_AUDIT_LOG", value_name = "FILE")]
    pub(in crate::cli) audit_log: Option<PathBuf>,
    /// Log one JSON object per line on stderr
    #[arg(long)]
    pub(in crate::cli) log_json: bool,
}

/// Whether proxies have to show the certificates of their workloads.
#[derive(Debug, Args)]
#[group(skip)]
pub(in crate::cli) struct MtlsArgs {
    /// Believe polls and reports by mutual TLS only, or by a token of the pod: where Istio's agent writes the
    /// certificates of this one (OUTPUT_CERTS)
    #[arg(long, env = "VERSIONFLAG_MTLS_CERTS", value_name = "DIR")]
    pub(in crate::cli) mtls_certs: Option<PathBuf>,
    /// Where the flag service listens for it
    #[arg(long, default_value = "[::]:7071")]
    pub(in crate::cli) mtls_listen: std::net::SocketAddr,
}

/// How Istio delivers the filter.
#[derive(Debug, Args)]
#[group(skip)]
pub(in crate::cli) struct PluginArgs {
    /// Where Istio finds the filter: oci://REGISTRY/NAME@sha256:DIGEST
    #[arg(long, env = "VERSIONFLAG_PLUGIN_URL")]
    pub(in crate::cli) plugin_url: Option<String>,
    /// SHA-256 of the filter, if its address has none
    #[arg(long, env = "VERSIONFLAG_PLUGIN_SHA256")]
    pub(in crate::cli) plugin_sha256: Option<String>,
    /// Secret to pull the filter with, in the namespace of the proxies
    #[arg(long, env = "VERSIONFLAG_PLUGIN_PULL_SECRET")]
    pub(in crate::cli) plugin_pull_secret: Option<String>,
    /// Istio's root namespace
    #[arg(long, default_value = "istio-system")]
    pub(in crate::cli) istio_root_namespace: String,
    /// Port of the Service of the flag service [default: 7070, or 7071 with --mtls-certs]
    #[arg(long)]
    pub(in crate::cli) service_port: Option<u16>,
}
