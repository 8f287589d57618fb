//! Which requests the filter counts as open, for which version, and until when.

use std::time::{Duration, Instant};

use anyhow::Result;
use flag::instance::FlagState;
use harness::fake::{FakeService, Reply};
use harness::{Call, clock, story};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::world::{World, acked, plugin, record, reported, snapshot, state, traffic};

fn open(state: &FlagState, version: &str) -> u64 {
    state.sent.get(version).map_or(0, |totals| totals.open().expect("a checked report"))
}

/// A request over HTTP/2 that is reset when the task is aborted.
async fn h2_request(to: std::net::SocketAddr, path: &str) -> Result<tokio::task::JoinHandle<()>> {
    let io = TokioIo::new(TcpStream::connect(to).await?);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get(format!("http://reviews{path}")).body(Empty::<Bytes>::new())?;
    Ok(tokio::spawn(async move { drop(sender.send_request(request).await) }))
}

#[test]
fn a_long_stream_is_open_until_it_ends() {
    story("long-stream", async |dir| {
        let service = FakeService::start(Reply::Snapshot(snapshot(10, "v1"))).await?;
        let world = World::start(dir, &service, plugin()).await?;
        let ingress = world.envoy.listener("ingress");
        acked(&service, &record(10, "v1")).await?;
        let length = Duration::from_secs(12);
        let begin = Instant::now();
        let stream = Call::get(ingress, &format!("/stream?ms={}&every=100", length.as_millis())).host("reviews");
        let stream = tokio::spawn(async move { stream.send().await });
        let mut leaves = TcpStream::connect(ingress).await?;
        leaves.write_all(b"GET /slow?ms=60000 HTTP/1.1\r\nhost: reviews\r\n\r\n").await?;
        let resets = h2_request(ingress, "/slow?ms=60000").await?;
        reported(&service, "three open requests", |_, state| open(state, "v1") == 3).await?;
        let load = world.load();
        traffic(&load, "v1").await?;
        service.answer(Reply::Snapshot(snapshot(11, "v2")));
        acked(&service, &record(11, "v2")).await?;
        let acked_us = clock::now_us();
        reported(&service, "three open requests after the flip", |_, state| open(state, "v1") == 3).await?;
        drop(leaves);
        reported(&service, "one gone", |_, state| open(state, "v1") == 2).await?;
        resets.abort();
        reported(&service, "one reset", |_, state| open(state, "v1") == 1).await?;
        assert!(begin.elapsed() < length, "the machine is too slow for this test");
        reported(&service, "none open", |_, state| open(state, "v1") == 0).await?;
        let answer = stream.await??;
        assert_eq!((answer.status, answer.version()), (200, "v1"));
        // A backend's last tick comes before its length is over.
        let early = begin + length - Duration::from_millis(500);
        for received in service.reports() {
            let Some(state) = state(&received).filter(|state| state.epoch == 11) else { continue };
            assert!(open(state, "v1") > 0 || received.at > early, "closed too early: {received:?}");
        }
        traffic(&load, "v2").await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        assert!(results.after(acked_us).all_served_by("v2"));
        Ok(())
    });
}

#[test]
fn a_request_that_strays_is_counted_where_it_went() {
    story("strays", async |dir| {
        let service = FakeService::start(Reply::Snapshot(snapshot(10, "v2"))).await?;
        // The routes have not followed: what is marked for v2 goes to v1.
        let world = World::start_routed(dir, &service, plugin(), ["reviews-v1", "reviews-v1"]).await?;
        let ingress = world.envoy.listener("ingress");
        acked(&service, &record(10, "v2")).await?;
        let counts = |state: &FlagState| (open(state, "v1"), open(state, "v2"), state.unroutable);
        let stream = Call::get(ingress, "/stream?ms=4000&every=100").host("reviews");
        let stream = tokio::spawn(async move { stream.send().await });
        reported(&service, "a stream on v1 while it lasts", |_, state| counts(state) == (1, 0, 1)).await?;
        assert_eq!(stream.await??.version(), "v1");
        reported(&service, "its end", |_, state| counts(state) == (0, 0, 1)).await?;

        // L3: without an answer it is where it went, and its client leaves.
        let mut leaves = TcpStream::connect(ingress).await?;
        leaves.write_all(b"GET /slow?ms=60000 HTTP/1.1\r\nhost: reviews\r\n\r\n").await?;
        reported(&service, "a request without an answer", |_, state| counts(state) == (1, 0, 2)).await?;
        drop(leaves);
        reported(&service, "its end", |_, state| counts(state) == (0, 0, 2)).await?;

        // Over before any report could look at it.
        for _ in 0..5 {
            assert_eq!(Call::get(ingress, "/").host("reviews").send().await?.version(), "v1");
        }
        let state = reported(&service, "short requests", |_, state| counts(state) == (0, 0, 7)).await?;
        let started = |version| state.sent.get(version).map(|totals| totals.started);
        assert_eq!((started("v1"), started("v2")), (Some(7), Some(7)));
        Ok(())
    });
}
