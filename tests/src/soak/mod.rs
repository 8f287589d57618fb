//! Switches while damage is done by chance: not a request may fail that the damage itself does not explain, and each
//! switch comes to its end. I/O: through the harness.
//!
//! The seed says which damage is done to which switch, and when; what it meets there is up to the machine.

#[cfg(feature = "kube")]
pub mod kube;
pub mod local;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use strum::VariantArray;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::load::{Load, Request, Results};
use crate::wait::wait_for;

/// The longest that a switch may take after the last damage was undone. Kubernetes' own controllers wait up to some
/// minutes before they try again what failed while its API was away.
const LIMIT: Duration = Duration::from_secs(600);
/// Between the two ends of a request that a moment explains: what was sent before may arrive after.
const SLACK_US: u64 = 300_000;

/// How much to do.
#[derive(Debug, Clone, Copy)]
pub struct SoakPlan {
    /// Switches, one after the other.
    pub switches: usize,
    /// Of the random numbers.
    pub seed: u64,
}

/// `$SOAK_SEED`, or one by chance.
pub fn seed() -> u64 {
    let given = std::env::var("SOAK_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..1_000_000))
}

/// Failures that are nobody's fault: requests of one caller that were under way in this time.
#[derive(Debug, Clone, Copy)]
struct Excuse {
    /// Which load; `None`: any.
    caller: Option<usize>,
    from_us: u64,
    until_us: u64,
}

impl Excuse {
    fn covers(&self, caller: usize, request: &Request) -> bool {
        let theirs = self.caller.is_none_or(|one| one == caller);
        theirs && request.end_us >= self.from_us && request.due_us <= self.until_us + SLACK_US
    }
}

/// One switch and the damage that was done to it.
#[derive(Debug, Clone, Serialize)]
pub struct Damaged {
    /// The version that was asked for.
    pub to: String,
    /// What was done.
    pub damage: &'static str,
    /// After the version was asked for.
    pub after_ms: u64,
    /// The phase that it met.
    pub met: String,
    /// The whole switch.
    pub took_ms: u64,
}

/// What became of all of them.
#[derive(Debug, Serialize)]
pub struct SoakReport {
    /// Gives the same damage again.
    pub seed: u64,
    /// All requests.
    pub requests: usize,
    /// Failures that the damage explains.
    pub explained: usize,
    /// In order.
    pub switches: Vec<Damaged>,
}

impl SoakReport {
    /// The report on these loads; an error if a request failed without an excuse.
    fn new(seed: u64, loads: Vec<Results>, excuses: &[Excuse], switches: Vec<Damaged>) -> Result<SoakReport> {
        let excused = |caller: usize, request: &Request| excuses.iter().any(|one| one.covers(caller, request));
        let mut unexplained = Vec::new();
        let (mut requests, mut explained) = (0, 0);
        for (caller, results) in loads.iter().enumerate() {
            requests += results.len();
            let (theirs, ours): (Vec<Request>, Vec<Request>) =
                results.failures().requests().iter().cloned().partition(|request| excused(caller, request));
            explained += theirs.len();
            unexplained.extend(ours);
        }
        let first: Vec<_> = unexplained.iter().take(5).map(|one| (clock::unix_ms(one.start_us), one)).collect();
        ensure!(
            unexplained.is_empty(),
            "seed {seed}: {} of {requests} requests failed, and nothing that was done explains it; the first, by when it \
             began in Unix ms: {first:#?}",
            unexplained.len()
        );
        Ok(SoakReport { seed, requests, explained, switches })
    }
}

impl SoakReport {
    /// Prints it, and keeps it as `target/soak/NAME.json`.
    pub fn save(&self, name: &str) -> Result<()> {
        println!("{self}");
        let path = crate::root().join("target/soak").join(format!("{name}.json"));
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)?;
        println!("{}", path.display());
        Ok(())
    }
}

impl std::fmt::Display for SoakReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut by_damage: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for one in &self.switches {
            by_damage.entry(one.damage).or_default().push(one.took_ms);
        }
        writeln!(f, "{:<44} {:>8} {:>10} {:>10}", "damage", "switches", "median ms", "longest ms")?;
        for (damage, mut took) in by_damage {
            took.sort_unstable();
            let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
            writeln!(f, "{damage:<44} {:>8} {median:>10} {longest:>10}", took.len())?;
        }
        let (requests, explained) = (self.requests, self.explained);
        write!(f, "seed {}: {requests} requests, {explained} failed by the damage itself, none otherwise", self.seed)
    }
}

/// Where versions are switched, and what can be done to it there.
trait Ground {
    /// A kind of damage; its name is for people.
    type Damage: Copy + std::fmt::Debug + Into<&'static str> + VariantArray + 'static;
    /// The damage comes so long after a version was asked for, in milliseconds, or sooner.
    const WITHIN_MS: u64;

    /// The random numbers of the seed.
    fn random(&mut self) -> &mut fastrand::Rng;

    /// Asks for a version.
    async fn ask(&mut self, version: &str) -> Result<()>;

    /// The phase that the flag is in.
    async fn phase(&self) -> Result<String>;

    /// Does damage to the switch between these versions, and undoes it.
    async fn inflict(&mut self, damage: Self::Damage, from: &str, to: &str) -> Result<()>;

    /// Waits for the whole of what the switch is for.
    async fn arrives(&mut self, from: &str, to: &str) -> Result<()>;
}

/// Switches there and back, with damage to each: each kind has its turn before any comes again.
async fn switches<G: Ground>(ground: &mut G, plan: SoakPlan, loads: &[Load]) -> Result<Vec<Damaged>> {
    let (mut all, mut deck) = (Vec::new(), Vec::new());
    for number in 1..=plan.switches {
        if deck.is_empty() {
            deck.extend_from_slice(G::Damage::VARIANTS);
            ground.random().shuffle(&mut deck);
        }
        let damage = deck.pop().context("no kind of damage")?;
        let (from, to) = if number % 2 == 1 { ("v1", "v2") } else { ("v2", "v1") };
        let one = switch(ground, damage, (from, to), loads).await;
        let one = one.with_context(|| format!("seed {}, switch {number}", plan.seed))?;
        let Damaged { to, damage, after_ms, met, took_ms } = &one;
        println!("{number:>4} to {to}: {damage}, {after_ms} ms after the start, in {met}: {took_ms} ms");
        all.push(one);
    }
    Ok(all)
}

async fn switch<G: Ground>(
    ground: &mut G,
    damage: G::Damage,
    (from, to): (&str, &str),
    loads: &[Load],
) -> Result<Damaged> {
    let after_ms = ground.random().u64(0..G::WITHIN_MS);
    let begun = Instant::now();
    ground.ask(to).await?;
    // When it comes is chance, not a wait for anything.
    sleep(Duration::from_millis(after_ms)).await;
    let met = ground.phase().await?;
    ground.inflict(damage, from, to).await.with_context(|| format!("{damage:?} in {met}"))?;
    let arrives = ground.arrives(from, to).await;
    arrives.with_context(|| format!("{damage:?} in {met}, {after_ms} ms after {to} was asked for"))?;
    for load in loads {
        let before = load.live().answered_by(to);
        wait_for(&format!("answers of {to}"), LIMIT, async || load.live().answered_by(to) > before + 20).await?;
    }
    let took_ms = u64::try_from(begun.elapsed().as_millis())?;
    Ok(Damaged { to: to.to_owned(), damage: damage.into(), after_ms, met, took_ms })
}
