//! The shipped filter where the node is one of Istio's.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use flag::count::Totals;
use flag::record::Record;

use super::proxy::{CLAIMED, Filter, Proxy, record};

/// The record as the controller writes it for Istio.
fn placed(epoch: u64, active: &str) -> Record {
    let mut record = record(epoch, active);
    record.namespace = "shop".to_owned();
    record.version_label = "version".to_owned();
    record.members[0].hosts = BTreeSet::from(["reviews.shop.svc.cluster.local".to_owned()]);
    record.members[0].selector = BTreeSet::from(["app=reviews".to_owned()]);
    record.seal().expect("a valid record")
}

/// A pod with these labels, with the filter at an inbound listener or an outbound one.
fn start(filter: &Filter, id: &str, namespace: &str, labels: &[(&str, &str)], inbound: bool) -> Result<Proxy> {
    let direction = if inbound { 1_u64 } else { 2 };
    let labels =
        labels.iter().map(|(key, value)| (format!("xds.node.metadata.LABELS.{key}"), value.as_bytes().to_vec()));
    let properties: BTreeMap<String, Vec<u8>> = [
        ("xds.node.id".to_owned(), id.as_bytes().to_vec()),
        ("xds.node.metadata.NAMESPACE".to_owned(), namespace.as_bytes().to_vec()),
        ("xds.listener_direction".to_owned(), direction.to_le_bytes().to_vec()),
    ]
    .into_iter()
    .chain(labels)
    .collect();
    let mut proxy = Proxy::start_with(filter, 2, properties, [placed(5, "v1"), placed(10, "v2")])?;
    proxy.run(600)?;
    Ok(proxy)
}

const SIDECAR: &str = "sidecar~198.18.0.7~reviews-0.shop~shop.svc.cluster.local";
const GATEWAY: &str = "router~198.18.0.8~gateway-0.edge~edge.svc.cluster.local";
const PODS: &str = "outbound|80||reviews.shop.svc.cluster.local";
const OTHERS: &str = "outbound|80||ratings.shop.svc.cluster.local";

#[test]
fn an_inbound_side_counts_at_the_version_of_its_pod() -> Result<()> {
    let filter = Filter::load()?;
    for (labels, expected) in [
        (vec![("app", "reviews"), ("version", "v1")], Some(("v1", 2))),
        (vec![("app", "reviews"), ("version", "v7")], Some(("v7", 2))),
        (vec![("app", "ratings"), ("version", "v1")], None),
    ] {
        let mut proxy = start(&filter, SIDECAR, "shop", &labels, true)?;
        for worker in 0..2 {
            let marked = proxy.request_to(worker, "reviews", "inbound|80||")?;
            ensure!(marked.as_deref() == Some(CLAIMED), "an inbound side changes nothing: {marked:?}");
        }
        proxy.run(200)?;
        let report = proxy.reports.last().context("a report")?;
        ensure!(report.proxy == "reviews-0.shop", "{}", report.proxy);
        let arrived = &report.flags.get("uid").expect("the flag").arrived;
        let totals = |count| Totals { started: count, finished: count };
        let expected: BTreeMap<String, Totals> =
            expected.into_iter().map(|(version, count)| (version.to_owned(), totals(count))).collect();
        ensure!(*arrived == expected.into(), "{labels:?}: {arrived:?}");
        ensure!(
            report.flags.get("uid").expect("the flag").sent.values().all(|totals| totals.started == 0),
            "{report:?}"
        );
    }
    Ok(())
}

#[test]
fn a_caller_of_the_group_stays_in_the_version_of_its_pod() -> Result<()> {
    let filter = Filter::load()?;
    for (namespace, labels, host, expected) in [
        ("shop", vec![("app", "reviews"), ("version", "v1")], "reviews", "v1"),
        ("shop", vec![("app", "reviews"), ("version", "v2")], "reviews:80", "v2"),
        ("shop", vec![("app", "reviews"), ("version", "v7")], "reviews", "v2"),
        ("shop", vec![("app", "web"), ("version", "v1")], "reviews", "v2"),
        // Labels say something only where the Service is.
        ("web", vec![("app", "reviews"), ("version", "v1")], "reviews.shop.svc.cluster.local", "v2"),
        // And so do short names.
        ("web", vec![], "reviews", CLAIMED),
    ] {
        let mut proxy = start(&filter, SIDECAR, namespace, &labels, false)?;
        for worker in 0..2 {
            let version = proxy.request_to(worker, host, PODS)?;
            ensure!(version.as_deref() == Some(expected), "{namespace} {labels:?} {host}: {version:?}");
        }
    }
    Ok(())
}

#[test]
fn a_gateway_knows_the_flag_by_where_its_routes_lead() -> Result<()> {
    let mut proxy = start(&Filter::load()?, GATEWAY, "edge", &[("istio", "ingressgateway")], false)?;
    for (host, cluster, expected) in [
        ("reviews.shop.svc.cluster.local", OTHERS, "v2"),
        ("shop.example.com", PODS, "v2"),
        ("shop.example.com", "outbound|80|v1|reviews.shop.svc.cluster.local", "v2"),
        // What a client says is taken away.
        ("shop.example.com", OTHERS, "unmarked"),
        ("shop.example.com", "BlackHoleCluster", "unmarked"),
    ] {
        let version = proxy.request_to(0, host, cluster)?;
        ensure!(version.as_deref() == Some(expected), "{host} to {cluster}: {version:?}");
    }
    proxy.run(200)?;
    let report = proxy.reports.last().context("a report")?;
    ensure!(report.proxy == "gateway-0.edge", "{}", report.proxy);
    Ok(())
}
