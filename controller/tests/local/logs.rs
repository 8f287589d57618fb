//! `versionflag logs`.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use super::place::{Ended, LONG, Lines, Place, program, stable, stderr};

/// A version that prints lines from a file for ever, as they come.
fn prints(place: &Place, lines: &str) {
    let text = std::fs::read_to_string(place.file()).unwrap();
    let text = text.replacen("-c, 'exec env", &format!("-c, 'tail -n +1 -F {lines} & exec env"), 1);
    std::fs::write(place.file(), text.replacen("local:\n", "local:\n  logs: {maxSize: '20'}\n", 1)).unwrap();
}

fn logs(place: &Place, more: &[&str]) -> Output {
    program(&[&["logs"], more, &["-f"]].concat(), &place.file()).output().unwrap()
}

/// A process that follows a log, once it has printed what there was: it listens to Ctrl-C from then on.
fn follows(follow: &Ended) -> nix::unistd::Pid {
    let pid = nix::unistd::Pid::from_raw(follow.0.id().cast_signed());
    let catches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & 2 != 0
    };
    let deadline = Instant::now() + LONG;
    while !catches() {
        assert!(Instant::now() < deadline, "it does not listen to SIGINT");
        std::thread::sleep(Duration::from_millis(10));
    }
    pid
}

/// T20: what was printed is read from the files, the rotated ones included, while a controller runs or none does.
#[test]
fn what_a_version_printed_is_shown_over_all_its_files() {
    let place = Place::new();
    let none = logs(&place, &[]);
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("no controller has run with"), "{}", stderr(&none));
    let lines = place.dir.path().join("lines");
    std::fs::write(&lines, "").unwrap();
    prints(&place, &lines.display().to_string());
    let controller = place.start();
    place.until("Stable", stable);
    let say = |text: &str| {
        let mut file = std::fs::File::options().append(true).open(&lines).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    let mut follow = program(&["logs", "--follow", "--lines", "0", "-f"], &place.file());
    let mut follow = Ended(follow.stdout(Stdio::piped()).spawn().unwrap());
    let mut followed = BufReader::new(follow.0.stdout.take().unwrap());
    follows(&follow);
    let mut all = String::new();
    for number in 0..3 {
        let line = format!("line {number} of those that fill a small file\n");
        say(&line);
        let mut seen = String::new();
        followed.read_line(&mut seen).unwrap();
        assert_eq!(seen, line);
        all.push_str(&line);
        let kept = place.dir.path().join(format!("reviews-v1.log.{}", number + 1));
        let deadline = Instant::now() + LONG;
        while !kept.exists() {
            assert!(Instant::now() < deadline, "{} was not kept", kept.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    drop(controller);
    let printed = |more: &[&str]| String::from_utf8(logs(&place, more).stdout).unwrap();
    assert_eq!(printed(&[]), all);
    assert_eq!(printed(&["--lines", "2"]), all.split_once('\n').unwrap().1);
    assert_eq!(printed(&["reviews", "--version", "v1", "--lines", "1"]), all.lines().last().unwrap().to_owned() + "\n");
    let unknown = logs(&place, &["--version", "v9"]);
    assert!(stderr(&unknown).contains("v9 has no log in") && stderr(&unknown).contains("there is: v1"));
    assert!(stderr(&logs(&place, &["ratings"])).contains("there is no flag ratings"));
    // Nobody reads it any more.
    drop(followed);
    assert_eq!(follow.code(), Some(0));
}

/// T20: what is being kept meanwhile hides nothing, without `--follow` too.
#[test]
fn a_log_is_shown_while_a_file_is_kept() {
    let place = Place::new();
    let log = place.dir.path().join("reviews-v1.log");
    std::fs::write(&log, "a line\n").unwrap();
    let (kept, over) = (place.dir.path().join("reviews-v1.log.1"), std::sync::atomic::AtomicBool::new(false));
    let out = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                std::fs::write(&kept, "before\n").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let out = logs(&place, &["--version", "v1"]);
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        out
    });
    assert!(String::from_utf8(out.stdout).unwrap().contains("a line\n"));
}

/// T20: Ctrl-C is how people end it.
#[test]
fn following_a_log_ends_cleanly_by_an_interrupt() {
    let place = Place::new();
    std::fs::write(place.dir.path().join("reviews-v1.log"), "a line\n").unwrap();
    let mut follow = program(&["logs", "--follow", "--version", "v1", "-f"], &place.file());
    let mut follow = Ended(follow.stdout(Stdio::piped()).spawn().unwrap());
    Lines::of(follow.0.stdout.take().unwrap()).until("a line");
    let pid = follows(&follow);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(follow.code(), Some(0));
}
