//! Plain files that a test compares with what it found.

use std::path::Path;

/// Compares with a file, by its path from the root of the repository. With `UPDATE_GOLDENS=1` the file is written
/// instead: look at what changed before it is committed.
pub(crate) fn compare(path: &str, found: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("UPDATE_GOLDENS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, found).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = written.lines().zip(found.lines()).find(|(one, other)| one != other);
    assert!(
        written == found,
        "{path} is out of date: write it with UPDATE_GOLDENS=1; the first line that differs: {differs:#?}"
    );
}
