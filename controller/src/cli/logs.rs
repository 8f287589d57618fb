//! `versionflag logs`: what a version of a local controller printed. I/O: files, terminal.

use std::io::{ErrorKind, stdout};
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::sources::{LocalAt, LocalFlags};
use super::terminal::is_read;
use local::log_reader::{LogReader, open_log};
use local::sources::{Found, find};

/// Between two looks at what was printed since.
const PACE: Duration = Duration::from_millis(200);

/// Of which version, and how much.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    at: LocalAt,
    /// The version; the one that is switched to, or that serves, unless given
    #[arg(long)]
    version: Option<String>,
    /// Go on with what is printed from now on
    #[arg(long)]
    follow: bool,
    /// The last lines only
    #[arg(long, value_name = "N")]
    lines: Option<u64>,
}

/// Prints it. With `--follow` until nobody reads it any more, or Ctrl-C.
pub(super) async fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let at = args.at.flags();
    if let Some(url) = at.url() {
        bail!("logs are files: name the FILE or DIR of the controller, not {url}");
    }
    let flag = found(&at, find(&at.paths())?)?;
    let mut reader = open_log(&flag, args.version.as_deref(), args.lines)?;
    while write(&mut reader)? && (args.follow || reader.waits()) {
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            stop = tokio::signal::ctrl_c() => return Ok(stop?),
        }
    }
    Ok(())
}

/// The one that is meant.
fn found(at: &LocalFlags, mut all: Vec<Found>) -> anyhow::Result<Found> {
    let names = all.iter().filter_map(|one| one.flag.as_deref()).collect::<Vec<_>>().join(", ");
    all.retain(|one| at.flag.is_none() || one.flag == at.flag);
    match <[Found; 1]>::try_from(all) {
        Ok([one]) => Ok(one),
        Err(none) if none.is_empty() => {
            bail!("there is no flag {} in {}; there is: {names}", at.flag.as_deref().unwrap_or_default(), at.named())
        }
        Err(_) => Err(at.ambiguous(&names)),
    }
}

/// Whether somebody reads on.
fn write(reader: &mut LogReader) -> anyhow::Result<bool> {
    match reader.write_new(&mut stdout().lock()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| is_read())?),
    }
}
