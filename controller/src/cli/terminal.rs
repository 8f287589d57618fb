//! Where text is printed, and whether anybody reads it. I/O: stdout, stderr.

use std::io::{ErrorKind, IsTerminal, Write, stdout};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;

use super::screen::{Terminal, has_colors};

/// Prints a text. Whoever read the first lines only, and is gone, has what was wanted.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// For people, beside what is printed. Without anybody to read it nothing is lost.
pub(super) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether somebody may still read what is printed: not the other end of a pipe that was closed.
pub(super) fn is_read() -> bool {
    let out = stdout();
    let mut asked = [PollFd::new(&out, PollFlags::empty())];
    let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    let answered = poll(&mut asked, Some(&Timespec::default())).is_ok();
    !(answered && asked.iter().any(|one| one.revents().intersects(gone)))
}

/// The terminal that is printed to, if it is one that can be written over.
pub(super) fn terminal() -> Option<Terminal> {
    let out = stdout();
    let is_able = out.is_terminal() && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb");
    let size = is_able.then(|| tcgetwinsize(&out).ok()).flatten()?;
    let has_colors = has_colors(std::env::var("NO_COLOR").ok().as_deref());
    let terminal = Terminal { columns: size.ws_col.into(), rows: size.ws_row.into(), has_colors };
    Some(terminal).filter(|one| one.columns > 0 && one.rows > 0)
}
