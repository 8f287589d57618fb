//! The words of the command line. Pure.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

mod controller;

use super::dashboard::DashboardArgs;
use super::envoy::args::Into;
use super::explain::ExplainArgs;
use super::kube_api::Where;
use super::logs::LogsArgs;
use super::order::OrderArgs;
use super::sources::Sources;
use super::wait::Goal;
use cluster::domain::Domain;
use machine::duration::Millis;

pub(super) use controller::{Controller, PluginArgs};

/// What kubectl calls this program as, when it is asked for `kubectl versionflag`.
const PLUGIN: &str = "kubectl-versionflag";

/// Switches the version of a service by one flag, and removes the old one after traffic has settled.
#[derive(Debug, Parser)]
#[command(
    name = "versionflag",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 blocked (status) or in vain (wait), \
                  4 not all proxies have acked (status)"
)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    /// How people call it.
    #[arg(skip = "versionflag")]
    pub(super) program: &'static str,
}

/// How people call a program of this name.
pub(super) fn called(name: Option<&OsStr>) -> &'static str {
    let name = name.and_then(|name| Path::new(name).file_name());
    if name == Some(OsStr::new(PLUGIN)) { "kubectl versionflag" } else { "versionflag" }
}

impl Cli {
    /// Reads the command line of this process; ends it where that is not valid.
    pub fn read() -> Cli {
        let program = called(std::env::args_os().next().as_deref());
        let matches = Cli::command().bin_name(program).get_matches();
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        Cli { program, ..cli }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the controller on this machine
    Local {
        #[command(flatten)]
        sources: Sources,
        /// Append one JSON object per line to this file for everything that happens; - for stdout
        #[arg(long, value_name = "FILE")]
        audit_log: Option<PathBuf>,
        /// Log one JSON object per line on stderr
        #[arg(long)]
        log_json: bool,
    },
    /// Run the controller of a Kubernetes cluster
    Controller(Box<Controller>),
    /// Show where each flag stands; exit code 3 says that something is blocked, 4 that a proxy has not acked
    Status {
        #[command(flatten)]
        at: At,
        /// Of all namespaces
        #[arg(short = 'A', long, conflicts_with = "namespace")]
        all_namespaces: bool,
        /// Show it again whenever it changes
        #[arg(short, long)]
        watch: bool,
    },
    /// Wait until a flag is where it is asked to be; exit code 1 says that it took too long, 3 that it never will be
    Wait {
        #[command(flatten)]
        at: At,
        /// What to wait for, of the version that the spec asks for
        #[arg(long = "for", value_enum, value_name = "WHAT")]
        goal: Goal,
        /// How long at most
        #[arg(long, default_value = "10m", value_name = "DURATION")]
        timeout: Millis,
    },
    /// Show all flags in a table
    List {
        #[command(flatten)]
        at: At,
        /// Of all namespaces
        #[arg(short = 'A', long, conflicts_with = "namespace")]
        all_namespaces: bool,
    },
    /// Open the live page in a browser; that of a cluster through the API server, until Ctrl-C
    Dashboard(DashboardArgs),
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
    /// Start a version of a local controller anew, as its file says now
    Restart(OrderArgs),
    /// Stop a version of a local controller that nothing needs
    Stop(OrderArgs),
    /// Print what a version of a local controller printed
    Logs(LogsArgs),
    /// Show what happened lately, the newest last
    History(At),
    /// Find what would keep flags of a namespace, or of an Envoy, from working; exit code 1 says that something does
    Doctor(Doctor),
    /// List what is still in a cluster, in the order in which it is taken away; exit code 1 says that something is
    Uninstall(Uninstall),
    /// Print a VersionFlag for a Service of a cluster
    Init(Init),
    /// Print how a request reaches a version before it is active
    Preview(PreviewArgs),
    /// Find what is wrong with a file before it is applied; exit code 1 says that something is
    Lint {
        #[command(flatten)]
        sources: Sources,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Play a script of what is seen and asked for, and print what the controller makes of it
    Simulate {
        /// YAML as in controller/machine/simulations; - for stdin
        file: PathBuf,
    },
    /// Print configuration for others
    Render {
        #[command(subcommand)]
        what: Render,
    },
    /// Explain a field of the file, such as spec.settle, or a reason that a status shows
    Explain(ExplainArgs),
    /// Print what makes a shell complete the words of this program
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual, a page for each command
    Man {
        /// The folder that it is written to, such as ~/.local/share/man/man1
        folder: PathBuf,
    },
    /// Print the JSON Schema of a local controller's file, for editors
    Schema,
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

/// What is to be switched.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The Service
    pub(super) service: String,
    /// The version that serves now
    #[arg(long)]
    pub(super) version: String,
    /// The routes are yours: print some to begin with as well
    #[arg(long)]
    pub(super) user_provided: bool,
    #[command(flatten)]
    pub(super) names: Names,
    #[command(flatten)]
    pub(super) cluster: Where,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Manifest,
}

/// The only way to print what is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Manifest {
    /// YAML documents.
    #[default]
    Yaml,
}

/// Which version of a flag.
#[derive(Debug, Args)]
pub(super) struct PreviewArgs {
    /// The NAME of a VersionFlag in a cluster, or of those of -f; or the FILE that a local controller runs with
    #[arg(value_name = "NAME|FILE")]
    pub(super) name: String,
    /// The version
    pub(super) version: String,
    /// A file or folder that a local controller runs with; may be repeated
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(super) file: Vec<String>,
    #[command(flatten)]
    pub(super) cluster: Where,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// What the doctor looks at.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    pub(super) cluster: Where,
    /// Account of the controller in its namespace
    #[arg(long, default_value = "versionflag")]
    pub(super) account: String,
    /// Istio's root namespace
    #[arg(long, default_value = "istio-system")]
    pub(super) istio_root_namespace: String,
    /// Port of the flag service [default: 7070, or 7071 where the controller asks for certificates]
    #[arg(long)]
    pub(super) port: Option<u16>,
    #[command(flatten)]
    pub(super) names: Names,
    /// Look at an Envoy instead, for the FILE or folder that a local controller runs with; may be repeated
    #[arg(short, long, requires = "envoy_admin")]
    pub(super) file: Vec<PathBuf>,
    /// Where that Envoy has its admin interface, such as 127.0.0.1:9901
    #[arg(long, requires = "file", value_name = "ADDRESS")]
    pub(super) envoy_admin: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// What is looked for before an uninstall, and after it.
#[derive(Debug, Args)]
pub(super) struct Uninstall {
    /// Only look: nothing is taken away by this program
    #[arg(long, required = true)]
    pub(super) check: bool,
    #[command(flatten)]
    pub(super) cluster: Where,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// How the cluster names its Services.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Names {
    /// Domain of the cluster, in which Services are SERVICE.NAMESPACE.svc.DOMAIN
    #[arg(long, env = "VERSIONFLAG_CLUSTER_DOMAIN", value_name = "DOMAIN", default_value_t)]
    pub(super) cluster_domain: Domain,
}

#[derive(Debug, Subcommand)]
pub(super) enum Render {
    /// A complete Envoy configuration
    Envoy {
        #[command(flatten)]
        sources: Sources,
        /// Which of local.proxies it is for; the first one unless given
        #[arg(short, long)]
        proxy: Option<String>,
        #[command(flatten)]
        into: Into,
    },
    /// What the controller would write for Istio: routes and plugins
    Istio(Rendered),
    /// The same with routes of the Gateway API; the file has the Services as well
    GatewayApi(Rendered),
}

#[derive(Debug, Args)]
pub(super) struct Rendered {
    /// The VersionFlag
    #[arg(short, long)]
    pub(super) file: PathBuf,
    /// Versions that there are besides spec.version
    #[arg(long, value_delimiter = ',')]
    pub(super) versions: Vec<String>,
    /// Namespace of the controller
    #[arg(long, default_value = "versionflag")]
    pub(super) home: String,
    #[command(flatten)]
    pub(super) names: Names,
    #[command(flatten)]
    pub(super) plugin: PluginArgs,
}

#[derive(Debug, Args)]
pub(super) struct At {
    /// The NAME of a VersionFlag in a cluster, or of those of -f; or the FILE that a local controller runs with, or the
    /// URL of its flag service
    #[arg(value_name = "NAME|FILE|URL")]
    pub(super) at: Option<String>,
    /// A file or folder that a local controller runs with, or its URL; may be repeated
    #[arg(short, long, value_name = "FILE|DIR|URL")]
    pub(super) file: Vec<String>,
    #[command(flatten)]
    pub(super) cluster: Where,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}
