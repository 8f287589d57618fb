//! Configurations of somebody's own (controller/tests/envoys): what `render envoy --into` makes of them serves the same
//! answers, and goes by the flag; `doctor` says what is missing before, and nothing after. Real parts, under load,
//! every request checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::local::{Local, wasm};
use harness::page::Page;
use harness::process::program;
use harness::talk::Kind;
use harness::{
    Backend, BackendOptions, Call, Envoy, EnvoyOptions, Load, LoadPlan, Talk, TestDir, config, story, wait_for,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const HOST: &str = "reviews.example";
/// What differs from one answer to the next, or shows that the filter is there.
const OWN: [&str; 4] = ["date", "x-envoy-upstream-service-time", "x-got-flag", "x-served-by"];

/// A request of a shape: `HOST PATH [*] [NAME: VALUE]`, with the star where a version of the flag answers.
#[derive(Debug)]
struct Asked {
    host: String,
    path: String,
    by_flag: bool,
    header: Option<(String, String)>,
}

fn asked(folder: &Path) -> Result<Vec<Asked>> {
    let text = std::fs::read_to_string(folder.join("requests.txt"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let parse = |line: &str| {
        let (start, by_flag, rest) = match line.split_once(" *") {
            Some((start, rest)) => (start, true, rest),
            None => (line, false, ""),
        };
        let (host, path) = start.split_once(' ').context("a host and a path")?;
        let header = rest.trim().split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Asked { host: host.to_owned(), path: path.to_owned(), by_flag, header })
    };
    lines.map(parse).collect()
}

/// Status, headers and body of an answer; and who served it.
type Answered = (u16, Vec<(String, String)>, String, String);

async fn answers(to: SocketAddr, all: &[Asked]) -> Result<Vec<Answered>> {
    let mut answers = vec![];
    for one in all {
        let mut call = Call::get(to, &one.path).host(&one.host);
        if let Some((name, value)) = &one.header {
            call = call.header(name, value);
        }
        // Who sends a version is asked for by nobody but the filter.
        let answer = call.header("x-versionflag", "v3").send().await.with_context(|| format!("{one:?}"))?;
        let version = answer.version().to_owned();
        let headers = answer.headers.into_iter().filter(|(name, _)| !OWN.contains(&name.as_str())).collect();
        answers.push((answer.status, headers, answer.body, version));
    }
    Ok(answers)
}

/// The same answers, from this version where a version answers.
fn from(answers: &[Answered], all: &[Asked], version: &str) -> Vec<Answered> {
    let by = |(answer, asked): (&Answered, &Asked)| {
        let mut answer = answer.clone();
        if asked.by_flag {
            answer.3 = version.to_owned();
        }
        answer
    };
    answers.iter().zip(all).map(by).collect()
}

/// A shape in a directory of its own, with a flag and what else is behind it.
struct Place<'a> {
    dir: &'a TestDir,
    local: Local<'a>,
    file: PathBuf,
    _web: Backend,
}

impl<'a> Place<'a> {
    async fn new(dir: &'a TestDir, shape: &str) -> Result<Place<'a>> {
        let mut local = Local::new(dir)?;
        let ip = local.service().ip();
        let folder = folder(shape);
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_file() {
                let text = std::fs::read_to_string(&path)?;
                let here = format!("{}/", dir.path().display());
                let text = text.replace("127.0.0.1", &ip.to_string()).replace("/etc/envoy/", &here);
                dir.write(&path.file_name().context("a name")?.to_string_lossy(), text);
            }
        }
        let service = &mut local.file()["spec"]["services"][0];
        service["hosts"] = json!([HOST]);
        service["clusters"]["v1"] = json!(["reviews"]);
        local.start().await?;
        // The routes are somebody's.
        local.file()["local"]["filterConfig"]["routes"].take();
        local.write();
        let web = BackendOptions {
            version: "web".to_owned(),
            listen: SocketAddr::new(ip, 9100),
            ..BackendOptions::default()
        };
        let file = ["envoy.yaml", "envoy.json"].map(|name| dir.file(name)).into_iter().find(|file| file.exists());
        let file = file.context("a configuration")?;
        Ok(Place { dir, local, file, _web: Backend::start_with(dir, web).await? })
    }

    async fn envoy(&self) -> Result<Envoy> {
        Envoy::validate_file(&self.file)?;
        let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(&self.file)?)?;
        self.local.envoy_of("edge", 2, config).await
    }

    /// What is asked: the first listener, or one in front of it that speaks TLS to it.
    async fn client(&self, shape: &str, envoy: &Envoy) -> Result<(SocketAddr, Option<Envoy>)> {
        let listener = match shape {
            "edge" => "public",
            "virtual-hosts" => "shop",
            "regex" => "api",
            "authz" => "guarded",
            "grpc" => "grpc",
            "tls" => "tls",
            _ => "ingress",
        };
        let to = envoy.listener(listener);
        if shape != "tls" {
            return Ok((to, None));
        }
        let mut cluster = config::cluster("tls", to, config::Upstream::H1);
        cluster["transport_socket"] = json!({
            "name": "tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": HOST,
            },
        });
        let front = config::listener("front", [], config::routes([config::route_to("tls")]));
        let options = EnvoyOptions { name: "front".to_owned(), ..EnvoyOptions::default() };
        let front = Envoy::start_with(self.dir, options, config::bootstrap([front], [cluster])).await?;
        Ok((front.listener("front"), Some(front)))
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program("versionflag")?);
        Ok(command.args(arguments).current_dir(self.dir.path()).output()?)
    }

    /// What is printed beside the configuration.
    fn merge(&self) -> Result<String> {
        let file = self.file.display().to_string();
        let done = self.run(&["render", "envoy", "-f", "reviews.yaml", "--into", &file, "--write"])?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success() && done.stdout.is_empty(), "{said}");
        Ok(said)
    }

    /// The exit code, and what is said.
    fn doctor(&self, envoy: &Envoy) -> Result<(Option<i32>, String)> {
        let admin = envoy.admin().to_string();
        let said = self.run(&["doctor", "-f", "reviews.yaml", "--envoy-admin", &admin])?;
        ensure!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        Ok((said.status.code(), without_other_hosts(&String::from_utf8(said.stdout)?)))
    }

    /// The whole configuration, all of its files.
    fn texts(&self) -> Result<Vec<(PathBuf, String)>> {
        let names = ["envoy.yaml", "envoy.json", "lds.yaml", "rds.yaml", "cds.yaml"].map(|name| self.dir.file(name));
        let there = names.into_iter().filter(|file| file.exists());
        there.map(|file| Ok((file.clone(), std::fs::read_to_string(file)?))).collect()
    }
}

/// Without what is said of shapes that serve all hosts, and what to do about it.
fn without_other_hosts(said: &str) -> String {
    let mut lines = said.lines();
    let mut rest = String::new();
    while let Some(line) = lines.next() {
        if line.contains("leads requests for *, but for hosts of the flag,") {
            lines.next();
        } else {
            rest += &format!("{line}\n");
        }
    }
    rest
}

fn folder(shape: &str) -> PathBuf {
    harness::root().join("controller/tests/envoys").join(shape)
}

/// T17: from the configuration of somebody to a flip, without an edit of it.
fn goes_by_the_flag(shape: &str, kinds: &[Kind]) {
    story(&format!("existing-{shape}"), async |dir| {
        let asked = asked(&folder(shape))?;
        let mut place = Place::new(dir, shape).await?;
        let before = place.texts()?;

        let mut envoy = place.envoy().await?;
        let (to, front) = place.client(shape, &envoy).await?;
        let expected = answers(to, &asked).await?;
        assert_eq!(from(&expected, &asked, "v1"), expected, "v1 serves");
        let (code, said) = place.doctor(&envoy)?;
        assert_eq!(code, Some(1), "{said}");
        for wrong in ["✗ filter: listener ", "✗ routes: route ", "✗ clusters: there is no cluster reviews-v2, of v2"]
        {
            assert!(said.contains(wrong), "{wrong}: {said}");
        }
        drop(front);
        envoy.kill();

        place.merge()?;
        let merged = place.texts()?;
        assert_ne!(merged, before);
        place.merge()?;
        assert_eq!(place.texts()?, merged, "a second run changes nothing");
        for (file, text) in &before {
            let kept = PathBuf::from(format!("{}.orig", file.display()));
            let is_changed = merged.iter().any(|(other, new)| other == file && new != text);
            assert_eq!(kept.exists(), is_changed, "{}", kept.display());
            assert!(!is_changed || std::fs::read_to_string(&kept)? == *text, "{}", kept.display());
        }

        let mut envoy = place.envoy().await?;
        let (to, front) = place.client(shape, &envoy).await?;
        place.local.reaches("Stable", "v1").await?;
        assert_eq!(answers(to, &asked).await?, expected, "the same requests get the same answers");
        let all_is_well = |admin: SocketAddr| format!("✓ nothing keeps reviews from working in the Envoy of {admin}\n");
        assert_eq!(place.doctor(&envoy)?, (Some(0), all_is_well(envoy.admin())));
        let load = Load::start(to, LoadPlan { rate_per_s: 100, authority: HOST.to_owned(), ..LoadPlan::default() });
        wait_for("traffic", LIMIT, async || load.live().answered_by("v1") > 50).await?;
        let mut open = vec![];
        for kind in kinds {
            open.push(Talk::open(*kind, to, HOST).await?);
        }
        place.local.ask("v2");
        place.local.reaches("Settling", "v2").await?;
        for talk in open {
            assert_eq!(talk.version(), "v1");
            talk.end().await?;
        }
        place.local.reaches("Stable", "v2").await?;
        ensure!(!place.local.runs("v1").await, "v1 still runs");
        assert_eq!(answers(to, &asked).await?, from(&expected, &asked, "v2"), "a version of the flag is v2 now");
        let seen = load.live().answered_by("v2");
        wait_for("traffic after the removal", LIMIT, async || load.live().answered_by("v2") > seen + 50).await?;
        let results = load.stop().await?;
        results.assert_no_failures();
        results.assert_last_by("v2");
        let (code, said) = place.doctor(&envoy)?;
        // The default is a version that is gone.
        assert!(code == Some(1) && said.contains("✗ default: route "), "{said}");
        drop(front);
        envoy.kill();

        // The default follows.
        place.merge()?;
        let envoy = place.envoy().await?;
        let (to, _front) = place.client(shape, &envoy).await?;
        wait_for("the filter", LIMIT, async || {
            let said = place.doctor(&envoy)?;
            ensure!(said == (Some(0), all_is_well(envoy.admin())), "{said:?}");
            Ok(())
        })
        .await?;
        assert_eq!(answers(to, &asked).await?, from(&expected, &asked, "v2"));
        Ok(())
    });
}

#[test]
fn an_edge_goes_by_the_flag() {
    goes_by_the_flag("edge", &[]);
}

#[test]
fn one_of_several_virtual_hosts_goes_by_the_flag() {
    goes_by_the_flag("virtual-hosts", &[Kind::WebSocket]);
}

#[test]
fn regular_expressions_and_rewrites_go_by_the_flag() {
    goes_by_the_flag("regex", &[]);
}

#[test]
fn weighted_clusters_go_by_the_flag() {
    goes_by_the_flag("weighted", &[]);
}

#[test]
fn guarded_routes_go_by_the_flag() {
    goes_by_the_flag("authz", &[]);
}

#[test]
fn calls_of_grpc_go_by_the_flag() {
    goes_by_the_flag("grpc", &[Kind::Grpc]);
}

#[test]
fn hosts_behind_tls_go_by_the_flag() {
    goes_by_the_flag("tls", &[]);
}

#[test]
fn listeners_routes_and_clusters_from_files_go_by_the_flag() {
    goes_by_the_flag("files", &[]);
}

/// T17: `docs/existing-envoy.md`, command by command.
#[test]
fn the_page_is_run() {
    story("page", async |dir| {
        let mut page = Page::open(dir, "docs/existing-envoy.md")?;
        let root = harness::root();
        dir.write("envoy.yaml", page.here(&std::fs::read_to_string(folder("edge").join("envoy.yaml"))?));
        dir.write("server.py", page.here(&std::fs::read_to_string(root.join("manifests/envoy/server.py"))?));
        std::os::unix::fs::symlink(wasm()?, dir.file("versionflag.wasm"))?;
        page.run("cat >").await?;
        let command = page.next("versionflag local -f reviews.yaml &")?;
        let _controller = page.start(&format!("exec {}", command.trim_end_matches(" &")))?;
        wait_for("the filter's file", LIMIT, async || {
            ensure!(dir.file("filter.json").exists(), "not yet");
            Ok(())
        })
        .await?;
        page.run("versionflag render envoy").await?;
        let command = page.next("envoy -c envoy.yaml &")?;
        // Several Envoys of one machine share memory otherwise.
        let _envoy = page.start(&format!("exec {} --disable-hot-restart", command.trim_end_matches(" &")))?;
        page.serves("v1").await?;
        page.run("sed -i").await?;
        page.run("versionflag doctor").await?;
        page.run("versionflag wait").await?;
        page.asks("curl -H 'host: reviews.example' 127.0.0.1:10000/", "v2").await?;
        page.run("versionflag rollback").await?;
        page.run("versionflag wait").await?;
        page.serves("v1").await?;
        page.ends()
    });
}
