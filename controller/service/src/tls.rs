//! Mutual TLS of the flag service, by the certificates that Istio's agent writes into a directory and renews
//! there. I/O: reads these files, shakes hands.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::lock::lock;
use crate::spiffe::{ClientIdentity, IdentityError, SpiffeId};

/// The names that Istio's agent gives its files: the certificate that is shown, its key, and whom to believe.
const FILES: [&str; 3] = ["cert-chain.pem", "key.pem", "root-cert.pem"];
/// Between two looks for files that are not there yet.
const LOOK: Duration = Duration::from_millis(250);

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that may come yet.
    #[error(
        "{0} is not there: mutual TLS waits for Istio's agent to write it, so give the controller a sidecar with \
         OUTPUT_CERTS, as manifests/kubernetes/mtls does"
    )]
    Missing(PathBuf),
    /// A file that is there.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file that has something else in it.
    #[error("{path} has no {what} in it")]
    Lacks {
        /// Path of the file.
        path: PathBuf,
        /// The kind of PEM block that was looked for.
        what: &'static str,
    },
    /// The controller's own certificate does not tell its trust domain.
    #[error("the controller has no identity of the mesh: {0}")]
    Identity(#[from] IdentityError),
    /// The roots are no certificates of authorities.
    #[error("clients cannot be verified: {0}")]
    Roots(#[from] VerifierBuilderError),
    /// Key and certificate do not fit together: one of them was renewed and the other not yet, for one.
    #[error("key and certificate cannot be used: {0}")]
    Pair(#[from] rustls::Error),
}

/// What tells one state of the files from another: inode, bytes and time of change of each.
type FileStamps = [Option<(u64, u64, SystemTime)>; 3];

/// Certificates that connections can be served with.
#[derive(Debug)]
struct Certificates {
    config: Arc<ServerConfig>,
    /// The trust domain of the controller's own certificate.
    domain: String,
}

/// What the files held when they were read last.
#[derive(Debug, Default)]
struct CertificateFiles {
    stamps: Option<FileStamps>,
    /// The last certificates that could be used.
    usable: Option<Arc<Certificates>>,
    /// What is wrong with the files that were read last.
    problem: Option<String>,
}

/// The server's side of mutual TLS.
#[derive(Debug)]
pub struct Tls {
    directory: PathBuf,
    files: Mutex<CertificateFiles>,
}

impl Tls {
    /// Mutual TLS by the files of this directory, which need not be there yet.
    pub fn new(directory: &Path) -> Tls {
        Tls { directory: directory.to_owned(), files: Mutex::default() }
    }

    /// Waits until there are certificates.
    pub async fn ready(&self) {
        while self.problem().is_some() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Why nobody can be served; `None`: everybody can.
    pub fn problem(&self) -> Option<String> {
        self.current().err()
    }

    /// Shakes hands with a client that has a certificate, and says whose that is.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, ClientIdentity)> {
        let certificates = self.current().map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(Arc::clone(&certificates.config)).accept(stream).await?;
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let identity = certificate.map_or(Err(IdentityError::Uris(0)), SpiffeId::from_certificate);
        let identity = identity.and_then(|client| client.of_trust_domain(&certificates.domain));
        Ok((stream, identity))
    }

    /// The certificates as they are now. Who renews them writes one file after the other: what does not fit
    /// together does not replace what does.
    fn current(&self) -> Result<Arc<Certificates>, String> {
        let mut files = lock(&self.files);
        // Three looks at a file system in memory: not worth another thread. Before the files are read, so that
        // what is written meanwhile is seen the next time.
        let stamps = FILES.map(|name| {
            let found = fs::metadata(self.directory.join(name)).ok()?;
            Some((found.ino(), found.len(), found.modified().ok()?))
        });
        if files.stamps != Some(stamps) {
            files.stamps = Some(stamps);
            let problem = match self.read() {
                Ok(certificates) => {
                    tracing::info!(trust_domain = certificates.domain, "the certificates of mutual TLS were read");
                    files.usable = Some(Arc::new(certificates));
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = problem.as_ref().filter(|error| files.problem.as_ref() != Some(error)) {
                let before = if files.usable.is_some() { ", the ones before stay" } else { "" };
                tracing::warn!(error, "the certificates of mutual TLS cannot be used{before}");
            }
            files.problem = problem;
        }
        let problem = || files.problem.clone().unwrap_or_default();
        files.usable.clone().ok_or_else(problem)
    }

    fn read(&self) -> Result<Certificates, TlsError> {
        let [chain, key, roots] = FILES.map(|name| self.directory.join(name));
        let key_in = PrivateKeyDer::from_pem_slice(&read(&key)?);
        let key_in = key_in.map_err(|_| TlsError::Lacks { path: key, what: "private key" })?;
        let chain_in = certificates(&chain)?;
        let own = chain_in.first().map_or(Err(IdentityError::Uris(0)), SpiffeId::from_certificate)?;
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(certificates(&roots)?);
        let provider = Arc::new(default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider)).build()?;
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = config.with_client_cert_verifier(clients).with_single_cert(chain_in, key_in)?;
        // A session that is resumed is not verified again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Certificates { config: Arc::new(config), domain: own.domain })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TlsError::Lacks { path: path.to_owned(), what: "certificate" })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TlsError::Missing(path.to_owned()),
        _ => TlsError::Unreadable { path: path.to_owned(), error },
    })
}
