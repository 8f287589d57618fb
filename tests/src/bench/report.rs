//! Medians, ratios and how they are shown. I/O: reads what machine this is.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Plan;

/// One variant in one round.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// CPU time of the Envoy per request.
    pub cpu_us: f64,
    /// Requests that it counted.
    pub requests: u64,
    /// How long its turns took.
    pub seconds: f64,
}

impl Measured {
    /// From all CPU time together.
    pub(super) fn new(total_cpu_us: f64, requests: u64, seconds: f64) -> Measured {
        Measured { cpu_us: total_cpu_us / requests as f64, requests, seconds }
    }

    /// One more turn.
    pub(super) fn add(&mut self, turn: &Measured) {
        let cpu = |it: &Measured| it.cpu_us * it.requests as f64;
        *self = Measured::new(cpu(self) + cpu(turn), self.requests + turn.requests, self.seconds + turn.seconds);
    }
}

/// One variant, all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// CPU time per request.
    pub cpu_us_median: f64,
    /// A quarter of the rounds took less.
    pub cpu_us_p25: f64,
    /// A quarter of the rounds took more.
    pub cpu_us_p75: f64,
    /// More than no filter.
    pub added_vs_none_us: Option<f64>,
    /// What it adds, by what the SDK's empty filter adds.
    pub ratio_to_empty_sdk: Option<f64>,
    /// What it adds, by what Lua adds.
    pub ratio_to_lua: Option<f64>,
    /// Requests per second with one worker.
    pub rps_median: f64,
    /// Every round.
    pub rounds: Vec<Measured>,
}

/// Where it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Usable by this process.
    pub cores: usize,
    /// Its model.
    pub cpu: String,
    /// The share of it that other processes, or other machines on the same host, used meanwhile.
    pub used_by_others: f64,
}

impl Machine {
    /// This one.
    pub fn this(used_by_others: f64) -> Machine {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            used_by_others,
        }
    }
}

/// More than this, and the numbers say little.
const QUIET: f64 = 0.05;

/// All of it, as in the file.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// Envoy's version.
    pub envoy: String,
    /// Rounds.
    pub rounds: usize,
    /// For how long every variant was measured in a round.
    pub seconds: f64,
    /// By name.
    pub variants: BTreeMap<String, Summary>,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        envoy: String,
        plan: &Plan,
        rounds: &BTreeMap<&'static str, Vec<Measured>>,
    ) -> Report {
        let costs = |name: &str| -> Option<Vec<f64>> {
            Some(rounds.get(name)?.iter().map(|measured| measured.cpu_us).collect())
        };
        // Differences within a round: what disturbed it disturbed both.
        let added = |name: &str| -> Option<Vec<f64>> {
            let (cost, none) = (costs(name)?, costs("none")?);
            Some(cost.iter().zip(&none).map(|(cost, none)| cost - none).collect())
        };
        let ratio = |name: &str, to: &str| {
            let (added, base) = (added(name)?, added(to)?);
            let pairs = added.iter().zip(&base).filter(|(_, base)| **base > 0.0);
            Some(quantile(pairs.map(|(added, base)| added / base).collect(), 0.5))
        };
        let summary = |name: &str, turns: &Vec<Measured>| Summary {
            cpu_us_median: quantile(costs(name).unwrap_or_default(), 0.5),
            cpu_us_p25: quantile(costs(name).unwrap_or_default(), 0.25),
            cpu_us_p75: quantile(costs(name).unwrap_or_default(), 0.75),
            added_vs_none_us: added(name).map(|added| quantile(added, 0.5)),
            ratio_to_empty_sdk: ratio(name, "empty-sdk"),
            ratio_to_lua: ratio(name, "lua"),
            rps_median: quantile(turns.iter().map(|turn| turn.requests as f64 / turn.seconds).collect(), 0.5),
            rounds: turns.clone(),
        };
        Report {
            machine,
            envoy,
            rounds: plan.rounds,
            seconds: plan.time.as_secs_f64(),
            variants: rounds.iter().map(|(name, turns)| ((*name).to_owned(), summary(name, turns))).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "Envoy {}, one worker, on {} × {}", self.envoy, self.machine.cores, self.machine.cpu)?;
        writeln!(formatter, "median of {} rounds of {} s; CPU time in µs per request\n", self.rounds, self.seconds)?;
        let heads = ["variant", "cpu", "p25..p75", "added", "÷ empty", "÷ lua", "req/s"];
        let [name, cpu, spread, added, empty, lua, rate] = heads;
        writeln!(formatter, "{name:<18} {cpu:>6} {spread:>13} {added:>7} {empty:>8} {lua:>6} {rate:>7}")?;
        let mut rows: Vec<_> = self.variants.iter().collect();
        rows.sort_by(|(_, one), (_, other)| one.cpu_us_median.total_cmp(&other.cpu_us_median));
        for (name, it) in rows {
            let spread = format!("{:.1}..{:.1}", it.cpu_us_p25, it.cpu_us_p75);
            let or_dash = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.2}"));
            let (added, empty, lua) =
                (or_dash(it.added_vs_none_us), or_dash(it.ratio_to_empty_sdk), or_dash(it.ratio_to_lua));
            let (cpu, rate) = (it.cpu_us_median, it.rps_median);
            writeln!(formatter, "{name:<18} {cpu:>6.2} {spread:>13} {added:>7} {empty:>8} {lua:>6} {rate:>7.0}")?;
        }
        let others = 100.0 * self.machine.used_by_others;
        let verdict = if self.machine.used_by_others > QUIET { "TOO BUSY to trust these numbers" } else { "quiet" };
        writeln!(formatter, "\nothers used {others:.0}% of the machine meanwhile: {verdict}")?;
        write!(formatter, "native sets the header without choosing the route again, which the others do")
    }
}

/// Between the two nearest values; 0 if there are none.
pub fn quantile(mut values: Vec<f64>, at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let position = at * values.len().saturating_sub(1) as f64;
    let pick = |position: f64| values.get(position as usize).copied().unwrap_or_default();
    let (below, above) = (pick(position.floor()), pick(position.ceil()));
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(quantile(vec![3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(vec![4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        assert_eq!(quantile(vec![0.0, 1.0, 2.0, 3.0, 4.0], 0.25), 1.0);
        assert_eq!(quantile(vec![], 0.5), 0.0);
    }

    #[test]
    fn turns_add_up_to_a_round() {
        let mut round = Measured::new(3_000.0, 100, 0.1);
        round.add(&Measured::new(3_000.0, 200, 0.1));
        assert_eq!((round.cpu_us, round.requests), (20.0, 300));
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let turn = |cpu_us| Measured { cpu_us, requests: 2_000, seconds: 2.0 };
        // The second round was disturbed as a whole.
        let rounds = BTreeMap::from([
            ("none", vec![turn(20.0), turn(120.0), turn(20.0)]),
            ("lua", vec![turn(24.0), turn(124.0), turn(24.0)]),
            ("ours", vec![turn(23.0), turn(122.0), turn(22.0)]),
        ]);
        let plan = Plan { rounds: 3, time: std::time::Duration::from_secs(2), turns: 1, connections: 1 };
        let machine = Machine { cores: 1, cpu: String::new(), used_by_others: 0.0 };
        let report = Report::new(machine, String::new(), &plan, &rounds);
        let ours = &report.variants["ours"];
        assert_eq!((ours.cpu_us_median, ours.added_vs_none_us), (23.0, Some(2.0)));
        assert_eq!((ours.ratio_to_lua, ours.ratio_to_empty_sdk), (Some(0.5), None));
        assert_eq!(ours.rps_median, 1_000.0);
    }
}
