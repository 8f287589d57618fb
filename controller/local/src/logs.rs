//! What versions print, in files of bounded size. I/O: files.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::file::LogFiles;
use super::sources::Found;
use super::store::beside;

/// Where the output of versions goes.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    name: String,
    directory: PathBuf,
    max_bytes: u64,
    keep: u32,
}

impl Logs {
    /// As the file of a flag says, and beside its state file where it says nothing.
    pub(crate) fn new(flag: &str, how: &LogFiles, state_file: &Path) -> Logs {
        let beside_state = || state_file.parent().unwrap_or(Path::new(".")).to_owned();
        Logs {
            name: flag.to_owned(),
            directory: how.directory.clone().unwrap_or_else(beside_state),
            max_bytes: how.max_bytes(),
            keep: how.keep,
        }
    }

    /// Those of a flag that was found, to be read.
    pub(crate) fn found(flag: &Found) -> Logs {
        let how = LogFiles { directory: flag.logs.clone(), ..LogFiles::default() };
        Logs::new(flag.flag.as_deref().unwrap_or_default(), &how, &flag.state)
    }

    /// The versions that have a log.
    pub(crate) fn versions(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let prefix = format!("{}-", self.name);
        let version = |name: String| Some(name.strip_prefix(&prefix)?.strip_suffix(".log")?.to_owned());
        let mut versions: Vec<String> = names.filter_map(version).collect();
        versions.sort();
        versions
    }

    /// The file of a version.
    pub(crate) fn path(&self, version: &str) -> PathBuf {
        self.directory.join(format!("{}-{version}.log", self.name))
    }

    /// The file of a version, to be appended to. Its folder is made again if it is gone.
    pub(crate) fn open(&self, version: &str) -> io::Result<File> {
        std::fs::create_dir_all(&self.directory)?;
        OpenOptions::new().create(true).append(true).open(self.path(version))
    }

    /// Keeps a file that has grown too large as the first of some, and begins it anew. The version goes on writing to
    /// it: what it writes between the copy and the cut is lost. Whether there was something to do.
    pub(crate) fn rotate(&self, version: &str) -> io::Result<bool> {
        let path = self.path(version);
        let length = match std::fs::metadata(&path) {
            Ok(data) => data.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if length <= self.max_bytes {
            return Ok(false);
        }
        let kept = if self.keep == 0 { Ok(()) } else { self.keep_copy(&path) };
        // A full disk is what the bound is for: the file is cut, kept or not.
        OpenOptions::new().write(true).open(&path)?.set_len(0)?;
        kept.map(|()| true)
    }

    /// Who reads meanwhile finds all files as they were, for as long as it takes to copy one.
    fn keep_copy(&self, path: &Path) -> io::Result<()> {
        let copy = beside(path, ".tmp");
        let copied = std::fs::copy(path, &copy);
        if let Err(error) = copied {
            let _ = std::fs::remove_file(&copy);
            return Err(error);
        }
        for number in (1..self.keep).rev() {
            rename(&kept(path, number), &kept(path, number + 1))?;
        }
        std::fs::rename(&copy, kept(path, 1))
    }
}

/// The file that was kept so many times ago.
pub(crate) fn kept(path: &Path, number: u32) -> PathBuf {
    beside(path, &format!(".{number}"))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// T8: a version that prints a lot fills no disk, and the latest of it is kept.
    #[test]
    fn logs_are_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.json");
        let how = LogFiles { directory: Some(dir.path().join("logs")), max_size: "10".to_owned(), keep: 2 };
        let logs = Logs::new("reviews", &how, &state);
        assert!(!logs.rotate("v1").unwrap(), "there is nothing yet");
        let mut file = logs.open("v1").unwrap();
        for round in ["first", "second", "third", "fourth"] {
            write!(file, "{round} of many").unwrap();
            assert!(logs.rotate("v1").unwrap());
        }
        // T20: while a file is copied those of before are where they were.
        let copy = beside(&logs.path("v1"), ".tmp");
        std::fs::create_dir(&copy).unwrap();
        write!(file, "which cannot be copied").unwrap();
        assert!(logs.rotate("v1").is_err());
        std::fs::remove_dir(&copy).unwrap();
        write!(file, "last").unwrap();
        assert!(!logs.rotate("v1").unwrap());
        let read = |suffix: &str| std::fs::read_to_string(beside(&logs.path("v1"), suffix)).unwrap();
        assert_eq!([read(""), read(".1"), read(".2")], ["last", "fourth of many", "third of many"]);
        assert!(!beside(&logs.path("v1"), ".3").exists());
        std::fs::remove_dir_all(dir.path().join("logs")).unwrap();
        assert!(logs.open("v1").is_ok(), "the folder is made again");
    }
}
