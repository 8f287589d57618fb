//! The files and directories that have the flags of one controller. I/O: reads them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::clashes::clashes;
use super::file::{File, FileError, directory_of, read_text, state_file};
use super::files::{Stamp, stamp};
use super::store::StateFile;
use super::yaml::{Document, Wrong, documents};

/// A flag as it was read.
#[derive(Debug)]
pub struct Declared {
    /// The file that has it.
    pub path: PathBuf,
    /// What stands there, which is valid by itself.
    pub file: File,
    /// It has a state: it has begun before.
    pub(crate) has_state: bool,
    document: Document,
}

impl Declared {
    /// The same sentence about this flag with the place that it begins with.
    pub fn refused(&self, sentence: String) -> FileError {
        FileError::Wrong { path: self.path.clone(), wrong: vec![self.document.wrong(sentence)] }
    }

    /// The state of this flag is where it was when its file had no other one: a file of several names it otherwise.
    pub(crate) fn misses_its_state(&self) -> Option<FileError> {
        let name = state_file(&self.path, None, Path::new(""));
        let (own, before) = (&self.file.local.state_file, directory_of(&self.path).join(&name));
        if own.exists() || before == *own {
            return None;
        }
        let state: Value = serde_json::from_slice(&std::fs::read(before).ok()?).ok()?;
        let is_its = text(&state, "/status/name")? == self.file.metadata.name;
        let (name, own) = (name.display(), own.display());
        is_its.then(|| {
            self.refused(format!(
                "local.stateFile is {own}, and {name} has the state of this flag: write `stateFile: {name}`, or move \
                 it there"
            ))
        })
    }
}

/// Why a flag, or a whole file, is not taken.
#[derive(Debug)]
pub struct Unread {
    /// The file, or the directory.
    pub path: PathBuf,
    /// The flag's name, as far as that can be read.
    pub flag: Option<String>,
    /// Why.
    pub error: FileError,
}

/// Everything that was read of some sources.
#[derive(Debug, Default)]
pub struct Reading {
    /// The flags that are valid, each by itself.
    pub flags: Vec<Declared>,
    /// What is not.
    pub unread: Vec<Unread>,
}

/// The files of sources, each a file or a directory of files; or why there are none. Names that begin with a dot are
/// those of editors.
fn paths(sources: &[PathBuf]) -> Vec<Result<PathBuf, Unread>> {
    let (mut all, mut known) = (vec![], BTreeSet::new());
    for source in sources {
        let found = if source.is_dir() { listed(source) } else { Ok(vec![source.clone()]) };
        match found {
            Ok(paths) => {
                let is_new =
                    |path: &PathBuf| known.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()));
                all.extend(paths.into_iter().filter(is_new).map(Ok));
            }
            Err(error) => all.push(Err(Unread { path: source.clone(), flag: None, error })),
        }
    }
    all
}

fn listed(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let unread = |error| FileError::Read { path: directory.to_owned(), error };
    let entries = std::fs::read_dir(directory).map_err(unread)?.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    let is_flags = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        !hidden && path.extension().is_some_and(|end| end == "yaml" || end == "yml")
    };
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_flags).collect();
    paths.sort();
    if paths.is_empty() { Err(FileError::NoFiles(directory.to_owned())) } else { Ok(paths) }
}

/// The files of some sources.
pub fn list(sources: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    paths(sources).into_iter().map(|path| path.map_err(|unread| unread.error)).collect()
}

/// What tells one content of all sources from another.
pub(crate) fn stamps(sources: &[PathBuf]) -> Vec<(PathBuf, Stamp)> {
    let stamped = |one| match one {
        Ok(path) => (PathBuf::clone(&path), stamp(&path)),
        // Of a directory everything that is written there is a change.
        Err(Unread { path, .. }) => (path, None),
    };
    paths(sources).into_iter().map(stamped).collect()
}

/// Reads all flags of some sources, each for itself.
pub fn read(sources: &[PathBuf]) -> Reading {
    let mut reading = Reading::default();
    for path in paths(sources) {
        match path.and_then(|path| Ok((read_documents(&path)?, path))) {
            Ok((documents, path)) => reading.add(documents, &path),
            Err(unread) => reading.unread.push(unread),
        }
    }
    reading
}

/// The texts of the files of some sources. What was named itself may be a pipe, as of a shell's `<(…)`.
pub fn texts(sources: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, FileError> {
    let text = |path: &PathBuf| if sources.contains(path) { read_text(path) } else { flags_text(path) };
    list(sources)?.into_iter().map(|path| Ok((path.clone(), text(&path)?))).collect()
}

/// The text of a file of flags. What is no file may never end, or never begin.
fn flags_text(path: &Path) -> Result<String, FileError> {
    let failed = |error| FileError::Read { path: path.to_owned(), error };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no file")));
    }
    read_text(path)
}

fn read_documents(path: &Path) -> Result<Vec<Document>, Unread> {
    let unread = |error| Unread { path: path.to_owned(), flag: None, error };
    let text = flags_text(path).map_err(unread)?;
    let wrong = |wrong| unread(FileError::Wrong { path: path.to_owned(), wrong: vec![wrong] });
    let found = documents(&text).map_err(wrong)?;
    if found.is_empty() {
        return Err(wrong(Wrong { place: None, message: "it is empty".to_owned() }));
    }
    Ok(found)
}

impl Reading {
    /// Takes in the documents of a file.
    pub fn add(&mut self, documents: Vec<Document>, path: &Path) {
        let alone = documents.len() == 1;
        for document in documents {
            match File::of(&document, path, alone) {
                Ok(file) => {
                    let has_state = file.local.state_file.exists();
                    self.flags.push(Declared { path: path.to_owned(), file, has_state, document });
                }
                Err(wrong) => {
                    let flag = text(&document.value(), "/metadata/name");
                    let error = FileError::Wrong { path: path.to_owned(), wrong };
                    self.unread.push(Unread { path: path.to_owned(), flag, error });
                }
            }
        }
    }

    /// Everything that is wrong with the flags together, with the name of the flag that it is about.
    pub fn clashes(&self) -> Vec<(&str, FileError)> {
        let all: Vec<_> = self.flags.iter().map(|one| (one.path.as_path(), &one.file)).collect();
        let about = |(index, sentence)| {
            let one = self.flags.get::<usize>(index)?;
            Some((one.file.metadata.name.as_str(), one.refused(sentence)))
        };
        clashes(&all).into_iter().filter_map(about).collect()
    }

    /// The flags, if all of them are valid, by themselves and together.
    pub fn valid(self) -> Result<Vec<Declared>, FileError> {
        let clashes: Vec<FileError> = self.clashes().into_iter().map(|(_, error)| error).collect();
        let wrong: Vec<FileError> = self.unread.into_iter().map(|one| one.error).chain(clashes).collect();
        match <[FileError; 1]>::try_from(wrong) {
            Ok([one]) => Err(one),
            Err(none) if none.is_empty() => Ok(self.flags),
            Err(several) => Err(FileError::Several(several)),
        }
    }
}

/// The valid flags of some sources.
pub fn files(sources: &[PathBuf]) -> Result<Vec<File>, FileError> {
    Ok(read(sources).valid()?.into_iter().map(|one| one.file).collect())
}

/// The same, each as if it asked for the version that serves, where its state knows one: what leads there without the
/// flag must not lead where nobody has gone yet, or any more.
pub fn serving(sources: &[PathBuf]) -> Result<Vec<File>, FileError> {
    let mut all = files(sources)?;
    for file in &mut all {
        let state = StateFile::peek(&file.local.state_file).filter(|state| state.status.name == file.metadata.name);
        let active = state.map(|state| state.status.active_version);
        let has_clusters =
            |version: &String| file.spec.services.iter().all(|service| file.clusters(service).contains_key(version));
        if let Some(active) = active.filter(has_clusters) {
            file.spec.version = active;
        }
    }
    Ok(all)
}

/// What can be said of a flag even while its file is not valid: whoever made a bad edit wants to see what the
/// controller says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name, where that can be read.
    pub flag: Option<String>,
    /// Where its state is.
    pub state: PathBuf,
    /// Where the logs of its versions are; beside its state unless given.
    pub logs: Option<PathBuf>,
    /// The version that the file asks for.
    pub version: Option<String>,
}

/// The flags of some sources, as far as they can be read; a file that is not YAML now may have one, and one that cannot
/// be read hides no other.
pub fn find(sources: &[PathBuf]) -> Result<Vec<Found>, FileError> {
    let (mut all, mut read, mut unread) = (vec![], false, None);
    for path in list(sources)? {
        let text = flags_text(&path);
        read |= text.is_ok();
        let text = text.unwrap_or_else(|error| {
            unread.get_or_insert(error);
            String::new()
        });
        let values: Vec<Value> = documents(&text).unwrap_or_default().iter().map(Document::value).collect();
        let alone = values.len() < 2;
        let values = if values.is_empty() { vec![Value::Null] } else { values };
        all.extend(values.iter().map(|value| {
            let flag = self::text(value, "/metadata/name");
            let configured = self::text(value, "/local/stateFile").unwrap_or_default();
            let name = flag.as_deref().filter(|_| !alone);
            let state = directory_of(&path).join(state_file(&path, name, Path::new(&configured)));
            let logs = self::text(value, "/local/logs/directory").map(|logs| directory_of(&path).join(logs));
            Found { flag, state, logs, version: self::text(value, "/spec/version") }
        }));
    }
    match unread {
        Some(error) if !read => Err(error),
        _ => Ok(all),
    }
}

fn text(value: &Value, path: &str) -> Option<String> {
    value.pointer(path)?.as_str().map(str::to_owned)
}
