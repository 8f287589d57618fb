//! Configurations of different shapes (controller/tests/envoys), as they are and as they become.

use std::path::{Path, PathBuf};

use local::file::File;
use rstest::rstest;

use super::config::Config;
use super::edit::rewritten;
use super::merge::{Choice, Note, merge};
use super::node::Node;
use super::said;

mod edits;
mod properties;
mod refused;

fn envoys() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoys")
}

fn flag() -> File {
    changed_flag(|text| text)
}

/// The flag of the shapes with something else in its text.
fn changed_flag(change: impl FnOnce(String) -> String) -> File {
    let path = envoys().join("reviews.yaml");
    File::parse(&change(std::fs::read_to_string(&path).unwrap()), &path).unwrap()
}

/// A shape, with its files where they are here.
fn shape(name: &str) -> Config {
    let folder = envoys().join(name);
    let file = ["envoy.yaml", "envoy.json"].map(|name| folder.join(name)).into_iter().find(|file| file.exists());
    let text = |file: &Path| std::fs::read_to_string(file).unwrap();
    let mut config = Config { files: vec![], running: false };
    let first = file.unwrap();
    let mut names = vec![first.file_name().unwrap().to_str().unwrap().to_owned()];
    while let Some(name) = names.get(config.files.len()).cloned() {
        let path = folder.join(Path::new(&name).file_name().unwrap());
        let (text, tree) = (text(&path), Node::parse(&text(&path)).unwrap());
        names.extend(super::references(&tree));
        config.files.push(super::Source { name, others: vec![], path, text, tree });
    }
    config
}

/// A configuration of one file.
fn config(text: &str) -> Config {
    let (name, tree) = ("envoy.yaml".to_owned(), Node::parse(text).unwrap());
    Config {
        files: vec![super::Source { path: name.clone().into(), name, others: vec![], text: text.to_owned(), tree }],
        running: false,
    }
}

/// The texts that a configuration becomes, and whether all else in them is as it was.
fn texts(before: &Config, after: &Config) -> (Vec<String>, bool) {
    let pairs = before.files.iter().zip(&after.files);
    let (texts, kept): (Vec<String>, Vec<bool>) =
        pairs.map(|(before, after)| rewritten(&before.text, &before.tree, &after.tree)).unzip();
    (texts, kept.iter().all(|kept| *kept))
}

/// A configuration read again from these texts.
fn again(config: &Config, texts: &[String]) -> Config {
    let mut config = config.clone();
    for (file, text) in config.files.iter_mut().zip(texts) {
        file.tree = Node::parse(text).unwrap();
        file.text.clone_from(text);
    }
    config
}

fn golden(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "{}", path.display());
}

#[rstest]
fn a_configuration_becomes_one_with_the_flag(
    #[values("edge", "virtual-hosts", "regex", "weighted", "authz", "grpc", "tls", "files")] name: &str,
) {
    let before = shape(name);
    let (after, notes) = merge(&flag(), before.clone(), &Choice::default()).unwrap();
    let (texts, is_kept) = texts(&before, &after);
    assert!(is_kept, "comments are lost: {}", texts[0]);
    let folder = envoys().join(name).join("merged");
    for (file, text) in before.files.iter().zip(&texts) {
        golden(&folder.join(file.path.file_name().unwrap()), text);
    }
    golden(&folder.join("said.txt"), &format!("{}\n", said(&notes)));
}

#[rstest]
fn a_second_run_changes_nothing(
    #[values("edge", "virtual-hosts", "regex", "weighted", "authz", "grpc", "tls", "files")] name: &str,
    #[values(false, true)] websocket: bool,
) {
    let choice = Choice { websocket, ..Choice::default() };
    let before = shape(name);
    let once = texts(&before, &merge(&flag(), before.clone(), &choice).unwrap().0).0;
    let before = again(&before, &once);
    let (after, notes) = merge(&flag(), before.clone(), &choice).unwrap();
    assert_eq!(texts(&before, &after), (once, true));
    assert!(!notes.iter().any(|note| matches!(note, Note::Done(_))), "{notes:?}");
}

/// After a switch, and with one more version.
#[rstest]
fn a_later_run_brings_the_routes_up_to_date(
    #[values("edge", "virtual-hosts", "regex", "weighted", "authz", "grpc", "tls", "files")] name: &str,
) {
    let choice = Choice::default();
    let before = shape(name);
    let before = again(&before, &texts(&before, &merge(&flag(), before.clone(), &choice).unwrap().0).0);
    let later = changed_flag(|text| {
        let text = text
            .replace("version: v1\n", "version: v2\n")
            .replace("v2: [reviews-v2]", "v2: [reviews-v2], v3: [reviews-v3]");
        format!("{text}    v3: {{command: [reviews], address: 127.0.0.1:9003}}\n")
    });
    let (after, _) = merge(&later, before.clone(), &choice).unwrap();
    let (renewed, is_kept) = texts(&before, &after);
    assert!(is_kept, "comments are lost");
    let whole = renewed.concat();
    assert!(
        whole.contains("versionflag:reviews:v1,v2,v3") && !whole.contains("versionflag:reviews:v1,v2\""),
        "{whole}"
    );
    assert!(whole.contains("reviews-v3"), "{whole}");
    // As if it had never been otherwise.
    let original = shape(name);
    let fresh = merge(&later, original.clone(), &choice).unwrap().0;
    for (file, fresh) in again(&before, &renewed).files.iter().zip(&fresh.files) {
        let routes = |tree: &Node| super::write::yaml(tree).lines().filter(|line| line.contains("cluster:")).count();
        assert_eq!(routes(&file.tree), routes(&fresh.tree));
    }
}

/// T35: what goes by where endpoints come from does not go by addresses that are written down.
#[rstest]
#[case::original_destination("type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {}")]
#[case::subsets("type: STATIC, lb_policy: RANDOM, lb_subset_config: {subset_selectors: [{keys: [version]}]}")]
fn a_cluster_of_a_version_is_balanced_by_itself(#[case] settings: &str) {
    let before = shape("edge");
    let text = before.files[0].text.replace(
        "  - name: reviews\n    type: STATIC\n",
        &format!("  - {{name: reviews, connect_timeout: 7s, {settings}}}\n  - name: was\n    type: STATIC\n"),
    );
    let (after, _) = merge(&flag(), config(&text), &Choice::default()).unwrap();
    let made = after.cluster("reviews-v2").unwrap();
    let said = super::write::flow(made);
    for gone in ["ORIGINAL_DST", "CLUSTER_PROVIDED", "lb_subset_config", "original_dst_lb_config"] {
        assert!(!said.contains(gone), "{said}");
    }
    assert_eq!(made.text_at("connect_timeout"), Some("7s"), "{said}");
}
