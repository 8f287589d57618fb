use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flag::record::{Member, Record};
use serde_json::Value;
use tempfile::TempDir;

use super::*;

fn record(flag: &str, active: &str, epoch: u64) -> Box<Record> {
    let versions = ["v1", "v2"].map(str::to_owned);
    let clusters = versions.iter().map(|one| (one.clone(), [format!("{flag}-{one}")].into())).collect();
    let member = Member { service: flag.to_owned(), hosts: [flag.to_owned()].into(), clusters, ..Member::default() };
    Box::new(Record {
        uid: format!("uid-{flag}"),
        name: flag.to_owned(),
        namespace: String::new(),
        version_label: String::new(),
        epoch,
        active: active.to_owned(),
        gate: flag::record::Gate::Open,
        members: vec![member],
        versions: versions.into(),
        preview: None,
        hash: "h".to_owned(),
    })
}

fn part(flag: &str, active: &str, epoch: u64) -> Part {
    Part::Record("x-versionflag".to_owned(), record(flag, active, epoch))
}

fn filter() -> Shape {
    Shape::Filter(Box::new(FilterShape {
        wasm: "/f.wasm".into(),
        build: "1".to_owned(),
        cluster: "versionflag".to_owned(),
        role: Role::Edge,
        workload: None,
        header: "x-versionflag".to_owned(),
    }))
}

struct Files {
    dir: TempDir,
    shared: SharedFiles,
}

impl Files {
    fn new() -> Files {
        Files { dir: tempfile::tempdir().unwrap(), shared: SharedFiles::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn join(&mut self, flag: &str, files: &[(&str, Shape, Option<Part>)]) -> u64 {
        let parts = files.iter().map(|(name, shape, part)| (self.path(name), (shape.clone(), part.clone())));
        self.shared.join(flag, parts.collect())
    }

    fn offer(&mut self, flag: &str, name: &str, shape: &Shape, part: Part) -> bool {
        let path = self.path(name);
        self.shared.offer(flag, 1, &path, shape, part)
    }

    /// The flags of a filter's file, each with the version that is active; or the names of the virtual hosts.
    fn read(&self, name: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let resource = &file["resources"][0];
        let Some(config) = resource["typed_config"]["config"]["configuration"]["value"].as_str() else {
            let hosts = resource["virtual_hosts"].as_array().unwrap().iter();
            let default = |host: &Value| host["routes"].as_array().unwrap().last().unwrap()["route"]["cluster"].clone();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            return hosts.map(|host| (text(&host["name"]), text(&default(host)))).collect();
        };
        let config: Value = serde_json::from_str(config).unwrap();
        let flags = config["flags"].as_array().unwrap().iter();
        flags
            .map(|one| (one["name"].as_str().unwrap().to_owned(), one["active"].as_str().unwrap().to_owned()))
            .collect()
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

/// T15: after a restart of the controller, whoever is heard first writes what the others had there, too.
#[test]
fn no_flag_disappears_because_another_one_is_heard_first() {
    for first in ["ratings", "reviews"] {
        let mut files = Files::new();
        let shapes = [("f", filter()), ("r", Shape::Routes)];
        for (flag, active) in [("ratings", "v1"), ("reviews", "v2")] {
            let parts = shapes.clone().map(|(name, shape)| (name, shape, Some(part(flag, active, 1))));
            assert_eq!(files.join(flag, &parts), 0);
        }
        assert!(!files.path("f").exists(), "nobody has been heard");
        let active = if first == "ratings" { "v1" } else { "v2" };
        for (name, shape) in &shapes {
            assert!(files.offer(first, name, shape, part(first, active, 1)));
        }
        assert_eq!(files.read("f"), pairs(&[("ratings", "v1"), ("reviews", "v2")]));
        assert_eq!(files.read("r"), pairs(&[("ratings", "ratings-v1"), ("reviews", "reviews-v2")]));
    }
}

/// T15: a flag that has no record yet keeps nobody from writing, and what one flag offers changes nothing of the others.
#[test]
fn each_flag_changes_its_own_part() {
    let mut files = Files::new();
    files.join("ratings", &[("f", filter(), None)]);
    files.join("reviews", &[("f", filter(), Some(part("reviews", "v1", 1)))]);
    assert!(files.offer("reviews", "f", &filter(), part("reviews", "v1", 1)));
    assert_eq!(files.read("f"), pairs(&[("reviews", "v1")]));
    assert_eq!(files.shared.named("ratings", &files.path("f")), Some(&BTreeSet::new()));
    assert!(files.offer("ratings", "f", &filter(), part("ratings", "v1", 1)));
    assert!(files.offer("ratings", "f", &filter(), part("ratings", "v2", 2)));
    assert_eq!(files.read("f"), pairs(&[("ratings", "v2"), ("reviews", "v1")]));
    assert_eq!(files.shared.named("ratings", &files.path("f")).map(BTreeSet::len), Some(2));
    // Taken out of the files, and after that out of the only one that it has to itself.
    assert_eq!(files.join("ratings", &[("alone", filter(), Some(part("ratings", "v2", 2)))]), 0);
    assert_eq!(files.read("f"), pairs(&[("reviews", "v1")]));
    assert!(files.offer("ratings", "alone", &filter(), part("ratings", "v2", 2)));
    files.join("ratings", &[]);
    assert_eq!(files.read("alone"), pairs(&[("ratings", "v2")]), "nobody else writes it: it stays");
    assert!(files.offer("reviews", "f", &filter(), part("reviews", "v2", 3)));
    assert_eq!(files.read("f"), pairs(&[("reviews", "v2")]));
}

/// T15: every flag that shares a file that cannot be written has that problem, until one of them has written it.
#[test]
fn a_file_that_cannot_be_written_is_a_problem_of_all() {
    let mut files = Files::new();
    for flag in ["ratings", "reviews"] {
        files.join(flag, &[("f", filter(), Some(part(flag, "v1", 1)))]);
    }
    let in_the_way = files.path("f.tmp");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(!files.offer("ratings", "f", &filter(), part("ratings", "v2", 2)));
    let path = files.path("f");
    assert!(files.shared.unwritten(&path).is_some());
    assert_eq!(files.shared.named("ratings", &path), None, "nobody knows what is there");
    std::fs::remove_dir(&in_the_way).unwrap();
    assert!(files.offer("reviews", "f", &filter(), part("reviews", "v1", 1)), "nothing of its own has changed");
    assert_eq!(files.shared.unwritten(&path), None);
    assert_eq!(files.read("f"), pairs(&[("ratings", "v2"), ("reviews", "v1")]));
    assert!(files.shared.named("ratings", &path).is_some());
}

/// What somebody else has done to a file is put right with the next offer, whose ever it is.
#[test]
fn a_file_of_several_flags_is_put_right() {
    let mut files = Files::new();
    let at = |port: u16| Endpoint { address: ([127, 0, 0, 1], port).into(), http2: false };
    let clusters = |name: &str, port| Part::Clusters(BTreeMap::from([(name.to_owned(), at(port))]));
    files.join("ratings", &[("c", Shape::Clusters, Some(clusters("ratings-v1", 1)))]);
    files.join("reviews", &[("c", Shape::Clusters, Some(clusters("reviews-v1", 2)))]);
    let names = |path: &Path| -> Vec<String> {
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        file["resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let path = files.path("c");
    for damage in [|path: &Path| std::fs::write(path, "{}"), |path: &Path| std::fs::remove_file(path)] {
        assert!(files.offer("ratings", "c", &Shape::Clusters, clusters("ratings-v1", 1)));
        assert_eq!(names(&path), ["ratings-v1", "reviews-v1"]);
        damage(&path).unwrap();
        assert!(files.offer("reviews", "c", &Shape::Clusters, clusters("reviews-v1", 2)));
        assert_eq!(names(&path), ["ratings-v1", "reviews-v1"]);
    }
}

/// With one flag a file is what it was before there could be several.
#[test]
fn a_file_of_one_flag_has_the_name_of_its_record() {
    let mut files = Files::new();
    for (name, shape) in [("f", filter()), ("r", Shape::Routes)] {
        files.join("reviews", &[(name, shape.clone(), None)]);
        assert!(files.offer("reviews", name, &shape, part("reviews", "v1", 7)));
        let file: Value = serde_json::from_str(&std::fs::read_to_string(files.path(name)).unwrap()).unwrap();
        assert_eq!(file["version_info"], "7-h");
    }
}

/// T30: two controllers never write the same file; who comes second is told by whom, and writes it when that one has gone.
#[test]
fn a_file_has_one_controller() {
    let mut files = Files::new();
    let path = files.path("sub/filter.json");
    let mut other = SharedFiles::default();
    other.claim([&path].into_iter()).unwrap();
    let why = files.shared.claim([&path].into_iter()).unwrap_err().to_string();
    let who =
        format!("filter.json is in use by another controller, process {}: stop that one first", std::process::id());
    assert!(why.contains(&who), "{why}");
    files.join("a", &[("sub/filter.json", filter(), None)]);
    assert!(!files.offer("a", "sub/filter.json", &filter(), part("a", "v1", 1)));
    assert!(files.shared.unwritten(&path).unwrap().contains(&who) && !path.exists());
    drop(other);
    // What another test forks has the lock, too, until it is another program.
    let begin = std::time::Instant::now();
    while !files.offer("a", "sub/filter.json", &filter(), part("a", "v1", 1)) {
        assert!(begin.elapsed() < crate::testing::LIMIT);
    }
    assert_eq!(files.read("sub/filter.json"), [("a".to_owned(), "v1".to_owned())]);
    let mut other = SharedFiles::default();
    assert!(other.claim([&path].into_iter()).is_err());
    files.join("a", &[]);
    while other.claim([&path].into_iter()).is_err() {
        assert!(begin.elapsed() < crate::testing::LIMIT);
    }
}
