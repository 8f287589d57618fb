//! Whether this controller can serve proxies: what `GET /readyz` answers. I/O: where there is mutual TLS, looks at
//! the files of its certificates.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::tls::Tls;

/// What has to be there before proxies can be served.
#[derive(Debug, Default)]
pub struct Readiness {
    flags_observed: AtomicBool,
    tls: OnceLock<Arc<Tls>>,
}

impl Readiness {
    /// The driver has looked at every flag once.
    pub fn mark_flags_observed(&self) {
        self.flags_observed.store(true, Ordering::Relaxed);
    }

    /// From now on certificates are needed as well, from the files of this directory: see [`Tls`]. Once only.
    pub fn require_tls(&self, directory: &Path) -> Arc<Tls> {
        Arc::clone(self.tls.get_or_init(|| Arc::new(Tls::new(directory))))
    }

    /// The first thing that is missing: one word, and a sentence.
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        if let Some(problem) = self.tls.get().and_then(|tls| tls.problem()) {
            return Some(("certificates", problem));
        }
        self.is_starting().then(|| ("starting", "not every flag has been looked at yet".to_owned()))
    }

    /// Whether some flags have not been looked at yet.
    pub(crate) fn is_starting(&self) -> bool {
        !self.flags_observed.load(Ordering::Relaxed)
    }
}
