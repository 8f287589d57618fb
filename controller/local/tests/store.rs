//! The state file and its lock.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use local::store::Store;
use machine::status::Status;
use machine::time::UnixMs;

/// T33: who has the lock is named; who had it a moment ago, as what the controller before has forked, is waited for.
#[test]
fn a_lock_that_somebody_had_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.state.json");
    let open = || Store::open(&path, || Status::new("u-1", "a", UnixMs(1)));
    let first = open().unwrap();
    let why = open().unwrap_err().to_string();
    assert!(why.contains(&format!("in use by another controller, process {}", std::process::id())), "{why}");
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(first);
    });
    open().unwrap();
    ends.join().unwrap();
}
