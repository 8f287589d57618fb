//! The flag itself: what a valid record is, and its content hash. Pure.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{digest, host, limits, read_fields, read_words};

/// Whether callers from outside the group may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Requests go to the active version.
    #[default]
    Open,
    /// Callers outside the group wait while the old version drains.
    Hold,
}

/// One service of the group that is switched together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The service's name, unique in the group.
    pub service: String,
    /// The hosts by which callers name it.
    pub hosts: BTreeSet<String>,
    /// The labels of its pods, each as `key=value`: by these a proxy knows that it stands beside one.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub selector: BTreeSet<String>,
    /// Envoy clusters by version: tells at the response which version really served.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub clusters: BTreeMap<String, BTreeSet<String>>,
}

/// A way to try a version before it is active: a request header with an exact value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Header name, lower case.
    pub header: String,
    /// The value that the header must have.
    pub value: String,
    /// The version such a request goes to.
    pub version: String,
}

/// The record of one flag. `hash` covers everything else in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Identity: a flag that was deleted and made again is another flag.
    pub uid: String,
    /// For people, `namespace/name`.
    pub name: String,
    /// Where the services are, if they are Kubernetes Services that proxies can know by themselves.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The label that says which version a pod is of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version_label: String,
    /// The higher one always wins.
    pub epoch: u64,
    /// The version that requests go to.
    pub active: String,
    /// Whether callers outside the group may pass.
    pub gate: Gate,
    /// The services that move together.
    pub members: Vec<Member>,
    /// Every version that may be asked for, the active one included.
    pub versions: BTreeSet<String>,
    /// Requests that may choose a version themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// Content hash, made by [`Record::seal`].
    pub hash: String,
}

read_words! { Gate { "open": Open, "hold": Hold } }

read_fields! { Member {
    service: "service",
    hosts: "hosts",
    selector: "selector" or BTreeSet::new(),
    clusters: "clusters" or BTreeMap::new(),
} }

read_fields! { Preview { header: "header", value: "value", version: "version" } }

read_fields! { Record {
    uid: "uid",
    name: "name",
    namespace: "namespace" or String::new(),
    version_label: "versionLabel" or String::new(),
    epoch: "epoch",
    active: "active",
    gate: "gate" or Gate::Open,
    members: "members",
    versions: "versions",
    preview: "preview" or None,
    hash: "hash" or String::new(),
} }

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A name is empty, too long or has characters that it may not have.
    #[error("{field} {} is not a valid name: {rule}", crate::quoted(.value))]
    Name {
        /// Which field.
        field: &'static str,
        /// What was given, shortened.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// A list is empty or too long.
    #[error("{field} has {count} entries; it may have 1 to {max}")]
    Count {
        /// Which field.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A version is used that `versions` does not list.
    #[error("{field} names version {}, which is not in `versions`", crate::quoted(.version))]
    UnknownVersion {
        /// Which field.
        field: &'static str,
        /// The version.
        version: String,
    },
    /// Two members share a name, a host or a cluster.
    #[error("{field} {} occurs twice", crate::quoted(.value))]
    Twice {
        /// Which field.
        field: &'static str,
        /// What occurs twice.
        value: String,
    },
    /// The hash is not that of the content.
    #[error("hash {} is not that of the content, \"{expected}\": the record was changed on its way", crate::quoted(.found))]
    Hash {
        /// As computed here.
        expected: String,
        /// As given.
        found: String,
    },
    /// Epoch 0 is "none".
    #[error("epoch is 0; the first epoch is 1")]
    EpochZero,
}

const LABEL: &str = "letters, digits, '-', '_' and '.', at most 63, starting and ending with a letter or digit";
const VISIBLE: &str = "visible ASCII without quotes, at most 253";

/// Checks that a version is a Kubernetes label value.
pub fn check_version(field: &'static str, version: &str) -> Result<(), RecordError> {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = version.as_bytes();
    let fits = bytes.len() <= limits::VERSION_BYTES
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    if fits { Ok(()) } else { Err(name_error(field, version, LABEL)) }
}

/// Checks any other name.
pub fn check_name(field: &'static str, name: &str) -> Result<(), RecordError> {
    let fits = (1..=limits::NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if fits { Ok(()) } else { Err(name_error(field, name, VISIBLE)) }
}

fn name_error(field: &'static str, value: &str, rule: &'static str) -> RecordError {
    RecordError::Name { field, value: crate::shortened(value), rule }
}

fn check_count(field: &'static str, count: usize, max: usize) -> Result<(), RecordError> {
    if (1..=max).contains(&count) { Ok(()) } else { Err(RecordError::Count { field, count, max }) }
}

impl Record {
    /// Validates the content and gives it its hash.
    pub fn seal(mut self) -> Result<Record, RecordError> {
        for member in &mut self.members {
            let hosts = std::mem::take(&mut member.hosts);
            member.hosts.extend(hosts.iter().map(|host| host::normalize(host).into_owned()));
        }
        self.check_content()?;
        self.hash = self.content_hash();
        Ok(self)
    }

    /// Validates a record that came from elsewhere, hash included.
    pub fn check(&self) -> Result<(), RecordError> {
        self.check_content()?;
        let expected = self.content_hash();
        if expected == self.hash {
            Ok(())
        } else {
            Err(RecordError::Hash { expected, found: crate::shortened(&self.hash) })
        }
    }

    fn check_content(&self) -> Result<(), RecordError> {
        if self.epoch == 0 {
            return Err(RecordError::EpochZero);
        }
        check_name("uid", &self.uid)?;
        check_name("name", &self.name)?;
        for (field, name) in [("namespace", &self.namespace), ("versionLabel", &self.version_label)] {
            if !name.is_empty() {
                check_name(field, name)?;
            }
        }
        check_count("members", self.members.len(), limits::MEMBERS)?;
        check_count("versions", self.versions.len(), limits::VERSIONS)?;
        for version in &self.versions {
            check_version("versions", version)?;
        }
        self.check_listed("active", &self.active)?;
        let (mut services, mut hosts, mut clusters) =
            (FxHashMap::default(), FxHashMap::default(), FxHashMap::default());
        for member in &self.members {
            check_name("service", &member.service)?;
            unique(&mut services, "service", &member.service)?;
            check_count("hosts", member.hosts.len(), limits::HOSTS)?;
            for host in &member.hosts {
                check_name("host", host)?;
                unique(&mut hosts, "host", host)?;
            }
            if !member.selector.is_empty() {
                check_count("selector", member.selector.len(), limits::SELECTOR)?;
            }
            for label in &member.selector {
                check_name("selector", label)?;
            }
            for (version, names) in &member.clusters {
                self.check_listed("clusters", version)?;
                check_count("clusters", names.len(), limits::CLUSTERS)?;
                for name in names {
                    check_name("cluster", name)?;
                    unique(&mut clusters, "cluster", name)?;
                }
            }
        }
        if let Some(preview) = &self.preview {
            check_name("preview.header", &preview.header)?;
            check_name("preview.value", &preview.value)?;
            self.check_listed("preview.version", &preview.version)?;
        }
        Ok(())
    }

    fn check_listed(&self, field: &'static str, version: &str) -> Result<(), RecordError> {
        if self.versions.contains(version) {
            Ok(())
        } else {
            Err(RecordError::UnknownVersion { field, version: crate::shortened(version) })
        }
    }

    fn content_hash(&self) -> String {
        let unhashed = Record { hash: String::new(), ..self.clone() };
        // Field order is fixed and every map is sorted, so equal content gives equal bytes.
        let bytes = serde_json::to_vec(&unhashed).unwrap_or_default();
        digest::hex_prefix(&bytes, 12)
    }
}

fn unique<'a>(seen: &mut FxHashMap<&'a str, &'a str>, field: &'static str, value: &'a str) -> Result<(), RecordError> {
    match seen.insert(value, value) {
        None => Ok(()),
        Some(_) => Err(RecordError::Twice { field, value: value.to_owned() }),
    }
}
