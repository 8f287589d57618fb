//! What a terminal shows of flags while they are watched: lines that fit into it, and how they are written over those of
//! before. Pure.

use std::fmt::Write;

use super::model::Model;
use super::show::ago;
use super::tree::{self, Line, Tone};
use machine::duration::Millis;
use machine::time::UnixMs;

/// What happened lately, for one flag at most.
const LATELY: usize = 5;
/// Columns for text right of what a line begins with; a narrower terminal breaks lines itself.
const LEAST: usize = 16;
/// How all that is coloured ends.
const RESET: &str = "\x1b[0m";

/// A terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) has_colors: bool,
}

/// What is known, and what is not.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) flags: &'a [Model],
    /// How long ago that was seen.
    pub(super) age: Millis,
    /// Whoever says it is away: nothing is known of what has been since.
    pub(super) is_lost: bool,
    /// What is not shown, and why.
    pub(super) troubles: &'a [String],
}

/// What the terminal shows: each line fits, and one row is left, where a shell goes on.
pub(super) fn frame(view: &View<'_>, terminal: Terminal, program: &str) -> Vec<String> {
    let mut lines: Vec<Line> = view.flags.iter().flat_map(|flag| tree::lines(&aged(flag, view), program)).collect();
    if let [only] = view.flags {
        lines.extend(lately(&aged(only, view)));
    }
    let mut below = vec![];
    if view.is_lost {
        let seen = format!("what is shown was so {} ago", super::show::long(view.age));
        below.push(Line::default().and(Tone::Bad, seen));
    }
    below.extend(view.troubles.iter().map(|trouble| Line::default().and(Tone::Waits, trouble)));

    let fit = |lines: &[Line]| lines.iter().flat_map(|line| wrapped(line, terminal.columns)).collect::<Vec<_>>();
    let (mut lines, below) = (fit(&lines), fit(&below));
    let room = terminal.rows.saturating_sub(1 + below.len()).max(1);
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        let words = format!("… {more} more lines: they need a higher terminal");
        lines.extend(fit(&[Line::default().and(Tone::Faint, words)]).into_iter().next());
    }
    lines.extend(below);
    lines.truncate(terminal.rows.saturating_sub(1).max(1));
    lines.iter().map(|line| painted(line, terminal.has_colors)).collect()
}

/// What has to be written to a terminal so that it shows this frame, over the one before.
pub(super) fn over(before: &[String], frame: &[String], columns: usize) -> String {
    // A terminal that got narrower has broken them.
    let height: usize = before.iter().map(|line| width(line).div_ceil(columns.max(1)).max(1)).sum();
    let mut text = if height > 0 { format!("\x1b[{height}A") } else { String::new() };
    for line in frame {
        // A terminal whose last column was just written would clear that as well.
        let _ = write!(text, "\r\x1b[K{line}\r\n");
    }
    text.push_str("\x1b[J");
    text
}

/// A flag as time has passed for it since it was seen, unless nobody knows what else has.
fn aged(flag: &Model, view: &View<'_>) -> Model {
    let passed = if view.is_lost { Millis(0) } else { view.age };
    Model { now: flag.now.plus(passed), ..flag.clone() }
}

fn lately(flag: &Model) -> Vec<Line> {
    let history = flag.status.iter().flat_map(|status| status.history.iter().rev()).take(LATELY);
    let line = |(at, text): (UnixMs, String)| {
        let age = format!("{:>10} ago  ", ago(flag.now, at));
        Line::default().and(Tone::Clock, age).and(Tone::Faint, text)
    };
    let mut lines: Vec<_> = history.map(|one| line((one.at, format!("{}: {}", one.event, one.message)))).collect();
    if !lines.is_empty() {
        lines.insert(0, Line::default().and(Tone::Faint, "lately:"));
    }
    lines
}

/// The characters of a line, each with its tone. What a proxy or a check says moves no cursor.
fn characters(line: &Line) -> Vec<(Tone, char)> {
    let all = line.0.iter().flat_map(|(tone, text)| text.chars().map(|one| (*tone, one)));
    all.map(|(tone, one)| (tone, if one.is_control() { ' ' } else { one })).collect()
}

fn joined(characters: &[(Tone, char)]) -> Line {
    let mut line = Line::default();
    for (tone, one) in characters {
        match line.0.last_mut() {
            Some((last, text)) if last == tone => text.push(*one),
            _ => line = line.and(*tone, one.to_string()),
        }
    }
    line
}

/// A line as lines that fit, broken between words where there are any, below the tree.
fn wrapped(line: &Line, columns: usize) -> Vec<Line> {
    let mut rest = characters(line);
    let stem = rest.iter().map(|(_, one)| *one).take_while(|one| "│├└─ ".contains(*one));
    let mut below: Vec<_> = stem.map(|one| (Tone::Plain, if "│├".contains(one) { '│' } else { ' ' })).collect();
    below.extend([(Tone::Plain, ' '); 2]);
    let columns = columns.max(below.len() + LEAST);
    let mut lines = vec![];
    while rest.len() > columns {
        let mut spaces =
            rest.iter().take(columns + 1).enumerate().filter(|(at, (_, one))| *one == ' ' && *at > below.len());
        let (end, next) = spaces.next_back().map_or((columns, columns), |(at, _)| (at, at + 1));
        let next = next + rest.iter().skip(next).take_while(|(_, one)| *one == ' ').count();
        let more = rest.split_off(next.min(rest.len()));
        rest.truncate(end);
        lines.push(joined(&rest));
        rest = below.iter().copied().chain(more).collect();
    }
    lines.push(joined(&rest));
    lines
}

fn painted(line: &Line, has_colors: bool) -> String {
    if !has_colors {
        return line.to_string();
    }
    let part = |(tone, text): &(Tone, String)| match color(*tone) {
        Some(color) => format!("\x1b[{color}m{text}{RESET}"),
        None => text.clone(),
    };
    line.0.iter().map(part).collect()
}

/// Of the sixteen colours that every terminal has, and its user has chosen.
fn color(tone: Tone) -> Option<&'static str> {
    match tone {
        Tone::Plain => None,
        Tone::Strong => Some("1"),
        Tone::Good => Some("32"),
        Tone::Waits => Some("33"),
        Tone::Bad => Some("1;31"),
        Tone::Clock => Some("36"),
        Tone::Faint => Some("2"),
    }
}

/// Columns of a painted line.
fn width(line: &str) -> usize {
    let (mut width, mut is_code) = (0, false);
    for one in line.chars() {
        match one {
            '\x1b' => is_code = true,
            'm' if is_code => is_code = false,
            _ if is_code => {}
            _ => width += 1,
        }
    }
    width
}

/// Whether a terminal of this kind is painted, where `NO_COLOR` is set to this.
pub(super) fn has_colors(no_color: Option<&str>) -> bool {
    no_color.is_none_or(str::is_empty)
}
