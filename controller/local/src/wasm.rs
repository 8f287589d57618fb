//! What is wrong with the file of the filter, in sentences that say what to do. I/O: [`read`] reads it; the rest is pure.

use std::path::{Path, PathBuf};

use flag::PROTOCOL;
use flag::digest::hex_prefix;
use flag::level::LEVEL;
use machine::reason::{Problem, Reason};
use wasmparser::{BinaryReaderError, Parser, Payload, Validator};

use super::files::{Stamp, stamp};

/// Far more than any build of the filter has, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// What Envoy calls in every build of the filter, and where it finds its memory.
const EXPORTS: [&str; 7] = [
    "memory",
    "malloc",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_request_headers",
    "proxy_on_queue_ready",
    "proxy_on_http_call_response",
];
/// The names of what the workers of a proxy share begin with this and the protocol's number.
const SHARED: &[u8] = b"versionflag.";

/// Why a file is no filter that proxies can load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WasmError {
    /// There is none.
    #[error("{0} does not exist: `make filter` builds versionflag.wasm; write where it is")]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("{path} cannot be read: {error}. Proxies have to read it, too")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: String,
    },
    /// It is larger than any filter.
    #[error("{0} is larger than 16 MiB, and cannot be versionflag.wasm: write where that is")]
    TooLarge(PathBuf),
    /// It has nothing in it.
    #[error("{0} is empty: copy versionflag.wasm there again")]
    Empty(PathBuf),
    /// It is something else.
    #[error("{0} is no WebAssembly module: write where versionflag.wasm is")]
    NoModule(PathBuf),
    /// A part of it is missing, or is other than it was.
    #[error("{path} is damaged: {why}. Copy versionflag.wasm there again, and compare its SHA-256")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is a module that is not the filter.
    #[error("{path} is not the filter of versionflag: {why}. Write where versionflag.wasm is")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that is known.
        why: String,
    },
    /// It is of another protocol.
    #[error(
        "{path} speaks protocol {found}, and this controller speaks {PROTOCOL}: use the filter and the controller of one \
         release"
    )]
    OtherProtocol {
        /// The file.
        path: PathBuf,
        /// The protocol that it speaks.
        found: u32,
    },
}

/// The level that this build of the filter understands, or why it is none.
pub fn check(path: &Path, bytes: &[u8]) -> Result<u32, WasmError> {
    let path = || path.to_owned();
    if bytes.is_empty() {
        return Err(WasmError::Empty(path()));
    }
    if !Parser::is_core_wasm(bytes) {
        return Err(WasmError::NoModule(path()));
    }
    let (mut exports, mut shared) = (vec![], vec![]);
    let damaged = |error: BinaryReaderError| WasmError::Damaged { path: path(), why: words(&error) };
    Validator::new().validate_all(bytes).map_err(damaged)?;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::ExportSection(section) => {
                for export in section {
                    exports.push(export.map_err(damaged)?.name);
                }
            }
            Payload::DataSection(section) => {
                for data in section {
                    shared.extend(shared_names(data.map_err(damaged)?.data));
                }
            }
            _ => {}
        }
    }
    let foreign = |why: String| WasmError::Foreign { path: path(), why };
    if let Some(lacking) = EXPORTS.iter().find(|export| !exports.contains(export)) {
        return Err(foreign(format!("it has no export {lacking}")));
    }
    let protocols = shared.iter().map(|(protocol, _)| *protocol);
    match protocols.max() {
        None => Err(foreign("nothing in it has its name".to_owned())),
        Some(PROTOCOL) => Ok(shared.iter().map(|(_, level)| *level).max().unwrap_or(1)),
        Some(found) => Err(WasmError::OtherProtocol { path: path(), found }),
    }
}

fn words(error: &BinaryReaderError) -> String {
    format!("{}, at byte {}", error.message(), error.offset())
}

/// The protocol and the level of each shared name: the snapshot has a name for each level above 1.
fn shared_names(data: &[u8]) -> Vec<(u32, u32)> {
    let starts = data.windows(SHARED.len()).enumerate().filter(|(_, window)| *window == SHARED);
    let name = |start: usize| {
        let rest = data.get(start + SHARED.len()..)?;
        let (protocol, rest) = number(rest)?;
        let rest = rest.strip_prefix(b"/")?;
        let level = rest.strip_prefix(b"snapshot/").and_then(number).map_or(1, |(level, _)| level);
        Some((protocol, level))
    };
    starts.filter_map(|(start, _)| name(start)).collect()
}

/// The decimal number that a text begins with, and what comes after it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits)?;
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// What people should know of a filter that can be loaded.
pub fn outdated(path: &Path, level: u32) -> Option<String> {
    (level < LEVEL).then(|| {
        format!(
            "{} is older than this controller: it does not try whether it reaches a version, which holds every flip \
             unless coexistence.probe.mode is None. Use the filter of this release",
            path.display()
        )
    })
}

/// The bytes of a filter's file.
pub fn read(path: &Path) -> Result<Vec<u8>, WasmError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => WasmError::Missing(path.to_owned()),
        _ => WasmError::Unreadable { path: path.to_owned(), error: error.to_string() },
    };
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        // Of a pipe nobody writes to, the read would never end.
        return Err(WasmError::Unreadable { path: path.to_owned(), error: "it is no file".to_owned() });
    }
    if found.len() > MAX_BYTES {
        return Err(WasmError::TooLarge(path.to_owned()));
    }
    std::fs::read(path).map_err(unreadable)
}

/// What is known of the file at a path. It is read again when it has changed.
#[derive(Debug, Default)]
pub(crate) struct WasmFile {
    seen: Option<(PathBuf, Stamp)>,
    build: String,
    error: Option<WasmError>,
}

impl WasmFile {
    /// Looks at the file.
    pub(crate) fn look(&mut self, path: &Path) {
        let found = Some((path.to_owned(), stamp(path)));
        if found == self.seen {
            return;
        }
        let usable = read(path).and_then(|bytes| check(path, &bytes).map(|_| bytes));
        let (build, error) = match usable {
            // The same bytes in another file may have been something else in between.
            Ok(bytes) => (hex_prefix(format!("{} {found:?}", hex_prefix(&bytes, 8)).as_bytes(), 8), None),
            // Proxies that run need not read it.
            Err(error) => (std::mem::take(&mut self.build), Some(error)),
        };
        match &error {
            Some(error) => tracing::error!(%error, "proxies cannot load the filter"),
            None if self.error.is_some() => tracing::info!(build, "the filter can be loaded again"),
            None => {}
        }
        (self.seen, self.build, self.error) = (found, build, error);
    }

    /// What tells the file that was usable last from what was there before: proxies read it again when this changes.
    pub(crate) fn build(&self) -> &str {
        &self.build
    }

    /// The problem that proxies would be without the filter.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let error = self.error.as_ref()?;
        let message = format!("proxies cannot load the filter: {error}. Until then those that start go on without it");
        Some(Problem::new(Reason::FilterUnusable, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T36: nothing ever comes out of it.
    #[test]
    fn a_pipe_is_no_filter() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("f.wasm");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let said = read(&pipe).unwrap_err().to_string();
        assert!(said.contains("f.wasm cannot be read: it is no file"), "{said}");
    }

    /// T10, T26: who put a file right has proxies read it again, the same bytes, too; who broke it has not.
    #[test]
    fn a_file_that_was_put_right_is_another_build() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("f.wasm"), dir.path().join("new"));
        let whole = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/filters/level-1/versionflag.wasm"));
        let whole = whole.unwrap();
        let put = |bytes: &[u8]| {
            std::fs::write(&new, bytes).unwrap();
            std::fs::rename(&new, &path).unwrap();
        };
        let mut file = WasmFile::default();
        let mut look = || {
            file.look(&path);
            (file.build().to_owned(), file.problem().map(|problem| problem.message))
        };
        assert!(look().1.unwrap().contains("does not exist"));
        put(&whole);
        let (first, usable) = look();
        assert!(usable.is_none() && !first.is_empty());
        assert_eq!(look(), (first.clone(), None));
        put(b"");
        let (broken, problem) = look();
        assert!(problem.unwrap().contains("is empty"));
        assert_eq!(broken, first);
        put(&whole);
        let (second, usable) = look();
        assert!(usable.is_none() && second != first);
        // Whoever started while it was away has to read it, too.
        std::fs::rename(&path, &new).unwrap();
        assert!(look().1.is_some());
        std::fs::rename(&new, &path).unwrap();
        let (third, usable) = look();
        assert!(usable.is_none() && third != second);
    }
}
