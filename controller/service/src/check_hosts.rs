//! Which hosts checks may ask: who may write a VersionFlag has the controller send requests from where it is. Pure.

use std::str::FromStr;

use hyper::Uri;

/// A host, or all below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckHost {
    name: String,
    /// All below it, and not itself.
    below: bool,
}

/// Why something is no such host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host: write it as prometheus.monitoring, or as *.monitoring.svc for all below it, without port and path"
)]
pub struct CheckHostError(String);

impl FromStr for CheckHost {
    type Err = CheckHostError;

    fn from_str(text: &str) -> Result<CheckHost, CheckHostError> {
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        // An address of IPv6 is written as in a URL.
        let is_address = name.starts_with('[') && name.ends_with(']');
        if name.is_empty() || !is_address && !name.bytes().all(plain) {
            return Err(CheckHostError(text.to_owned()));
        }
        Ok(CheckHost { name: normal(name), below })
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl CheckHost {
    fn is(&self, host: &str) -> bool {
        if self.below {
            host.strip_suffix(self.name.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.name
        }
    }
}

/// Whether a check may ask this URL, where only some hosts may be asked. The error says why not.
pub fn may_ask(hosts: Option<&[CheckHost]>, url: &str) -> Result<(), String> {
    let Some(hosts) = hosts else { return Ok(()) };
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(normal)).unwrap_or_default();
    if hosts.iter().any(|one| one.is(&host)) {
        return Ok(());
    }
    Err(format!("host {host:?} may not be asked: who runs the controller has to name it in --check-hosts"))
}
