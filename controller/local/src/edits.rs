//! What an edit of the files means for the flags that a controller has: which take it, which keep what they have, which
//! begin, and which are there no more. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::clashes::between;
use super::file::File;
use super::missing::Refused;
use super::sources::{Declared, Reading, Unread};

/// A flag that this controller has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    /// The file that it stood in last.
    pub(crate) path: &'a Path,
    /// What is in force.
    pub(crate) file: &'a File,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Flags that go by another file from now on, or by the same still; by name.
    pub(crate) taken: BTreeMap<String, Declared>,
    /// Flags that keep what is in force, each with what is wrong with its file; by name.
    pub(crate) kept: BTreeMap<String, String>,
    /// New flags.
    pub(crate) begun: Vec<Declared>,
    /// Flags that no file has any more.
    pub(crate) absent: BTreeSet<String>,
    /// What is wrong with flags that this controller does not have.
    pub(crate) refused: Vec<Refused>,
}

/// What a reading means for the flags that run.
pub(crate) fn edits(running: &BTreeMap<String, Running<'_>>, reading: Reading) -> Edits {
    let mut edits = Edits::default();
    let mut wanted: BTreeMap<String, Declared> = BTreeMap::new();
    let mut twice = vec![];
    for one in reading.flags {
        match wanted.get(&one.file.metadata.name) {
            Some(other) => {
                let wrong =
                    between(&one.file, &other.file, &other.path).into_iter().map(|sentence| one.refused(sentence));
                twice.extend(wrong.map(|error| (one.file.metadata.name.clone(), one.path.clone(), error.to_string())));
            }
            None => _ = wanted.insert(one.file.metadata.name.clone(), one),
        }
    }
    for (name, path, error) in twice {
        wanted.remove(&name);
        edits.refuse(running, &name, &path, error);
    }
    for unread in reading.unread {
        edits.keep_unread(running, &wanted, &unread);
    }
    edits.refuse_renamed(running, &mut wanted);
    edits.refuse_moved(running, &mut wanted);
    edits.refuse_clashing(running, &mut wanted);
    let gone = running.keys().filter(|name| !wanted.contains_key(*name) && !edits.kept.contains_key(*name));
    edits.absent = gone.cloned().collect();
    for (name, one) in wanted {
        if running.contains_key(&name) {
            edits.taken.insert(name, one);
        } else {
            edits.begun.push(one);
        }
    }
    edits
}

impl Edits {
    /// A flag does not get what its file says.
    fn refuse(&mut self, running: &BTreeMap<String, Running<'_>>, name: &str, path: &Path, error: String) {
        if running.contains_key(name) {
            self.kept.entry(name.to_owned()).or_insert(error);
        } else {
            self.refused.push(Refused { path: path.to_owned(), flag: Some(name.to_owned()), why: error });
        }
    }

    /// Where something of a file cannot be read, all flags that it had and does not show go on.
    fn keep_unread(
        &mut self,
        running: &BTreeMap<String, Running<'_>>,
        wanted: &BTreeMap<String, Declared>,
        unread: &Unread,
    ) {
        let (error, path) = (unread.error.to_string(), &unread.path);
        let named = unread.flag.as_ref().is_some_and(|flag| running.contains_key(flag) && !wanted.contains_key(flag));
        let hidden = |(name, one): &(&String, &Running<'_>)| one.path.starts_with(path) && !wanted.contains_key(*name);
        let mut kept: Vec<String> = running.iter().filter(hidden).map(|(name, _)| name.clone()).collect();
        match &unread.flag {
            // Whichever is named has that error; the others have the one of their own.
            Some(flag) if named => {
                self.kept.insert(flag.clone(), error.clone());
                kept.retain(|name| name != flag);
            }
            flag if kept.is_empty() => {
                self.refused.push(Refused { path: path.clone(), flag: flag.clone(), why: error.clone() });
            }
            _ => {}
        }
        for name in kept {
            self.refuse(running, &name, path, error.clone());
        }
    }

    /// A file with one flag, before and after, has the same one.
    fn refuse_renamed(&mut self, running: &BTreeMap<String, Running<'_>>, wanted: &mut BTreeMap<String, Declared>) {
        let mut before: BTreeMap<&Path, Vec<&String>> = BTreeMap::new();
        running.iter().for_each(|(name, one)| before.entry(one.path).or_default().push(name));
        for (path, names) in before {
            let after: Vec<String> =
                wanted.iter().filter(|(_, one)| one.path == path).map(|(name, _)| name.clone()).collect();
            if let ([old], [new]) = (names.as_slice(), after.as_slice())
                && *old != new
                && !running.contains_key(new)
                && !wanted.contains_key(*old)
            {
                wanted.remove(new);
                self.refuse(running, old, path, fixed("metadata.name"));
            }
        }
    }

    /// What a running controller, or a flag that it has, cannot change.
    fn refuse_moved(&mut self, running: &BTreeMap<String, Running<'_>>, wanted: &mut BTreeMap<String, Declared>) {
        let moved = |(name, new): (&String, &Declared)| {
            let old = running.get(name)?;
            let fields = [
                ("local.stateFile", old.file.local.state_file != new.file.local.state_file),
                ("local.listen", old.file.local.listen != new.file.local.listen),
            ];
            let (field, _) = fields.iter().find(|(_, changed)| *changed)?;
            let why = match (*field, old.path == new.path) {
                // A file that gets a second flag names its state otherwise.
                ("local.stateFile", true) => format!(
                    "{}: write `stateFile: {}` to keep the one that there is",
                    fixed(field),
                    old.file.local.state_file.display()
                ),
                _ => fixed(field),
            };
            Some((name.clone(), new.path.clone(), why))
        };
        for (name, path, why) in wanted.iter().filter_map(moved).collect::<Vec<_>>() {
            wanted.remove(&name);
            self.refuse(running, &name, &path, why);
        }
    }

    /// One edit of two that clash is refused, until none is left: what is in force never clashes.
    fn refuse_clashing(&mut self, running: &BTreeMap<String, Running<'_>>, wanted: &mut BTreeMap<String, Declared>) {
        while let Some((name, error)) = clash(running, wanted) {
            let path = wanted.remove(&name).map(|one| one.path).unwrap_or_default();
            self.refuse(running, &name, &path, error);
        }
    }
}

fn fixed(field: &str) -> String {
    format!("{field} changes only with a restart of the controller")
}

/// The first flag whose edit clashes with another flag, as that would be; new flags first, and of those the ones that
/// have never begun.
fn clash(running: &BTreeMap<String, Running<'_>>, wanted: &BTreeMap<String, Declared>) -> Option<(String, String)> {
    let in_force = running.iter().filter(|(name, _)| !wanted.contains_key(*name));
    let others: Vec<(&String, &Path, &File)> = in_force
        .map(|(name, one)| (name, one.path, one.file))
        .chain(wanted.iter().map(|(name, one)| (name, one.path.as_path(), &one.file)))
        .collect();
    let is_edited = |name: &String, one: &Declared| running.get(name).is_none_or(|old| *old.file != one.file);
    let (new, old): (Vec<_>, Vec<_>) =
        wanted.iter().filter(|(name, one)| is_edited(name, one)).partition(|(name, _)| !running.contains_key(*name));
    let (begun, fresh): (Vec<_>, Vec<_>) = new.into_iter().partition(|(_, one)| one.has_state);
    for (name, one) in [fresh, begun, old].into_iter().flat_map(|all| all.into_iter().rev()) {
        for (_, path, file) in others.iter().filter(|(other, ..)| *other != name) {
            if let Some(sentence) = between(&one.file, file, path).into_iter().next() {
                return Some((name.clone(), one.refused(sentence).to_string()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
