//! `versionflag status -w`: a flag again whenever it changes, until nobody reads it. I/O: terminal, and through the
//! clients.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;

use super::args::{At, Output};
use super::commands::{LiveView, ShownFlag, Source, draw, of_resources};
use super::kube_api::Cluster;
use super::show;
use super::terminal::{is_read, print, size, warn};

/// Between two looks at a flag service.
const LOOK: Duration = Duration::from_millis(500);
/// Between two of the same through the API server of a cluster.
const LIVE: Duration = Duration::from_secs(1);

/// What was printed last.
#[derive(Debug)]
struct Drawn {
    outline: String,
    text: String,
}

/// What is printed of one look after another. Pure.
#[derive(Debug, Default)]
struct Drawing(Option<Drawn>);

impl Drawing {
    /// What to print of a look, if anything. Only a terminal, of so many columns and rows, has what changes all the
    /// time written over.
    fn next(&mut self, outline: String, text: &str, terminal: Option<(usize, usize)>) -> Option<String> {
        let before = self.0.replace(Drawn { outline, text: text.to_owned() });
        let Some(before) = before.filter(|before| self.0.as_ref().is_some_and(|now| now.outline == before.outline))
        else {
            return Some(text.to_owned());
        };
        let (columns, rows) = terminal?;
        let height: usize = before.text.lines().map(|line| line.chars().count().div_ceil(columns).max(1)).sum();
        // What has left the screen cannot be written over.
        let fits = height < rows && before.text != text;
        fits.then(|| format!("\x1b[{height}A\x1b[J{text}"))
    }

    /// Something else was printed below.
    fn interrupt(&mut self) {
        self.0 = None;
    }
}

/// A watch, and how it is printed.
struct Watch<'a> {
    at: &'a At,
    program: &'a str,
    drawing: Drawing,
}

impl Watch<'_> {
    fn show(&mut self, shown: &[ShownFlag]) -> anyhow::Result<()> {
        let outline = shown.iter().map(|one| show::outline(&one.model)).collect();
        let terminal = size().filter(|_| self.at.output == Output::Text);
        let text = draw(shown, self.at.output, self.program)?;
        self.drawing.next(outline, &text, terminal).map_or(Ok(()), |text| print(&text))
    }

    fn warn(&mut self, text: &str) {
        warn(text);
        self.drawing.interrupt();
    }

    /// Goes on when the controller is started anew, wherever it listens then.
    async fn service(&mut self, mut source: Source) -> anyhow::Result<()> {
        let mut is_lost = false;
        while is_read() {
            match source.look(None).await {
                Ok(shown) => {
                    is_lost = false;
                    self.show(&shown)?;
                }
                Err(error) => {
                    if !is_lost {
                        self.warn(&format!("{error:#}: waiting for it"));
                    }
                    is_lost = true;
                    source.reopen();
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn cluster(&mut self, cluster: &Cluster, name: Option<&str>, mut live: LiveView) -> anyhow::Result<()> {
        let (mut changes, mut flags) = (pin!(cluster.watch(name)), None);
        while is_read() {
            tokio::select! {
                changed = changes.next() => match changed {
                    None => return Ok(()),
                    Some(Ok(found)) => flags = Some(found),
                    Some(Err(error)) => self.warn(&format!("{error:#}: trying again")),
                },
                () = tokio::time::sleep(LIVE) => {}
            }
            if let Some(flags) = &flags {
                let views = live.ask(cluster, name).await;
                if live.has_spoken() {
                    self.drawing.interrupt();
                }
                self.show(&of_resources(flags, views.as_deref(), cluster)?)?;
            }
        }
        Ok(())
    }
}

/// Prints what a source has, and what changes of it.
pub(super) async fn run(at: &At, source: Source, program: &str) -> anyhow::Result<()> {
    let (mut watch, mut live) = (Watch { at, program, drawing: Drawing::default() }, LiveView::default());
    // Says what is wrong, where a watch would wait.
    watch.show(&source.look(Some(&mut live)).await?)?;
    match &source {
        Source::Service { .. } => watch.service(source).await,
        Source::Cluster { cluster, name } => watch.cluster(cluster, name.as_deref(), live).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Option<(usize, usize)> = Some((10, 20));

    fn next(drawing: &mut Drawing, outline: &str, text: &str, terminal: Option<(usize, usize)>) -> Option<String> {
        drawing.next(outline.to_owned(), text, terminal)
    }

    /// T16: a pipe gets what changed, and not each second that passes.
    #[test]
    fn time_alone_is_not_printed_to_a_pipe() {
        let mut drawing = Drawing::default();
        assert_eq!(next(&mut drawing, "a", "1s\n", None).as_deref(), Some("1s\n"));
        assert_eq!(next(&mut drawing, "a", "2s\n", None), None);
        assert_eq!(next(&mut drawing, "b", "3s\n", None).as_deref(), Some("3s\n"));
    }

    /// T16: a terminal shows the time, over what it showed before; what changed stands below.
    #[test]
    fn a_terminal_shows_how_time_passes() {
        let mut drawing = Drawing::default();
        assert_eq!(next(&mut drawing, "a", "1s\n", ROOM).as_deref(), Some("1s\n"));
        assert_eq!(next(&mut drawing, "a", "1s\n", ROOM), None);
        assert_eq!(
            next(&mut drawing, "a", "2s, eleven columns\nx\n", ROOM).as_deref(),
            Some("\x1b[1A\x1b[J2s, eleven columns\nx\n")
        );
        // The first line took two rows.
        assert_eq!(next(&mut drawing, "a", "3s\n", ROOM).as_deref(), Some("\x1b[3A\x1b[J3s\n"));
        assert_eq!(next(&mut drawing, "b", "4s\n", ROOM).as_deref(), Some("4s\n"));
        drawing.interrupt();
        assert_eq!(next(&mut drawing, "b", "5s\n", ROOM).as_deref(), Some("5s\n"));
        assert_eq!(next(&mut drawing, "b", "6s\n", Some((10, 1))), None);
    }
}
