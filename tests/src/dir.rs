//! A temporary directory that is kept when the test fails. I/O: files, and the end of leftovers.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Set for every process of a test, and so inherited by theirs: finds the ones that were left.
pub const DIR_ENV: &str = "VERSIONFLAG_TEST_DIR";
/// The test's own process, for those that must end with it although it is not their parent.
pub const PID_ENV: &str = "VERSIONFLAG_TEST_PID";

/// Holds the logs and files of one test. Make it first, so that it is dropped last.
#[derive(Debug)]
pub struct TestDir {
    dir: Option<TempDir>,
    path: PathBuf,
}

impl TestDir {
    /// A new directory, with the name of the test in its own.
    pub fn new(name: &str) -> TestDir {
        let dir = tempfile::Builder::new()
            .prefix(&format!("versionflag-{name}-"))
            .tempdir()
            .expect("a temporary directory can be made");
        let path = dir.path().to_owned();
        TestDir { dir: Some(dir), path }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file whole or not at all, so that whoever watches it never reads half of it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let (path, new) = (self.file(name), self.file(&format!(".{name}.new")));
        fs::write(&new, content).expect("a file in the test directory can be written");
        fs::rename(&new, &path).expect("a file in the test directory can be renamed");
        path
    }

    /// The processes that carry this directory in their environment, whoever their parent is now.
    fn leftovers(&self) -> Vec<Pid> {
        let mark = format!("{DIR_ENV}={}", self.path.display());
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let environment = fs::read(entry.path().join("environ")).ok()?;
                environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()).then(|| Pid::from_raw(pid))
            })
            .collect()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // What a killed controller left running is nobody's child any more. It may be starting
        // more while it is looked for, so look until there is nothing.
        for _ in 0..10 {
            let leftovers = self.leftovers();
            if leftovers.is_empty() {
                break;
            }
            for pid in leftovers {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("logs and files of the failed test: {}", dir.keep().display());
        }
    }
}
