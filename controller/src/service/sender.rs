//! Who may speak for a proxy. I/O: only where a token has to be reviewed elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Mutex;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::hub::lock;

/// Finds the proxy that a token belongs to. The error says why there is none.
pub type Review = Box<dyn Fn(&str) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// Whether a proxy is at an address. The error says why it is not believed to be.
pub type Addressed = Box<dyn Fn(&str, IpAddr) -> Result<(), String> + Send + Sync>;

/// How senders are told apart.
pub enum Senders {
    /// By a list of proxies, each with its token. Without a token only this machine is believed.
    Listed(Mutex<BTreeMap<String, Option<String>>>),
    /// By tokens that somebody else vouches for, and by their address where they show none.
    Reviewed {
        /// Whose a token is.
        review: Review,
        /// Whether a proxy is at an address.
        addressed: Addressed,
    },
}

impl fmt::Debug for Senders {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Senders::Listed(_) => "Listed",
            Senders::Reviewed { .. } => "Reviewed",
        })
    }
}

impl Senders {
    /// An empty list.
    pub fn listed() -> Senders {
        Senders::Listed(Mutex::default())
    }

    /// Replaces the list.
    pub fn know(&self, tokens: BTreeMap<String, Option<String>>) {
        if let Senders::Listed(list) = self {
            *lock(list) = tokens;
        }
    }

    /// Whether the sender of a request may speak for this proxy. The error describes the sender.
    pub(super) async fn check(&self, peer: SocketAddr, headers: &HeaderMap, proxy: &str) -> Result<(), String> {
        match self {
            Senders::Listed(list) => {
                let known = lock(list).get(proxy).cloned();
                check_listed(known, peer, headers)
            }
            Senders::Reviewed { review, addressed } => {
                let Some(token) = bearer(headers) else {
                    let address = peer.ip().to_canonical();
                    return addressed(proxy, address).map_err(|why| format!("{peer}, without a token: {why}"));
                };
                match review(token).await {
                    Ok(found) if found == proxy => Ok(()),
                    Ok(found) => Err(format!("{peer}, with the token of {found:?}")),
                    Err(why) => Err(format!("{peer}, with a token that is not good: {why}")),
                }
            }
        }
    }
}

fn check_listed(known: Option<Option<String>>, peer: SocketAddr, headers: &HeaderMap) -> Result<(), String> {
    match known {
        None => Err(format!("{peer}, and no proxy of that name is expected: add it to local.proxies")),
        Some(Some(token)) if !equal(bearer(headers).unwrap_or_default(), &token) => {
            Err(format!("{peer}, without that proxy's token"))
        }
        Some(None) if !peer.ip().to_canonical().is_loopback() => {
            Err(format!("{peer}, which is another machine, and the proxy has no token configured"))
        }
        Some(_) => Ok(()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Compares digests, so that the time taken says nothing about the token.
fn equal(given: &str, token: &str) -> bool {
    let (one, other) = (Sha256::digest(given.as_bytes()), Sha256::digest(token.as_bytes()));
    one.iter().zip(other.iter()).fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}
