//! The file of the operator: the spec, and how each version is started. I/O: reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use flag::config::Role;
use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use machine::duration::Millis;
use machine::spec::{Service, Spec};

use super::files::plain;
use super::schema;
use super::yaml::{Document, Wrong, only_document};

mod ready;

pub use ready::{ListenerOf, Ready};

const MAX_BYTES: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// Not used here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// How it is done on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Local {
    /// Where the status is remembered; by default beside the file, with the ending `.state.json`.
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
    /// Where the output of versions goes.
    #[serde(default)]
    pub logs: LogFiles,
    /// How versions are started, by name.
    pub versions: BTreeMap<String, VersionCommand>,
}

/// Where the output of versions goes, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LogFiles {
    /// The folder; that of the state file unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// A file that is larger, such as `10Mi`, is begun anew.
    pub max_size: String,
    /// How many files of before are kept.
    pub keep: u32,
}

impl Default for LogFiles {
    fn default() -> Self {
        LogFiles { directory: None, max_size: "10Mi".to_owned(), keep: 3 }
    }
}

impl LogFiles {
    /// [`LogFiles::max_size`] in bytes.
    pub(crate) fn max_bytes(&self) -> u64 {
        machine::quantity::parse(&self.max_size).map_or(u64::MAX, |milli| milli / 1_000)
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7070))
}

/// One expected proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExpectedProxy {
    /// Its node id, by which it reports.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Sidecar {
    /// One of `spec.services`.
    pub service: String,
    /// One of `local.versions`.
    pub version: String,
    /// The file that it reads the filter from.
    pub filter: PathBuf,
    /// Where it takes requests for the version.
    pub listen: SocketAddr,
}

/// The file that Envoy reads the filter from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FilterConfig {
    /// The file with the filter and its flag, which the controller writes.
    pub path: PathBuf,
    /// The file that Envoy reads the routes from; without, the routes are the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<PathBuf>,
    /// The file that Envoy reads the clusters of versions from; without, they are the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<PathBuf>,
    /// The filter itself: `versionflag.wasm`, at the same path for the controller and for every Envoy.
    pub wasm: PathBuf,
    /// The Envoy cluster of the flag service.
    #[serde(default = "default_cluster")]
    pub cluster: String,
    /// Where the filter stands.
    #[serde(default)]
    #[schemars(schema_with = "schema::role")]
    pub role: Role,
}

fn default_cluster() -> String {
    "versionflag".to_owned()
}

/// How one version is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VersionCommand {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs; the file's directory unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// More environment, besides that of the controller.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it listens, such as `127.0.0.1:9001`.
    pub address: SocketAddr,
    /// It speaks HTTP/2 without TLS, as gRPC does, and nothing else.
    #[serde(default)]
    pub http2: bool,
    /// When it is ready; without, as soon as it takes connections.
    #[serde(default)]
    pub ready: Ready,
    /// How it is stopped.
    #[serde(default)]
    pub stop: Stop,
    /// Which process is this version, if somebody else has started it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
    /// What it needs of the machine: it is not started where that is not free.
    #[serde(default)]
    pub resources: Resources,
}

/// How a process is found that somebody else has started. From then on it is like one that was started here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Adopt {
    /// It is the one that listens on the address of the version.
    Listener,
    /// Its pid is in this file, and it, or a child of it, listens on the address of the version.
    #[serde(rename = "pidFile")]
    PidFile(PathBuf),
}

/// How a version is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

impl Stop {
    /// [`Stop::signal`], which is a signal in every valid file.
    pub(crate) fn signal(&self) -> Signal {
        self.signal.parse().unwrap_or(Signal::SIGTERM)
    }
}

/// What a version needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Resources {
    /// How much memory, such as `100Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// How many CPUs, such as `500m`.
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
    /// A directory without flags.
    #[error("{0} has no file that ends in .yaml or .yml: put the VersionFlags there, or name their files")]
    NoFiles(PathBuf),
    /// Not understood, or not valid.
    #[error("{path}: {}", wrong.iter().map(Wrong::to_string).collect::<Vec<_>>().join("; "))]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Everything that is wrong.
        wrong: Vec<Wrong>,
    },
    /// Several files.
    #[error("{}", .0.iter().map(FileError::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<FileError>),
}

/// The text of a file that an operator may write, which is of a bounded size.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let read = |error| FileError::Read { path: path.to_owned(), error };
    let mut text = String::new();
    // Not all that can be read has a size that is known before.
    std::fs::File::open(path).map_err(read)?.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > MAX_BYTES { Err(FileError::TooLarge(path.to_owned())) } else { Ok(text) }
}

impl File {
    /// Reads and validates. Relative paths become relative to the file.
    pub fn read(path: &Path) -> Result<File, FileError> {
        File::parse(&read_text(path)?, path)
    }

    /// Parses and validates the text of the file at `path`, which has one document.
    pub fn parse(text: &str, path: &Path) -> Result<File, FileError> {
        let refused = |wrong| FileError::Wrong { path: path.to_owned(), wrong };
        let document = only_document(text).map_err(|error| refused(vec![error]))?;
        File::of(&document, path, true).map_err(refused)
    }

    /// Validates a document of the file at `path`, which is `alone` there or one of several.
    pub(crate) fn of(document: &Document, path: &Path, alone: bool) -> Result<File, Vec<Wrong>> {
        let mut file: File = document.read()?;
        let wrong = file.validate();
        if !wrong.is_empty() {
            return Err(wrong.into_iter().map(|one| document.wrong(one)).collect());
        }
        let directory = directory_of(path);
        let name = Some(file.metadata.name.as_str()).filter(|_| !alone);
        file.local.state_file = directory.join(state_file(path, name, &file.local.state_file));
        let of_envoy = |path: &Path| plain(&directory.join(path));
        if let Some(filter) = &mut file.local.filter_config {
            filter.path = of_envoy(&filter.path);
            filter.routes = filter.routes.as_deref().map(of_envoy);
            filter.clusters = filter.clusters.as_deref().map(of_envoy);
            filter.wasm = of_envoy(&filter.wasm);
        }
        for sidecar in file.local.proxies.iter_mut().filter_map(|proxy| proxy.sidecar.as_mut()) {
            sidecar.filter = of_envoy(&sidecar.filter);
        }
        file.local.logs.directory = file.local.logs.directory.take().map(|logs| directory.join(logs));
        let wrong = file.overwritten(path);
        if !wrong.is_empty() {
            return Err(wrong.into_iter().map(|one| document.wrong(one)).collect());
        }
        for version in file.local.versions.values_mut() {
            if let Some(Adopt::PidFile(pid_file)) = &mut version.adopt {
                *pid_file = directory.join(&*pid_file);
            }
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
    /// The fields besides versions in which another one differs, and which an edit may change.
    pub(crate) fn differs_from(&self, other: &Local) -> impl Iterator<Item = &'static str> + use<> {
        let fields = [
            ("proxies", self.proxies != other.proxies),
            ("filterConfig", self.filter_config != other.filter_config),
            ("logs", self.logs != other.logs),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field)
    }

    /// Every file that is written for proxies.
    pub fn written(&self) -> impl Iterator<Item = &PathBuf> {
        let filter = self.filter_config.iter();
        let files = filter.flat_map(|filter| [Some(&filter.path), filter.routes.as_ref(), filter.clusters.as_ref()]);
        files.flatten().chain(self.sidecars().map(|sidecar| &sidecar.filter))
    }

    /// The proxies that stand in front of a version.
    pub fn sidecars(&self) -> impl Iterator<Item = &Sidecar> {
        self.proxies.iter().filter_map(|proxy| proxy.sidecar.as_ref())
    }

    /// The proxy in front of a version of a service, if it has one.
    pub fn in_front(&self, service: &str, version: &str) -> Option<&Sidecar> {
        self.sidecars().find(|one| one.service == service && one.version == version)
    }

    /// The ids of those that stand in front of this version.
    pub fn beside(&self, version: &str) -> BTreeSet<String> {
        let beside = |proxy: &&ExpectedProxy| proxy.sidecar.as_ref().is_some_and(|one| one.version == version);
        self.proxies.iter().filter(beside).map(|proxy| proxy.id.clone()).collect()
    }
}

/// The folder that relative paths of the file at `path` are in.
pub(crate) fn directory_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// The configured state file, or the one beside the file: by the name of the flag, where the file has several.
pub(crate) fn state_file(path: &Path, flag: Option<&str>, configured: &Path) -> PathBuf {
    match flag {
        _ if !configured.as_os_str().is_empty() => configured.to_owned(),
        Some(flag) => format!("{flag}.state.json").into(),
        None => path.with_extension("state.json").file_name().unwrap_or_default().into(),
    }
}
