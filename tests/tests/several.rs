//! Several flags of one controller, and of one Envoy. Real parts, under load, every request checked. T15.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::local::{own_address, wasm};
use harness::process::program;
use harness::{Call, Envoy, EnvoyOptions, Load, LoadPlan, Process, TestDir, story, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A directory of flags, and the controller that has it.
struct Several<'a> {
    dir: &'a TestDir,
    ip: Ipv4Addr,
    flags: PathBuf,
    /// `switch.mode` of all of them.
    mode: &'static str,
    controller: Option<Process>,
}

impl<'a> Several<'a> {
    fn new(dir: &'a TestDir) -> Result<Several<'a>> {
        let flags = dir.file("flags");
        std::fs::create_dir(&flags)?;
        Ok(Several { dir, ip: own_address(), flags, mode: "Immediate", controller: None })
    }

    /// Saves the file of a flag that asks for the first or second of its versions, `NAME-1` and `NAME-2`. The second
    /// one is ready as soon as `may_serve` was called.
    fn write(&self, name: &str, port: u16, asked: u16) -> Result<()> {
        let mut versions = serde_json::Map::new();
        for number in [1, 2] {
            let (version, address) = (format!("{name}-{number}"), SocketAddr::from((self.ip, port + number)));
            let ready = match number {
                1 => json!({ "path": "/healthz", "interval": "50ms" }),
                _ => json!({ "command": ["test", "-e", self.mark(name)], "interval": "50ms" }),
            };
            let command = [
                program("backend")?.display().to_string(),
                "--version".to_owned(),
                version.clone(),
                "--listen".to_owned(),
                address.to_string(),
            ];
            versions.insert(version, json!({ "command": command, "address": address.to_string(), "ready": ready }));
        }
        let file = json!({
            "apiVersion": "versionflag.io/v1alpha1",
            "kind": "VersionFlag",
            "metadata": { "name": name },
            "spec": {
                "version": format!("{name}-{asked}"),
                "services": [{ "name": name }],
                "coexistence": { "minReady": "200ms", "probe": { "path": "/healthz" } },
                "settle": { "quietPeriod": "1s" },
                "switch": { "mode": self.mode },
                "cleanup": { "retainFor": "0s" },
            },
            "local": {
                "listen": SocketAddr::from((self.ip, 7070)).to_string(),
                "proxies": [{ "id": "edge" }],
                "filterConfig": {
                    "path": "filter.json", "routes": "routes.json", "clusters": "clusters.json", "wasm": wasm()?,
                    "role": "edge",
                },
                "versions": versions,
            },
        });
        // As an editor does: the old file goes, and the new one comes.
        let (path, new) = (self.flags.join(format!("{name}.yaml")), self.flags.join("new"));
        std::fs::write(&new, file.to_string())?;
        Ok(std::fs::rename(new, path)?)
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.dir.file(&format!("{name}.may-serve"))
    }

    /// The second version of a flag is ready from now on.
    fn may_serve(&self, name: &str) -> Result<()> {
        Ok(std::fs::write(self.mark(name), "")?)
    }

    fn start(&mut self) -> Result<()> {
        let mut command = Command::new(program("versionflag")?);
        command.arg("local").arg(&self.flags);
        self.controller = Some(Process::start(self.dir, "controller", command)?);
        Ok(())
    }

    async fn view(&self, name: &str) -> Result<Value> {
        let service = SocketAddr::from((self.ip, 7070));
        let all: Vec<Value> = Call::get(service, "/v1/status").limit(LIMIT).send().await?.json()?;
        all.into_iter().find(|view| view["name"] == name).with_context(|| format!("no flag {name}"))
    }

    async fn reaches(&self, name: &str, phase: &str, number: u16) -> Result<Value> {
        let mut found = Value::Null;
        wait_for(&format!("{name} is {phase} at {number}"), LIMIT, async || {
            found = self.view(name).await?;
            let status = &found["status"];
            let is_so = status["phase"] == phase && status["activeVersion"] == format!("{name}-{number}");
            ensure!(is_so, "{status}");
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// What `versionflag` says to these words, with the directory.
    fn says(&self, words: &[&str]) -> Result<Output> {
        Ok(Command::new(program("versionflag")?).args(words).arg("-f").arg(&self.flags).output()?)
    }

    /// An Envoy as `render envoy` prints it for all flags, with four workers.
    async fn envoy(&self) -> Result<Envoy> {
        let rendered = self.says(&["render", "envoy"])?;
        ensure!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        let mut config: Value = serde_saphyr::from_str(&String::from_utf8(rendered.stdout)?)?;
        config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = 0.into();
        let options = EnvoyOptions { name: "edge".to_owned(), concurrency: 4, ..EnvoyOptions::default() };
        Envoy::start_with(self.dir, options, config).await
    }
}

fn load(envoy: &Envoy, host: &str) -> Load {
    let plan = LoadPlan {
        rate_per_s: 50,
        slow_per_s: 1,
        slow: Duration::from_millis(700),
        authority: host.to_owned(),
        ..LoadPlan::default()
    };
    Load::start(envoy.listener("ingress"), plan)
}

/// T15: each of two flags in one Envoy is switched while the other one stands still, one that cannot go on holds up
/// nobody, and a third one is added while Envoy runs.
#[test]
fn flags_of_one_envoy_are_switched_each_for_itself() {
    story("several", async |dir| {
        let mut several = Several::new(dir)?;
        several.write("reviews", 9000, 1)?;
        several.write("ratings", 9010, 1)?;
        several.start()?;
        several.reaches("reviews", "Stable", 1).await?;
        let still = several.reaches("ratings", "Stable", 1).await?["status"]["record"].take();
        let envoy = several.envoy().await?;
        let loads = [load(&envoy, "reviews"), load(&envoy, "ratings")];
        wait_for("traffic", LIMIT, async || {
            let [reviews, ratings] =
                [loads[0].live().answered_by("reviews-1"), loads[1].live().answered_by("ratings-1")];
            ensure!(reviews > 50 && ratings > 50, "{reviews} and {ratings} answers");
            Ok(())
        })
        .await?;

        several.may_serve("reviews")?;
        several.write("reviews", 9000, 2)?;
        several.reaches("reviews", "Stable", 2).await?;
        assert_eq!(several.view("ratings").await?["status"]["record"], still, "nothing of it has moved");

        // Its second version is not ready, and that of the other one is.
        several.write("ratings", 9010, 2)?;
        several.reaches("ratings", "Coexisting", 1).await?;
        several.write("reviews", 9000, 1)?;
        let still = several.reaches("reviews", "Stable", 1).await?["status"]["record"].take();
        let waits = several.view("ratings").await?["status"]["phase"].take();
        assert_eq!(waits, "Coexisting", "it waits for its own version, and held up nobody");
        several.may_serve("ratings")?;
        several.reaches("ratings", "Stable", 2).await?;
        assert_eq!(several.view("reviews").await?["status"]["record"], still);

        several.write("details", 9020, 1)?;
        several.reaches("details", "Stable", 1).await?;
        wait_for("the third flag in the same Envoy", LIMIT, async || {
            let answer = Call::get(envoy.listener("ingress"), "/").host("details").send().await?;
            ensure!((answer.status, answer.version()) == (200, "details-1"), "{answer:?}");
            Ok(())
        })
        .await?;
        several.may_serve("details")?;
        several.write("details", 9020, 2)?;
        several.reaches("details", "Stable", 2).await?;

        let log = std::fs::read_to_string(dir.file("controller.log"))?;
        let moved = log.lines().filter(|line| line.contains("phase from="));
        let of = ["reviews", "ratings", "details"].map(|name| format!("flag{{name=\"{name}\"}}"));
        for line in moved {
            ensure!(of.iter().any(|of| line.contains(of)), "whose phase: {line}");
        }
        let [reviews, ratings] = loads;
        reviews.stop_served_by(&["reviews-1", "reviews-2"]).await?;
        ratings.stop_served_by(&["ratings-1", "ratings-2"]).await?;
        Ok(())
    });
}

/// Both are asked for in the same moment: a request that waits for one of them would else wait for the other.
#[test]
fn fences_that_share_callers_come_one_after_the_other() {
    story("several-fences", async |dir| {
        let mut several = Several { mode: "Fenced", ..Several::new(dir)? };
        let flags = [("reviews", 9000), ("ratings", 9010)];
        for (name, port) in flags {
            several.write(name, port, 1)?;
            several.may_serve(name)?;
        }
        several.start()?;
        for (name, _) in flags {
            several.reaches(name, "Stable", 1).await?;
        }
        let envoy = several.envoy().await?;
        let loads = flags.map(|(name, _)| load(&envoy, name));
        for load in &loads {
            load.goes_on(50, LIMIT).await?;
        }
        for (name, port) in flags {
            several.write(name, port, 2)?;
        }
        let mut holds = vec![];
        for (name, _) in flags {
            let status = several.reaches(name, "Stable", 2).await?["status"].take();
            let at = |event: &str| {
                let mut all = status["history"].as_array().into_iter().flatten();
                all.find(|one| one["event"] == event).and_then(|one| one["at"].as_u64())
            };
            ensure!(at("Aborted").is_none(), "{}", status["history"]);
            holds.push(at("Held").zip(at("Flipped")).with_context(|| format!("no fence: {}", status["history"]))?);
        }
        holds.sort_unstable();
        println!("{holds:?}");
        ensure!(holds[0].1 <= holds[1].0, "both hold requests at once: {holds:?}");
        for (load, (name, _)) in loads.into_iter().zip(flags) {
            let versions = [1, 2].map(|number| format!("{name}-{number}"));
            load.stop_served_by(&versions.each_ref().map(String::as_str)).await?;
        }
        Ok(())
    });
}

/// T15: a controller that is started anew takes no flag out of the files, and commands ask for the name of a flag.
#[test]
fn commands_are_about_the_flag_that_is_named() {
    story("several-commands", async |dir| {
        let mut several = Several::new(dir)?;
        several.write("reviews", 9000, 1)?;
        several.write("ratings", 9010, 1)?;
        several.start()?;
        several.reaches("reviews", "Stable", 1).await?;
        several.reaches("ratings", "Stable", 1).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let listed = several.says(&["list"])?;
        let said = text(&listed.stdout);
        ensure!(listed.status.success() && said.contains("reviews") && said.contains("ratings"), "{said}");
        for command in ["why", "history", "promote", "wait"] {
            let words = if command == "wait" { vec![command, "--for", "stable"] } else { vec![command] };
            let refused = several.says(&words)?;
            let said = text(&refused.stderr);
            ensure!(!refused.status.success() && said.contains("has ratings, reviews: name one"), "{command}: {said}");
        }
        let named = several.says(&["history", "ratings"])?;
        ensure!(text(&named.stdout).contains("ratings-1"), "{named:?}");
        let unknown = several.says(&["why", "details"])?;
        ensure!(text(&unknown.stderr).contains("details is no flag of the controller"), "{unknown:?}");
        let asked = several.says(&["suspend", "ratings"])?;
        ensure!(asked.status.success(), "{asked:?}");
        assert_eq!(several.view("ratings").await?["status"]["suspended"], true);
        assert_ne!(several.view("reviews").await?["status"]["suspended"], true);

        let folder = several.flags.clone();
        let records = |file: &str| -> Result<usize> {
            let text = std::fs::read_to_string(folder.join(file))?;
            Ok(["reviews", "ratings"].iter().filter(|name| text.contains(&format!("{name}-1"))).count())
        };
        several.controller = None;
        several.start()?;
        wait_for("the next controller", LIMIT, async || {
            for file in ["filter.json", "routes.json", "clusters.json"] {
                assert_eq!(records(file)?, 2, "{file}");
            }
            several.view("reviews").await?;
            several.view("ratings").await.map(drop)
        })
        .await?;
        assert_eq!(several.says(&["lint"])?.status.code(), Some(0));
        Ok(())
    });
}
