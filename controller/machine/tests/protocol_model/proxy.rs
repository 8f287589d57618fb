//! The proxies: what comes to a VM instance, and what the real table makes of it; what the real `combine` reports.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use flag::count::Totals;
use flag::instance::{Findings, FlagState, Instance, InstanceFindings, combine, combine_findings};
use flag::probe::{NOT_TRIED, Outcome, Place, Probe, Probed, REACHED};
use flag::record::Record;
use flag::report::Report;
use flag::table::{Channel, Table};

use crate::model_parts::{Published, hash};
use crate::{UID, VERSIONS, number};

/// Requests of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Count {
    pub(crate) started: u8,
    pub(crate) finished: u8,
}

/// One VM instance. A record is known by the number of a publication that has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Vm {
    /// What routes requests.
    pub(crate) effective: Option<u8>,
    /// What its plugin configuration has.
    pub(crate) config: Option<u8>,
    /// What the flag service said last.
    pub(crate) heard: Option<u8>,
    /// Requests by the version that they were sent to.
    pub(crate) sent: [Count; 3],
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Proxy {
    pub(crate) boot: u8,
    pub(crate) round: u16,
    pub(crate) vms: Vec<Vm>,
    /// The configuration that it starts with.
    pub(crate) file: Option<u8>,
    /// It reaches neither a flag service nor any version.
    pub(crate) cut_off: bool,
}

impl Vm {
    fn table(&self, published: &[Published]) -> Table {
        let mut table = Table::default();
        let mut apply = |channel, number: Option<u8>| {
            if let Some(number) = number {
                table.apply(channel, std::slice::from_ref(record(published, number)), &|_| None);
            }
        };
        apply(Channel::Config, self.config);
        apply(Channel::Service, self.effective);
        table
    }

    /// A record comes by a channel. `any` is the fault of taking whatever comes.
    pub(crate) fn take(&mut self, channel: Channel, number: u8, published: &[Published], any: bool) {
        let mut table = self.table(published);
        table.apply(channel, std::slice::from_ref(record(published, number)), &|_| None);
        let in_effect = table.get(UID).map(|flag| &flag.record);
        if any || in_effect == Some(record(published, number)) {
            self.effective = Some(number);
        }
        match channel {
            Channel::Config | Channel::Draining => self.config = Some(number),
            Channel::Service => self.heard = Some(number),
        }
    }

    pub(crate) fn record<'a>(&self, published: &'a [Published]) -> Option<&'a Record> {
        self.effective.map(|number| record(published, number))
    }

    pub(crate) fn epoch(&self, published: &[Published]) -> u64 {
        self.record(published).map_or(0, |record| record.epoch)
    }

    /// The version that a request goes to; `None`: it waits for the first record.
    pub(crate) fn chooses(&self, published: &[Published]) -> Option<usize> {
        self.record(published).map(|record| number(&record.active))
    }

    /// The version that a proxy which starts anew would send to.
    pub(crate) fn configured(&self, published: &[Published]) -> Option<usize> {
        self.config.map(|config| number(&record(published, config).active))
    }

    fn state(&self, published: &[Published]) -> Option<FlagState> {
        let table = self.table(published);
        let state = table.get(UID)?.state(0);
        let sent = VERSIONS.into_iter().zip(self.sent).filter(|(_, count)| count.started > 0);
        let totals = |count: Count| Totals { started: count.started.into(), finished: count.finished.into() };
        Some(FlagState { sent: sent.map(|(version, count)| (version.to_owned(), totals(count))).collect(), ..state })
    }

    pub(crate) fn probe<'a>(&self, published: &'a [Published]) -> Option<&'a Probe> {
        published[usize::from(self.heard?)].0.probe.as_ref()
    }
}

pub(crate) fn record(published: &[Published], number: u8) -> &Record {
    &published[usize::from(number)].0.record
}

/// A report: what each instance said, if it did, and whether it reached what it was asked to.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) proxy: usize,
    pub(crate) vms: Vec<Option<(Vm, bool)>>,
    pub(crate) report: Report,
    hash: u64,
}

impl PartialEq for Sent {
    fn eq(&self, other: &Sent) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Sent {}

impl Hash for Sent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl Sent {
    /// The report of a round. `only_answers` is the fault of leaving out whoever does not answer.
    pub(crate) fn new(
        at: usize,
        proxy: &Proxy,
        vms: Vec<Option<(Vm, bool)>>,
        published: &[Published],
        only_answers: bool,
    ) -> Arc<Sent> {
        let round: u64 = proxy.round.into();
        let (mut states, mut findings) = (vec![], vec![]);
        for (id, vm) in (0..).zip(&vms) {
            let Some((vm, reaches)) = vm else { continue };
            let flags = vm.state(published).map(|state| (UID.to_owned(), state));
            states.push(Instance { id, round, flags: flags.into_iter().collect() });
            let probed = vm.probe(published).map(|probe| probed(probe, *reaches));
            let found = Findings { flag: UID.to_owned(), probed, ..Findings::default() };
            findings.push(InstanceFindings { id, round, flags: vec![found] });
        }
        let mut ids: Vec<u32> = (0..vms.len() as u32).collect();
        if only_answers {
            ids.retain(|id| vms[*id as usize].is_some());
        }
        let combined = combine(&ids, round, &states);
        let report = Report {
            protocol: flag::PROTOCOL,
            proxy: at.to_string(),
            boot: format!("{:x}", proxy.boot),
            seq: round,
            revision: String::new(),
            complete: combined.is_some(),
            flags: combined.unwrap_or_default(),
            findings: combine_findings(&ids, round, &findings),
            instances: ids,
        };
        let hash = hash(&(at, proxy.boot, proxy.round, &vms));
        Arc::new(Sent { proxy: at, vms, report, hash })
    }

    /// Whether every instance said that it has this record in effect, or one that another controller wrote after it.
    pub(crate) fn has(&self, wanted: &Record, published: &[Published]) -> bool {
        let same = |vm: &Vm| vm.record(published).is_some_and(|known| known == wanted || known.epoch > wanted.epoch);
        !self.vms.is_empty() && self.vms.iter().all(|vm| vm.as_ref().is_some_and(|(vm, _)| same(vm)))
    }

    /// Whether every instance said that it reaches this version.
    pub(crate) fn reaches(&self, version: &str, published: &[Published]) -> bool {
        let asked = |vm: &Vm| vm.probe(published).is_some_and(|probe| probe.version == version);
        self.vms.iter().all(|vm| vm.as_ref().is_some_and(|(vm, reaches)| *reaches && asked(vm)))
    }
}

fn probed(probe: &Probe, reaches: bool) -> Probed {
    let outcome = if reaches { REACHED } else { NOT_TRIED };
    let of = |place: &Place| Outcome { cluster: place.cluster.clone(), outcome: outcome.to_owned() };
    Probed { id: probe.id.clone(), clusters: probe.clusters.iter().map(of).collect() }
}
