//! Tells people of flags that cannot be read. I/O: through the writer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::reading::{Reading, Unreadable};
use super::write::Writer;
use crate::service::now_ms;

/// Between two tries to write to the same flag.
const RETRY: Duration = Duration::from_secs(5);

/// What was told, by uid, and when it was written last.
#[derive(Debug, Default)]
pub(super) struct Stalled(BTreeMap<String, (String, Option<Instant>)>);

impl Stalled {
    /// One line and one Event for each thing that is wrong, and the status until it says so.
    pub(super) async fn tell(&mut self, flag: &Unreadable, writer: &Writer) {
        let (uid, problem) = (flag.metadata.uid.clone().unwrap_or_default(), &flag.problem);
        let place = flag.metadata.namespace.as_deref().unwrap_or_default();
        let name = flag.metadata.name.as_deref().unwrap_or_default();
        let (told, written) = self.0.entry(uid).or_default();
        if *told != problem.message {
            tracing::warn!(flag = format!("{place}/{name}"), reason = problem.reason, "{}", problem.message);
            let reading = Reading::Unreadable(flag.clone());
            writer.event(&reading, true, problem.reason, &problem.message).await;
            told.clone_from(&problem.message);
        }
        let Some(patch) = flag.patch(now_ms()) else { return };
        if written.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        *written = Some(Instant::now());
        if let Err(error) = writer.stalled(&flag.metadata, &patch).await {
            tracing::warn!(flag = format!("{place}/{name}"), %error, "its status does not say yet what is wrong");
        }
    }

    /// It can be read, or is gone.
    pub(super) fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }
}
