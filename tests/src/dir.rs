//! A temporary directory that is kept when the test fails. I/O: files, and the end of leftovers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

    /// Its files whose names begin and end like this.
    pub fn files(&self, prefix: &str, suffix: &str) -> std::io::Result<Vec<PathBuf>> {
        let mut files = vec![];
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(prefix) && name.ends_with(suffix) {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Writes a file whole or not at all, so that whoever watches it never reads half of it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let (path, new) = (self.file(name), self.file(&format!(".{name}.new")));
        fs::write(&new, content).expect("a file in the test directory can be written");
        fs::rename(&new, &path).expect("a file in the test directory can be renamed");
        path
    }

    /// The processes that carry this directory in their environment, whoever their parent is now;
    /// and whether there is one whose environment cannot be told, as while it starts a program.
    fn leftovers(&self) -> (Vec<Pid>, bool) {
        let mark = format!("{DIR_ENV}={}", self.path.display());
        let (mut found, mut unsure) = (Vec::new(), false);
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
            if environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
                found.push(Pid::from_raw(pid));
            }
            // What has ended, and a thread of the kernel, has no program either.
            unsure |= environment.is_empty() && entry.path().join("exe").read_link().is_ok();
        }
        (found, unsure)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // What a killed controller left running is nobody's child any more. It may be starting
        // more while it is looked for, so look until there is nothing; but somebody else's
        // process may have no environment for good.
        let until = Instant::now() + Duration::from_millis(200);
        loop {
            let (found, unsure) = self.leftovers();
            for pid in &found {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            if found.is_empty() && !unsure || Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("logs and files of the failed test: {}", dir.keep().display());
        }
    }
}
