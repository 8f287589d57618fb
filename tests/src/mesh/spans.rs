//! What the apps of a mesh note of their requests. I/O: reads it.

use anyhow::Result;

use super::Mesh;
use crate::overlap::{self, Span};

impl Mesh<'_> {
    /// When requests were open at the apps whose names begin like this, those that are over.
    pub fn spans(&self, prefix: &str) -> Result<Vec<Span>> {
        let mut all = vec![];
        for entry in std::fs::read_dir(self.kubelet.dir().path())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(prefix) && name.ends_with(".spans") {
                all.extend(overlap::read(&path)?);
            }
        }
        Ok(all)
    }
}
