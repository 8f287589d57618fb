//! The commands of a document, run in their order as they are written there. I/O: reads the document,
//! runs kubectl.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::{Cluster, programs};
use crate::process::program;
use crate::root;

/// A document with commands that begin with `kubectl`, of which some are left.
pub struct Walk<'a> {
    cluster: &'a Cluster<'a>,
    commands: std::vec::IntoIter<Vec<String>>,
}

impl<'a> Walk<'a> {
    /// The commands of a section, or of the whole document.
    pub fn read(cluster: &'a Cluster<'a>, document: &str, section: Option<&str>) -> Result<Walk<'a>> {
        let text = std::fs::read_to_string(root().join(document))?;
        let part = match section {
            Some(name) => text.split("\n## ").find(|part| part.starts_with(name)).context("no such section")?,
            None => &text,
        };
        let lines = part.lines().map(str::trim).filter(|line| line.starts_with("kubectl "));
        let commands: Vec<_> =
            lines.map(|line| line.replace('\'', "").split(' ').skip(1).map(str::to_owned).collect()).collect();
        Ok(Walk { cluster, commands: commands.into_iter() })
    }

    /// Runs the next command, which has to begin with these words. What it printed.
    pub async fn next(&mut self, words: &str) -> Result<String> {
        let args = self.skip(words)?;
        let said = run(self.cluster, &args).await?;
        println!("$ kubectl {}\n{said}", args.join(" "));
        Ok(said)
    }

    /// The next command, which the caller does another way.
    pub fn skip(&mut self, words: &str) -> Result<Vec<String>> {
        let args = self.commands.next().context("no more commands")?;
        ensure!(args.join(" ").starts_with(words), "{args:?} and not {words}");
        Ok(args)
    }

    /// Every command was run.
    pub fn ends(mut self) -> Result<()> {
        let left = self.commands.next();
        ensure!(left.is_none(), "a command that was not run: {left:?}");
        Ok(())
    }
}

/// One command, in the root of the repository, with the plugin on the PATH.
async fn run(cluster: &Cluster<'_>, args: &[String]) -> Result<String> {
    let link = cluster.dir().file("kubectl-versionflag");
    if !link.exists() {
        std::os::unix::fs::symlink(program("versionflag")?, &link)?;
    }
    let mut command = tokio::process::Command::new(programs()?.join("kubectl"));
    command.args(args).current_dir(root()).env("KUBECONFIG", cluster.kubeconfig()).env("PATH", cluster.dir().path());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    // Exit code 3 says that something is waited for.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
