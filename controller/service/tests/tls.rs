//! Mutual TLS of the flag service over loopback: whose certificate is believed, what becomes of it when it is
//! renewed, and what a client may take.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use service::spiffe::ClientIdentity;
use service::tls::Tls;
use service::{Authenticator, Hub, Limits, Server, TokenReviewer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// More than anything here takes.
const SOON: Duration = Duration::from_secs(5);
const CONTROLLER: &str = "spiffe://cluster.local/ns/versionflag/sa/versionflag";
const POLL: &str = "/v1/snapshot?proxy=web.shop&waitMs=0";
/// Of `web.shop`.
const TOKEN: &str = "authorization: Bearer any\r\n";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// Signs the certificates of a mesh.
struct Mesh {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// A certificate with its key.
struct Pair {
    chain: String,
    key: String,
}

impl Mesh {
    fn new() -> Mesh {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        Mesh { issuer: Issuer::new(params, key), root }
    }

    fn issue(&self, uris: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())).collect();
        // The client of this test knows the controller by its address.
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Pair { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// Each by a rename, as Istio's agent writes them.
fn write(directory: &Path, name: &str, content: &str) {
    let new = directory.join("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, directory.join(name)).unwrap();
}

fn write_all(directory: &Path, pair: &Pair, root: &str) {
    write(directory, "key.pem", &pair.key);
    write(directory, "cert-chain.pem", &pair.chain);
    write(directory, "root-cert.pem", root);
}

/// The service, on one port in plain text and on one by mutual TLS. It believes `web.shop`, of that account.
struct Service {
    directory: TempDir,
    plain: SocketAddr,
    mtls: SocketAddr,
    tls: Arc<Tls>,
    _servers: JoinSet<()>,
}

impl Service {
    async fn start(limits: Limits) -> Service {
        let directory = TempDir::new().unwrap();
        let addressed = |proxy: &str, _, shown: Option<&ClientIdentity>| {
            let workload = shown.ok_or("no certificate")?.as_ref().map_err(ToString::to_string)?;
            let of = format!("{}.{}", workload.account, workload.namespace);
            if of == proxy { Ok(()) } else { Err(format!("it is {workload}")) }
        };
        let review: TokenReviewer = Box::new(|_| Box::pin(async { Ok("web.shop".to_owned()) }));
        let hub = Arc::new(Hub::new(Authenticator::Reviewed { review, addressed: Box::new(addressed) }));
        let tls = hub.readiness.require_tls(&directory.path().join("certs"));
        let server = Server::new(limits, hub);
        let mut servers = JoinSet::new();
        let mut addresses = vec![];
        for tls in [None, Some(Arc::clone(&tls))] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            servers.spawn(server.clone().serve(listener, tls, std::future::pending()));
        }
        Service { directory, plain: addresses[0], mtls: addresses[1], tls, _servers: servers }
    }

    /// With certificates of this mesh.
    async fn in_mesh(limits: Limits, mesh: &Mesh) -> Service {
        let service = Service::start(limits).await;
        std::fs::create_dir(service.certs()).unwrap();
        write_all(&service.certs(), &mesh.issue(&[CONTROLLER]), &mesh.root);
        service
    }

    fn certs(&self) -> std::path::PathBuf {
        self.directory.path().join("certs")
    }

    /// Shakes hands, trusting this root.
    async fn connect(&self, pair: Option<&Pair>, root: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let certificates = |pem: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(root));
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match pair {
            Some(Pair { chain, key }) => config
                .with_client_auth_cert(certificates(chain), PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap(),
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.mtls).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::from(self.mtls.ip()), stream).await
    }

    /// The status of a poll of `web.shop`, on a connection of its own; an error where there is no handshake.
    async fn poll(&self, pair: Option<&Pair>, root: &str) -> std::io::Result<(u16, String)> {
        poll(&mut self.connect(pair, root).await?).await
    }

    async fn ready(&self) -> (u16, String) {
        let mut stream = TcpStream::connect(self.plain).await.unwrap();
        get(&mut stream, "/readyz", "").await.unwrap()
    }
}

async fn poll<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S) -> std::io::Result<(u16, String)> {
    get(stream, POLL, "").await
}

/// One request of several on a connection.
async fn get<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    stream: &mut S,
    path: &str,
    header: &str,
) -> std::io::Result<(u16, String)> {
    let ask = async {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{header}\r\n").as_bytes()).await?;
        let mut text = String::new();
        loop {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await?;
            text += std::str::from_utf8(&bytes[..count]).unwrap();
            let body = text.split_once("\r\n\r\n").map(|(head, body)| {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                (length.map_or(0, |length| length.parse::<usize>().unwrap()), body)
            });
            match body {
                Some((length, body)) if body.len() >= length => {
                    return Ok((text.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()));
                }
                _ if count == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    };
    tokio::time::timeout(SOON, ask).await.expect("an answer in time")
}

#[tokio::test]
async fn a_workload_is_known_by_its_certificate_and_others_are_refused() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let service = Service::in_mesh(Limits::default(), &mesh).await;
    let web = mesh.issue(&[WEB]);
    assert_eq!(service.poll(Some(&web), &mesh.root).await.unwrap().0, 204);
    // Of the mesh, and not who it says it is.
    for (uris, why) in [
        (vec!["spiffe://cluster.local/ns/shop/sa/other"], "it is spiffe://cluster.local/ns/shop/sa/other"),
        (vec!["spiffe://elsewhere/ns/shop/sa/web"], "of the trust domain"),
        (vec![], "0 URIs"),
        (vec![WEB, "https://web"], "2 URIs"),
        (vec!["https://web"], "not of spiffe://"),
    ] {
        let (status, body) = service.poll(Some(&mesh.issue(&uris)), &mesh.root).await.unwrap();
        assert!(status == 403 && body.contains(why), "{uris:?}: {status} {body}");
    }
    // Not of the mesh, the same name or not: no request of theirs is read.
    for stranger in [Some(&other.issue(&[WEB])), None] {
        assert!(service.poll(stranger, &mesh.root).await.is_err());
    }
    // Nor is one in plain text at that port.
    let mut plain = TcpStream::connect(service.mtls).await.unwrap();
    assert!(poll(&mut plain).await.is_err());
    // And at the other one nobody has a certificate.
    let (status, body) = poll(&mut TcpStream::connect(service.plain).await.unwrap()).await.unwrap();
    assert!(status == 403 && body.contains("no certificate"), "{status} {body}");
    // A token counts there, and nowhere against a certificate.
    let mut plain = TcpStream::connect(service.plain).await.unwrap();
    assert_eq!(get(&mut plain, POLL, TOKEN).await.unwrap().0, 204);
    let other = mesh.issue(&["spiffe://cluster.local/ns/shop/sa/other"]);
    let mut other = service.connect(Some(&other), &mesh.root).await.unwrap();
    let (status, body) = get(&mut other, POLL, TOKEN).await.unwrap();
    assert!(status == 403 && body.contains("it is spiffe://"), "{status} {body}");
}

#[tokio::test]
async fn certificates_are_renewed_under_running_connections() {
    let (before, after) = (Mesh::new(), Mesh::new());
    let service = Service::in_mesh(Limits::default(), &before).await;
    let (old, new) = (before.issue(&[WEB]), after.issue(&[WEB]));
    let mut running = service.connect(Some(&old), &before.root).await.unwrap();
    assert_eq!(poll(&mut running).await.unwrap().0, 204);
    let next = after.issue(&[CONTROLLER]);
    let serves = async |pair: &Pair, root: &str| {
        let found = service.poll(Some(pair), root).await;
        found.is_ok_and(|(status, _)| status == 204)
    };

    // Half of it: the key does not belong to the certificate, so that the pair before stays.
    write(&service.certs(), "key.pem", &next.key);
    assert!(serves(&old, &before.root).await);
    assert_eq!(service.tls.problem(), None);
    // Garbage in between, and a file that is gone for a moment.
    write(&service.certs(), "cert-chain.pem", "-----BEGIN CERTIFICATE-----\n");
    assert!(serves(&old, &before.root).await);
    std::fs::remove_file(service.certs().join("root-cert.pem")).unwrap();
    assert!(serves(&old, &before.root).await);

    // All of it, of another root: who comes now needs one of that.
    write(&service.certs(), "cert-chain.pem", &next.chain);
    write(&service.certs(), "root-cert.pem", &after.root);
    assert!(serves(&new, &after.root).await);
    assert!(service.poll(Some(&old), &after.root).await.is_err());
    // Both roots, as while one replaces the other.
    write(&service.certs(), "root-cert.pem", &(before.root.clone() + &after.root));
    assert!(serves(&old, &after.root).await && serves(&new, &after.root).await);
    // The connection from before all that goes on.
    assert_eq!(poll(&mut running).await.unwrap().0, 204);
}

#[tokio::test]
async fn certificates_that_are_not_there_yet_are_waited_for() {
    let mesh = Mesh::new();
    let service = Service::start(Limits::default()).await;
    let (status, body) = service.ready().await;
    assert!(status == 503 && body.contains("key.pem is not there") && body.contains("OUTPUT_CERTS"), "{status} {body}");
    let web = mesh.issue(&[WEB]);
    assert!(service.poll(Some(&web), &mesh.root).await.is_err());

    let tls = Arc::clone(&service.tls);
    let waits = tokio::spawn(async move { tls.ready().await });
    std::fs::create_dir(service.certs()).unwrap();
    let own = mesh.issue(&[CONTROLLER]);
    write(&service.certs(), "key.pem", &own.key);
    let (status, body) = service.ready().await;
    assert!(status == 503 && body.contains("cert-chain.pem is not there"), "{status} {body}");
    assert!(!waits.is_finished());
    // One by which nobody could tell the trust domain.
    write_all(&service.certs(), &mesh.issue(&[]), &mesh.root);
    let (status, body) = service.ready().await;
    assert!(status == 503 && body.contains("the controller has no identity of the mesh"), "{status} {body}");
    write_all(&service.certs(), &own, &mesh.root);
    tokio::time::timeout(SOON, waits).await.expect("an end in time").unwrap();
    assert_eq!(service.poll(Some(&web), &mesh.root).await.unwrap().0, 204);
    // No flag was looked at yet, and that is all.
    let (status, body) = service.ready().await;
    assert!(status == 503 && body.contains("starting"), "{status} {body}");
}

#[tokio::test]
async fn who_does_not_end_its_handshake_takes_a_place_only_for_a_while() {
    let mesh = Mesh::new();
    let limits = Limits { connections: 2, head: Duration::from_millis(500), request: SOON, ..Limits::default() };
    let service = Service::in_mesh(limits, &mesh).await;
    let web = mesh.issue(&[WEB]);
    // One says nothing, the other begins and stops there.
    let mut silent = TcpStream::connect(service.mtls).await.unwrap();
    let mut begun = TcpStream::connect(service.mtls).await.unwrap();
    begun.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    // For the third one there is no room.
    service.poll(Some(&web), &mesh.root).await.unwrap_err();
    for stalled in [&mut silent, &mut begun] {
        let ended = tokio::time::timeout(SOON, stalled.read(&mut [0; 64])).await.expect("an end in time");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    // Now there is.
    assert_eq!(service.poll(Some(&web), &mesh.root).await.unwrap().0, 204);
}
