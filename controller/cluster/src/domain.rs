//! How a cluster names its Services: `SERVICE.NAMESPACE.svc.DOMAIN`. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use flag::limits;

/// The longest label of a DNS name, in bytes.
const LABEL_BYTES: usize = 63;
/// What has to fit before it: a Service and its namespace, each of them one label.
const BEFORE_BYTES: usize = 2 * (LABEL_BYTES + 1) + "svc.".len();
const BYTES: usize = limits::NAME_BYTES - BEFORE_BYTES;

/// The domain of a cluster: that of its DNS, and with Istio that of `pilot-discovery --domain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain(String);

/// Why something is not the domain of a cluster.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// There is none.
    #[error("it is empty: leave it out for cluster.local")]
    Empty,
    /// No Service would have a name.
    #[error("it is longer than {BYTES} bytes")]
    Long,
    /// It would be twice in every name.
    #[error("svc. belongs to the names of Services, not to the domain: did you mean {0}?")]
    Services(String),
    /// DNS would not take it.
    #[error("{0:?} in it is no label of a domain: small letters, digits and - in between, at most {LABEL_BYTES}")]
    Label(String),
}

impl Default for Domain {
    fn default() -> Domain {
        Domain("cluster.local".to_owned())
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Domain, DomainError> {
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        if text.len() > BYTES {
            return Err(DomainError::Long);
        }
        if let Some(rest) = text.strip_prefix("svc.") {
            return Err(DomainError::Services(rest.to_owned()));
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_label = |label: &str| {
            (1..=LABEL_BYTES).contains(&label.len())
                && label.bytes().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        match text.split('.').find(|label| !is_label(label)) {
            Some(label) => Err(DomainError::Label(label.to_owned())),
            None => Ok(Domain(text.to_owned())),
        }
    }
}

impl Domain {
    /// The full name of a Service.
    pub fn host(&self, service: &str, namespace: &str) -> String {
        format!("{service}.{namespace}.svc.{self}")
    }

    /// The names of a Service by which all namespaces know it.
    pub fn hosts(&self, service: &str, namespace: &str) -> BTreeSet<String> {
        let shorter = ["", ".svc"].map(|end| format!("{service}.{namespace}{end}"));
        shorter.into_iter().chain([self.host(service, namespace)]).collect()
    }

    /// The Service that an object in `place` means by `host`, and its namespace. Without a dot it is one of `place`.
    /// `None`: it is no name of a Service.
    pub fn service_of(&self, host: &str, place: &str) -> Option<(String, String)> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let Some((service, rest)) = host.split_once('.') else { return Some((host, place.to_owned())) };
        let (namespace, end) = rest.split_once('.').unwrap_or((rest, "svc"));
        let is_end = end == "svc" || end.strip_prefix("svc.") == Some(&self.0);
        is_end.then(|| (service.to_owned(), namespace.to_owned()))
    }

    /// Whether an object in `place` that says `host` means this Service.
    pub fn means(&self, host: &str, place: &str, service: &str, namespace: &str) -> bool {
        self.service_of(host, place).is_some_and(|(its, at)| its == service && at == namespace)
    }
}
