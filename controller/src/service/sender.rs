//! Who may speak for a proxy. Pure.

use std::net::SocketAddr;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::Hub;

/// Whether the sender of a request may speak for this proxy. The error describes the sender.
pub(super) fn check(hub: &Hub, peer: SocketAddr, headers: &HeaderMap, proxy: &str) -> Result<(), String> {
    match hub.token_of(proxy) {
        None => Err(format!("{peer}, and no proxy of that name is expected: add it to local.proxies")),
        Some(Some(token)) if !bears(headers, &token) => Err(format!("{peer}, without that proxy's token")),
        Some(None) if !peer.ip().to_canonical().is_loopback() => {
            Err(format!("{peer}, which is another machine, and the proxy has no token configured"))
        }
        Some(_) => Ok(()),
    }
}

/// Compares digests, so that the time taken says nothing about the token.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let (one, other) = (Sha256::digest(given.as_bytes()), Sha256::digest(token.as_bytes()));
    one.iter().zip(other.iter()).fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}
