//! What the controller costs that looks after many VersionFlags at rest, on a real API server.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use harness::TestDir;
use harness::kube::crowd::Crowd;
use harness::kube::measure::measure;
use harness::kube::{Cluster, programs};
use harness::netns::in_namespace;

/// Measures one controller, and writes it to target/bench/kube.json.
#[derive(Debug, Parser)]
struct Options {
    /// Namespaces
    #[arg(long, default_value_t = 100)]
    namespaces: usize,
    /// VersionFlags in each
    #[arg(long, default_value_t = 10)]
    each: usize,
    /// Pods of each
    #[arg(long, default_value_t = 5)]
    pods: usize,
    /// How long to look at the controller while nothing changes, in seconds
    #[arg(long, default_value_t = 30)]
    idle: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    // Inside, nothing could be fetched to build them.
    programs()?;
    in_namespace(|namespace| {
        let dir = TestDir::new("bench-kube");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let crowd = Crowd { namespaces: options.namespaces, each: options.each, pods: options.pods };
        let (flags, pods) = (crowd.flags(), crowd.pods());
        eprintln!("{flags} flags with {pods} pods in {} namespaces are made", crowd.namespaces);
        runtime.block_on(async {
            let mut cluster = Cluster::start(&dir, namespace).await?;
            measure(crowd, Duration::from_secs(options.idle), &mut cluster).await?.report()
        })
    })
}
