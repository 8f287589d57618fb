//! Who may speak for a proxy. I/O: only where a token has to be reviewed elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};

use super::spiffe::Shown;
use crate::lock::lock;

/// Finds the proxy that a token belongs to. The error says why there is none.
pub type Review = Box<dyn Fn(&str) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// Whether a proxy is at an address, from which somebody has shown this certificate. The error says why it is not
/// believed to be.
pub type Addressed = Box<dyn Fn(&str, IpAddr, Option<&Shown>) -> Result<(), String> + Send + Sync>;

/// Where a request comes from, and what it shows of its sender.
#[derive(Debug)]
pub(super) struct Sender {
    peer: SocketAddr,
    /// By mutual TLS.
    shown: Option<Arc<Shown>>,
    token: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Sender {
    type Rejection = <ConnectInfo<SocketAddr> as FromRequestParts<S>>::Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Sender, Self::Rejection> {
        let ConnectInfo(peer) = ConnectInfo::from_request_parts(parts, state).await?;
        let token =
            parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        Ok(Sender { peer, shown: parts.extensions.get().cloned(), token: token.map(str::to_owned) })
    }
}

/// How senders are told apart.
pub enum Senders {
    /// By a list of proxies, each with its token. Without a token only this machine is believed.
    Listed(Mutex<BTreeMap<String, Option<String>>>),
    /// By tokens that somebody else vouches for; by their certificate and address, or their address alone, where
    /// they show none.
    Reviewed {
        /// Whose a token is.
        review: Review,
        /// Whether a proxy is at an address, with this certificate.
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
    pub(super) async fn check(&self, sender: &Sender, proxy: &str) -> Result<(), String> {
        let Sender { peer, shown, token } = sender;
        match self {
            Senders::Listed(list) => {
                let known = lock(list).get(proxy).cloned();
                check_listed(known, *peer, token.as_deref())
            }
            Senders::Reviewed { review, addressed } => {
                let address = peer.ip().to_canonical();
                if let Some(shown) = shown {
                    return addressed(proxy, address, Some(shown)).map_err(|why| format!("{peer}: {why}"));
                }
                let Some(token) = token else {
                    return addressed(proxy, address, None).map_err(|why| format!("{peer}, without a token: {why}"));
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

fn check_listed(known: Option<Option<String>>, peer: SocketAddr, shown: Option<&str>) -> Result<(), String> {
    match known {
        None => Err(format!("{peer}, and no proxy of that name is expected: add it to local.proxies")),
        Some(Some(token)) if !equal(shown.unwrap_or_default(), &token) => {
            Err(format!("{peer}, without that proxy's token"))
        }
        Some(None) if !is_here(peer) => {
            Err(format!("{peer}, which is another machine, and the proxy has no token configured"))
        }
        Some(_) => Ok(()),
    }
}

/// Whether somebody is on this machine. Nothing else of 127.0.0.0/8: from 127.0.0.6 a sidecar of Istio's hands on
/// what anybody sends.
pub(super) fn is_here(peer: SocketAddr) -> bool {
    let here: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    here.contains(&peer.ip().to_canonical())
}

/// Compares digests, so that the time taken says nothing about the token.
fn equal(given: &str, token: &str) -> bool {
    let (one, other) = (Sha256::digest(given.as_bytes()), Sha256::digest(token.as_bytes()));
    one.iter().zip(other.iter()).fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}
