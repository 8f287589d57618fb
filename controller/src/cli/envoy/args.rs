//! The words of `render envoy --into`. Pure.

use std::path::PathBuf;

use clap::Args;

/// An Envoy configuration that the flag is put into.
#[derive(Debug, Args)]
#[group(skip)]
pub(in crate::cli) struct Into {
    /// Put the filter, routes and clusters of the flag into this configuration of yours, and print it
    #[arg(long, value_name = "ENVOYFILE")]
    pub(in crate::cli) into: Option<PathBuf>,
    /// Write it, and keep the file of before as ENVOYFILE.orig
    #[arg(long, requires = "into")]
    pub(in crate::cli) write: bool,
    /// Write it although comments of yours are lost by it
    #[arg(long, requires = "write")]
    pub(in crate::cli) without_comments: bool,
    /// A listener that is to go by the flag, where several serve its hosts; may be repeated
    #[arg(long, requires = "into", value_name = "NAME")]
    pub(in crate::cli) listener: Vec<String>,
    /// Let WebSockets through on routes of the flag
    #[arg(long, requires = "into")]
    pub(in crate::cli) websocket: bool,
    /// Where Envoy is started, for relative names of files; the folder of ENVOYFILE unless given
    #[arg(long, requires = "into", value_name = "DIR")]
    pub(in crate::cli) directory: Option<PathBuf>,
}
