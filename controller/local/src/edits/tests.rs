use std::path::Path;

use rstest::rstest;

use super::*;
use crate::file::FileError;
use crate::yaml::documents;

fn flag(name: &str, version: &str, port: u16, more: &str) -> String {
    format!(
        "{{apiVersion: versionflag.io/v1alpha1, kind: VersionFlag, metadata: {{name: {name}}}, spec: {{version: {version}, \
         services: [{{name: {name}}}]}}, local: {{proxies: [{{id: edge}}] {more}, versions: {{ \
         v1: {{command: [a], address: '127.0.0.1:{port}'}}, v2: {{command: [a], address: '127.0.1.1:{port}'}}}}}}}}\n"
    )
}

/// Files by name, each with its text.
fn reading(files: &[(&str, String)]) -> Reading {
    let mut reading = Reading::default();
    for (name, text) in files {
        reading.add(documents(text).unwrap(), &Path::new("/d").join(name));
    }
    reading
}

/// What becomes of `a` and `b`, of which each has a file of its own.
fn edited(files: &[(&str, String)], unread: &[(&str, &str)]) -> String {
    let before = reading(&[("a.yaml", flag("a", "v1", 1, "")), ("b.yaml", flag("b", "v1", 2, ""))]);
    let running =
        before.flags.iter().map(|one| (one.file.metadata.name.clone(), Running { path: &one.path, file: &one.file }));
    let mut after = reading(files);
    after.unread.extend(unread.iter().map(|(name, why)| Unread {
        path: Path::new("/d").join(name),
        flag: None,
        error: FileError::Wrong {
            path: Path::new("/d").join(name),
            wrong: vec![crate::yaml::Wrong { place: None, message: (*why).to_owned() }],
        },
    }));
    let edits = edits(&running.collect(), after);
    let taken = edits.taken.iter().map(|(name, one)| format!("{name} takes {}", one.file.spec.version));
    let kept = edits.kept.iter().map(|(name, why)| format!("{name} keeps its own: {why}"));
    let begun = edits.begun.iter().map(|one| format!("{} begins", one.file.metadata.name));
    let absent = edits.absent.iter().map(|name| format!("{name} is absent"));
    let refused = edits.refused.iter().map(|why| format!("refused: {}", why.why));
    taken.chain(kept).chain(begun).chain(absent).chain(refused).collect::<Vec<_>>().join("; ")
}

fn a(version: &str) -> String {
    flag("a", version, 1, "")
}

fn b() -> String {
    flag("b", "v1", 2, "")
}

/// T15: what is wrong with one flag keeps no other one, and only what no file has is let go.
#[rstest]
#[case::an_edit(&[("a.yaml", a("v2")), ("b.yaml", b())], &[], &["a takes v2; b takes v1"])]
#[case::one_that_is_new(&[("a.yaml", a("v1")), ("b.yaml", b()), ("c.yaml", flag("c", "v1", 3, ""))], &[], &["c begins"])]
#[case::one_that_is_gone(&[("a.yaml", a("v1"))], &[], &["a takes v1; b is absent"])]
#[case::one_file_is_no_yaml(&[("a.yaml", a("v2"))], &[("b.yaml", "no YAML")], &["a takes v2; b keeps its own: /d/b.yaml: no YAML"])]
#[case::the_directory_is_gone(&[], &[("", "gone")], &["a keeps its own: /d/: gone; b keeps its own"])]
#[case::a_new_file_is_no_yaml(&[("a.yaml", a("v1")), ("b.yaml", b())], &[("c.yaml", "no YAML")], &["a takes v1; b takes v1; refused: /d/c.yaml: no YAML"])]
#[case::one_is_not_valid(&[("a.yaml", a("v9")), ("b.yaml", b())], &[], &["b takes v1; a keeps its own: /d/a.yaml", "spec.version \"v9\""])]
#[case::another_name(&[("a.yaml", flag("c", "v1", 1, "")), ("b.yaml", b())], &[], &["b takes v1; a keeps its own: metadata.name changes only with a restart"])]
#[case::another_listen(&[("a.yaml", flag("a", "v1", 1, ", listen: '127.0.0.1:2'")), ("b.yaml", b())], &[], &["a keeps its own: local.listen changes only"])]
#[case::one_file_of_two(&[("a.yaml", a("v1") + "---\n" + &b())], &[], &["a takes v1; b takes v1"])]
#[case::another_state(&[("a.yaml", flag("a", "v1", 1, ", stateFile: s.json")), ("b.yaml", b())], &[], &["write `stateFile: /d/a.state.json` to keep"])]
#[case::a_name_twice(&[("a.yaml", a("v2")), ("b.yaml", b()), ("c.yaml", a("v1"))], &[], &["b takes v1; a keeps its own: /d/c.yaml", "metadata.name \"a\" is that of another"])]
#[case::an_edit_clashes(&[("a.yaml", flag("a", "v1", 2, "")), ("b.yaml", b())], &[], &["b takes v1; a keeps its own: /d/a.yaml", "that of version v1 of b"])]
#[case::both_change_places(&[("a.yaml", flag("a", "v1", 2, "")), ("b.yaml", flag("b", "v1", 1, ""))], &[], &["a takes v1; b takes v1"])]
#[case::who_is_there_comes_first(&[("a.yaml", flag("a", "v1", 3, "")), ("b.yaml", b()), ("c.yaml", flag("c", "v1", 3, ""))], &[], &["a takes v1; b takes v1; refused: /d/c.yaml"])]
#[case::what_is_gone_still_has_its_own(&[("a.yaml", a("v1")), ("c.yaml", flag("c", "v1", 2, ""))], &[], &["b is absent; refused: /d/c.yaml"])]
fn an_edit_is_about_its_own_flag(
    #[case] files: &[(&str, String)],
    #[case] unread: &[(&str, &str)],
    #[case] expected: &[&str],
) {
    let said = edited(files, unread);
    for expected in expected {
        assert!(said.contains(expected), "{said}");
    }
}

/// T27: of two flags that clash when a controller begins, who has begun before comes first, whatever their names are.
#[rstest]
#[case(false, "a begins; refused: /d/b.yaml")]
#[case(true, "b begins; refused: /d/a.yaml")]
fn who_has_a_state_comes_first(#[case] b_has_one: bool, #[case] expected: &str) {
    let mut both = reading(&[("a.yaml", a("v1")), ("b.yaml", flag("b", "v1", 1, ""))]);
    both.flags[1].has_state = b_has_one;
    let edits = edits(&BTreeMap::new(), both);
    let begun = edits.begun.iter().map(|one| one.file.metadata.name.clone()).collect::<Vec<_>>().join(", ");
    assert_eq!(format!("{begun} begins; refused: {}", edits.refused[0].path.display()), expected);
}
