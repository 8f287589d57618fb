//! `versionflag preview`: how a request reaches a version before it is active. Pure, but for `run`, which asks the
//! Kubernetes API.

use kube::ResourceExt;
use serde::Serialize;

use super::args::{Output, PreviewArgs};
use super::kube_api::Cluster;
use super::{print, print_json};
use cluster::resource::VersionFlag;
use machine::status::Phase;

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
    let cluster = Cluster::connect(&options.cluster, false).await?;
    let flags = cluster.flags(Some(&options.name)).await?;
    for flag in &flags {
        let shown = shown(flag, &options.version).map_err(anyhow::Error::msg)?;
        match options.output {
            Output::Json => print_json(&shown)?,
            Output::Text => print(&text(&shown))?,
        }
    }
    Ok(())
}

fn text(shown: &PreviewText) -> String {
    format!("{}: {}\n{}\n", shown.header, shown.value, shown.curl.join("\n"))
}

/// How a request reaches a version of a flag, or why it cannot.
pub(super) fn shown(flag: &VersionFlag, version: &str) -> Result<PreviewText, String> {
    let (name, namespace) = (flag.name_any(), flag.namespace().unwrap_or_default());
    let status = flag.status.clone().unwrap_or_default();
    if status.active_version.as_deref() == Some(version) {
        return Err(format!("{version} is active: every request reaches it"));
    }
    let Some(preview) = &flag.spec.preview else {
        let patch = r#"{"spec":{"preview":{"header":"x-preview","value":"HARD-TO-GUESS"}}}"#;
        return Err(format!(
            "{name} has no preview: `kubectl patch vf {name} -n {namespace} --type=merge -p '{patch}'` sets one"
        ));
    };
    if status.target_version.as_deref() != Some(version) {
        return Err(format!("{version} is not what {name} switches to: set spec.version to {version} first"));
    }
    if !matches!(status.phase, Some(Phase::AwaitingPromotion | Phase::ProvingRoutes)) {
        let phase = status.phase.map_or("not begun", Phase::name);
        return Err(format!(
            "{version} can be previewed while it is ready and waits to be let in, and {name} is {phase}: set \
             spec.promotion.mode to Manual, and wait"
        ));
    }
    let quoted = |text: &str| text.replace('\'', r"'\''");
    let header = format!("{}: {}", preview.header, preview.value);
    let curl = flag
        .spec
        .services
        .iter()
        .map(|service| format!("curl -H '{}' http://{}.{namespace}/", quoted(&header), service.name));
    Ok(PreviewText {
        header: preview.header.clone(),
        value: preview.value.clone(),
        version: version.to_owned(),
        curl: curl.collect(),
    })
}
