//! The file of the operator: the spec, and how each version is started. I/O: reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use flag::config::Role;
use serde::{Deserialize, Serialize};

use machine::duration::Millis;
use machine::spec::{Service, Spec};

const MAX_BYTES: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct File {
    /// `versionflag.io/v1alpha1`.
    pub api_version: String,
    /// `VersionFlag`.
    pub kind: String,
    /// Its name.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: Spec,
    /// How it is done on this machine.
    pub local: Local,
}

/// Name of the flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// Not used here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// How it is done on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Local {
    /// Where the status is remembered.
    #[serde(default)]
    pub state_file: PathBuf,
    /// Where the flag service listens.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The proxies that have to ack.
    pub proxies: Vec<ExpectedProxy>,
    /// The file that Envoy reads the filter from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_config: Option<FilterConfig>,
    /// How versions are started.
    pub versions: BTreeMap<String, VersionCommand>,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7070))
}

/// One expected proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExpectedProxy {
    /// Its node id.
    pub id: String,
    /// What it has to show when it reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The version that it stands in front of; a proxy without is expected all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Sidecar>,
}

/// A proxy in front of one version: it sees what arrives there, from whomever, and what that
/// version sends to the group. It has to ack while the version runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Sidecar {
    /// One of spec.services.
    pub service: String,
    /// One of the versions.
    pub version: String,
    /// The file that it reads the filter from.
    pub filter: PathBuf,
    /// Where it takes requests for the version.
    pub listen: SocketAddr,
}

/// The file that Envoy reads the filter from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FilterConfig {
    /// The file.
    pub path: PathBuf,
    /// The file that Envoy reads the routes from; without, the routes are the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<PathBuf>,
    /// The filter.
    pub wasm: PathBuf,
    /// The Envoy cluster of the flag service.
    #[serde(default = "default_cluster")]
    pub cluster: String,
    /// Where the filter stands.
    #[serde(default)]
    pub role: Role,
}

fn default_cluster() -> String {
    "versionflag".to_owned()
}

/// How one version is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VersionCommand {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs; the file's directory unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// More environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it is ready; without, as soon as it takes connections.
    #[serde(default)]
    pub ready: Ready,
    /// How it is stopped.
    #[serde(default)]
    pub stop: Stop,
    /// What it needs.
    #[serde(default)]
    pub resources: Resources,
}

/// When a version is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Ready {
    /// A GET of this has to be answered with 2xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How often.
    pub interval: Millis,
}

impl Default for Ready {
    fn default() -> Self {
        Ready { path: None, interval: Millis(200) }
    }
}

/// How a version is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Stop {
    /// Signal to its process group.
    pub signal: String,
    /// After this it is killed.
    pub grace: Millis,
}

impl Default for Stop {
    fn default() -> Self {
        Stop { signal: "SIGTERM".to_owned(), grace: Millis(10_000) }
    }
}

/// What a version needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Resources {
    /// Such as `100Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Such as `500m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{path} cannot be read: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Too large.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// Not YAML of this shape.
    #[error("{path}: {error}")]
    Yaml {
        /// Which.
        path: PathBuf,
        /// Where and why.
        error: String,
    },
    /// Understood, but not valid.
    #[error("{path}: {}", wrong.join("; "))]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Everything that is wrong.
        wrong: Vec<String>,
    },
}

impl File {
    /// Reads and validates. Relative paths become relative to the file.
    pub fn read(path: &Path) -> Result<File, FileError> {
        let read = |error| FileError::Read { path: path.to_owned(), error };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_BYTES {
            return Err(FileError::TooLarge(path.to_owned()));
        }
        File::parse(&std::fs::read_to_string(path).map_err(read)?, path)
    }

    /// Parses and validates the text of the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<File, FileError> {
        let mut file: File = serde_saphyr::from_str(text)
            .map_err(|error| FileError::Yaml { path: path.to_owned(), error: error.to_string() })?;
        let wrong = file.validate();
        if !wrong.is_empty() {
            return Err(FileError::Invalid { path: path.to_owned(), wrong });
        }
        let directory = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let directory = directory.parent().unwrap_or(Path::new("/")).to_owned();
        file.local.state_file = directory.join(state_file(path, &file.local.state_file));
        if let Some(filter) = &mut file.local.filter_config {
            filter.path = directory.join(&filter.path);
            filter.routes = filter.routes.take().map(|routes| directory.join(routes));
            filter.wasm = directory.join(&filter.wasm);
        }
        for sidecar in file.local.proxies.iter_mut().filter_map(|proxy| proxy.sidecar.as_mut()) {
            sidecar.filter = directory.join(&sidecar.filter);
        }
        for version in file.local.versions.values_mut() {
            let inner = version.directory.take().unwrap_or_default();
            version.directory = Some(directory.join(inner));
        }
        Ok(file)
    }

    /// The Envoy clusters of a service by version: those that the spec lists, and those of every version that can be
    /// started.
    pub fn clusters(&self, service: &Service) -> BTreeMap<String, BTreeSet<String>> {
        let versions = service.clusters.keys().chain(self.local.versions.keys());
        versions.map(|version| (version.clone(), service.clusters_of(version))).collect()
    }
}

impl Local {
    /// The proxies that stand in front of a version.
    pub fn sidecars(&self) -> impl Iterator<Item = &Sidecar> {
        self.proxies.iter().filter_map(|proxy| proxy.sidecar.as_ref())
    }
}

/// The configured state file, or the one beside the file.
fn state_file(path: &Path, configured: &Path) -> PathBuf {
    let default = || path.with_extension("state.json").file_name().unwrap_or_default().into();
    if configured.as_os_str().is_empty() { default() } else { configured.to_owned() }
}

/// Where the state of the file at `path` is, even while the file is not valid: whoever made a bad
/// edit wants to see what the controller says about it.
pub fn find_state(path: &Path) -> Result<PathBuf, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Read { path: path.to_owned(), error })?;
    let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap_or_default();
    let configured = value.pointer("/local/stateFile").and_then(|file| file.as_str()).unwrap_or_default();
    let directory = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = directory.parent().unwrap_or(Path::new("/"));
    Ok(directory.join(state_file(path, Path::new(configured))))
}
