//! A browser of whoever sits before this machine. I/O: starts it.

use std::env::{consts::OS, var_os};
use std::process::{Command, Stdio};

/// Opens a page, if there is a browser. What it says is not for here.
pub(super) fn open(address: &str) {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"].into_iter().any(|one| var_os(one).is_some_and(|it| !it.is_empty()));
    let Some(program) = opener(OS, has_screen) else { return };
    let mut command = Command::new(program);
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The address was printed: whoever has no such program opens it by hand.
    let _ = command.spawn();
}

/// What opens an address in a browser with a window of its own: one in the terminal would write over what is printed.
fn opener(system: &str, has_screen: bool) -> Option<&'static str> {
    match system {
        "macos" => Some("open"),
        _ if has_screen => Some("xdg-open"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_browser_with_a_window_is_opened() {
        assert_eq!(opener("linux", true), Some("xdg-open"));
        assert_eq!(opener("linux", false), None);
        assert_eq!(opener("macos", false), Some("open"));
    }
}
