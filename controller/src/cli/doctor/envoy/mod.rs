//! What would keep a flag from working in an Envoy of somebody's. I/O: asks its admin interface.

mod facts;
mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use local::file::File;
use local::sources::serving;
use service::FlagView;
use service::http::{Bytes, ExchangeLimits, HttpClient, Method, OutgoingRequest};

use self::facts::Facts;
use self::judge::judge;
use super::judge::{Finding, error, warning};
use crate::cli::client::Client;
use crate::cli::filter_level;
use crate::cli::sources::LocalFlags;

/// A dump of a large configuration takes long, and much room.
const LIMITS: ExchangeLimits = ExchangeLimits { bytes: 256 << 20, time: Duration::from_secs(30) };

/// What the controller shows of its flags; or that it does not.
async fn controller(sources: &[PathBuf]) -> Result<Vec<FlagView>, Finding> {
    let sources = sources.iter().map(|source| source.display().to_string()).collect();
    let shown = async { Client::at(&LocalFlags { sources, flag: None })?.status().await };
    shown.await.map_err(|why: anyhow::Error| {
        warning("controller", format!("{why:#}"), "start it: nothing is switched meanwhile")
    })
}

fn blocked(view: &FlagView) -> Option<Finding> {
    let blocked = view.status.blocked.as_ref()?;
    let message = format!("{} is blocked by {}: {}", view.name, blocked.reason.name(), blocked.message);
    Some(error("controller", message, "`versionflag why` has what ends it"))
}

/// The clusters of the versions of a flag that do not run.
fn gone(file: &File, view: &FlagView) -> BTreeSet<String> {
    let gone = view.versions.iter().filter(|(_, version)| !version.running).map(|(name, _)| name);
    let services = &file.spec.services;
    gone.flat_map(|version| services.iter().flat_map(move |service| service.clusters_of(version))).collect()
}

/// The names of the flags of some files, and what an Envoy does not have of them.
pub(super) async fn look(sources: &[PathBuf], admin: &str) -> anyhow::Result<(String, Vec<Finding>)> {
    let files = serving(sources)?;
    let http = HttpClient::plain(LIMITS)?;
    let base = format!("http://{}", admin.trim_start_matches("http://").trim_end_matches('/'));
    let get = async |path: &str| -> anyhow::Result<Bytes> {
        let url = format!("{base}{path}");
        let request = OutgoingRequest { method: Method::GET, url: &url, headers: &[], body: Bytes::new() };
        let asked = http.exchange(request).await;
        let (status, body) = asked.with_context(|| {
            format!("{url} does not answer: --envoy-admin is the address of `admin` in Envoy's configuration")
        })?;
        if !status.is_success() {
            bail!("{url} answers {status}: is that the admin interface of an Envoy?");
        }
        Ok(body)
    };
    let info = get("/server_info").await?;
    let dump = get("/config_dump?include_eds").await?;
    let stats = get("/stats?filter=extension_config_discovery").await?;
    let facts = Facts::read(&info, &dump, &String::from_utf8_lossy(&stats)).map_err(anyhow::Error::msg);
    let mut facts = facts.with_context(|| format!("{base} does not answer as Envoys do"))?;
    let (views, mut all) = (controller(sources).await, vec![]);
    all.extend(views.as_ref().err().cloned());
    for file in &files {
        let mine: Vec<&FlagView> = views.iter().flatten().filter(|view| view.name == file.metadata.name).collect();
        facts.gone = mine.iter().flat_map(|view| gone(file, view)).collect();
        let mut found: Vec<Finding> = judge(file, &facts).map_err(anyhow::Error::msg)?;
        found.extend(mine.into_iter().filter_map(blocked));
        let wasm = file.local.filter_config.as_ref().map(|filter| &filter.wasm);
        found.extend(wasm.and_then(|wasm| filter_level(wasm).err()).map(|unusable| {
            let message = format!("local.filterConfig.wasm: {unusable}");
            error("filter", message, "put it there: an Envoy that starts before that goes on without the filter")
        }));
        if files.len() > 1 {
            let name = &file.metadata.name;
            found
                .iter_mut()
                .filter(|one| one.check != "node")
                .for_each(|one| one.message = format!("{name}: {}", one.message));
        }
        // What is wrong with the Envoy is said once.
        all.extend(found.into_iter().filter(|one| !all.contains(one)).collect::<Vec<_>>());
    }
    all.sort_by_key(|finding| finding.severity);
    let names: Vec<&str> = files.iter().map(|file| file.metadata.name.as_str()).collect();
    Ok((names.join(", "), all))
}
