//! When the API server was last heard of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::api_requests;
use cluster::heard::Heard;
use k8s_openapi::api::core::v1::Pod;
use kube::api::WatchParams;
use kube::{Api, Config};
use machine::reason::Reason;
use machine::time::UnixMs;
use service::ApiRequests;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const KINDS: [&str; 2] = ["pods", "services"];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// C36
#[test]
fn what_is_not_heard_of_is_not_believed() {
    let (heard, start) = (Heard::default(), Instant::now());
    // Nobody watches those.
    assert_eq!(heard.problem(&KINDS, start + seconds(1_000)), None);
    heard.note("pods", start, UnixMs(1_000));
    heard.note("services", start + seconds(30), UnixMs(31_000));
    assert_eq!(heard.problem(&KINDS, start + seconds(45)), None);
    let problem = heard.problem(&KINDS, start + seconds(46)).unwrap();
    assert_eq!(problem.reason, Reason::WatchStale);
    assert!(problem.reason.holds());
    assert!(problem.message.contains("(pods at 1970-01-01T00:00:01Z)"), "{}", problem.message);
    let both = heard.problem(&KINDS, start + seconds(90)).unwrap();
    assert_eq!(both.about, ["pods", "services"]);
    heard.note("pods", start + seconds(90), UnixMs(91_000));
    assert_eq!(heard.problem(&KINDS[..1], start + seconds(90)), None);
}

/// An API server that answers every watch as it is told to.
async fn api_server(grants: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = [0; 4_096];
            let _ = stream.read(&mut read).await;
            let (status, body) = match grants.load(Ordering::SeqCst) {
                true => ("200 OK", ""),
                false => ("403 Forbidden", r#"{"kind":"Status","status":"Failure","code":403,"message":"no"}"#),
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    url
}

// C36
#[tokio::test]
async fn only_a_watch_that_is_answered_is_heard_of() {
    let grants = Arc::new(AtomicBool::new(false));
    let url = api_server(Arc::clone(&grants)).await;
    let (heard, begin) = (Heard::default(), Instant::now());
    let config = Config::new(url.parse().unwrap());
    let pods: Api<Pod> = Api::all(api_requests::client(config, &ApiRequests::default(), &heard).unwrap());
    heard.note("pods", begin, UnixMs(0));
    let watch = async || pods.watch(&WatchParams::default(), "0").await.map(drop);
    let late = begin + seconds(46);
    assert!(watch().await.is_err());
    assert!(heard.problem(&KINDS, late).is_some());
    grants.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(5)).await;
    watch().await.unwrap();
    // What was heard of after the begin is believed for longer.
    assert_eq!(heard.problem(&KINDS, begin + seconds(45)), None);
    let shown = heard.problem(&KINDS, late + seconds(60)).unwrap().message;
    assert!(!shown.contains("1970"), "{shown}");
}
