//! Who may speak for a proxy. I/O: only what the functions that a cluster gives do, to have a token reviewed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::lock::lock;
use crate::spiffe::ClientIdentity;

/// Finds the name of the proxy that a token belongs to. The error says why there is none.
pub type TokenReviewer =
    Box<dyn Fn(&str) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// Whether the proxy of a name is at an address, from which somebody has shown this certificate. The error says why
/// it is not believed to be.
pub type AddressCheck = Box<dyn Fn(&str, IpAddr, Option<&ClientIdentity>) -> Result<(), String> + Send + Sync>;

/// Where a request comes from, and what it shows of its sender.
#[derive(Debug)]
pub(crate) struct Credentials {
    address: SocketAddr,
    /// What the certificate of the connection says, where it has mutual TLS.
    certificate: Option<Arc<ClientIdentity>>,
    /// The bearer token of the request.
    token: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Credentials {
    type Rejection = <ConnectInfo<SocketAddr> as FromRequestParts<S>>::Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Credentials, Self::Rejection> {
        let ConnectInfo(address) = ConnectInfo::from_request_parts(parts, state).await?;
        let token =
            parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let certificate = parts.extensions.get().cloned();
        Ok(Credentials { address, certificate, token: token.map(str::to_owned) })
    }
}

/// How the senders of requests are told apart.
pub enum Authenticator {
    /// By a list of proxies, each with its token. Without a token only this machine is believed.
    Listed(Mutex<BTreeMap<String, Option<String>>>),
    /// By tokens that somebody else vouches for; by their certificate and address, or their address alone, where
    /// they show none.
    Reviewed {
        /// Finds the proxy of a token.
        review: TokenReviewer,
        /// Judges a request without a token by its address and certificate.
        addressed: AddressCheck,
    },
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Authenticator::Listed(_) => "Listed",
            Authenticator::Reviewed { .. } => "Reviewed",
        })
    }
}

impl Authenticator {
    /// An empty list of proxies.
    pub fn listed() -> Authenticator {
        Authenticator::Listed(Mutex::default())
    }

    /// Replaces the list: the names of the proxies, each with its token if it has one.
    pub fn set_proxies(&self, tokens: BTreeMap<String, Option<String>>) {
        if let Authenticator::Listed(list) = self {
            *lock(list) = tokens;
        }
    }

    /// Whether the sender of a request may speak for this proxy. The error describes the sender.
    pub(crate) async fn authenticate(&self, credentials: &Credentials, proxy: &str) -> Result<(), String> {
        let Credentials { address: peer, certificate, token } = credentials;
        match self {
            Authenticator::Listed(list) => {
                let known = lock(list).get(proxy).cloned();
                check_listed(known, *peer, token.as_deref())
            }
            Authenticator::Reviewed { review, addressed } => {
                let address = peer.ip().to_canonical();
                if let Some(certificate) = certificate {
                    return addressed(proxy, address, Some(certificate)).map_err(|why| format!("{peer}: {why}"));
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

fn check_listed(known: Option<Option<String>>, peer: SocketAddr, given: Option<&str>) -> Result<(), String> {
    match known {
        None => Err(format!("{peer}, and no proxy of that name is expected: add it to local.proxies")),
        Some(Some(token)) if !is_same_token(given.unwrap_or_default(), &token) => {
            Err(format!("{peer}, without that proxy's token"))
        }
        Some(None) if !is_this_machine(peer) => {
            Err(format!("{peer}, which is another machine, and the proxy has no token configured"))
        }
        Some(_) => Ok(()),
    }
}

/// Whether somebody is on this machine. Nothing else of 127.0.0.0/8: from 127.0.0.6 a sidecar of Istio's hands on
/// what anybody sends.
pub(crate) fn is_this_machine(peer: SocketAddr) -> bool {
    let here: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    here.contains(&peer.ip().to_canonical())
}

/// Compares digests in constant time: how long it takes tells neither the token nor its length.
fn is_same_token(given: &str, token: &str) -> bool {
    Sha256::digest(given.as_bytes()).ct_eq(&Sha256::digest(token.as_bytes())).into()
}
