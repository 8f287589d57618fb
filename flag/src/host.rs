//! Hosts as they are compared: without port, case or trailing dot. Pure.

use std::borrow::Cow;

/// The comparable form of an authority. Borrows unless it has upper-case letters.
pub fn normalize(authority: &str) -> Cow<'_, str> {
    // Most are in that form already, and this is done for every request.
    let other = |byte: u8| byte.is_ascii_uppercase() || byte == b':';
    if !authority.ends_with('.') && !authority.bytes().any(other) {
        return Cow::Borrowed(authority);
    }
    normalized(authority)
}

#[cold]
fn normalized(authority: &str) -> Cow<'_, str> {
    let host = without_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand inside brackets.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// The version that a cluster name of Istio's form `outbound|PORT|SUBSET|HOST` stands for, and
/// its host.
pub fn istio_subset(cluster: &str) -> Option<(&str, &str)> {
    istio(cluster).filter(|(subset, _)| !subset.is_empty())
}

/// The host of a cluster of Istio's.
pub fn istio_host(cluster: &str) -> Option<&str> {
    istio(cluster).map(|(_, host)| host)
}

fn istio(cluster: &str) -> Option<(&str, &str)> {
    let mut parts = cluster.strip_prefix("outbound|")?.splitn(3, '|');
    let (_port, subset, host) = (parts.next()?, parts.next()?, parts.next()?);
    Some((subset, host))
}
