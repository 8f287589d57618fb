//! What the turns of all flags work with, and why one ends early. No I/O.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use service::Hub;
use service::audit::Audit;
use service::check_runner::CheckRunner;

use super::cache::Cache;
use super::consent::Consents;
use super::domain::Domain;
use super::hosts::Taken;
use super::istio::mesh::{Mesh, MeshError};
use super::lease::Leadership;
use super::writer::Writer;

/// By namespace, the routing header of the oldest flag there, and that flag's name.
pub(crate) type Headers = BTreeMap<String, (String, String)>;

/// What a turn works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) hub: &'a Hub,
    pub(crate) writer: &'a Writer,
    pub(crate) leadership: &'a Leadership,
    pub(crate) checks: &'a Arc<CheckRunner>,
    /// Where the proxies that read files find the filter.
    pub(crate) filter_path: &'a Path,
    /// Their Envoy cluster of the flag service.
    pub(crate) flag_service_cluster: &'a str,
    pub(crate) mesh: &'a Mesh,
    pub(crate) domain: &'a Domain,
    /// The header that the oldest flag of each namespace with Istio's filter asks for, and that flag's name.
    pub(crate) headers: &'a Headers,
    /// The flags that name a host which another one has.
    pub(crate) taken: &'a Taken,
    /// What other namespaces have agreed to.
    pub(crate) consents: &'a Consents,
    pub(crate) audit: &'a Audit,
    /// How many flags there are.
    pub(crate) flags: usize,
}

/// Why a turn ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("its files for the proxies cannot be made: {0}")]
    Files(#[from] serde_json::Error),
    #[error(
        "ConfigMap {name} would have {bytes} bytes of files, and may have {most}: put fewer services or hosts into one \
         VersionFlag"
    )]
    TooLarge { name: String, bytes: usize, most: usize },
    #[error(transparent)]
    Mesh(#[from] MeshError),
    #[error("this replica acts no more")]
    Deposed,
}
