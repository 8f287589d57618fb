//! Who a certificate of the mesh says that somebody is. Pure.

use std::fmt;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The identity of an account of a namespace, as the certificates of its pods name it:
/// `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeId {
    /// The trust domain: whose certificates tell.
    pub domain: String,
    /// The namespace of Kubernetes.
    pub namespace: String,
    /// The name of the ServiceAccount.
    pub account: String,
}

/// What the certificate of a client says, or why that is not believed.
pub type ClientIdentity = Result<SpiffeId, IdentityError>;

/// Why a certificate says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is no certificate.
    #[error("its certificate cannot be read: {0}")]
    Unreadable(String),
    /// The number of its URIs: a SPIFFE certificate has exactly one.
    #[error("its certificate has {0} URIs, and has to have one")]
    Uris(usize),
    /// Its URI names something else.
    #[error("its certificate is of {0:?}, and not of spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT")]
    Name(String),
    /// It is of another mesh.
    #[error("its certificate is of the trust domain {theirs:?}, and this controller's of {ours:?}")]
    Domain {
        /// The trust domain of the client.
        theirs: String,
        /// The trust domain of the controller.
        ours: String,
    },
}

impl SpiffeId {
    /// The identity that a certificate is of.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> ClientIdentity {
        let certificate = EndEntityCert::try_from(certificate);
        let certificate = certificate.map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        SpiffeId::from_uris(&certificate.valid_uri_names().collect::<Vec<_>>())
    }

    /// The identity that the URIs of a certificate name.
    pub fn from_uris(uris: &[&str]) -> ClientIdentity {
        let [uri] = uris else { return Err(IdentityError::Uris(uris.len())) };
        let parts = || {
            let mut parts = uri.strip_prefix("spiffe://")?.split('/');
            let account = match [parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?] {
                [domain, "ns", namespace, "sa", account] => [domain, namespace, account],
                _ => return None,
            };
            (parts.next().is_none() && account.iter().all(|part| !part.is_empty())).then_some(account)
        };
        let [domain, namespace, account] =
            parts().ok_or_else(|| IdentityError::Name(flag::shortened(uri).to_owned()))?.map(str::to_owned);
        Ok(SpiffeId { domain, namespace, account })
    }

    /// The same identity, if it is of this trust domain.
    pub fn of_trust_domain(self, domain: &str) -> ClientIdentity {
        if self.domain == domain {
            return Ok(self);
        }
        Err(IdentityError::Domain { theirs: flag::shortened(&self.domain).to_owned(), ours: domain.to_owned() })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "spiffe://{}/ns/{}/sa/{}", self.domain, self.namespace, self.account)
    }
}
