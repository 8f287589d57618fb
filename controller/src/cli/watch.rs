//! `versionflag status -w`: flags until nobody reads it. A terminal is written over, so that times go on in it; anything
//! else is sent what changed. I/O: terminal, signals, and through the clients.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::args::{At, Output};
use super::commands::{LiveView, ShownFlag, Source, draw, of_resources};
use super::kube_api::Cluster;
use super::model::Model;
use super::screen::{Terminal, View, frame, over};
use super::show;
use super::terminal::{is_read, print, terminal, warn};
use machine::duration::Millis;

/// Between two looks at a flag service.
const LOOK: Duration = Duration::from_millis(500);
/// Between two of the same through the API server of a cluster.
const LIVE: Duration = Duration::from_secs(1);
/// Between two frames of a terminal, and between two looks at whether anybody reads.
const FRAME: Duration = Duration::from_millis(500);

/// What a look has found.
enum News {
    /// The flags, and what could not be asked.
    Seen(Vec<ShownFlag>, Option<String>),
    /// Whoever says it is away.
    Lost(String),
}

/// Prints what a source has, and what changes of it, until nobody reads it or this process is told to end.
pub(super) async fn run(at: &At, source: Source, program: &str) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let is_screen = at.output == Output::Text && terminal().is_some();
    let mut live = LiveView::of_watch(is_screen);
    // Says what is wrong, where a watch would wait.
    let first = source.look(Some(&mut live)).await?;
    let mut printer = Printer::new(is_screen, at.output, program);
    printer.take(News::Seen(first, live.trouble()))?;
    let (send, news) = channel(1);
    let looks = async {
        match source {
            Source::Service { .. } => look_at_service(source, send).await,
            Source::Cluster { cluster, name } => look_at_cluster(&cluster, name.as_deref(), live, send).await,
        }
    };
    tokio::select! {
        looked = looks => looked?,
        printed = printer.run(news) => printed?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    printer.end()
}

/// Goes on when the controller is started anew, wherever it listens then.
async fn look_at_service(mut source: Source, send: Sender<News>) -> anyhow::Result<()> {
    loop {
        sleep(LOOK).await;
        let news = match source.look(None).await {
            Ok(seen) => News::Seen(seen, None),
            Err(error) => {
                source.reopen();
                News::Lost(format!("{error:#}: waiting for it"))
            }
        };
        send.send(news).await?;
    }
}

async fn look_at_cluster(
    cluster: &Cluster,
    name: Option<&str>,
    mut live: LiveView,
    send: Sender<News>,
) -> anyhow::Result<()> {
    let (mut changes, mut flags) = (pin!(cluster.watch(name)), None);
    loop {
        tokio::select! {
            changed = changes.next() => match changed {
                None => return Ok(()),
                Some(Ok(found)) => flags = Some(found),
                Some(Err(error)) => {
                    // What was found is of the past, until the watch goes on.
                    flags = None;
                    send.send(News::Lost(format!("{error:#}: trying again"))).await?;
                }
            },
            () = sleep(LIVE) => {}
        }
        if let Some(flags) = &flags {
            let views = live.ask(cluster, name).await;
            let seen = of_resources(flags, views.as_deref(), cluster)?;
            send.send(News::Seen(seen, live.trouble())).await?;
        }
    }
}

/// How what is seen is printed.
enum Printer<'a> {
    Changes(Changes<'a>),
    Screen(Screen<'a>),
}

impl<'a> Printer<'a> {
    fn new(is_screen: bool, output: Output, program: &'a str) -> Printer<'a> {
        if is_screen {
            return Printer::Screen(Screen { program, ..Screen::default() });
        }
        Printer::Changes(Changes { output, program, outline: None, is_lost: false })
    }

    async fn run(&mut self, mut news: Receiver<News>) -> anyhow::Result<()> {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while is_read() {
            tokio::select! {
                Some(news) = news.recv() => self.take(news)?,
                _ = frames.tick() => if let Printer::Screen(screen) = self { screen.draw()? },
            }
        }
        Ok(())
    }

    fn take(&mut self, news: News) -> anyhow::Result<()> {
        match self {
            Printer::Changes(changes) => changes.take(news),
            Printer::Screen(screen) => screen.take(news),
        }
    }

    /// A shell goes on where a terminal shows that it was interrupted.
    fn end(&self) -> anyhow::Result<()> {
        if matches!(self, Printer::Screen(_)) { print("\r\x1b[K") } else { Ok(()) }
    }
}

/// A pipe, or a file: what changed, and not each second that passes.
struct Changes<'a> {
    output: Output,
    program: &'a str,
    /// Of what was printed last.
    outline: Option<String>,
    is_lost: bool,
}

impl Changes<'_> {
    fn take(&mut self, news: News) -> anyhow::Result<()> {
        match news {
            News::Seen(seen, _) => {
                self.is_lost = false;
                let outline = seen.iter().map(|one| show::outline(&one.model)).collect();
                if self.is_new(outline) {
                    print(&draw(&seen, self.output, self.program)?)?;
                }
            }
            News::Lost(why) if !std::mem::replace(&mut self.is_lost, true) => {
                warn(&why);
                // What is so then is said, whether it is new or not.
                self.outline = None;
            }
            News::Lost(_) => {}
        }
        Ok(())
    }

    fn is_new(&mut self, outline: String) -> bool {
        let before = self.outline.replace(outline);
        before != self.outline
    }
}

/// A terminal.
#[derive(Default)]
struct Screen<'a> {
    program: &'a str,
    flags: Vec<Model>,
    seen: Option<Instant>,
    lost: Option<String>,
    trouble: Option<String>,
    /// What it shows.
    frame: Vec<String>,
}

impl Screen<'_> {
    fn take(&mut self, news: News) -> anyhow::Result<()> {
        match news {
            News::Seen(seen, trouble) => {
                self.flags = seen.into_iter().map(|one| one.model).collect();
                (self.seen, self.lost, self.trouble) = (Some(Instant::now()), None, trouble);
            }
            News::Lost(why) => self.lost = Some(why),
        }
        self.draw()
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        let Some(terminal) = terminal() else { return Ok(()) };
        let age = self.seen.map(|at| at.elapsed().as_millis()).unwrap_or_default();
        let troubles: Vec<String> = self.lost.iter().chain(&self.trouble).cloned().collect();
        let age = Millis(u64::try_from(age).unwrap_or(u64::MAX));
        let view = View { flags: &self.flags, age, is_lost: self.lost.is_some(), troubles: &troubles };
        let Terminal { columns, .. } = terminal;
        let frame = frame(&view, terminal, self.program);
        print(&over(&self.frame, &frame, columns))?;
        self.frame = frame;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T16: a pipe gets what changed, and not each second that passes.
    #[test]
    fn time_alone_is_not_printed_to_a_pipe() {
        let mut changes = Changes { output: Output::Text, program: "versionflag", outline: None, is_lost: false };
        let told = ["a", "a", "b", "a"].map(|outline| changes.is_new(outline.to_owned()));
        assert_eq!(told, [true, false, true, true]);
    }
}
