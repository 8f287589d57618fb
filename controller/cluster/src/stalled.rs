//! Tells people of a flag that cannot be read. I/O: through the writer.

use std::time::{Duration, Instant};

use super::reading::{Reading, Unreadable};
use super::writer::Writer;
use service::clock::now;

/// Between two tries to write it.
const RETRY: Duration = Duration::from_secs(5);

/// What was told of one flag, and when it was written last.
#[derive(Debug, Default)]
pub(super) struct Stalled {
    told: String,
    written: Option<Instant>,
}

impl Stalled {
    /// One line and one Event for each thing that is wrong, and the status until it says so.
    pub(super) async fn tell(&mut self, name: &str, flag: &Unreadable, writer: &Writer) {
        let problem = &flag.problem;
        if self.told != problem.message {
            tracing::warn!(flag = name, reason = problem.reason.name(), "{}", problem.message);
            let reading = Reading::Unreadable(flag.clone());
            writer.event(&reading, true, problem.reason.name(), &problem.message).await;
            self.told.clone_from(&problem.message);
        }
        let Some(patch) = flag.patch(now()) else { return };
        if self.written.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        self.written = Some(Instant::now());
        if let Err(error) = writer.stalled(&flag.metadata, &patch).await {
            tracing::warn!(flag = name, %error, "its status does not say yet what is wrong");
        }
    }
}
