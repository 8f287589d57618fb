//! Somebody's own Envoy: `versionflag render envoy --into FILE`. I/O: reads and writes configurations, terminal.
//!
//! | module | job |
//! | --- | --- |
//! | `args` | its words |
//! | `node` | a configuration as a tree |
//! | `write`, `edit` | the tree as text; a text with what has changed in its tree |
//! | `config` | listeners, route tables and clusters in it |
//! | `hosts` | which virtual host serves a host |
//! | `routes`, `manager`, `cluster` | what a flag needs of each |
//! | `flag` | what a flag needs, and where it belongs |
//! | `merge` | all of it |

pub(super) mod args;
pub(super) mod cluster;
pub(super) mod config;
mod edit;
pub(super) mod flag;
pub(super) mod hosts;
pub(super) mod manager;
mod merge;
pub(super) mod node;
pub(super) mod routes;
#[cfg(test)]
mod tests;
mod write;

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use local::file::{File, read_text};
use local::store::write_atomically;
use similar::TextDiff;

use super::render;
use super::terminal::{print, warn};
use args::Into;
use config::{Config, Source, references};
use edit::{comments, rewritten};
use merge::{Choice, Note, merge};
use node::Node;

/// Puts flags into the configuration of an Envoy, one after the other, and prints it or writes it.
pub(super) fn run(flags: &[File], proxy: Option<String>, into: &Into, envoy: &Path) -> anyhow::Result<()> {
    render::same_envoy(&flags.iter().collect::<Vec<_>>()).map_err(anyhow::Error::msg)?;
    let before = read(envoy, into.directory.as_deref())?;
    let choice = Choice { proxy, listeners: into.listener.clone(), websocket: into.websocket };
    let (mut after, mut notes) = (before.clone(), vec![]);
    for file in flags {
        let merged = merge(file, after, &choice).map_err(|all| anyhow::anyhow!("{}", all.join("\n")));
        let (merged, said) = merged.with_context(|| format!("{} is left as it is", envoy.display()))?;
        after = merged;
        notes.extend(said.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>());
    }
    let pairs = before.files.iter().zip(&after.files);
    let texts: Vec<(&Source, String, bool)> = pairs
        .map(|(old, new)| {
            let (text, is_kept) = rewritten(&old.text, &old.tree, &new.tree);
            (old, text, is_kept)
        })
        .collect();
    texts.iter().for_each(|(old, text, is_kept)| warn_of_changes(old, text, *is_kept));
    warn(&said(&notes));
    if into.write {
        let lost = texts
            .iter()
            .find(|(old, text, is_kept)| old.text != *text && !is_kept && comments(&old.text).next().is_some());
        if let Some((old, ..)) = lost.filter(|_| !into.without_comments) {
            bail!(
                "nothing is written: {} would lose comments, for an anchor, an alias or brackets in what changes. Write \
                 that out in lines of its own, or say --without-comments",
                old.name
            );
        }
        return write(&texts, after.cluster_file());
    }
    match texts.as_slice() {
        [(_, text, _)] => print(text),
        several => {
            print(&several.iter().map(|(file, text, _)| format!("---\n# {}\n{text}", file.name)).collect::<String>())
        }
    }
}

fn warn_of_changes(old: &Source, text: &str, is_kept: bool) {
    let name = &old.name;
    if old.text == *text {
        return warn(&format!("= {name} has all that is needed"));
    }
    warn(TextDiff::from_lines(old.text.as_str(), text).unified_diff().header(name, name).to_string().trim_end());
    if !is_kept {
        warn(&format!("! {name} loses comments, or all of its layout: it has what cannot be changed in place"));
    }
}

/// Writes what has changed. An Envoy that watches the files gets clusters before routes, and routes before listeners.
fn write(texts: &[(&Source, String, bool)], clusters: Option<usize>) -> anyhow::Result<()> {
    let first = clusters.and_then(|index| texts.get(index));
    for (file, text, _) in first.into_iter().chain(texts.iter().rev()) {
        // A file that was written already is as it should be.
        if *text != read_text(&file.path)? {
            let kept = replace(&file.path, text)?;
            warn(&format!("✓ {} is written; as it was, it is in {}", file.path.display(), kept.display()));
        }
    }
    Ok(())
}

/// What people read of it. Pure.
fn said(notes: &[Note]) -> String {
    let line = |note: &Note| match note {
        Note::Done(what) => format!("+ {what}"),
        Note::Left(what) => format!("= left as it is: {what}"),
        Note::Look(what) => format!("! {what}"),
    };
    notes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A configuration with the files that it refers to for listeners, clusters and routes.
fn read(envoy: &Path, directory: Option<&Path>) -> anyhow::Result<Config> {
    let beside = envoy.parent().unwrap_or(Path::new("")).to_owned();
    let directory = directory.map_or(beside, Path::to_owned);
    let mut files = vec![source(envoy.display().to_string(), envoy.to_owned())?];
    let mut next = 0;
    while let Some(file) = files.get(next) {
        for name in references(&file.tree) {
            if !files.iter().any(|known| known.is(&name)) {
                let path = directory.join(&name);
                // By another name it would be changed twice, and the second one written over the first.
                let real = std::fs::canonicalize(&path).ok();
                let same = |known: &&mut Source| real.is_some() && std::fs::canonicalize(&known.path).ok() == real;
                if let Some(known) = files.iter_mut().find(same) {
                    known.others.push(name);
                    continue;
                }
                let found = source(name, path).with_context(|| {
                    let from = envoy.display();
                    format!("{from} refers to it: --directory is where Envoy is started, for names that are relative")
                })?;
                files.push(found);
            }
        }
        next += 1;
    }
    Ok(Config { files, running: false })
}

fn source(name: String, path: PathBuf) -> anyhow::Result<Source> {
    let text = read_text(&path)?;
    let tree = Node::parse(&text).map_err(anyhow::Error::msg).with_context(|| path.display().to_string())?;
    Ok(Source { name, others: vec![], path, text, tree })
}

/// Writes a file, and keeps the one of before beside it under a name that is free.
fn replace(path: &Path, text: &str) -> anyhow::Result<PathBuf> {
    // Where the name is a link, the file that it leads to is meant.
    let path = &std::fs::canonicalize(path).with_context(|| format!("{} cannot be found", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names = (0..1_000).map(|number| match number {
        0 => path.with_file_name(format!("{name}.orig")),
        more => path.with_file_name(format!("{name}.orig.{more}")),
    });
    let Some(kept) = names.find(|kept| !kept.exists()) else {
        bail!("{} has too many copies named .orig: take some away", path.display());
    };
    let failed = |what: &Path| format!("{} cannot be written", what.display());
    let before = std::fs::metadata(path).with_context(|| failed(path))?;
    std::fs::copy(path, &kept).with_context(|| failed(&kept))?;
    keep_owner(&kept, &before)?;
    // By a new file and a rename: an Envoy that watches the file reads it whole.
    write_atomically(path, text.as_bytes()).with_context(|| failed(path))?;
    keep_owner(path, &before)?;
    std::fs::set_permissions(path, before.permissions()).with_context(|| failed(path))?;
    Ok(kept)
}

/// Whoever may read a file reads the new one, too.
fn keep_owner(path: &Path, before: &std::fs::Metadata) -> anyhow::Result<()> {
    let now = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    if (now.uid(), now.gid()) == (before.uid(), before.gid()) {
        return Ok(());
    }
    chown(path, Some(before.uid()), Some(before.gid()))
        .with_context(|| format!("{} is written, and its owner is not the one of before", path.display()))
}
