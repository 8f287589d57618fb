//! `versionflag logs`: what a version of a local controller printed. I/O: files, terminal.

use std::io::{ErrorKind, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::terminal::is_read;
use local::file::find_name;
use local::log_reader::{LogReader, open_log};

/// Between two looks at what was printed since.
const PACE: Duration = Duration::from_millis(200);

/// Of which version, and how much.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The name of the flag; needed where there are several
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The FILE that the local controller runs with
    #[arg(short, long)]
    file: PathBuf,
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
    if let (Some(name), Some(there)) = (&args.name, find_name(&args.file)?)
        && *name != there
    {
        bail!("there is no flag {name} in {}; there is: {there}", args.file.display());
    }
    let mut reader = open_log(&args.file, args.version.as_deref(), args.lines)?;
    while write(&mut reader)? && args.follow {
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            stop = tokio::signal::ctrl_c() => return Ok(stop?),
        }
    }
    Ok(())
}

/// Whether somebody reads on.
fn write(reader: &mut LogReader) -> anyhow::Result<bool> {
    match reader.write_new(&mut stdout().lock()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| is_read())?),
    }
}
