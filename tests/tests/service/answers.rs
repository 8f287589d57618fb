//! What is measured of answers.

use std::collections::BTreeMap;

use flag::answers::Answers;
use flag::instance::FlagState;
use flag::snapshot::Snapshot;
use harness::fake::{FakeService, Reply};
use harness::{Call, story};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::world::{UID, World, acked, plugin, record, reported, snapshot};

/// All answers, and those that failed.
fn measured(state: &FlagState) -> (u64, u64) {
    let mut sums = BTreeMap::new();
    Answers::add(&mut sums, &state.answers);
    sums.values().fold((0, 0), |(all, failed), one| (all + one.count(), failed + one.failed))
}

/// E3.
#[test]
fn a_failure_after_the_headers_counts() {
    story("answers", async |dir| {
        let asked = Snapshot { measure: vec![UID.to_owned()], ..snapshot(10, "v2") };
        let service = FakeService::start(Reply::Snapshot(asked)).await?;
        let world = World::start_http2(dir, &service, plugin()).await?;
        let ingress = world.envoy.listener("ingress");
        acked(&service, &record(10, "v2")).await?;
        let (mut all, mut failed) = (0, 0);
        for (path, kind, fails) in [
            ("/grpc?status=0", "application/grpc", false),
            ("/grpc?status=5", "application/grpc+proto", false),
            ("/grpc?status=14", "application/grpc", true),
            ("/grpc?status=13", "application/grpc+json", true),
            // The trailers of others say nothing, and gRPC-Web has its status in the body.
            ("/grpc?status=14", "application/json", false),
            ("/grpc?status=14", "application/grpc-web", false),
            // It cannot be seen, and is an error by the protocol.
            ("/grpc?status=14&how=headers", "application/grpc", true),
            ("/grpc?how=reset", "application/grpc", true),
            ("/grpc?how=reset", "text/plain", true),
            ("/", "text/plain", false),
            ("/status?code=404", "text/plain", false),
            ("/status?code=503", "text/plain", true),
        ] {
            // One that is cut off is no answer to who asked.
            let _ = Call::get(ingress, path).host("reviews").header("content-type", kind).send().await;
            all += 1;
            failed += u64::from(fails);
            let now = (all, failed);
            reported(&service, &format!("{now:?} after {kind} at {path}"), |_, state| measured(state) == now).await?;
        }
        // Who leaves a stream has not seen it fail.
        let mut leaves = TcpStream::connect(ingress).await?;
        let request =
            "GET /stream?ms=60000&every=50 HTTP/1.1\r\nhost: reviews\r\ncontent-type: application/grpc\r\n\r\n";
        leaves.write_all(request.as_bytes()).await?;
        leaves.readable().await?;
        drop(leaves);
        reported(&service, "who left", |_, state| measured(state) == (all + 1, failed)).await?;
        Ok(())
    });
}
