//! The metrics of single flags, made from their views whenever somebody asks: what is gone has no line, nor has what
//! is not known. No I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use machine::fleet::counted::Counted;
use machine::history::Happening;
use machine::status::Phase;
use machine::time::UnixMs;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};

use super::MetricLabels;
use super::samples::{ALL, Kind, Sample, Value};
use crate::audit::new_entries;
use crate::lock::lock;
use crate::views::FlagView;

/// One flag, and what was counted of it since it was shown first.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) view: Arc<FlagView>,
    pub(super) counted: Counted,
    pub(super) rollbacks: u64,
    /// How often each version was started again, where it is known when it was started.
    pub(super) restarts: BTreeMap<String, u64>,
    /// When each version that requests are sent to, or are going to be, was started.
    started: BTreeMap<String, UnixMs>,
}

impl Shown {
    /// What happened before is not counted: another controller may have.
    fn first(view: Arc<FlagView>) -> Shown {
        let (restarts, started) = (BTreeMap::new(), BTreeMap::new());
        let mut shown = Shown { view, counted: Counted::default(), rollbacks: 0, restarts, started };
        shown.count_restarts();
        shown
    }

    /// The flag as it is now.
    fn next(&mut self, view: Arc<FlagView>) {
        let before = std::mem::replace(&mut self.view, view);
        let new = new_entries(&before.status.history, &self.view.status.history).iter();
        let rollbacks = new.filter(|entry| entry.event == Happening::RolledBack).count();
        self.rollbacks = self.rollbacks.saturating_add(u64::try_from(rollbacks).unwrap_or(u64::MAX));
        self.count_restarts();
    }

    /// A version that is stopped after a switch, and started for the next one, is not started again.
    fn count_restarts(&mut self) {
        let FlagView { status, versions, .. } = &*self.view;
        let left = status.switch.iter().filter(|_| status.phase != Phase::Stable).map(|switch| &switch.from);
        let at_work: Vec<&String> = left.chain([&status.active_version]).chain(&status.target_version).collect();
        self.started.retain(|version, _| at_work.contains(&version));
        self.restarts.retain(|version, _| versions.contains_key(version));
        for version in at_work {
            let Some(at) = versions.get(version).and_then(|workload| workload.started) else { continue };
            let again = self.started.insert(version.clone(), at).is_some_and(|before| before != at);
            let restarts = self.restarts.entry(version.clone()).or_default();
            *restarts = restarts.saturating_add(u64::from(again));
        }
    }
}

/// The metrics of all flags, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlagMetrics(Arc<Mutex<BTreeMap<String, Arc<Shown>>>>);

impl FlagMetrics {
    /// Replaces what is shown of a flag.
    pub(crate) fn show(&self, view: Arc<FlagView>) {
        let mut all = lock(&self.0);
        // Another one of the same name begins anew.
        match all.get_mut(&view.name).filter(|shown| shown.view.status.uid == view.status.uid) {
            Some(shown) => Arc::make_mut(shown).next(view),
            None => drop(all.insert(view.name.clone(), Arc::new(Shown::first(view)))),
        }
    }

    /// Replaces what was counted by proxies, by the names of the flags.
    pub(crate) fn set_counted<'a>(&self, counted: impl Iterator<Item = (&'a str, Counted)>) {
        let mut all = lock(&self.0);
        for (flag, counted) in counted {
            if let Some(shown) = all.get_mut(flag) {
                Arc::make_mut(shown).counted = counted;
            }
        }
    }

    /// Shows a flag no longer.
    pub(crate) fn remove(&self, flag: &str) {
        lock(&self.0).remove(flag);
    }
}

impl Collector for FlagMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all: Vec<Arc<Shown>> = lock(&self.0).values().cloned().collect();
        for family in ALL {
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, family.kind.into())?;
            for shown in &all {
                for sample in (family.samples)(shown) {
                    write(&mut metric, family.kind, &shown.view.name, sample)?;
                }
            }
        }
        Ok(())
    }
}

fn write(metric: &mut MetricEncoder, kind: Kind, flag: &str, sample: Sample) -> fmt::Result {
    let mut labels: MetricLabels = vec![("flag", flag.to_owned())];
    labels.extend(sample.labels);
    let mut metric = metric.encode_family(&labels)?;
    match (kind, sample.value) {
        (Kind::Counter, Value::Count(count)) => metric.encode_counter::<NoLabelSet, _, u64>(&count, None),
        (Kind::Counter, Value::Seconds(seconds)) => metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None),
        (Kind::Gauge, Value::Count(count)) => metric.encode_gauge(&count),
        (Kind::Gauge, Value::Seconds(seconds)) => metric.encode_gauge(&seconds),
    }
}
