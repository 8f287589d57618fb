//! What the apps of a mesh note of their requests. I/O: reads it.

use std::path::PathBuf;

use anyhow::Result;

use super::Mesh;
use crate::overlap::{self, Span};

impl Mesh<'_> {
    /// The files of the pods whose names begin like this, those included that are gone.
    pub(super) fn files(&self, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>> {
        Ok(self.cluster.dir().files(prefix, suffix)?)
    }

    /// When requests were open at the apps whose names begin like this, those that are over.
    pub fn spans(&self, prefix: &str) -> Result<Vec<Span>> {
        overlap::read_all(self.cluster.dir(), prefix)
    }
}
