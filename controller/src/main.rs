//! The program `versionflag`. I/O: everything, through the library.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use versionflag::cli::{Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "versionflag: {error:#}");
            ExitCode::FAILURE
        }
    }
}
