//! Another istiod beside the first, as there are several in a cluster, which can be kept from seeing what
//! changes while it goes on serving proxies. I/O: runs it, and stands between it and the API.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;

use anyhow::Result;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::partition::run;
use super::plane::{replica, replica_is_ready};
use super::{Mesh, Pod};
use crate::process::Process;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 19, 128, 3));
/// Where proxies find it.
pub const DISCOVERY: SocketAddr = SocketAddr::new(ADDRESS, 15112);
/// Where it finds the API.
const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 19, 128, 5)), 8001);
const HTTP_PORT: u16 = 8180;

/// What is kept from it: changes of kinds whose path has this in it, so all with ""; `None`: nothing.
type Held = Option<&'static str>;

/// A running one.
#[derive(Debug)]
pub struct Replica {
    process: Process,
    held: watch::Sender<Held>,
    relay: JoinHandle<Result<()>>,
}

impl Replica {
    /// Starts it, and waits until it serves.
    pub async fn start(mesh: &Mesh<'_>) -> Result<Replica> {
        let (held, holds) = watch::channel(None);
        let listener = TcpListener::bind(API).await?;
        let relay = tokio::spawn(relay(listener, mesh.cluster.client(), holds));
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "relay",
            "clusters": [{ "name": "relay", "cluster": { "server": format!("http://{API}") } }],
            "contexts": [{ "name": "relay", "context": { "cluster": "relay", "user": "" } }],
        });
        let kubeconfig = mesh.cluster.dir().write("relay.kubeconfig", kubeconfig.to_string());
        let ports = [("grpc", 15110), ("secureGRPC", DISCOVERY.port()), ("https", 15117), ("monitoring", 15114)];
        let ports = ports.map(|(what, port)| format!("--{what}Addr=:{port}"));
        let mut process = replica(&mesh.cluster, "istiod-2", &kubeconfig, &mesh.domain, HTTP_PORT, &ports)?;
        replica_is_ready(&mut process, HTTP_PORT).await?;
        mesh.step("another istiod");
        Ok(Replica { process, held, relay })
    }

    /// Keeps from it what changes, or tells it everything.
    pub fn keep_stale(&mut self, stale: bool) -> Result<()> {
        self.keep(stale.then_some(""))
    }

    /// Keeps from it what changes of VirtualServices, and so of routes: each kind has a watch of its own, and one of
    /// them may be late.
    pub fn keep_routes_stale(&mut self) -> Result<()> {
        self.keep(Some("/virtualservices"))
    }

    fn keep(&mut self, held: Held) -> Result<()> {
        self.process.check_running()?;
        self.held.send_replace(held);
        Ok(())
    }

    /// Has this pod find this one the next time that it connects to istiod, as the Service of several would.
    pub fn takes_over(&self, pod: &Pod) -> Result<()> {
        let (first, port) = (super::DISCOVERY, super::DISCOVERY.port().to_string());
        let mut command = pod.network().command("iptables");
        // Before Istio's own rules, which let the proxy itself pass.
        command.args(["--wait", "--table", "nat", "--insert", "OUTPUT", "--protocol", "tcp"]);
        command.args(["--destination", &first.ip().to_string(), "--dport", &port]);
        command.args(["--jump", "DNAT", "--to-destination", &DISCOVERY.to_string()]);
        run(command)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

type Frames = Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, kube::Error>> + Send>>;

async fn relay(listener: TcpListener, client: Client, holds: watch::Receiver<Held>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let (client, holds) = (client.clone(), holds.clone());
        let service = service_fn(move |request| {
            let (client, holds) = (client.clone(), holds.clone());
            async move { Ok::<_, Infallible>(pass(request, client, holds).await) }
        });
        tokio::spawn(async move {
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Asks the API the same as the administrator. What a watch tells waits for as long as it is held.
async fn pass(
    request: Request<Incoming>,
    client: Client,
    holds: watch::Receiver<Held>,
) -> Response<StreamBody<Frames>> {
    let watches = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("watch=t")));
    let path = request.uri().path().to_owned();
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(HOST);
    parts.headers.remove(AUTHORIZATION);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    match client.send(Request::from_parts(parts, Body::from(body.to_vec()))).await {
        Ok(response) => response.map(|body| frames(body, holds, watches.then_some(path))),
        Err(error) => {
            let text = Ok(Frame::data(Bytes::from(error.to_string())));
            let body: Frames = Box::pin(stream::iter([text]));
            let mut response = Response::new(StreamBody::new(body));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

fn frames(body: Body, holds: watch::Receiver<Held>, watched: Option<String>) -> StreamBody<Frames> {
    let frames = stream::unfold((body, holds, watched), |(mut body, mut holds, watched)| async move {
        let frame = body.frame().await?;
        if let Some(path) = &watched {
            let _ = holds.wait_for(|held| !held.is_some_and(|kind| path.contains(kind))).await;
        }
        Some((frame, (body, holds, watched)))
    });
    StreamBody::new(Box::pin(frames))
}
