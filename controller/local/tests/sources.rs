//! The files and directories that have the flags of one controller.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use local::sources::{files, find, read, serving, texts};
use rstest::rstest;
use tempfile::TempDir;

fn flag(name: &str, port: u16) -> String {
    format!(
        "{{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {{name: {name}}}, spec: {{version: v1, \
         services: [{{name: {name}}}]}}, local: {{proxies: [{{id: edge}}], versions: {{v1: {{command: [a], address: \
         '127.0.0.1:{port}'}}}}}}}}\n"
    )
}

fn folder(written: &[(&str, String)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    written.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
    dir
}

/// The flags, each with the name of its state file.
fn found(sources: &[PathBuf]) -> Vec<(String, String)> {
    let state = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let flags = files(sources).unwrap();
    flags.iter().map(|file| (file.metadata.name.clone(), state(&file.local.state_file))).collect()
}

/// T15
#[test]
fn a_directory_has_the_flags_of_its_files() {
    let (a, b, c) = (flag("a", 1), flag("b", 2), flag("c", 3));
    let two = format!("{b}---\n{c}");
    let dir =
        folder(&[("one.yaml", a), ("two.yml", two), ("three.json", "{}".to_owned()), (".four.yaml", "{".to_owned())]);
    let expected = [("a", "one.state.json"), ("b", "b.state.json"), ("c", "c.state.json")];
    let expected = expected.map(|(name, state)| (name.to_owned(), state.to_owned()));
    assert_eq!(found(&[dir.path().to_owned()]), expected);
    // Whatever is named twice is there once.
    assert_eq!(found(&[dir.path().join("one.yaml"), dir.path().to_owned()]), expected);
    let all = find(&[dir.path().to_owned()]).unwrap();
    let states: Vec<_> = all.iter().map(|one| (one.flag.as_deref(), one.state.file_name().unwrap())).collect();
    assert_eq!(
        states,
        [
            (Some("a"), "one.state.json".as_ref()),
            (Some("b"), "b.state.json".as_ref()),
            (Some("c"), "c.state.json".as_ref())
        ]
    );
}

/// T15: all that is wrong is said at once, with file, line and column.
#[rstest]
#[case::no_file(&[], &["has no file that ends in .yaml or .yml: put the VersionFlags there"])]
#[case::empty(&[("a.yaml", "# nothing\n".to_owned())], &["a.yaml: it is empty"])]
#[case::no_yaml(&[("a.yaml", "a: {".to_owned())], &["a.yaml: line 1, column 4"])]
#[case::several(&[("a.yaml", flag("a", 1).replace("v1, ", "v2, ")), ("b.yaml", "a: {".to_owned())], &["a.yaml: line 1, column", "spec.version \"v2\" is not in", "b.yaml: line 1"])]
#[case::together(&[("a.yaml", flag("a", 1)), ("b.yaml", format!("{}---\n{}", flag("b", 2), flag("c", 1)))], &["b.yaml: line 3, column", "local.versions.v1.address 127.0.0.1:1 is that of version v1 of a (", "/a.yaml)"])]
fn what_cannot_be_read_is_said(#[case] written: &[(&str, String)], #[case] expected: &[&str]) {
    let dir = folder(written);
    let said = files(&[dir.path().to_owned()]).unwrap_err().to_string();
    for expected in expected {
        assert!(said.contains(expected), "{said}");
    }
}

/// T15, T27: what can be read is there beside what cannot.
#[test]
fn one_file_that_cannot_be_read_hides_no_other() {
    let dir = folder(&[("a.yaml", flag("a", 1)), ("b.yaml", "a: {".to_owned())]);
    let reading = read(&[dir.path().to_owned()]);
    assert_eq!(reading.flags.iter().map(|one| one.file.metadata.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(reading.unread.iter().map(|one| one.path.file_name().unwrap()).collect::<Vec<_>>(), ["b.yaml"]);
    assert_eq!(find(&[dir.path().to_owned()]).unwrap().len(), 2, "its controller can be asked");
    std::fs::remove_file(dir.path().join("b.yaml")).unwrap();
    std::fs::create_dir(dir.path().join("b.yaml")).unwrap();
    assert_eq!(find(&[dir.path().to_owned()]).unwrap().len(), 2, "what is no file hides no other either");
    assert!(find(&[dir.path().join("c.yaml")]).unwrap_err().to_string().contains("No such file"));
}

/// T26: what serves counts, and not what is asked for: before a flip, and after a rollback.
#[test]
fn a_flag_is_shown_as_it_serves() {
    let both = flag("a", 1).replace("versions: {", "versions: {v2: {command: [a], address: '127.0.0.1:2'}, ");
    let dir = folder(&[("a.yaml", both.replace("version: v1, ", "version: v2, "))]);
    let served = || serving(&[dir.path().to_owned()]).unwrap().remove(0).spec.version;
    assert_eq!(served(), "v2", "nothing serves yet");
    let mut status = machine::status::Status::new("1", "a", machine::time::UnixMs(1));
    for (active, expected) in [("v1", "v1"), ("v2", "v2"), ("v0", "v2"), ("", "v2")] {
        active.clone_into(&mut status.active_version);
        let state = serde_json::json!({ "format": 1, "status": status });
        std::fs::write(dir.path().join("a.state.json"), state.to_string()).unwrap();
        assert_eq!(served(), expected);
    }
}

/// T24: what is no file keeps its name: a flag that stood there is not let go.
#[test]
fn what_is_no_file_is_said() {
    let dir = folder(&[("a.yaml", flag("a", 1))]);
    std::fs::create_dir(dir.path().join("b.yaml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("c.yaml")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("d.yaml")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(dir.path().join("e.yaml")).status().unwrap().success());
    let reading = read(&[dir.path().to_owned()]);
    let said: Vec<String> = reading.unread.iter().map(|one| one.error.to_string()).collect();
    let expected = ["it is no file", "it is no file", "No such file", "it is no file"];
    assert!(said.len() == 4 && said.iter().zip(expected).all(|(one, what)| one.contains(what)), "{said:?}");
    assert_eq!(reading.flags.len(), 1);
    // As lint reads them: a pipe in a folder is never waited for, one that was named is.
    assert!(texts(&[dir.path().to_owned()]).unwrap_err().to_string().contains("it is no file"));
    let pipe = dir.path().join("e.yaml");
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, "a: b\n").unwrap()
    });
    assert_eq!(texts(std::slice::from_ref(&pipe)).unwrap(), [(pipe, "a: b\n".to_owned())]);
    writer.join().unwrap();
}
