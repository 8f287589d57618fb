//! What the controller costs that looks after many VersionFlags at rest, on a real API server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use harness::TestDir;
use harness::kube::crowd::{Controller, Crowd, Requests, writes};
use harness::kube::{Cluster, programs};
use harness::netns::in_namespace;
use serde_json::{Map, Value, json};

/// Measures one controller, and writes it to target/bench/kube.json.
#[derive(Debug, Parser)]
struct Options {
    /// Namespaces
    #[arg(long, default_value_t = 100)]
    namespaces: usize,
    /// VersionFlags in each
    #[arg(long, default_value_t = 10)]
    each: usize,
    /// How long to look at the controller while nothing changes, in seconds
    #[arg(long, default_value_t = 30)]
    idle: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    // Inside, nothing could be fetched to build them.
    programs()?;
    in_namespace(|namespace| {
        let dir = TestDir::new("bench-kube");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { measure(&options, &mut Cluster::start(&dir, namespace).await?).await })
    })
}

async fn measure(options: &Options, cluster: &mut Cluster<'_>) -> Result<()> {
    let crowd = Crowd { namespaces: options.namespaces, each: options.each };
    let flags = crowd.flags();
    eprintln!("{flags} flags in {} namespaces are made", crowd.namespaces);
    crowd.create(cluster).await?;
    eprintln!("the control plane takes {} MiB", cluster.memory_kib()? / 1024);

    let mut controller = Controller::start(cluster).await?;
    let settled = controller.settles(flags).await?;
    let cpu_first = controller.process().cpu_time()?;
    let memory_first = controller.process().memory_kib()?;
    let first = controller.requests().await?;
    let idle = idle(&mut controller, options.idle).await?;
    let memory_idle = controller.process().memory_kib()?;

    // Again: nothing has to be written.
    controller.process().kill();
    let mut again = Controller::start(cluster).await?;
    let restarted = again.settles(flags).await?;
    let memory_again = again.process().memory_kib()?;
    let restart_writes = writes(&Requests::new(), &again.requests().await?);

    for flag in Crowd::read(cluster).await? {
        let phase = flag.data.pointer("/status/phase");
        ensure!(phase == Some(&json!("Stable")), "{:?} has {phase:?}", flag.metadata.name);
    }
    let rows = [
        ("until every flag is at rest, s", settled.as_secs_f64()),
        ("CPU until then, s", cpu_first.as_secs_f64()),
        ("status writes by flag until then", per_flag(&first, "versionflags/status", flags)),
        ("writes by flag until then, Events and all", sum(&writes(&Requests::new(), &first)) as f64 / flags as f64),
        ("memory then, MiB", memory_first as f64 / 1024.0),
        ("memory after the idle time, MiB", memory_idle as f64 / 1024.0),
        ("idle time, s", options.idle as f64),
        ("CPU in it, s", idle.cpu.as_secs_f64()),
        ("writes in it", sum(&idle.writes) as f64),
        ("after a restart: until every flag is at rest, s", restarted.as_secs_f64()),
        ("after a restart: memory, MiB", memory_again as f64 / 1024.0),
        ("after a restart: status writes", per_flag(&restart_writes, "versionflags/status", 1)),
    ];
    println!("{flags} VersionFlags in {} namespaces", crowd.namespaces);
    for (name, value) in &rows {
        println!("{name:<50} {value:>9.2}");
    }
    println!("requests until every flag was at rest: {}", shown(&first));
    println!("writes while idle: {}", shown(&idle.writes));
    println!("writes after the restart: {}", shown(&restart_writes));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/kube.json");
    std::fs::create_dir_all(file.parent().context("a parent")?)?;
    let rows: Map<String, Value> = rows.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let out = json!({
        "flags": flags,
        "namespaces": crowd.namespaces,
        "measured": rows,
        "requests": lines(&first),
        "idle_writes": lines(&idle.writes),
        "restart_writes": lines(&restart_writes),
    });
    std::fs::write(&file, serde_json::to_vec_pretty(&out)?)?;
    Ok(())
}

struct Idle {
    cpu: Duration,
    writes: Requests,
}

async fn idle(controller: &mut Controller, seconds: u64) -> Result<Idle> {
    let (cpu, before) = (controller.process().cpu_time()?, controller.requests().await?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cpu = controller.process().cpu_time()?.saturating_sub(cpu);
    Ok(Idle { cpu, writes: writes(&before, &controller.requests().await?) })
}

fn sum(requests: &Requests) -> u64 {
    requests.values().sum()
}

fn per_flag(requests: &Requests, kind: &str, flags: usize) -> f64 {
    let all = writes(&Requests::new(), requests);
    let of_kind = all.iter().filter(|((_, of), _)| of == kind).map(|(_, count)| count);
    of_kind.sum::<u64>() as f64 / flags as f64
}

fn lines(requests: &Requests) -> Map<String, Value> {
    requests.iter().map(|((verb, kind), count)| (format!("{verb} {kind}"), json!(count))).collect()
}

fn shown(requests: &Requests) -> String {
    let all: Vec<String> = requests.iter().map(|((verb, kind), count)| format!("{verb} {kind} {count}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
