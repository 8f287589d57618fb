use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rstest::rstest;

use super::*;
use crate::testing::{free_address, version};

#[test]
fn messages_of_grpc_are_written_and_read() {
    assert_eq!(health_request("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
    assert_eq!(health_request("")[..], [0, 0, 0, 0, 0]);
    assert_eq!(health_answer(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
    assert_eq!(health_answer(&[0, 0, 0, 0, 0]), Some(0));
    assert_eq!(health_answer(&[0, 0, 0, 0, 9, 8, 1]), None);
    assert_eq!(health_answer(&[]), None);
}

#[test]
fn one_failure_ends_nothing_and_is_said() {
    let mut known = Readiness::default();
    assert!(known.take(Ok(()), 0));
    let since = known.since;
    assert!(known.take(Err("503".to_owned()), 1));
    assert_eq!((known.since, known.lacks.as_deref()), (since, Some("503")));
    known.take(Err("503".to_owned()), FAILURES);
    assert_eq!(known.since, None);
}

async fn ask(ready: &str, address: SocketAddr) -> Result<(), String> {
    let mut how = version(&["true".to_owned()], address, "");
    how.ready = serde_saphyr::from_str(ready).unwrap();
    let question = Question::of(&how, address);
    question.ask(&question.client().unwrap()).await
}

/// A server that answers one request. Whether who asked was still there when half of the answer was sent.
fn answers_once(status: &'static str) -> (SocketAddr, JoinHandle<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut asked, _) = listener.accept().unwrap();
        let _ = asked.read(&mut [0; 4_096]).unwrap();
        write!(asked, "HTTP/1.1 {status}\r\ncontent-length: 8\r\n\r\nhalf").unwrap();
        asked.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let gone = asked.read(&mut [0; 8]);
        let _ = asked.write_all(b"half");
        gone.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    (address, server)
}

/// What came instead of the right answer is said, and the answer is read to its end.
#[rstest]
#[case::fine("200 OK", "")]
#[case::not_yet("503 Service Unavailable", "GET /healthz is answered by 503 Service Unavailable")]
#[case::not_there("404 Not Found", "GET /healthz is answered by 404 Not Found")]
#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_an_answer_is_said(#[case] status: &'static str, #[case] says: &str) {
    let (address, server) = answers_once(status);
    let asked = ask("{path: /healthz}", address).await;
    assert_eq!(asked.err().unwrap_or_default(), says);
    assert!(server.join().unwrap(), "it hung up in the middle of the answer");
}

#[rstest]
#[case::by_path("{path: /healthz}")]
#[case::by_connection("{}")]
#[case::by_grpc("{grpc: ''}")]
#[case::by_command("{command: ['true']}")]
#[tokio::test]
async fn a_version_that_is_not_there_is_said(#[case] ready: &str) {
    let error = ask(ready, free_address()).await.unwrap_err();
    assert!(error.contains("onnection refused"), "{error}");
}

#[rstest]
#[case::fine("{command: ['true']}", "")]
#[case::failed("{command: ['false']}", "false ended with exit status: 1")]
#[case::missing("{command: ['/nowhere']}", "/nowhere could not be started")]
#[case::hanging("{command: [sleep, '60'], timeout: 50ms}", "sleep did not end within 50ms")]
#[tokio::test]
async fn a_command_has_to_end_well(#[case] ready: &str, #[case] says: &str) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = ask(ready, listener.local_addr().unwrap()).await.err().unwrap_or_default();
    assert!(error.starts_with(says) && error.is_empty() == says.is_empty(), "{error}");
}

/// A gRPC server that has this status of its service.
async fn health(status: u8) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (asked, _) = listener.accept().await.unwrap();
        let answer = service_fn(move |request: Request<Incoming>| async move {
            assert_eq!(request.uri().path(), GRPC_HEALTH);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]))))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(asked), answer).await;
    });
    address
}

#[rstest]
#[case::serving(1, "")]
#[case::not_serving(2, "gRPC health is NOT_SERVING")]
#[case::unknown(0, "gRPC health is 0, not SERVING")]
#[tokio::test]
async fn a_grpc_service_says_whether_it_serves(#[case] status: u8, #[case] says: &str) {
    let asked = ask("{grpc: reviews.Reviews}", health(status).await).await;
    assert_eq!(asked.err().unwrap_or_default(), says);
}

/// T25: what a command leaves behind ends with it: it would be one more with each question.
#[rstest]
#[case::in_time("exit 0")]
#[case::too_late("wait")]
#[tokio::test]
async fn a_command_leaves_nothing_behind(#[case] end: &str) {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; {end}", note.display());
    let ready = serde_json::json!({ "command": ["sh", "-c", script], "timeout": "2s" }).to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(ask(&ready, listener.local_addr().unwrap()).await.is_ok(), end == "exit 0");
    let pid: i32 = std::fs::read_to_string(note).unwrap().trim().parse().unwrap();
    let deadline = std::time::Instant::now() + crate::testing::LIMIT;
    while crate::group::start_ticks(pid).is_some() {
        assert!(std::time::Instant::now() < deadline, "{pid} still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A server that answers everything until told not to. When it was asked.
fn counted() -> (SocketAddr, Arc<Mutex<Vec<Instant>>>, Arc<AtomicBool>) {
    let listener = TcpListener::bind(free_address()).unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Instant>>>::default());
    let (times, fine) = (Arc::clone(&asked), Arc::new(AtomicBool::new(true)));
    let answers = Arc::clone(&fine);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4_096]);
            times.lock().unwrap().push(Instant::now());
            let status = if answers.load(Ordering::SeqCst) { "200 OK" } else { "503 No" };
            let _ = write!(connection, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (address, asked, fine)
}

/// T28: what is ready is asked less often, but for a switch, or where the file says how often.
#[rstest]
#[case::calm("{path: /}", false, 2..=5)]
#[case::hurried("{path: /}", true, 6..=11)]
#[case::as_the_file_says("{path: /, interval: 100ms}", false, 10..=21)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_is_asked_less_often(
    #[case] ready: &str,
    #[case] hurried: bool,
    #[case] expected: std::ops::RangeInclusive<usize>,
) {
    let (address, asked, _) = counted();
    let mut how = version(&["true".to_owned()], address, "");
    how.ready = serde_saphyr::from_str(ready).unwrap();
    let probe = Probe::start(&how, address, Arc::new(Hub::new(service::Authenticator::listed())));
    probe.hurry(hurried);
    probe.first_answer().wait_for(Readiness::is_known).await.unwrap();
    asked.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let times = asked.lock().unwrap().len();
    assert!(expected.contains(&times), "{times}");
}

/// T28: a switch that begins does not wait for the next question, and what fails once is asked often.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_answer_gets_it_soon() {
    let (address, asked, fine) = counted();
    let mut how = version(&["true".to_owned()], address, "");
    how.ready = serde_saphyr::from_str("{path: /}").unwrap();
    let probe = Probe::start(&how, address, Arc::new(Hub::new(service::Authenticator::listed())));
    probe.first_answer().wait_for(Readiness::is_known).await.unwrap();
    let (times, begin) = (asked.lock().unwrap().len(), Instant::now());
    probe.hurry(true);
    while asked.lock().unwrap().len() == times {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    probe.hurry(false);
    fine.store(false, Ordering::SeqCst);
    let lost = Instant::now();
    probe.first_answer().wait_for(|known| known.since.is_none()).await.unwrap();
    assert!(lost.elapsed() < Duration::from_millis(1_500), "{:?}", lost.elapsed());
}
