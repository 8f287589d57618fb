//! What a controller costs that looks after many VersionFlags at rest, measured. I/O: runs it, asks
//! it and the API, writes target/bench/kube.json.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::Cluster;
use super::crowd::{Controller, Crowd, Requests, writes};

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// Of what.
    pub crowd: Crowd,
    /// Until every flag was at rest, after the start of the first controller.
    pub settled: Duration,
    /// CPU time until then.
    pub cpu: Duration,
    /// What was asked of the API server until then.
    pub requests: Requests,
    /// Memory then, and after the idle time, in KiB.
    pub memory_kib: [u64; 2],
    /// How long nothing changed.
    pub idle: Duration,
    /// CPU time in it.
    pub idle_cpu: Duration,
    /// What was written in it.
    pub idle_writes: Requests,
    /// The same until every flag was at rest with the next controller.
    pub again: Duration,
    /// Its memory then, in KiB.
    pub again_memory_kib: u64,
    /// What it wrote.
    pub again_writes: Requests,
    /// The next controller, which goes on.
    pub controller: Controller,
}

/// Makes the flags, and looks at one controller after another.
pub async fn measure(crowd: Crowd, idle: Duration, cluster: &mut Cluster<'_>) -> Result<Measured> {
    crowd.create(cluster).await?;
    eprintln!("the control plane takes {} MiB", cluster.memory_kib()? / 1024);
    let mut first = Controller::start(cluster).await?;
    let settled = first.settles(crowd.flags()).await?;
    let (cpu, memory) = (first.process().cpu_time()?, first.process().memory_kib()?);
    let requests = first.requests().await?;
    let before = first.process().cpu_time()?;
    tokio::time::sleep(idle).await;
    let idle_cpu = first.process().cpu_time()?.saturating_sub(before);
    let idle_writes = writes(&requests, &first.requests().await?);
    let memory_kib = [memory, first.process().memory_kib()?];

    // Again: nothing has to be written.
    first.process().kill();
    let mut controller = Controller::start(cluster).await?;
    let again = controller.settles(crowd.flags()).await?;
    let again_memory_kib = controller.process().memory_kib()?;
    let again_writes = writes(&Requests::new(), &controller.requests().await?);
    for flag in Crowd::read(cluster).await? {
        let (phase, active) = (flag.data.pointer("/status/phase"), flag.data.pointer("/status/activeVersion"));
        let is = (phase, active) == (Some(&json!("Stable")), Some(&json!("v1")));
        ensure!(is, "{:?} is {phase:?} at {active:?}", flag.metadata.name);
    }
    Ok(Measured {
        crowd,
        settled,
        cpu,
        requests,
        memory_kib,
        idle,
        idle_cpu,
        idle_writes,
        again,
        again_memory_kib,
        again_writes,
        controller,
    })
}

impl Measured {
    /// Names and numbers.
    pub fn rows(&self) -> Vec<(&'static str, f64)> {
        let flags = self.crowd.flags() as f64;
        let status = |requests: &Requests| {
            let written = writes(&Requests::new(), requests);
            let of_status = written.iter().filter(|((_, kind), _)| kind == "versionflags/status");
            of_status.map(|(_, count)| *count).sum::<u64>() as f64
        };
        let sum = |requests: &Requests| requests.values().sum::<u64>() as f64;
        let mib = |kib: u64| kib as f64 / 1024.0;
        vec![
            ("until every flag is at rest, s", self.settled.as_secs_f64()),
            ("CPU until then, s", self.cpu.as_secs_f64()),
            ("status writes by flag until then", status(&self.requests) / flags),
            ("writes by flag until then, Events and all", sum(&writes(&Requests::new(), &self.requests)) / flags),
            ("memory then, MiB", mib(self.memory_kib[0])),
            ("memory after the idle time, MiB", mib(self.memory_kib[1])),
            ("idle time, s", self.idle.as_secs_f64()),
            ("CPU in it, s", self.idle_cpu.as_secs_f64()),
            ("writes in it", sum(&self.idle_writes)),
            ("after a restart: until every flag is at rest, s", self.again.as_secs_f64()),
            ("after a restart: memory, MiB", mib(self.again_memory_kib)),
            ("after a restart: status writes", status(&self.again_writes)),
        ]
    }

    /// Prints it, and writes target/bench/kube.json.
    pub fn report(&self) -> Result<()> {
        let (flags, namespaces) = (self.crowd.flags(), self.crowd.namespaces);
        let pods = self.crowd.pods();
        println!("{flags} VersionFlags with {pods} pods in {namespaces} namespaces");
        for (name, value) in self.rows() {
            println!("{name:<50} {value:>9.2}");
        }
        println!("requests until every flag was at rest: {}", shown(&self.requests));
        println!("writes while idle: {}", shown(&self.idle_writes));
        println!("writes after the restart: {}", shown(&self.again_writes));
        let rows: Map<String, Value> =
            self.rows().iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let out = json!({
            "flags": flags,
            "namespaces": namespaces,
            "pods": pods,
            "measured": rows,
            "requests": lines(&self.requests),
            "idle_writes": lines(&self.idle_writes),
            "restart_writes": lines(&self.again_writes),
        });
        crate::write_results("bench/kube.json", &out)?;
        Ok(())
    }
}

fn lines(requests: &Requests) -> Map<String, Value> {
    requests.iter().map(|((verb, kind), count)| (format!("{verb} {kind}"), json!(count))).collect()
}

fn shown(requests: &Requests) -> String {
    let all: Vec<String> = requests.iter().map(|((verb, kind), count)| format!("{verb} {kind} {count}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
