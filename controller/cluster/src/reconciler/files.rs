//! The files of the proxies of one flag, in a ConfigMap: written where they are not as they have to be, whoever
//! changed them. I/O: through the writer.

use std::collections::BTreeMap;

use kube::ResourceExt;
use machine::duration::Millis;
use machine::time::UnixMs;
use service::clock::now;
use service::failpoint;
use sha2::{Digest, Sha256};

use super::Reconciler;
use crate::context::{Context, TurnError};
use crate::providers::Files;
use crate::writer::{StoredFiles, is_conflict};

/// SHA-256 of a file: the files of many flags are too large to be kept.
type Hash = [u8; 32];

/// Between two looks at the ConfigMap, for each of so many flags.
const LOOK_MS: u64 = 100;
/// Between two looks at the least.
const LOOK_AT_LEAST: Millis = Millis(10_000);
/// Bytes that a ConfigMap may have.
const BYTES: usize = 1 << 20;

/// The ConfigMap, as it was read or written last.
#[derive(Debug, Default)]
pub(super) struct KnownFiles {
    version: Option<String>,
    files: BTreeMap<String, Hash>,
    /// `None`: nothing is known of it.
    looked_at: Option<UnixMs>,
}

impl KnownFiles {
    fn of(stored: Option<StoredFiles>, now: UnixMs) -> KnownFiles {
        let (version, files) = stored.map(|stored| (stored.version, stored.files)).unwrap_or_default();
        let files = files.into_iter().map(|(name, text)| (name, hash(&text))).collect();
        KnownFiles { version, files, looked_at: Some(now) }
    }

    /// Whether somebody may have changed it since.
    fn is_due(&self, now: UnixMs, flags: usize) -> bool {
        let every = LOOK_AT_LEAST.max(Millis(LOOK_MS.saturating_mul(u64::try_from(flags).unwrap_or(u64::MAX))));
        self.looked_at.is_none_or(|at| now.since(at) >= every)
    }
}

impl Reconciler {
    /// All files that are to be written now, at once.
    pub(super) async fn write_gathered(&mut self, context: &Context<'_>) -> Result<(), TurnError> {
        let files = std::mem::take(&mut self.gathered);
        let done = self.write_files(files, context).await;
        let why = match &done {
            Err(TurnError::Api(error)) if is_conflict(error) => None,
            Err(error @ (TurnError::Api(_) | TurnError::TooLarge { .. })) => Some(error.to_string()),
            _ => None,
        };
        self.unwritten = why.or_else(|| self.unwritten.take());
        done
    }

    /// Over exactly what was seen: a leader of before must not undo it.
    async fn write_files(&mut self, mut files: Files, context: &Context<'_>) -> Result<(), TurnError> {
        if files.is_empty() {
            return Ok(());
        }
        let (namespace, name) = (self.namespace(), format!("versionflag-{}", self.resource.name_any()));
        if self.files.is_due(now(), context.flags) {
            let same = context.writer.files_version(&namespace, &name).await?;
            let known = self.files.looked_at.is_some() && same == self.files.version;
            self.files = match known {
                true => KnownFiles { looked_at: Some(now()), ..std::mem::take(&mut self.files) },
                false => KnownFiles::of(context.writer.read_files(&namespace, &name).await?, now()),
            };
        }
        let bytes = files.iter().map(|(name, text)| name.len().saturating_add(text.len())).sum::<usize>();
        files.retain(|name, text| self.files.files.get(name) != Some(&hash(text)));
        if files.is_empty() {
            return Ok(());
        }
        if bytes > BYTES {
            return Err(TurnError::TooLarge { name: format!("{namespace}/{name}"), bytes, most: BYTES });
        }
        if !context.leadership.holds() {
            return Err(TurnError::Deposed);
        }
        let written = context.writer.files(&namespace, &name, self.files.version.as_deref(), &files).await;
        if written.as_ref().is_err_and(is_conflict) {
            self.files = KnownFiles::default();
        }
        self.files.version = written?;
        failpoint::point("after the files of the proxies were written");
        self.files.files.extend(files.into_iter().map(|(name, text)| (name, hash(&text))));
        Ok(())
    }
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text).into()
}

#[cfg(test)]
#[path = "../tests/files.rs"]
mod tests;
