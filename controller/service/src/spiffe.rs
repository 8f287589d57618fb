//! Who a certificate of the mesh says that somebody is. Pure.

use std::fmt;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// An account of a namespace, as the certificates of its pods name it:
/// `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Whose certificates tell.
    pub domain: String,
    /// Of Kubernetes.
    pub namespace: String,
    /// Its ServiceAccount.
    pub account: String,
}

/// What the certificate of a client says, or why that is not believed.
pub type Shown = Result<Workload, IdentityError>;

/// Why a certificate says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No certificate.
    #[error("its certificate cannot be read: {0}")]
    Unreadable(String),
    /// A SPIFFE certificate has exactly one.
    #[error("its certificate has {0} URIs, and has to have one")]
    Uris(usize),
    /// Another kind of name.
    #[error("its certificate is of {0:?}, and not of spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT")]
    Name(String),
    /// Of another mesh.
    #[error("its certificate is of the trust domain {theirs:?}, and this controller's of {ours:?}")]
    Domain {
        /// That of the client.
        theirs: String,
        /// That of the controller.
        ours: String,
    },
}

impl Workload {
    /// Whose certificate it is.
    pub fn of(certificate: &CertificateDer<'_>) -> Shown {
        let certificate = EndEntityCert::try_from(certificate);
        let certificate = certificate.map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        Workload::named(&certificate.valid_uri_names().collect::<Vec<_>>())
    }

    /// By the URIs of a certificate.
    pub fn named(uris: &[&str]) -> Shown {
        let [uri] = uris else { return Err(IdentityError::Uris(uris.len())) };
        let parts = || {
            let mut parts = uri.strip_prefix("spiffe://")?.split('/');
            let workload = match [parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?] {
                [domain, "ns", namespace, "sa", account] => [domain, namespace, account],
                _ => return None,
            };
            (parts.next().is_none() && workload.iter().all(|part| !part.is_empty())).then_some(workload)
        };
        let [domain, namespace, account] =
            parts().ok_or_else(|| IdentityError::Name(flag::shortened(uri).to_owned()))?.map(str::to_owned);
        Ok(Workload { domain, namespace, account })
    }

    /// The same if it is of this trust domain.
    pub fn within(self, domain: &str) -> Shown {
        if self.domain == domain {
            return Ok(self);
        }
        Err(IdentityError::Domain { theirs: flag::shortened(&self.domain).to_owned(), ours: domain.to_owned() })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "spiffe://{}/ns/{}/sa/{}", self.domain, self.namespace, self.account)
    }
}
