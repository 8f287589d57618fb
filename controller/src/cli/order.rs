//! `versionflag restart` and `stop`: what is asked of one version of a local controller. I/O: terminal, and through the
//! client.

use anyhow::{Context, bail};
use clap::Args;

use super::args::Output;
use super::client::Client;
use super::commands::{answered, of_view};
use super::show;
use super::sources::LocalAt;
use super::terminal::{print, print_json};
use machine::order::Verb;
use service::OrderBody;

/// Which version.
#[derive(Debug, Args)]
pub(super) struct OrderArgs {
    #[command(flatten)]
    at: LocalAt,
    /// The version
    #[arg(long)]
    version: String,
    /// Do it even where requests may be lost by it
    #[arg(long)]
    force: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks, and waits for the answer; what was granted may take longer.
pub(super) async fn run(args: &OrderArgs, verb: Verb, program: &str) -> anyhow::Result<()> {
    let OrderArgs { at, version, force, output } = args;
    let at = at.flags();
    let client = Client::at(&at)?;
    let view = client.only(&at).await?;
    let started = view.versions.get(version).and_then(|one| one.started);
    let (flag, version) = (view.name.clone(), version.clone());
    let id = client.order(&OrderBody { flag: flag.clone(), verb, version, force: *force, id: None, started }).await?;
    let view = answered(&client, &flag, &id, |status| status.answered_order(&id).is_some()).await?;
    let answer = view.status.answered_order(&id).context("the answer is gone")?;
    if let Some(why) = &answer.refused {
        bail!("refused: {why}");
    }
    let shown = of_view(&view, &at.about(&flag, 1))?;
    match output {
        Output::Json => print_json(&shown.json),
        Output::Text => print(&show::status(&shown.model, program)),
    }
}
