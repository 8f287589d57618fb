//! The program `versionflag`. I/O: everything, through the library.

use std::io::Write;
use std::process::ExitCode;

use versionflag::cli::{Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::read()).await {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "versionflag: {error:#}");
            ExitCode::FAILURE
        }
    }
}
