//! The commands about a flag, wherever it is. I/O: terminal, and through the clients.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::args::{At, Output};
use super::client::{Client, names};
use super::kube_api::Cluster;
use super::model::Model;
use super::place::{Address, place};
use super::sources::LocalFlags;
use super::terminal::{print, print_json, warn};
use super::{ANSWER, BLOCKED, NOT_ACKED, show, watch};
use cluster::resource::VersionFlag;
use machine::action::Action;
use machine::status::Status;
use service::FlagView;
use service::clock::now;

/// Where flags are found.
pub(super) enum Source {
    Service { client: Box<Client>, at: LocalFlags },
    Cluster { cluster: Cluster, name: Option<String> },
}

/// One flag, for people and for programs.
pub(super) struct ShownFlag {
    pub(super) model: Model,
    pub(super) json: Value,
}

impl Source {
    pub(super) async fn open(at: &At, all: bool) -> anyhow::Result<Source> {
        if !at.file.is_empty() {
            if all || at.cluster.is_given() {
                bail!(
                    "-f is for a local controller, and -n, -A, --context and --kubeconfig for a cluster: leave one out"
                );
            }
            return Source::local(LocalFlags { sources: at.file.clone(), flag: at.at.clone() });
        }
        let is_file = at.at.as_ref().is_some_and(|at| Path::new(at).is_file());
        let name = match place(at.at.as_deref(), is_file) {
            Address::Service(text) if all || at.cluster.is_given() => {
                bail!("{text} is a file or a URL: -n, -A, --context and --kubeconfig are for the NAME of a VersionFlag")
            }
            Address::Service(text) => return Source::local(LocalFlags::all_of(&text)),
            Address::Named(name) if all => bail!("-A shows all flags of the cluster: leave {name} or -A out"),
            Address::Named(name) => Some(name),
            Address::All => None,
        };
        let or_local = |error| anyhow::anyhow!("{error}; or name the FILE or URL of a local controller");
        let cluster = Cluster::connect(&at.cluster, all).await.map_err(or_local)?;
        Ok(Source::Cluster { cluster, name })
    }

    fn local(at: LocalFlags) -> anyhow::Result<Source> {
        Ok(Source::Service { client: Box::new(Client::at(&at)?), at })
    }

    /// Refuses what is about one flag, where a controller of this machine has several and none is named.
    pub(super) async fn has_one(&self) -> anyhow::Result<()> {
        let Source::Service { client, at } = self else { return Ok(()) };
        let views = client.views(at).await?;
        if views.len() > 1 { Err(at.ambiguous(&names(&views))) } else { Ok(()) }
    }

    /// A controller of this machine that was started anew may listen elsewhere.
    pub(super) fn reopen(&mut self) {
        if let Source::Service { client, at } = self
            && let Ok(anew) = Client::at(at)
        {
            **client = anew;
        }
    }

    /// `live`: with what the flag service of a cluster knows, if it can be asked.
    pub(super) async fn look(&self, live: Option<&mut LiveView>) -> anyhow::Result<Vec<ShownFlag>> {
        match self {
            Source::Service { client, at } => {
                let views = client.views(at).await?;
                views.iter().map(|view| of_view(view, &at.about(&view.name, views.len()))).collect()
            }
            Source::Cluster { cluster, name } => {
                let flags = cluster.flags(name.as_deref()).await?;
                if flags.is_empty() {
                    warn(&format!("no VersionFlags in {}", cluster.place()));
                }
                let views = match live {
                    Some(live) => live.ask(cluster, name.as_deref()).await,
                    None => None,
                };
                of_resources(&flags, views.as_deref(), cluster)
            }
        }
    }
}

/// Asks what is not in the resource, and says once that it cannot.
#[derive(Default)]
pub(super) struct LiveView {
    quiet: bool,
    said: Option<String>,
    trouble: Option<String>,
}

impl LiveView {
    /// Of a watch, which shows by itself what cannot be asked, or does not.
    pub(super) fn of_watch(is_shown: bool) -> LiveView {
        LiveView { quiet: is_shown, ..LiveView::default() }
    }

    pub(super) async fn ask(&mut self, cluster: &Cluster, name: Option<&str>) -> Option<Vec<FlagView>> {
        let asked = cluster.live(name).await;
        let why = |error| format!("without requests, as the flag service cannot be asked: {error:#}");
        self.trouble = asked.as_ref().err().map(why);
        if !self.quiet && self.trouble.is_some() && self.said != self.trouble {
            self.said.clone_from(&self.trouble);
            self.said.iter().for_each(|said| warn(said));
        }
        asked.ok()
    }

    /// What could not be asked last, and why.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }
}

pub(super) fn of_view(view: &FlagView, at: &str) -> anyhow::Result<ShownFlag> {
    Ok(ShownFlag { model: Model::of_view(view, at), json: serde_json::to_value(view)? })
}

pub(super) fn of_resources(
    flags: &[VersionFlag],
    views: Option<&[FlagView]>,
    cluster: &Cluster,
) -> anyhow::Result<Vec<ShownFlag>> {
    let view = |flag: &VersionFlag| {
        let name = format!("{}/{}", flag.namespace().unwrap_or_default(), flag.name_any());
        views.into_iter().flatten().find(|view| view.name == name)
    };
    flags.iter().map(|flag| of_resource(flag, view(flag), cluster)).collect()
}

fn of_resource(flag: &VersionFlag, live: Option<&FlagView>, cluster: &Cluster) -> anyhow::Result<ShownFlag> {
    let mut status = flag.status.clone().unwrap_or_default();
    // Not for others: it may change with every version of the controller.
    status.machine = None;
    let json = json!({
        "namespace": flag.namespace(), "name": flag.name_any(), "specVersion": flag.spec.version, "status": status,
        "live": live.map(|live| json!({
            "traffic": live.traffic, "fleet": live.fleet, "checks": live.checks, "waiting": live.waiting,
            "next": live.next, "flip": live.flip,
        })),
    });
    Ok(ShownFlag { model: Model::of_resource(flag, live, cluster.at(flag), now()), json })
}

pub(super) fn jsons(shown: &[ShownFlag]) -> Value {
    shown.iter().map(|one| one.json.clone()).collect()
}

fn text(shown: &[ShownFlag], draw: impl Fn(&Model) -> String) -> String {
    shown.iter().map(|one| draw(&one.model)).collect()
}

pub(super) fn draw(shown: &[ShownFlag], output: Output, program: &str) -> anyhow::Result<String> {
    Ok(match output {
        Output::Json => format!("{}\n", jsons(shown)),
        Output::Text => text(shown, |model| show::status(model, program)),
    })
}

pub(super) async fn status(at: &At, all: bool, watch: bool, program: &str) -> anyhow::Result<ExitCode> {
    let source = Source::open(at, all).await?;
    if watch {
        watch::run(at, source, program).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = source.look(Some(&mut LiveView::default())).await?;
    match at.output {
        Output::Json => print_json(&jsons(&shown))?,
        Output::Text => print(&draw(&shown, at.output, program)?)?,
    }
    Ok(exit_code(&shown.iter().map(|one| &one.model).collect::<Vec<_>>()).into())
}

/// What `status` says of flags in a number.
pub(super) fn exit_code(shown: &[&Model]) -> u8 {
    match () {
        () if shown.iter().any(|model| model.blocked.is_some()) => BLOCKED,
        () if shown.iter().any(|model| model.proxies.acked < model.proxies.expected) => NOT_ACKED,
        () => 0,
    }
}

pub(super) async fn list(at: &At, all: bool) -> anyhow::Result<()> {
    let shown = Source::open(at, all).await?.look(None).await?;
    match at.output {
        Output::Json => print_json(&jsons(&shown)),
        Output::Text if shown.is_empty() => Ok(()),
        Output::Text => print(&show::table(&shown.into_iter().map(|one| one.model).collect::<Vec<_>>())),
    }
}

pub(super) async fn why(at: &At, program: &str) -> anyhow::Result<()> {
    let source = Source::open(at, false).await?;
    source.has_one().await?;
    if let (Source::Service { client, at }, Output::Json) = (&source, at.output) {
        let views = client.views(at).await?;
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
    let shown = source.look(Some(&mut LiveView { quiet: true, ..LiveView::default() })).await?;
    match at.output {
        Output::Json => {
            let why = shown.iter().map(|ShownFlag { model, .. }| {
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
    let source = Source::open(at, false).await?;
    source.has_one().await?;
    let shown = source.look(None).await?;
    match at.output {
        Output::Json => print_json(
            &shown
                .iter()
                .map(|ShownFlag { model, json }| {
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
            (
                of_view(&view, &at.about(&view.name, 1))?,
                view.status.last_request.as_ref().and_then(|last| last.refused.clone()),
            )
        }
        Source::Cluster { name: None, .. } => {
            bail!("the name of a VersionFlag is missing: `{program} list` shows them")
        }
        Source::Cluster { cluster, name: Some(name) } => {
            let flag = cluster.ask(&name, action).await?;
            let last = flag.status.as_ref().and_then(|status| status.last_request.as_ref());
            (of_resource(&flag, None, &cluster)?, last.and_then(|last| last.refused.clone()))
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

async fn ask_service(client: &Client, at: &LocalFlags, action: Action) -> anyhow::Result<FlagView> {
    let view = client.only(at).await?;
    let begun = view.status.switch.as_ref().map(|switch| switch.started_at);
    let id = client.ask(&view.name, action, begun).await?;
    let is_last = |status: &Status| status.last_request.as_ref().is_some_and(|last| last.id == id);
    answered(client, &view.name, &id, is_last).await
}

/// Waits until the controller has answered what was asked for by this id.
pub(super) async fn answered(
    client: &Client,
    flag: &str,
    id: &str,
    is_answered: impl Fn(&Status) -> bool,
) -> anyhow::Result<FlagView> {
    let deadline = tokio::time::Instant::now() + ANSWER;
    loop {
        let views = client.status().await?;
        let view = views.into_iter().find(|view| view.name == flag).context("the flag is gone")?;
        if is_answered(&view.status) {
            return Ok(view);
        }
        if tokio::time::Instant::now() >= deadline {
            bail!("asked for, but not answered within {} s; it stays asked for (id {id})", ANSWER.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
