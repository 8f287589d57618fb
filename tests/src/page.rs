//! The commands of a page, run as they are written there on an address that is free. I/O: reads the page, runs bash.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::Call;
use crate::dir::TestDir;
use crate::local::own_address;
use crate::process::{Process, program};
use crate::root;
use crate::wait::wait_for;

const LIMIT: Duration = Duration::from_secs(120);

/// A page with commands between `<!-- commands -->` and `<!-- end of commands -->`.
pub struct Page<'a> {
    dir: &'a TestDir,
    ip: Ipv4Addr,
    path: String,
    commands: std::vec::IntoIter<String>,
    count: usize,
}

impl<'a> Page<'a> {
    /// The page of this name in the repository. Its programs are those that are tested.
    pub fn open(dir: &'a TestDir, name: &str) -> Result<Page<'a>> {
        let programs = dir.file("bin");
        std::fs::create_dir(&programs)?;
        std::os::unix::fs::symlink(std::path::absolute(program("versionflag")?)?, programs.join("versionflag"))?;
        std::os::unix::fs::symlink(crate::envoy::binary()?, programs.join("envoy"))?;
        let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
        let commands = commands(&std::fs::read_to_string(root().join(name))?)?.into_iter();
        Ok(Page { dir, ip: own_address(), path, commands, count: 0 })
    }

    /// The text with the address of this run.
    pub fn here(&self, text: &str) -> String {
        text.replace("127.0.0.1", &self.ip.to_string())
    }

    /// The next command, which has to begin with these words.
    pub fn next(&mut self, words: &str) -> Result<String> {
        let command = self.commands.next().context("no more commands")?;
        ensure!(command.starts_with(words), "{command:?} and not {words:?}");
        self.count += 1;
        Ok(command)
    }

    /// Runs the next command until it ends, well.
    pub async fn run(&mut self, words: &str) -> Result<String> {
        let command = self.next(words)?;
        let mut process = self.start(&command)?;
        let status = process.wait_exit(LIMIT).await?;
        ensure!(status.success(), "{command}: {status}: {}", process.log_tail(40));
        Ok(std::fs::read_to_string(process.log())?)
    }

    /// Starts a command, and does not wait for it.
    pub fn start(&self, command: &str) -> Result<Process> {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &self.here(command)]).current_dir(self.dir.path()).env("PATH", &self.path);
        Process::start(self.dir, &format!("page-{}", self.count), bash)
    }

    /// What the next command asks, until a version has answered.
    pub async fn asks(&mut self, command: &str, version: &str) -> Result<()> {
        let asked = self.next("curl")?;
        let (asked, comment) = asked.split_once('#').unwrap_or((&asked, version));
        ensure!((asked.trim(), comment.trim()) == (command, version), "{asked} and not {command}, {version}");
        self.serves(version).await
    }

    /// Waits until a version answers.
    pub async fn serves(&self, version: &str) -> Result<()> {
        wait_for(version, LIMIT, async || {
            let answer = Call::get((self.ip, 10_000).into(), "/").host("reviews.example").send().await?;
            ensure!((answer.status, answer.body.trim()) == (200, version), "{} {}", answer.status, answer.body);
            Ok(())
        })
        .await
    }

    /// Every command was run.
    pub fn ends(mut self) -> Result<()> {
        let left = self.commands.next();
        ensure!(left.is_none(), "a command that was not run: {left:?}");
        Ok(())
    }
}

/// A line each; a document is one with all of its lines.
fn commands(page: &str) -> Result<Vec<String>> {
    let (_, page) = page.split_once("<!-- commands -->").context("a begin")?;
    let (page, _) = page.split_once("<!-- end of commands -->").context("an end")?;
    let blocks = page.split("```\n").skip(1).step_by(2);
    let lines = |block: &str| match block.contains("<<'END'") {
        true => vec![block.to_owned()],
        false => block.lines().map(str::to_owned).collect(),
    };
    Ok(blocks.flat_map(lines).collect())
}
