//! `status -w` in a terminal.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::place::{Ended, LONG, Place, program, stable};

/// A watch in a terminal of 80 columns, and what it writes there.
struct Watched {
    watch: Ended,
    pieces: mpsc::Receiver<String>,
    text: String,
}

impl Watched {
    fn start(mut command: Command) -> Watched {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&terminal, vec![]).unwrap().into_string().unwrap();
        let inside = File::options().read(true).write(true).open(name).unwrap();
        let watch = command.env("TERM", "xterm").stdin(Stdio::null()).stdout(inside).spawn().unwrap();
        // The command has the terminal open as well, which would never end then.
        drop(command);
        let (send, pieces) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut terminal, mut some) = (File::from(terminal), [0; 4096]);
            // Its end is an error.
            while let Ok(length @ 1..) = terminal.read(&mut some) {
                if send.send(String::from_utf8_lossy(&some[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Watched { watch: Ended(watch), pieces, text: String::new() }
    }

    /// Reads until what was written has this, and gives it.
    fn until(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + LONG;
        while !holds(&self.text) {
            let piece = self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            self.text += &piece.unwrap_or_else(|error| panic!("{what} was not shown ({error}): {:?}", self.text));
        }
        self.text.clone()
    }

    /// All that was written, after it was interrupted and has ended well.
    fn interrupt(mut self) -> String {
        kill(Pid::from_raw(i32::try_from(self.watch.0.id()).unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(self.watch.code(), Some(0));
        self.text.extend(self.pieces.iter());
        self.text
    }
}

/// The ages of the flag in all frames.
fn ages(text: &str) -> Vec<&str> {
    let heads = text.split("epoch ").skip(1).filter_map(|rest| rest.split_once("  "));
    heads.filter_map(|(_, age)| age.split(['\r', ' ']).next()).collect()
}

/// T16
#[test]
fn a_terminal_is_written_over_until_it_is_interrupted() {
    let place = Place::new();
    let controller = place.start();
    place.until("Stable", stable);
    let mut command = program(&["status", "-w"], &place.file());
    command.env("NO_COLOR", "1");
    let mut watched = Watched::start(command);
    let text = watched.until("time that passes", |text| {
        let mut ages = ages(text);
        ages.dedup();
        ages.len() >= 3
    });
    let height = text.split("\x1b[J").next().unwrap().matches("\r\n").count();
    assert!(text.contains(&format!("\x1b[J\x1b[{height}A\r\x1b[Kreviews  v1  Stable")), "{text:?}");
    assert!(!text.contains("\x1b[1m") && !text.contains("\x1b[32m"), "there are colours: {text:?}");

    drop(controller);
    watched
        .until("that nobody answers", |text| text.contains("what is shown was so") && text.contains("is it running?"));
    let text = watched.interrupt();
    assert!(text.ends_with("\x1b[J\r\x1b[K"), "{text:?}");
}

#[test]
fn a_terminal_has_colors() {
    let place = Place::new();
    let _controller = place.start();
    place.until("Stable", stable);
    let mut command = program(&["status", "-w"], &place.file());
    command.env_remove("NO_COLOR");
    let mut watched = Watched::start(command);
    watched.until("a phase that is well", |text| text.contains("\x1b[32mStable\x1b[0m"));
    place.write("v9");
    watched.until("a blocker", |text| text.contains("\x1b[1;31mBLOCKED: InvalidSpec\x1b[0m"));
    watched.interrupt();
}
