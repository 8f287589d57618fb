//! What a request costs, as docs/reference/filter.md says it: calls into the VM, and hostcalls.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use flag::record::{Preview, Record};
use serde_json::{Value, json};

use super::host::Calls;
use super::proxy::{Filter, Proxy, record};
use super::table::rows;

const PAGE: &str = include_str!("../../../docs/reference/filter.md");
const OTHER: (&str, &str) = (":authority", "ratings");
const HOST: (&str, &str) = (":authority", "reviews");
const CHECK: (&str, &str) = ("user-agent", "Prometheus/3.0");

/// What stands for the flag where a route leads there.
const PODS: &str = "outbound|80||reviews.shop.svc.cluster.local";

/// A request, and the proxy that it comes to.
#[derive(Clone)]
struct Case {
    row: &'static str,
    plugin: Value,
    /// A switch from v1 to v2 is under way, which has flipped.
    switching: bool,
    /// Answers are measured.
    measured: bool,
    preview: bool,
    /// Versions have no clusters but Istio's.
    mesh: bool,
    headers: Vec<(&'static str, &'static str)>,
    cluster: &'static str,
    served: Option<&'static str>,
}

/// A caller at rest; its request leads to a cluster of no flag as long as no version is chosen.
fn case(row: &'static str, headers: &[(&'static str, &'static str)]) -> Case {
    let plugin = json!({ "role": "caller" });
    let (switching, measured, preview, mesh, cluster, served) = (false, false, false, false, "ratings", None);
    Case { row, plugin, switching, measured, preview, mesh, headers: headers.to_vec(), cluster, served }
}

fn edge(row: &'static str, headers: &[(&'static str, &'static str)]) -> Case {
    Case { plugin: json!({ "role": "edge" }), ..case(row, headers) }
}

fn inbound(row: &'static str, version: &str, headers: &[(&'static str, &'static str)]) -> Case {
    let workload = json!({ "service": "reviews", "version": version });
    Case { plugin: json!({ "role": "inbound", "workload": workload }), ..case(row, headers) }
}

impl Case {
    fn switching(self) -> Case {
        Case { switching: true, ..self }
    }

    fn record(&self, epoch: u64) -> Record {
        let mut record = record(epoch, "v2");
        record.members[0].hosts.insert("reviews.shop.svc.cluster.local".to_owned());
        if !self.switching {
            record.versions = BTreeSet::from(["v2".to_owned()]);
            record.members[0].clusters.remove("v1");
        }
        if self.mesh {
            record.members[0].clusters.clear();
        }
        let (header, value, version) = ("x-preview".to_owned(), "yes".to_owned(), "v2".to_owned());
        record.preview = self.preview.then_some(Preview { header, value, version });
        record.seal().expect("a valid record")
    }

    /// The proxy, which knows the flag.
    fn proxy(&self, filter: &Filter) -> Result<Proxy> {
        let mut plugin = self.plugin.clone();
        plugin["flags"] = json!([self.record(5)]);
        let code = ("response.code".to_owned(), 200_i64.to_le_bytes().to_vec());
        let mut proxy = Proxy::configured(filter, 1, BTreeMap::from([code]), plugin, self.record(10))?;
        let uid = |wanted: bool| if wanted { vec!["uid".to_owned()] } else { vec![] };
        (proxy.prove_routes, proxy.measure) = (uid(self.switching), uid(self.measured));
        proxy.run(600)?;
        ensure!(!proxy.reports.is_empty(), "the filter has not reported");
        Ok(proxy)
    }

    fn calls(&self, filter: &Filter) -> Result<Calls> {
        let mut proxy = self.proxy(filter)?;
        // The first of its kind may define a metric.
        proxy.calls_of(&self.headers, self.cluster, self.served)?;
        proxy.calls_of(&self.headers, self.cluster, self.served).with_context(|| self.row)
    }
}

/// The numbers that a cell begins with: `1 or 2: why`.
fn numbers(cell: &str) -> Result<BTreeSet<usize>> {
    let cell = cell.split(':').next().unwrap_or_default().replace("none", "0");
    cell.split(" or ").map(|number| number.parse().with_context(|| format!("{cell:?} is no number"))).collect()
}

#[test]
fn a_request_costs_what_the_page_says() -> Result<()> {
    let filter = Filter::load()?;
    let late = "inbound, for a version that is not active, while a switch is under way";
    let cases = [
        case("host without a flag", &[OTHER]),
        Case { mesh: true, ..case("host without a flag", &[OTHER]) },
        edge("the same at an edge", &[OTHER]),
        case("host with a flag", &[HOST]),
        case("the same while a switch is under way", &[HOST]).switching(),
        inbound("inbound", "v1", &[HOST]),
        inbound("inbound", "v2", &[HOST]).switching(),
        inbound(late, "v1", &[HOST, ("x-versionflag", "v1")]).switching(),
        inbound(late, "v1", &[HOST, CHECK]).switching(),
        inbound(late, "v1", &[HOST]).switching(),
    ];
    let mut found = BTreeMap::<String, [BTreeSet<usize>; 2]>::new();
    for case in cases {
        let calls = case.calls(&filter)?;
        println!("{}: {calls:?}", case.row);
        let [into_vm, out] = found.entry(case.row.to_owned()).or_default();
        into_vm.insert(calls.into_vm.len());
        out.insert(calls.out.len());
    }
    let rows = rows(PAGE, "hostcalls");
    let said = rows.iter().map(|row| Ok((row[0].clone(), [numbers(&row[1])?, numbers(&row[2])?])));
    assert_eq!(found, said.collect::<Result<_>>()?);
    Ok(())
}

/// F14: what a filter has sent is traffic, whatever it says of itself.
#[test]
fn a_health_check_of_the_old_version_is_no_traffic() -> Result<()> {
    let filter = Filter::load()?;
    let (by_path, other, marked) = ((":path", "/healthz?deep"), ("user-agent", "curl/8"), ("x-versionflag", "v1"));
    for (headers, traffic) in
        [(vec![HOST, CHECK], 0), (vec![HOST, by_path], 0), (vec![HOST, CHECK, marked], 1), (vec![HOST, other], 1)]
    {
        let case = inbound("", "v1", &headers).switching();
        let mut proxy = case.proxy(&filter)?;
        proxy.calls_of(&case.headers, case.cluster, case.served)?;
        proxy.run(600)?;
        let report = proxy.reports.last().context("no report")?;
        let arrived = report.flags.get("uid").expect("the flag").arrived.get("v1").map_or(0, |totals| totals.started);
        let checked = report.found("uid").map_or(0, |found| found.checked);
        ensure!((arrived, checked) == (traffic, 1 - traffic), "{headers:?}: {report:?}");
    }
    Ok(())
}

#[test]
fn what_adds_to_a_request_adds_what_the_page_says() -> Result<()> {
    let filter = Filter::load()?;
    let claimed = ("x-versionflag", "v1");
    let (auto, removes, finds) =
        ("the role auto", "an edge that removes a routing header", "an edge that finds the flag by the cluster");
    let (preview, check) = ("a preview, for a caller outside the group", "a builtin check, while it is asked");
    let strayed = "a request that another version served, at its end";
    let switching = || case("", &[HOST]).switching();
    let pairs = [
        (case("", &[HOST]), Case { plugin: json!({ "role": "auto" }), ..case(auto, &[HOST]) }),
        (edge("", &[OTHER]), edge(removes, &[OTHER, claimed])),
        (edge("", &[HOST]), Case { cluster: PODS, ..edge(finds, &[OTHER]) }),
        (edge("", &[HOST]).switching(), Case { cluster: PODS, ..edge(finds, &[OTHER]) }.switching()),
        (case("", &[HOST]), Case { preview: true, ..case(preview, &[HOST]) }),
        (case("", &[HOST]), Case { measured: true, ..case(check, &[HOST]) }),
        (switching(), Case { row: strayed, served: Some("reviews-v1"), ..switching() }),
    ];
    let mut found = BTreeMap::<String, BTreeSet<usize>>::new();
    for (without, with) in pairs {
        let (before, after) = (without.calls(&filter)?, with.calls(&filter)?);
        println!("{}: {before:?}, then {after:?}", with.row);
        ensure!(before.into_vm == after.into_vm, "{}: {after:?}", with.row);
        let mut all = after.out.iter();
        ensure!(before.out.iter().all(|call| all.any(|one| one == call)), "{}: not only added: {after:?}", with.row);
        found.entry(with.row.to_owned()).or_default().insert(after.out.len() - before.out.len());
    }
    let rows = rows(PAGE, "hostcalls-added");
    let said = rows.iter().map(|row| Ok((row[0].clone(), numbers(&row[1])?)));
    assert_eq!(found, said.collect::<Result<_>>()?);
    Ok(())
}
