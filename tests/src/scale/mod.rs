//! Thousands of simulated proxies and one controller: how fast a flip reaches all of them, what it costs, and whether bad
//! ones among them delay the others. I/O: through its parts.
//!
//! | module | its job |
//! | --- | --- |
//! | [`site`] | the controller, its file and the proxies: flips and restarts of one size |
//! | [`figures`] | what is measured of one size, and the line through several |
//! | [`control`] | how the processes of proxies are asked what they saw |
//! | `proxy`, `connection`, `content` | one simulated proxy |
//! | `bad` | what bad proxies do |
//! | `board` | what the proxies of a process saw, and when |

mod bad;
mod board;
mod connection;
mod content;
pub mod control;
pub mod figures;
mod proxy;
pub mod site;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use board::{Counts, Progress, Times};
pub use site::{Flip, ScalePlan, Site};

/// What kind of proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They do what the filter does.
    Good,
    /// They also do what no proxy should.
    Bad,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Good => "proxy",
            Kind::Bad => "bad",
        }
    }

    /// The name of one of them.
    pub fn name(self, number: usize) -> String {
        format!("{}-{number:05}", self.word())
    }
}

/// What a proxy of this name has to show. With it nobody can speak for another one.
pub fn token(name: &str) -> String {
    format!("token-of-{name}")
}

/// Lets this process, and those that it starts, open as many files as the machine allows. How many.
pub fn raise_open_files() -> Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of open files")?;
    Ok(most)
}

/// Fails where a process may not have so many connections.
pub fn check_open_files(connections: usize) -> Result<()> {
    /// Files that a process has besides.
    const OTHERS: usize = 200;
    let most = usize::try_from(raise_open_files()?).unwrap_or(usize::MAX);
    ensure!(connections + OTHERS <= most, "{connections} connections are more than the {most} open files of a process");
    Ok(())
}
