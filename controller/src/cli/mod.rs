//! The command line. I/O: terminal, HTTP, and what `local` does.

mod client;
mod render;
mod show;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::kube::driver::Options;
use crate::local::file::File;
use crate::observation::Action;
use crate::service::FlagView;
use client::Client;

/// Exit code of `status` when something is blocked.
const BLOCKED: u8 = 3;
const ANSWER: Duration = Duration::from_secs(10);

/// Switches the version of a service by one flag, and removes the old one after traffic has settled.
#[derive(Debug, Parser)]
#[command(
    name = "versionflag",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 blocked (status)"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller on this machine
    Local {
        /// The VersionFlag with its `local` section
        #[arg(short, long)]
        file: PathBuf,
        /// One JSON object per line on stderr
        #[arg(long)]
        log_json: bool,
    },
    /// Run the controller of a Kubernetes cluster
    Controller(Controller),
    /// Show where each flag stands
    Status {
        #[command(flatten)]
        at: At,
        /// Show it again whenever it changes
        #[arg(short, long)]
        watch: bool,
    },
    /// Say in one sentence what is waited for
    Why(At),
    /// Let a version in that waits for it
    Promote(At),
    /// Go back to the version before
    Rollback(At),
    /// Give up a switch that was not flipped yet
    Abort(At),
    /// End an override, and try again
    Retry(At),
    /// Let nothing move
    Suspend(At),
    /// Let things move again
    Resume(At),
    /// Show what happened lately
    History(At),
    /// Print configuration for others
    Render {
        #[command(subcommand)]
        what: Render,
    },
    /// Print the definition of the custom resource
    #[command(hide = true)]
    Crd,
    /// Print the version of this program
    Version {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, Args)]
struct Controller {
    /// The only namespace to look after; all of them unless given
    #[arg(long, env = "VERSIONFLAG_NAMESPACE")]
    namespace: Option<String>,
    /// Where the flag service listens
    #[arg(long, default_value = "0.0.0.0:7070")]
    listen: std::net::SocketAddr,
    /// Name of this replica
    #[arg(long, env = "POD_NAME")]
    identity: String,
    /// Namespace of the controller itself, with its Lease and its Service
    #[arg(long, env = "POD_NAMESPACE", default_value = "versionflag")]
    home: String,
    /// Address of this replica, to which the Service leads while it acts
    #[arg(long, env = "POD_IP")]
    address: Option<std::net::IpAddr>,
    /// Where the proxies find the filter
    #[arg(long, default_value = "/etc/versionflag/versionflag.wasm")]
    filter_path: PathBuf,
    /// Envoy cluster of the flag service in the proxies
    #[arg(long, default_value = "versionflag")]
    flag_service_cluster: String,
    /// One JSON object per line on stderr
    #[arg(long)]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Render {
    /// A complete Envoy configuration
    Envoy {
        /// The VersionFlag with its `local` section
        #[arg(short, long)]
        file: PathBuf,
        /// Which of local.proxies it is for; the first one unless given
        #[arg(short, long)]
        proxy: Option<String>,
    },
}

#[derive(Debug, Args)]
struct At {
    /// The file that the controller runs with, or the URL of its flag service
    #[arg(value_name = "FILE|URL")]
    at: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Runs one command.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Local { file, log_json } => local(&file, log_json).await?,
        Command::Controller(options) => controller(options).await?,
        Command::Status { at, watch } => return status(&at, watch).await,
        Command::Why(at) => why(&at).await?,
        Command::Promote(at) => request(&at, Action::Promote).await?,
        Command::Rollback(at) => request(&at, Action::Rollback).await?,
        Command::Abort(at) => request(&at, Action::Abort).await?,
        Command::Retry(at) => request(&at, Action::Retry).await?,
        Command::Suspend(at) => request(&at, Action::Suspend).await?,
        Command::Resume(at) => request(&at, Action::Resume).await?,
        Command::History(at) => history(&at).await?,
        Command::Render { what: Render::Envoy { file, proxy } } => {
            let text = render::envoy(&File::read(&file)?, proxy.as_deref());
            print(&text.map_err(anyhow::Error::msg)?)?;
        }
        Command::Crd => print(&crate::kube::resource::definition_yaml()?)?,
        Command::Version { output: Output::Text } => print(&format!("versionflag {}\n", env!("CARGO_PKG_VERSION")))?,
        Command::Version { output: Output::Json } => {
            print_json(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "protocol": flag::PROTOCOL }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read the first lines only has what was wanted.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

async fn local(file: &Path, log_json: bool) -> anyhow::Result<()> {
    log(log_json);
    let stop = stopped("stopping; the versions go on running")?;
    Ok(crate::local::driver::run(file, bound, stop).await?)
}

async fn controller(options: Controller) -> anyhow::Result<()> {
    log(options.log_json);
    let stop = stopped("stopping; the proxies keep their flags")?;
    let options = Options {
        namespace: options.namespace,
        listen: options.listen,
        identity: options.identity,
        home: options.home,
        address: options.address,
        filter_path: options.filter_path,
        flag_service_cluster: options.flag_service_cluster,
    };
    Ok(crate::kube::driver::run(options, bound, stop).await?)
}

fn log(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
    if json { log.json().init() } else { log.with_ansi(false).init() }
}

fn bound(address: std::net::SocketAddr) {
    let _ = print(&format!("flag service on http://{address}\n"));
}

/// Ends when the process is told to.
fn stopped(words: &'static str) -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("{words}");
    })
}

fn blocked(views: &[FlagView]) -> ExitCode {
    let any = views.iter().any(|view| view.status.blocked.is_some());
    if any { ExitCode::from(BLOCKED) } else { ExitCode::SUCCESS }
}

async fn status(at: &At, watch: bool) -> anyhow::Result<ExitCode> {
    let client = Client::at(&at.at)?;
    let mut last = String::new();
    loop {
        let views = client.status().await?;
        let text = match at.output {
            Output::Json if watch => format!("{}\n", serde_json::to_string(&views)?),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(&views)?),
            Output::Text => views.iter().map(|view| show::status(view, &at.at)).collect(),
        };
        if text != last {
            print(&text)?;
            last = text;
        }
        if !watch {
            return Ok(blocked(&views));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn why(at: &At) -> anyhow::Result<()> {
    let views = Client::at(&at.at)?.status().await?;
    match at.output {
        Output::Json => {
            let why = views.iter().map(|view| {
                let (status, fleet) = (&view.status, &view.fleet);
                serde_json::json!({
                    "name": view.name, "phase": status.phase, "blocked": status.blocked, "waiting": view.waiting,
                    "laggards": fleet.laggards, "configLaggards": fleet.config_laggards,
                    "routeLaggards": fleet.route_laggards, "old": fleet.old,
                })
            });
            print_json(&why.collect::<Vec<_>>())
        }
        Output::Text => print(&views.iter().map(|view| show::why(view, &at.at)).collect::<String>()),
    }
}

async fn history(at: &At) -> anyhow::Result<()> {
    let views = Client::at(&at.at)?.status().await?;
    match at.output {
        Output::Json => print_json(
            &views
                .iter()
                .map(|view| serde_json::json!({ "name": view.name, "history": view.status.history }))
                .collect::<Vec<_>>(),
        ),
        Output::Text => print(&views.iter().map(show::history).collect::<String>()),
    }
}

/// Asks, and waits for the answer.
async fn request(at: &At, action: Action) -> anyhow::Result<()> {
    let client = Client::at(&at.at)?;
    let views = client.status().await?;
    let [view] = views.as_slice() else {
        bail!("{} has {} flags, not one", at.at, views.len());
    };
    let id = client.ask(&view.name, action).await?;
    let deadline = tokio::time::Instant::now() + ANSWER;
    loop {
        let views = client.status().await?;
        let view = views.first().context("the flag is gone")?;
        if let Some(last) = view.status.last_request.as_ref().filter(|last| last.id == id) {
            if let Some(why) = &last.refused {
                bail!("refused: {why}");
            }
            return match at.output {
                Output::Json => print_json(view),
                Output::Text => print(&show::status(view, &at.at)),
            };
        }
        if tokio::time::Instant::now() >= deadline {
            bail!("asked for, but not answered within {} s; it stays asked for (id {id})", ANSWER.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
