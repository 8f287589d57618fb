//! What a terminal shows of flags that are watched. `UPDATE_GOLDENS=1` writes the pictures anew.

use std::path::Path;

use rstest::rstest;

use super::{ago, busy, settling, view};
use crate::cli::model::Model;
use crate::cli::screen::{Terminal, View, frame, has_colors, over};
use machine::duration::Millis;
use machine::plan::Upcoming;
use machine::status::{Phase, Status};

const WIDE: Terminal = Terminal { columns: 100, rows: 40, has_colors: false };

fn shown(flags: &[Model], age: u64, terminal: Terminal) -> String {
    let view = View { flags, age: Millis(age), is_lost: false, troubles: &[] };
    frame(&view, terminal, "versionflag").join("\n") + "\n"
}

/// One whose old version is stopped by the clock.
fn retaining() -> Model {
    let (mut status, seen): (Status, _) = busy();
    status.blocked = None;
    status.enter(ago(3_000), Phase::Retaining);
    let mut flag = Model::of_view(&seen, "reviews.yaml");
    flag.status = Some(status);
    flag.blocked = None;
    flag.next = Some(Upcoming { what: "v1 is stopped".to_owned(), at: Some(flag.now.plus(Millis(9_900))) });
    flag
}

/// What is shown, with escapes as they are written in Rust.
#[rstest]
#[case::blocked("blocked", shown(&[view(settling())], 0, WIDE))]
#[case::colors("colors", shown(&[view(settling())], 0, Terminal { has_colors: true, ..WIDE }))]
#[case::narrow("narrow", shown(&[view(settling())], 0, Terminal { columns: 40, ..WIDE }))]
#[case::low("low", shown(&[view(settling()), retaining()], 0, Terminal { rows: 8, ..WIDE }))]
#[case::countdown("countdown", shown(&[retaining()], 0, WIDE))]
#[case::later("countdown-500ms-later", shown(&[retaining()], 500, WIDE))]
fn a_terminal_shows(#[case] name: &str, #[case] shown: String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cli/tests/golden/screen-{name}.txt"));
    let shown = shown.replace('\x1b', "\\x1b");
    if std::env::var_os("UPDATE_GOLDENS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &shown).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), shown, "{}", path.display());
}

#[test]
fn every_line_fits_into_every_terminal() {
    let flags = [view(settling()), retaining()];
    let troubles =
        ["the controller does not answer on http://127.0.0.1:7070: is it running?: waiting for it".to_owned()];
    for (columns, rows, is_lost) in (24..120).zip((2..30).cycle()).flat_map(|(a, b)| [(a, b, true), (a, b, false)]) {
        let view = View { flags: &flags, age: Millis(700), is_lost, troubles: &troubles };
        let lines = frame(&view, Terminal { columns, rows, has_colors: false }, "versionflag");
        assert!(lines.len() < rows, "{columns}×{rows}: {lines:#?}");
        for line in &lines {
            assert!(line.chars().count() <= columns, "{columns}×{rows}: {line}");
        }
    }
}

/// Words are broken only where they are too long, and none is lost.
#[test]
fn what_does_not_fit_goes_on_below() {
    let words =
        |text: &str| text.replace(['│', '├', '└', '─'], " ").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (wide, narrow) =
        (shown(&[view(settling())], 0, WIDE), shown(&[view(settling())], 0, Terminal { columns: 44, ..WIDE }));
    assert_eq!(words(&narrow), words(&wide));
}

#[test]
fn what_is_of_the_past_says_so_and_does_not_go_on() {
    let (flags, troubles) = ([view(settling())], ["it does not answer".to_owned()]);
    let view = View { flags: &flags, age: Millis(42_000), is_lost: true, troubles: &troubles };
    let lines = frame(&view, WIDE, "versionflag");
    assert!(lines[0].contains("  5.2s  "), "{lines:#?}");
    assert_eq!(lines[lines.len() - 2..], ["what is shown was so 42.0s ago", "it does not answer"]);
}

/// What a proxy, a check or a webhook says is text.
#[test]
fn nobody_moves_the_cursor() {
    let mut flag = view(settling());
    flag.waiting = "a\x1b[2Jb\rc\u{9b}d".to_owned();
    let shown = shown(&[flag], 0, WIDE);
    assert!(shown.contains("a [2Jb c d") && !shown.contains('\x1b'), "{shown:?}");
}

#[test]
fn a_frame_is_written_over_the_one_before() {
    let lines = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let new = lines(&["1s"]);
    assert_eq!(over(&[], &new, 10), "\r\x1b[K1s\r\n\x1b[J");
    assert_eq!(over(&lines(&["a", "\x1b[1;31mb\x1b[0m"]), &new, 10), "\x1b[2A\r\x1b[K1s\r\n\x1b[J");
    // The terminal got narrower, and the first line takes two rows there; colours take none.
    let before = lines(&["eleven wide", "\x1b[1;31mb\x1b[0m", ""]);
    assert_eq!(over(&before, &new, 10), "\x1b[4A\r\x1b[K1s\r\n\x1b[J");
}

#[rstest]
#[case::unset(None, true)]
#[case::empty(Some(""), true)]
#[case::set(Some("1"), false)]
fn who_wants_no_colors_gets_none(#[case] no_color: Option<&str>, #[case] expected: bool) {
    assert_eq!(has_colors(no_color), expected);
}
