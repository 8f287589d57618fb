//! What a version printed, from its files: those of before, oldest first, and the one that is written. I/O: files.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::logs::{Logs, kept};
use super::sources::Found;
use super::store::StateFile;

/// Bytes that are looked through at once for ends of lines.
const CHUNK: u64 = 64 << 10;
/// Looks at a file that is being kept, after which it counts as begun anew, however long it is.
const LOOKS: u8 = 5;
/// Tries to open all files of a version while one of them is being kept.
const TRIES: usize = 5;

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing says which version is meant.
    #[error("no controller has run with {0} yet, so that no version serves: name one by --version")]
    NoVersion(String),
    /// The version has none.
    #[error("{version} has no log in {}; {}", directory.display(), there(versions))]
    None {
        /// The version.
        version: String,
        /// Where logs are.
        directory: PathBuf,
        /// The versions that have one.
        versions: Vec<String>,
    },
    /// Reading failed.
    #[error("the log {path} cannot be read: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

fn there(versions: &[String]) -> String {
    if versions.is_empty() { "there is none at all".to_owned() } else { format!("there is: {}", versions.join(", ")) }
}

/// The log of a version of a flag, with its last `lines`, or all of it. Without a version it is that of the one that is
/// switched to, or that serves.
pub fn open_log(flag: &Found, version: Option<&str>, lines: Option<u64>) -> Result<LogReader, LogError> {
    let logs = Logs::found(flag);
    let version = version.map(str::to_owned).or_else(|| {
        let status = StateFile::peek(&flag.state)?.status;
        status.target_version.or(Some(status.active_version).filter(|active| !active.is_empty()))
    });
    let version = version.ok_or_else(|| LogError::NoVersion(flag.flag.clone().unwrap_or_default()))?;
    let file = logs.path(&version);
    LogReader::open(&file, lines).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let directory = file.parent().unwrap_or(Path::new(".")).to_owned();
            LogError::None { version, directory, versions: logs.versions() }
        }
        _ => LogError::Read { path: file, error },
    })
}

/// What a version printed, and goes on printing.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    /// Files of before of which something is left to read.
    before: VecDeque<File>,
    current: File,
    /// The file that was kept last.
    kept: Option<Identity>,
    /// Looks since another one was kept and the file was not seen begun anew.
    looks: u8,
}

/// What tells a file that was kept from another one, whatever it is called by then: a number of before may be given to
/// the next file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    inode: u64,
    written: (i64, i64),
}

fn identity(path: &Path) -> Option<Identity> {
    let data = std::fs::metadata(path).ok()?;
    Some(Identity { inode: data.ino(), written: (data.mtime(), data.mtime_nsec()) })
}

impl LogReader {
    /// Reads what there is: the last `lines`, or all of it.
    pub fn open(path: &Path, lines: Option<u64>) -> io::Result<LogReader> {
        let mut reader = LogReader::at(path)?;
        // Whoever keeps a file meanwhile moves what was not opened yet.
        for _ in 1..TRIES {
            if identity(&kept(path, 1)) == reader.kept {
                break;
            }
            reader = LogReader::at(path)?;
        }
        if let Some(lines) = lines {
            reader.skip_to(lines)?;
        }
        Ok(reader)
    }

    fn at(path: &Path) -> io::Result<LogReader> {
        let newest = identity(&kept(path, 1));
        let before = (1..).map_while(|number| File::open(kept(path, number)).ok()).collect::<Vec<_>>();
        let before = before.into_iter().rev().collect();
        Ok(LogReader { path: path.to_owned(), before, current: File::open(path)?, kept: newest, looks: 0 })
    }

    /// Leaves out all but the last lines.
    fn skip_to(&mut self, lines: u64) -> io::Result<()> {
        let (mut left, mut is_last) = (lines, true);
        self.current.seek(SeekFrom::End(0))?;
        for index in (0..=self.before.len()).rev() {
            let file = self.before.get_mut(index).unwrap_or(&mut self.current);
            if let Some(begin) = begin_of_lines(file, &mut left, &mut is_last)? {
                file.seek(SeekFrom::Start(begin))?;
                self.before.drain(..index.min(self.before.len()));
                return Ok(());
            }
            file.rewind()?;
        }
        Ok(())
    }

    /// Writes what was printed since this was last called.
    pub fn write_new(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.look()?;
        while let Some(file) = self.before.front_mut() {
            io::copy(file, out)?;
            self.before.pop_front();
        }
        if self.looks == 0 {
            io::copy(&mut self.current, out)?;
        }
        out.flush()
    }

    /// Another file is being kept: what comes after it is written by a later [`LogReader::write_new`].
    pub fn waits(&self) -> bool {
        self.looks > 0
    }

    /// Sees whether the file was kept as another one and begun anew, or is another one.
    fn look(&mut self) -> io::Result<()> {
        let (data, newest) = (self.current.metadata()?, identity(&kept(&self.path, 1)));
        let was_cut = data.len() < self.current.stream_position()?;
        if newest != self.kept && !was_cut && self.looks < LOOKS {
            // It is copied first, and cut then.
            self.looks += 1;
            return Ok(());
        }
        if newest != self.kept || was_cut {
            self.follow_kept()?;
        }
        (self.kept, self.looks) = (newest, 0);
        if identity(&self.path).is_some_and(|anew| anew.inode != data.ino()) {
            let anew = File::open(&self.path)?;
            self.before.push_back(std::mem::replace(&mut self.current, anew));
        }
        Ok(())
    }

    /// The rest of what was being read is in the oldest of the files that were kept since.
    fn follow_kept(&mut self) -> io::Result<()> {
        let since = (1..).map(|number| kept(&self.path, number));
        let since = since.take_while(|path| identity(path).is_some_and(|one| Some(one) != self.kept));
        let mut since: Vec<File> = since.map_while(|path| File::open(path).ok()).collect();
        since.reverse();
        let read = self.current.stream_position()?;
        if let Some(first) = since.first_mut() {
            first.seek(SeekFrom::Start(read))?;
        }
        self.before.extend(since);
        self.current.rewind()
    }
}

/// Where the last `left` lines of a file begin, if it has so many; `left` becomes how many are still to be found.
/// `is_last`: nothing comes after this file, so that an end of line at its end begins no other one.
fn begin_of_lines(file: &mut File, left: &mut u64, is_last: &mut bool) -> io::Result<Option<u64>> {
    let length = file.metadata()?.len();
    if *left == 0 {
        return Ok(Some(length));
    }
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(begin))?;
        let mut chunk = vec![];
        Read::by_ref(file).take(end - begin).read_to_end(&mut chunk)?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            let ends_all = std::mem::take(is_last);
            if *byte != b'\n' || ends_all {
                continue;
            }
            *left -= 1;
            if *left == 0 {
                return Ok(Some(begin.saturating_add(u64::try_from(index).unwrap_or_default()) + 1));
            }
        }
        end = begin;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A log with files of before, and what a reader of it has printed.
    struct Log {
        dir: tempfile::TempDir,
    }

    impl Log {
        fn new(files: &[&str]) -> Log {
            let log = Log { dir: tempfile::tempdir().unwrap() };
            for (number, text) in files.iter().rev().enumerate() {
                let number = u32::try_from(number).unwrap();
                std::fs::write(if number == 0 { log.path() } else { kept(&log.path(), number) }, text).unwrap();
            }
            log
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("reviews-v1.log")
        }

        fn print(&self, text: &str) {
            let mut file = File::options().append(true).create(true).open(self.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self, keep: u32) {
            let how = crate::file::LogFiles { max_size: "0".to_owned(), keep, ..Default::default() };
            assert!(Logs::new("reviews", &how, &self.dir.path().join("state.json")).rotate("v1").unwrap());
        }
    }

    fn printed(reader: &mut LogReader) -> String {
        let mut out = vec![];
        for _ in 0..=LOOKS {
            reader.write_new(&mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    /// T20
    #[rstest]
    #[case::all(None, "a\nb\nc\nd\ne\n")]
    #[case::none(Some(0), "")]
    #[case::one(Some(1), "e\n")]
    #[case::of_two_files(Some(3), "c\nd\ne\n")]
    #[case::at_a_border(Some(2), "d\ne\n")]
    #[case::of_all_files(Some(4), "b\nc\nd\ne\n")]
    #[case::more_than_there_are(Some(9), "a\nb\nc\nd\ne\n")]
    fn lines_count_from_the_end_over_all_files(#[case] lines: Option<u64>, #[case] expected: &str) {
        let log = Log::new(&["a\nb\n", "c\n", "d\ne\n"]);
        assert_eq!(printed(&mut LogReader::open(&log.path(), lines).unwrap()), expected);
    }

    #[rstest]
    #[case::without_an_end(&["a\nb"], 1, "b")]
    #[case::over_a_border(&["a\nb", "c\n"], 1, "bc\n")]
    #[case::empty(&["a\n", ""], 1, "a\n")]
    fn a_line_is_whole(#[case] files: &[&str], #[case] lines: u64, #[case] expected: &str) {
        let log = Log::new(files);
        assert_eq!(printed(&mut LogReader::open(&log.path(), Some(lines)).unwrap()), expected);
    }

    #[test]
    fn long_lines_are_found() {
        let long = format!("{}\n", "x".repeat(100_000));
        let log = Log::new(&[&format!("a\n{long}{long}")]);
        assert_eq!(printed(&mut LogReader::open(&log.path(), Some(2)).unwrap()), format!("{long}{long}"));
    }

    /// T20: with one file of before, which is written over.
    #[test]
    fn a_reader_goes_on_over_the_rotation_of_a_single_file() {
        let log = Log::new(&["old\n", "first\n"]);
        let mut reader = LogReader::open(&log.path(), None).unwrap();
        assert_eq!(printed(&mut reader), "old\nfirst\n");
        log.print("second\n");
        log.rotate(1);
        log.print("3\n");
        assert_eq!(printed(&mut reader), "second\n3\n");
    }

    /// T20: however often the file was kept and begun anew since the last look, and however much was printed since.
    #[test]
    fn a_reader_goes_on_over_rotations() {
        let log = Log::new(&["old\n", "first\n"]);
        let mut reader = LogReader::open(&log.path(), Some(1)).unwrap();
        assert_eq!(printed(&mut reader), "first\n");
        log.print("second\n");
        log.rotate(3);
        assert_eq!(printed(&mut reader), "second\n");
        log.print("third, which is longer than what was read\n");
        log.rotate(3);
        log.print("fourth\n");
        log.rotate(3);
        log.print("fifth, and again more than was read of it\n");
        let all = "third, which is longer than what was read\nfourth\nfifth, and again more than was read of it\n";
        assert_eq!(printed(&mut reader), all);
        std::fs::remove_file(log.path()).unwrap();
        log.print("sixth, in another file\n");
        assert_eq!(printed(&mut reader), "sixth, in another file\n");
    }
}
