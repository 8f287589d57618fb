//! `versionflag preview`: how a request reaches a version before it is active. Pure, but for `run`, which asks the
//! Kubernetes API or the flag service.

use std::path::Path;

use anyhow::{Context, bail};
use kube::ResourceExt;
use serde::Serialize;

use super::args::{Output, PreviewArgs};
use super::client::Client;
use super::kube_api::Cluster;
use super::place::{Address, place};
use super::sources::LocalFlags;
use super::terminal::{print, print_json};
use cluster::resource::VersionFlag;
use local::file::File;
use machine::spec::{Service, Spec};
use machine::status::Phase;
use service::FlagView;

/// What is printed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct PreviewText {
    pub(super) header: String,
    pub(super) value: String,
    /// What it reaches now.
    pub(super) version: String,
    /// Commands to copy, one for each Service.
    pub(super) curl: Vec<String>,
}

pub(super) async fn run(options: &PreviewArgs) -> anyhow::Result<()> {
    let (name, version) = (options.name.as_str(), options.version.as_str());
    if !options.file.is_empty() {
        if options.cluster.is_given() {
            bail!("-f is for a local controller, and -n, --context and --kubeconfig for a cluster: leave one out");
        }
        let flags = LocalFlags { sources: options.file.clone(), flag: Some(name.to_owned()) };
        return printed(&previewed(&flags, version).await?, options.output);
    }
    let shown = match place(Some(name), Path::new(name).is_file()) {
        Address::Service(text) if options.cluster.is_given() => {
            bail!("{text} is a file or a URL: -n, --context and --kubeconfig are for the NAME of a VersionFlag")
        }
        Address::Service(file) => {
            vec![previewed(&LocalFlags::all_of(&file), version).await.map_err(|error| format!("{error:#}"))]
        }
        _ => {
            let cluster = Cluster::connect(&options.cluster, false).await?;
            cluster.flags(Some(name)).await?.iter().map(|flag| shown(flag, version)).collect()
        }
    };
    for shown in shown {
        printed(&shown.map_err(anyhow::Error::msg)?, options.output)?;
    }
    Ok(())
}

fn printed(shown: &PreviewText, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => print_json(shown),
        Output::Text => print(&text(shown)),
    }
}

/// How a request reaches a version of a flag of this machine.
async fn previewed(at: &LocalFlags, version: &str) -> anyhow::Result<PreviewText> {
    if at.url().is_some() {
        bail!("name the FILE of the controller: its flag service does not show what lets a request choose");
    }
    let view = Client::at(at)?.only(at).await?;
    let all = local::sources::files(&at.paths())?;
    let file = all.iter().find(|file| file.metadata.name == view.name);
    let file = file.with_context(|| format!("{} has no flag {}", at.named(), view.name))?;
    shown_of_file(file, &view, version).map_err(anyhow::Error::msg)
}

fn text(shown: &PreviewText) -> String {
    format!("{}: {}\n{}\n", shown.header, shown.value, shown.curl.join("\n"))
}

/// A flag, wherever it is.
struct Previewed<'a> {
    name: &'a str,
    spec: &'a Spec,
    active: Option<&'a str>,
    target: Option<&'a str>,
    phase: Option<Phase>,
    /// How a preview is asked for.
    how: String,
    /// What follows the header in a command to copy, for each Service.
    at: Vec<String>,
}

fn quoted(text: &str) -> String {
    text.replace('\'', r"'\''")
}

/// How a request reaches a version of a flag of a cluster, or why it cannot.
pub(super) fn shown(flag: &VersionFlag, version: &str) -> Result<PreviewText, String> {
    let (name, namespace) = (&flag.name_any(), flag.namespace().unwrap_or_default());
    let status = flag.status.clone().unwrap_or_default();
    let patch = r#"{"spec":{"preview":{"header":"x-preview","value":"HARD-TO-GUESS"}}}"#;
    let at = flag.spec.services.iter().map(|service| format!("http://{}.{namespace}/", service.name));
    let flag = Previewed {
        name,
        spec: &flag.spec,
        active: status.active_version.as_deref(),
        target: status.target_version.as_deref(),
        phase: status.phase,
        how: format!("`kubectl patch vf {name} -n {namespace} --type=merge -p '{patch}'` sets one"),
        at: at.collect(),
    };
    flag.shown(version)
}

/// The same of a local controller, by its file and what its flag service shows.
pub(super) fn shown_of_file(file: &File, view: &FlagView, version: &str) -> Result<PreviewText, String> {
    let host = |service: &Service| quoted(service.hosts.first().unwrap_or(&service.name));
    let flag = Previewed {
        name: &file.metadata.name,
        spec: &file.spec,
        active: Some(&view.status.active_version),
        target: view.status.target_version.as_deref(),
        phase: Some(view.status.phase),
        how: "`preview: {header: x-preview, value: HARD-TO-GUESS}` in the spec sets one".to_owned(),
        at: file.spec.services.iter().map(|one| format!("-H 'host: {}' http://ENVOY:PORT/", host(one))).collect(),
    };
    flag.shown(version)
}

impl Previewed<'_> {
    fn shown(self, version: &str) -> Result<PreviewText, String> {
        let name = self.name;
        if self.active == Some(version) {
            return Err(format!("{version} is active: every request reaches it"));
        }
        let Some(preview) = &self.spec.preview else {
            return Err(format!("{name} has no preview: {}", self.how));
        };
        if self.target != Some(version) {
            return Err(format!("{version} is not what {name} switches to: set spec.version to {version} first"));
        }
        if !matches!(self.phase, Some(Phase::AwaitingPromotion | Phase::ProvingRoutes)) {
            let phase = self.phase.map_or("not begun", Phase::name);
            return Err(format!(
                "{version} can be previewed while it is ready and waits to be let in, and {name} is {phase}: set \
                 spec.promotion.mode to Manual, and wait"
            ));
        }
        let header = quoted(&format!("{}: {}", preview.header, preview.value));
        Ok(PreviewText {
            header: preview.header.clone(),
            value: preview.value.clone(),
            version: version.to_owned(),
            curl: self.at.iter().map(|at| format!("curl -H '{header}' {at}")).collect(),
        })
    }
}
