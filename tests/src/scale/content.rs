//! What a snapshot asks of a simulated proxy, and the report that it gives. Thousands of proxies get the same snapshot: it
//! is parsed once. No I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result};
use flag::PROTOCOL;
use flag::count::Totals;
use flag::fence::{Fenced, Held};
use flag::instance::{Findings, FlagState};
use flag::level;
use flag::named::Named;
use flag::probe::{Outcome, Place, Probe, Probed, REACHED};
use flag::record::{Gate, Record};
use flag::report::Report;
use flag::snapshot::{Asks, Snapshot};
use hyper::body::Bytes;

/// Snapshots that are remembered: a switch has a handful, and proxies are never far apart.
const REMEMBERED: usize = 8;
/// The one VM instance of each proxy.
const INSTANCE: u32 = 1;

/// One snapshot, and what all proxies say of it.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) snapshot: Snapshot,
    /// What level 2 adds to a report; `None`: the service has not shown to know it.
    findings: Option<Vec<u8>>,
}

/// Who reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reporter<'a> {
    pub(super) proxy: &'a str,
    pub(super) boot: &'a str,
    pub(super) seq: u64,
}

/// The snapshots that came last, by their bytes.
#[derive(Debug, Default)]
pub(super) struct Contents(VecDeque<(Bytes, Arc<Content>)>);

impl Contents {
    /// What these bytes say.
    pub(super) fn of(&mut self, bytes: &Bytes) -> Result<Arc<Content>> {
        if let Some((_, known)) = self.0.iter().rev().find(|(known, _)| known == bytes) {
            return Ok(Arc::clone(known));
        }
        let content = Arc::new(Content::parse(bytes)?);
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((bytes.clone(), Arc::clone(&content)));
        Ok(content)
    }
}

impl Content {
    fn parse(bytes: &[u8]) -> Result<Content> {
        let snapshot = Snapshot::parse(bytes).context("the snapshot")?;
        let findings = snapshot.asks.as_ref().map(|asks| serde_json::to_vec(&findings(&snapshot.flags, asks)));
        Ok(Content { findings: findings.transpose()?, snapshot })
    }

    /// The record that the flips are of: the only one.
    pub(super) fn record(&self) -> Option<&Record> {
        self.snapshot.flags.first()
    }

    /// The body of a report: this snapshot is in effect, and `sent` was sent to the versions.
    pub(super) fn report(&self, from: Reporter<'_>, sent: &Named<Totals>) -> Result<Vec<u8>> {
        let state = |record: &Record| FlagState {
            epoch: record.epoch,
            hash: record.hash.clone(),
            gate: record.gate,
            // Their plugins are configured at once.
            config_epoch: Some(record.epoch),
            sent: sent.clone(),
            ..FlagState::default()
        };
        let report = Report {
            protocol: PROTOCOL,
            proxy: from.proxy.to_owned(),
            boot: from.boot.to_owned(),
            seq: from.seq,
            revision: self.snapshot.revision.clone(),
            instances: vec![INSTANCE],
            complete: true,
            flags: self.snapshot.flags.iter().map(|record| (record.uid.clone(), state(record))).collect(),
            findings: vec![],
        };
        let body = serde_json::to_vec(&report)?;
        Ok(match &self.findings {
            Some(findings) => level::joined(body, findings),
            None => body,
        })
    }
}

/// What is found where every probe reaches its version, and nobody strays.
fn findings(flags: &[Record], asks: &Asks) -> Vec<Findings> {
    let probe_of = |uid: &str| asks.probes.iter().find(|probe| probe.flag == uid);
    let all = flags.iter().map(|record| Findings {
        flag: record.uid.clone(),
        probed: probe_of(&record.uid).map(reached),
        fenced: fenced(record, asks),
        ..Findings::default()
    });
    all.filter(Findings::any).collect()
}

fn reached(probe: &Probe) -> Probed {
    let outcome = |Place { cluster, .. }: &Place| Outcome { cluster: cluster.clone(), outcome: REACHED.to_owned() };
    Probed { id: probe.id.clone(), clusters: probe.clusters.iter().map(outcome).collect() }
}

fn fenced(record: &Record, asks: &Asks) -> Option<Fenced> {
    let fence = asks.fences.iter().find(|fence| fence.flag == record.uid)?;
    let is_of_record = fence.epoch == record.epoch;
    let held = if is_of_record && record.gate == Gate::Hold { Held::Holding } else { Held::Open };
    Some(Fenced { epoch: if is_of_record { record.epoch } else { 0 }, held, ..Fenced::default() })
}
