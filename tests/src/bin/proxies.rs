//! Many simulated proxies in one process, which says over one connection what they saw: see `harness::scale`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;
use harness::load::Protocol;
use harness::scale::control::{Orders, obey};
use harness::scale::{Kind, raise_open_files};

/// Polls and reports as so many proxies.
#[derive(Debug, Parser)]
struct Options {
    /// How many
    #[arg(long)]
    count: usize,
    /// Where the flag service is
    #[arg(long)]
    service: SocketAddr,
    /// Who asks what they saw; without it they end
    #[arg(long)]
    control: SocketAddr,
    /// Speak HTTP/1.1, over two connections each, instead of HTTP/2 over one
    #[arg(long)]
    http1: bool,
    /// Also send too much, lie, and take for ever
    #[arg(long)]
    bad: bool,
}

// One thread: what the proxies do at a time must not take every CPU from the controller.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Options { count, service, control, http1, bad } = Options::parse();
    raise_open_files()?;
    let protocol = if http1 { Protocol::H1 } else { Protocol::H2 };
    let kind = if bad { Kind::Bad } else { Kind::Good };
    obey(control, Orders { kind, count, service, protocol }).await
}
