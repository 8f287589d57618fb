//! The commands about a flag, wherever it is. I/O: terminal, and through the clients.

use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::args::{At, Output};
use super::client::Client;
use super::cluster::Cluster;
use super::model::Model;
use super::place::{Place, place};
use super::{ANSWER, BLOCKED, print, print_json, show};
use crate::kube::resource::VersionFlag;
use crate::observation::Action;
use crate::service::{FlagView, now_ms};

/// Between two looks at a flag service.
const LOOK: Duration = Duration::from_millis(500);

/// Where flags are found.
enum Source {
    Service { client: Client, at: String },
    Cluster { cluster: Cluster, name: Option<String> },
}

/// One flag, for people and for programs.
struct Shown {
    model: Model,
    json: Value,
}

impl Source {
    async fn open(at: &At, all: bool) -> anyhow::Result<Source> {
        let is_file = at.at.as_ref().is_some_and(|at| Path::new(at).is_file());
        let name = match place(at.at.as_deref(), is_file) {
            Place::Service(text) if all || at.cluster.is_given() => {
                bail!("{text} is a file or a URL: -n, -A, --context and --kubeconfig are for the NAME of a VersionFlag")
            }
            Place::Service(text) => return Ok(Source::Service { client: Client::at(&text)?, at: text }),
            Place::Named(name) if all => bail!("-A shows all flags of the cluster: leave {name} or -A out"),
            Place::Named(name) => Some(name),
            Place::All => None,
        };
        Ok(Source::Cluster { cluster: Cluster::connect(&at.cluster, all).await?, name })
    }

    async fn look(&self) -> anyhow::Result<Vec<Shown>> {
        match self {
            Source::Service { client, at } => client.status().await?.iter().map(|view| of_view(view, at)).collect(),
            Source::Cluster { cluster, name } => {
                let flags = cluster.flags(name.as_deref()).await?;
                if flags.is_empty() {
                    warn(&format!("no VersionFlags in {}", cluster.place()));
                }
                flags.iter().map(|flag| of_resource(flag, cluster)).collect()
            }
        }
    }
}

/// For people, beside what is printed. Without anybody to read it nothing is lost.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn of_view(view: &FlagView, at: &str) -> anyhow::Result<Shown> {
    Ok(Shown { model: Model::of_view(view, at), json: serde_json::to_value(view)? })
}

fn of_resource(flag: &VersionFlag, cluster: &Cluster) -> anyhow::Result<Shown> {
    let mut status = flag.status.clone().unwrap_or_default();
    // Not for others: it may change with every version of the controller.
    status.machine = None;
    let json = json!({
        "namespace": flag.namespace(), "name": flag.name_any(), "specVersion": flag.spec.version, "status": status,
    });
    Ok(Shown { model: Model::of_resource(flag, cluster.at(flag), now_ms()), json })
}

fn jsons(shown: &[Shown]) -> Value {
    shown.iter().map(|one| one.json.clone()).collect()
}

fn text(shown: &[Shown], draw: impl Fn(&Model) -> String) -> String {
    shown.iter().map(|one| draw(&one.model)).collect()
}

fn draw(shown: &[Shown], output: Output, program: &str) -> anyhow::Result<String> {
    Ok(match output {
        Output::Json => format!("{}\n", jsons(shown)),
        Output::Text => text(shown, |model| show::status(model, program)),
    })
}

/// The same whenever nothing but the clock has changed.
fn outline(shown: &[Shown], output: Output) -> String {
    match output {
        Output::Json => {
            let mut all = jsons(shown);
            for one in all.as_array_mut().into_iter().flatten() {
                one.as_object_mut().map(|one| one.remove("now"));
            }
            all.to_string()
        }
        Output::Text => text(shown, |model| show::status(&Model { now: 0, ..model.clone() }, "")),
    }
}

pub(super) async fn status(at: &At, all: bool, watch: bool, program: &str) -> anyhow::Result<ExitCode> {
    let source = Source::open(at, all).await?;
    if !watch {
        let shown = source.look().await?;
        match at.output {
            Output::Json => print_json(&jsons(&shown))?,
            Output::Text => print(&draw(&shown, at.output, program)?)?,
        }
        let blocked = shown.iter().any(|one| one.model.blocked.is_some());
        return Ok(if blocked { ExitCode::from(BLOCKED) } else { ExitCode::SUCCESS });
    }
    // Says what is wrong, where a watch would wait.
    let mut before = None;
    let mut again = |shown: Vec<Shown>| {
        let now = outline(&shown, at.output);
        if before.as_ref() == Some(&now) {
            return anyhow::Ok(());
        }
        before = Some(now);
        print(&draw(&shown, at.output, program)?)
    };
    again(source.look().await?)?;
    match &source {
        Source::Service { .. } => loop {
            tokio::time::sleep(LOOK).await;
            again(source.look().await?)?;
        },
        Source::Cluster { cluster, name } => {
            let mut changes = pin!(cluster.watch(name.as_deref()));
            while let Some(flags) = changes.next().await {
                match flags {
                    Ok(flags) => again(flags.iter().map(|flag| of_resource(flag, cluster)).collect::<Result<_, _>>()?)?,
                    Err(error) => warn(&format!("{error:#}: trying again")),
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(super) async fn list(at: &At, all: bool) -> anyhow::Result<()> {
    let shown = Source::open(at, all).await?.look().await?;
    match at.output {
        Output::Json => print_json(&jsons(&shown)),
        Output::Text if shown.is_empty() => Ok(()),
        Output::Text => print(&show::table(&shown.into_iter().map(|one| one.model).collect::<Vec<_>>())),
    }
}

pub(super) async fn why(at: &At, program: &str) -> anyhow::Result<()> {
    let source = Source::open(at, false).await?;
    if let (Source::Service { client, .. }, Output::Json) = (&source, at.output) {
        let views = client.status().await?;
        let why = views.iter().map(|view| {
            let (status, fleet) = (&view.status, &view.fleet);
            json!({
                "name": view.name, "phase": status.phase, "blocked": status.blocked, "waiting": view.waiting,
                "laggards": fleet.laggards, "configLaggards": fleet.config_laggards,
                "routeLaggards": fleet.route_laggards, "old": fleet.old,
            })
        });
        return print_json(&why.collect::<Vec<_>>());
    }
    let shown = source.look().await?;
    match at.output {
        Output::Json => {
            let why = shown.iter().map(|Shown { model, .. }| {
                let blocked = model.blocked.as_ref().map(
                    |blocked| json!({ "reason": blocked.reason, "message": blocked.message, "since": blocked.since }),
                );
                json!({
                    "namespace": model.namespace, "name": model.name,
                    "phase": model.status.as_ref().map(|status| status.phase),
                    "blocked": blocked, "waiting": model.waiting, "laggards": model.proxies.laggards,
                })
            });
            print_json(&why.collect::<Vec<_>>())
        }
        Output::Text => print(&text(&shown, |model| show::why(model, program))),
    }
}

pub(super) async fn history(at: &At) -> anyhow::Result<()> {
    let shown = Source::open(at, false).await?.look().await?;
    match at.output {
        Output::Json => print_json(
            &shown
                .iter()
                .map(|Shown { model, json }| {
                    let history = json.pointer("/status/history").cloned().unwrap_or_else(|| json!([]));
                    json!({ "namespace": model.namespace, "name": model.name, "history": history })
                })
                .collect::<Vec<_>>(),
        ),
        Output::Text => print(&text(&shown, show::history)),
    }
}

/// Asks, and waits for the answer.
pub(super) async fn request(at: &At, action: Action, program: &str) -> anyhow::Result<()> {
    let (answered, refused) = match Source::open(at, false).await? {
        Source::Service { client, at } => {
            let view = ask_service(&client, &at, action).await?;
            (of_view(&view, &at)?, view.status.last_request.and_then(|last| last.refused))
        }
        Source::Cluster { name: None, .. } => {
            bail!("the name of a VersionFlag is missing: `{program} list` shows them")
        }
        Source::Cluster { cluster, name: Some(name) } => {
            let flag = cluster.ask(&name, action).await?;
            let last = flag.status.as_ref().and_then(|status| status.last_request.as_ref());
            (of_resource(&flag, &cluster)?, last.and_then(|last| last.refused.clone()))
        }
    };
    if let Some(why) = refused {
        bail!("refused: {why}");
    }
    match at.output {
        Output::Json => print_json(&answered.json),
        Output::Text => print(&show::status(&answered.model, program)),
    }
}

async fn ask_service(client: &Client, at: &str, action: Action) -> anyhow::Result<FlagView> {
    let views = client.status().await?;
    let [view] = views.as_slice() else {
        bail!("{at} has {} flags, not one", views.len());
    };
    let id = client.ask(&view.name, action).await?;
    let deadline = tokio::time::Instant::now() + ANSWER;
    loop {
        let view = client.status().await?.into_iter().next().context("the flag is gone")?;
        if view.status.last_request.as_ref().is_some_and(|last| last.id == id) {
            return Ok(view);
        }
        if tokio::time::Instant::now() >= deadline {
            bail!("asked for, but not answered within {} s; it stays asked for (id {id})", ANSWER.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
