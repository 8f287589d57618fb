//! `versionflag dashboard`: opens the live page, of a controller of this machine by its address, of one in a cluster by
//! a port of this machine and the API server, with the rights of whoever asks. I/O: terminal, TCP, starts a browser, and
//! through the clients.

mod browser;
mod leader;
mod relay;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{At, Output};
use super::commands::Source;
use super::kube_api::Cluster;
use super::terminal::{print, print_json};
use leader::Leader;

/// Which page, and where it is served.
#[derive(Debug, Args)]
pub(super) struct DashboardArgs {
    #[command(flatten)]
    at: At,
    /// Port of this machine for the page of a cluster; a free one unless given
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Print the address, and open no browser
    #[arg(long)]
    no_open: bool,
}

/// Prints the address of the page and opens it; that of a cluster is served until this process is told to end.
pub(super) async fn run(args: &DashboardArgs) -> anyhow::Result<()> {
    match Source::open(&args.at, false).await? {
        Source::Service { client, at } => {
            // Says so where nobody answers, or there is no such flag.
            client.views(&at).await?;
            show(args, &address(client.base(), at.flag.as_deref()), "")
        }
        Source::Cluster { cluster, name } => {
            if let Some(name) = &name {
                cluster.flags(Some(name)).await?;
            }
            let flag = name.map(|name| format!("{}/{name}", cluster.namespace()));
            serve(args, cluster, flag.as_deref()).await
        }
    }
}

async fn serve(args: &DashboardArgs, cluster: Cluster, flag: Option<&str>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let leader = Leader::new(cluster);
    leader.reach().await?;
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let bound = TcpListener::bind(wanted).await;
    let listener = bound.with_context(|| format!("{wanted} cannot be listened on: choose another --port"))?;
    let base = format!("http://{}", listener.local_addr()?);
    show(args, &address(&base, flag), "Ctrl-C ends it\n")?;
    tokio::select! {
        served = axum::serve(listener, relay::router(leader)) => Ok(served?),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn show(args: &DashboardArgs, address: &str, end: &str) -> anyhow::Result<()> {
    match args.at.output {
        Output::Json => print_json(&serde_json::json!({ "address": address }))?,
        Output::Text => print(&format!("the page is at {address}\n{end}"))?,
    }
    if !args.no_open && args.at.output == Output::Text {
        browser::open(address);
    }
    Ok(())
}

/// Where the page shows a flag, or all of them. Pure.
fn address(base: &str, flag: Option<&str>) -> String {
    // The names of flags have nothing else to be quoted.
    flag.map_or_else(|| format!("{base}/"), |flag| format!("{base}/#{}", flag.replace('/', "%2F")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_named_as_the_page_reads_it() {
        assert_eq!(address("http://127.0.0.1:1", None), "http://127.0.0.1:1/");
        assert_eq!(address("http://127.0.0.1:1", Some("reviews")), "http://127.0.0.1:1/#reviews");
        assert_eq!(address("http://127.0.0.1:1", Some("shop/reviews")), "http://127.0.0.1:1/#shop%2Freviews");
    }
}
