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

/// Up to the first colon, whatever follows: Envoy's domain `reviews:*` is met by `reviews:80:90`, too.
fn without_port(authority: &str) -> &str {
    // The colons of an IPv6 address stand inside brackets.
    let address = authority.rfind(']').map_or(0, |end| end + 1);
    let port = authority.bytes().skip(address).position(|byte| byte == b':');
    port.and_then(|port| authority.get(..address + port)).unwrap_or(authority)
}

/// Whether this is a host, with a port or without: no pattern and no URL. A filter compares whole hosts.
pub fn is_host(text: &str) -> bool {
    let host = without_port(text);
    let port = text.get(host.len()..).unwrap_or_default();
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !host.is_empty() && host != "." && host.bytes().all(name);
    let has_port = port.strip_prefix(':').is_none_or(|port| port.parse::<u16>().is_ok());
    has_port && inner.map_or(is_name, |inner| !inner.is_empty() && inner.bytes().all(address))
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
