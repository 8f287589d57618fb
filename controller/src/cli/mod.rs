//! The command line. I/O: terminal, HTTP, the Kubernetes API, and what `local` does.

mod args;
mod client;
mod commands;
mod dashboard;
mod doctor;
mod envoy;
mod explain;
mod init;
mod kube_api;
mod lint;
mod logs;
mod manual;
mod model;
mod order;
mod place;
mod preview;
mod render;
mod render_istio;
mod screen;
mod show;
mod simulate;
mod sources;
mod terminal;
#[cfg(test)]
mod tests;
mod tree;
mod uninstall;
mod wait;
mod watch;

use cluster::names::MANAGER;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use args::{Command, Controller, Output, PluginArgs, Render, Rendered};
use cluster::domain::Domain;
use cluster::driver::{Mtls, Options};
use cluster::istio::plugin::Image;
use local::file::read_text;
use local::sources::{serving, texts};
use machine::action::Action;
use machine::order::Verb;
use machine::spec::Provider;
use service::audit::{Audit, AuditEnd};
use terminal::{print, print_json, warn};

pub use args::Cli;

/// Exit code of what failed, or took too long.
const FAILED: u8 = 1;
/// Exit code of `status` when something is blocked.
const BLOCKED: u8 = 3;
/// Exit code of `wait` when nothing but an edit or a command helps.
const IN_VAIN: u8 = 3;
/// Exit code of `status` when nothing is blocked, and a proxy has not acked.
const NOT_ACKED: u8 = 4;
/// Of the Service of the flag service.
const PORT: u16 = 7070;
/// The same by mutual TLS.
const MTLS_PORT: u16 = 7071;
/// How long a request waits for its answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Runs one command.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let program = cli.program;
    match cli.command {
        Command::Local { sources, audit_log, log_json } => {
            local(&sources.all(), audit_log.as_deref(), log_json).await?
        }
        Command::Controller(options) => controller(*options).await?,
        Command::Status { at, all_namespaces, watch } => {
            return commands::status(&at, all_namespaces, watch, program).await;
        }
        Command::Wait { at, goal, timeout } => return wait::run(&at, goal, timeout, program).await,
        Command::List { at, all_namespaces } => commands::list(&at, all_namespaces).await?,
        Command::Dashboard(args) => dashboard::run(&args).await?,
        Command::Why(at) => commands::why(&at, program).await?,
        Command::Promote(at) => commands::request(&at, Action::Promote, program).await?,
        Command::Rollback(at) => commands::request(&at, Action::Rollback, program).await?,
        Command::Abort(at) => commands::request(&at, Action::Abort, program).await?,
        Command::Retry(at) => commands::request(&at, Action::Retry, program).await?,
        Command::Suspend(at) => commands::request(&at, Action::Suspend, program).await?,
        Command::Resume(at) => commands::request(&at, Action::Resume, program).await?,
        Command::Restart(args) => order::run(&args, Verb::Restart, program).await?,
        Command::Stop(args) => order::run(&args, Verb::Stop, program).await?,
        Command::Logs(args) => logs::run(&args).await?,
        Command::History(at) => commands::history(&at).await?,
        Command::Doctor(options) => return doctor::run(&options).await,
        Command::Uninstall(options) => return uninstall::run(&options).await,
        Command::Init(options) => print(&init::run(&options).await?)?,
        Command::Preview(options) => preview::run(&options).await?,
        Command::Lint { sources, output } => return linted(&sources.all(), output),
        Command::Simulate { file } => print(&simulate::run(&file)?)?,
        Command::Render { what: Render::Envoy { sources, proxy, into } } => {
            let files = serving(&sources.all())?;
            if let Some(configuration) = &into.into {
                envoy::run(&files, proxy, &into, configuration)?;
                return Ok(ExitCode::SUCCESS);
            }
            print(&render::envoy(&files, proxy.as_deref()).map_err(anyhow::Error::msg)?)?;
            let wasm: BTreeSet<_> = files.into_iter().filter_map(|file| Some(file.local.filter_config?.wasm)).collect();
            let unusable: Vec<_> = wasm.iter().filter_map(|wasm| filter_level(wasm).err()).collect();
            unusable.iter().for_each(|error| warn(&format!("local.filterConfig.wasm: {error}")));
        }
        Command::Render { what: Render::Istio(options) } => rendered(options, Provider::Istio)?,
        Command::Render { what: Render::GatewayApi(options) } => rendered(options, Provider::GatewayAPI)?,
        Command::Explain(args) => explain::run(&args)?,
        Command::Completion { shell } => print(&manual::completion(shell))?,
        Command::Man { folder } => manual::write(&folder)?,
        Command::Schema => print_json(&local::schema::schema())?,
        Command::Crd => print(&cluster::resource::definition_yaml()?)?,
        Command::Version { output: Output::Text } => print(&format!("versionflag {}\n", env!("CARGO_PKG_VERSION")))?,
        Command::Version { output: Output::Json } => {
            print_json(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "protocol": flag::PROTOCOL }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn linted(sources: &[PathBuf], output: Output) -> anyhow::Result<ExitCode> {
    let texts = texts(sources)?;
    let files: Vec<(&Path, &str)> = texts.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    let looks = lint::Looks { filter: &filter_level, missing: &local::process::missing };
    let wrong = lint::lint(&files, &looks).map_err(anyhow::Error::msg)?;
    match output {
        Output::Json => print_json(&wrong)?,
        Output::Text => print(&lint::text(&wrong))?,
    }
    let failed = wrong.iter().any(|one| one.error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The level that the filter's file understands.
fn filter_level(wasm: &Path) -> Result<u32, local::wasm::WasmError> {
    local::wasm::check(wasm, &local::wasm::read(wasm)?)
}

fn rendered(options: Rendered, provider: Provider) -> anyhow::Result<()> {
    let Rendered { file, versions, home, names, plugin } = options;
    let domain = names.cluster_domain;
    let input = render_istio::read(&read_text(&file)?).map_err(anyhow::Error::msg);
    let input = input.with_context(|| format!("{} cannot be rendered", file.display()))?;
    let image = image(plugin, &home, PORT, &domain);
    let unusable = image.problem();
    print(&render_istio::render(input, provider, &versions, &image, &domain).map_err(anyhow::Error::msg)?)?;
    if let Some(problem) = unusable {
        warn(&format!("the plugin cannot be applied as it is: {problem}"));
    }
    Ok(())
}

async fn local(sources: &[PathBuf], audit_log: Option<&Path>, log_json: bool) -> anyhow::Result<()> {
    log(log_json);
    let stop = stopped("stopping; the versions go on running")?;
    let (audit, written) = audited(audit_log)?;
    let ended = local::driver::run(sources, audit, |address| bound(address, audit_log), stop).await;
    written.iter().for_each(AuditEnd::wait);
    Ok(ended?)
}

async fn controller(options: Controller) -> anyhow::Result<()> {
    log(options.log_json);
    let stop = stopped("stopping; the proxies keep their flags")?;
    let audit_log = options.audit_log;
    let (audit, written) = audited(audit_log.as_deref())?;
    let listen = options.mtls.mtls_listen;
    let mtls = options.mtls.mtls_certs.map(|certs| Mtls { certs, listen });
    let domain = options.names.cluster_domain;
    let image = image(options.plugin, &options.home, if mtls.is_some() { MTLS_PORT } else { PORT }, &domain);
    let options = Options {
        namespace: options.namespace,
        listen: options.listen,
        health_listen: options.health_listen,
        mtls,
        identity: options.identity,
        home: options.home,
        addresses: options.address,
        filter_path: options.filter_path,
        image,
        flag_service_cluster: options.flag_service_cluster,
        domain,
        check_hosts: options.check_hosts,
        asks_consent: !options.callers_without_consent,
        audit,
    };
    let ended = cluster::driver::run(options, |address| bound(address, audit_log.as_deref()), stop).await;
    written.iter().for_each(AuditEnd::wait);
    Ok(ended?)
}

fn image(plugin: PluginArgs, home: &str, port: u16, domain: &Domain) -> Image {
    let port = plugin.service_port.unwrap_or(port);
    Image {
        url: plugin.plugin_url,
        sha256: plugin.plugin_sha256,
        pull_secret: plugin.plugin_pull_secret,
        cluster: format!("outbound|{port}||{}", domain.host(MANAGER, home)),
        root: plugin.istio_root_namespace,
    }
}

fn audited(path: Option<&Path>) -> anyhow::Result<(Audit, Option<AuditEnd>)> {
    let Some(path) = path else { return Ok((Audit::default(), None)) };
    let opened = Audit::open(path).with_context(|| format!("the audit log {} cannot be opened", path.display()));
    opened.map(|(audit, written)| (audit, Some(written)))
}

fn log(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Without it, a line that cannot be written panics where it says so.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    let log = log.with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
    if json { log.json().init() } else { log.with_ansi(false).init() }
}

/// Stdout is the audit log's alone where that goes there.
fn bound(address: std::net::SocketAddr, audit_log: Option<&Path>) {
    if audit_log == Some(Path::new("-")) {
        return tracing::info!("flag service on http://{address}");
    }
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
