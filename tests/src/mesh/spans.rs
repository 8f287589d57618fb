//! What the apps of a mesh note of their requests. I/O: reads it.

use std::path::PathBuf;

use anyhow::Result;

use super::Mesh;
use crate::overlap::{self, Span};

impl Mesh<'_> {
    /// The files of the pods whose names begin like this, those included that are gone.
    pub(super) fn files(&self, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>> {
        let mut files = vec![];
        for entry in std::fs::read_dir(self.cluster.dir().path())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(prefix) && name.ends_with(suffix) {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// When requests were open at the apps whose names begin like this, those that are over.
    pub fn spans(&self, prefix: &str) -> Result<Vec<Span>> {
        let mut all = vec![];
        for path in self.files(prefix, ".spans")? {
            all.extend(overlap::read(&path)?);
        }
        Ok(all)
    }
}
