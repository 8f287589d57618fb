//! The API server: objects with resource versions, and writes that fail where theirs is not the one of now. What a
//! write may not do is checked here, where it is done.

use std::collections::BTreeSet;

use machine::action::{Action, Request};
use machine::observation::{Strength, VersionState};
use machine::status::{Phase, Status};
use machine::time::UnixMs;

use crate::laws::Law;
use crate::model_parts::Kept;
use crate::mutation::Mutation;
use crate::world::{Protocol, State};
use crate::{SERVICE, VERSIONS, number};

/// The flag's resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Flag {
    pub(crate) version: u8,
    /// The version that the spec asks for.
    pub(crate) wants: usize,
    /// What is asked for by hand, and its number.
    pub(crate) request: Option<(u8, &'static str)>,
    pub(crate) status: Kept,
}

impl Flag {
    pub(crate) fn request(&self) -> Option<Request> {
        let (id, action) = self.request?;
        let action = *Action::ALL.iter().find(|one| one.name() == action).unwrap();
        let request = Request { id: id.to_string(), action, switch: None };
        (!self.status.status.has_answered(&request.id)).then_some(request)
    }
}

/// The workload of one version, and its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Workload {
    pub(crate) version: u8,
    /// Pods that it is to have, that run, and that serve.
    pub(crate) replicas: u8,
    pub(crate) pods: u8,
    pub(crate) serving: u8,
    /// How often it stopped being ready, and since when it is.
    pub(crate) breaks: u8,
    pub(crate) ready_since: u64,
    pub(crate) kept_at: Option<u64>,
    /// The epoch of the whole proof on which it was stopped.
    pub(crate) stopped_at: Option<u64>,
    /// Somebody else had it running before a spec named it.
    pub(crate) theirs: bool,
}

impl Workload {
    pub(crate) fn ready(&self) -> bool {
        self.replicas > 0 && self.serving >= self.replicas
    }

    /// Its pods become what they are to be, and serve.
    pub(crate) fn grow(&mut self, now: u64) {
        if !self.ready() {
            self.ready_since = now;
        }
        self.pods = self.pods.max(self.replicas);
        self.serving = self.pods;
    }

    /// Those that are too many end.
    pub(crate) fn shrink(&mut self) {
        self.pods = self.pods.min(self.replicas);
        self.serving = self.serving.min(self.pods);
    }

    /// None of them serves any more.
    pub(crate) fn falls(&mut self) {
        self.serving = 0;
        self.breaks += 1;
    }

    /// Somebody scales it. What is more than it has has to get ready first.
    pub(crate) fn scale(&mut self, replicas: u8) {
        let was = self.ready();
        self.replicas = replicas;
        self.version += 1;
        self.breaks += u8::from(was && !self.ready());
    }

    pub(crate) fn state(&self, version: &str, ready_since: Option<u64>) -> VersionState {
        let strength = Strength { asked: self.replicas.into(), serving: self.serving.into() };
        let ending = if self.replicas == 0 && self.pods > 0 { vec![format!("{version}-0")] } else { vec![] };
        VersionState {
            declared: true,
            running: self.replicas > 0 || self.pods > 0,
            ready: self.ready(),
            ready_since: ready_since.map(UnixMs),
            exists: true,
            stopped: self.replicas == 0,
            ending,
            workloads: BTreeSet::from([version.to_owned()]),
            strength: [(SERVICE.to_owned(), strength)].into(),
            kept_at: self.kept_at,
            ..VersionState::default()
        }
    }
}

/// All objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Api {
    pub(crate) flag: Flag,
    pub(crate) workloads: [Workload; 3],
    /// The configuration of proxies: its resource version, and the publication whose record it has.
    pub(crate) file: (u8, Option<u8>),
    /// The versions that a spec has named.
    pub(crate) named: [bool; 3],
}

/// Why a workload is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    Start,
    Stop,
}

/// A write, with the resource version that it is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Status(Kept, u8),
    Keep(usize, u64),
    Scale {
        of: usize,
        replicas: u8,
        version: u8,
        why: Why,
        by: Decision,
    },
    /// To the flag service of who decided it.
    Publish(u8),
    File(u8, u8),
}

impl Write {
    pub(crate) fn name(&self) -> String {
        match self {
            Write::Status(status, _) => format!("{:?}", status.status.phase),
            Write::Keep(of, _) => format!("keep {}", VERSIONS[*of]),
            Write::Scale { of, replicas, .. } => format!("{} to {replicas}", VERSIONS[*of]),
            Write::Publish(number) => format!("publish {number}"),
            Write::File(number, _) => format!("file {number}"),
        }
    }
}

/// The status by which something was decided, when, and since when who decided it had led.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Decision {
    pub(crate) status: Kept,
    pub(crate) at: u64,
    pub(crate) leads_since: u64,
}

/// Somebody else has written since.
#[derive(Debug)]
pub(crate) struct Conflict;

impl State {
    /// A write comes to the API server.
    pub(crate) fn land(&mut self, world: &Protocol, write: &Write) -> Result<(), Conflict> {
        let stale = |written: u8, known: u8| written != known && world.mutation != Some(Mutation::IgnoresVersions);
        match write {
            Write::Status(_, version) if stale(*version, self.api.flag.version) => return Err(Conflict),
            Write::File(_, version) if stale(*version, self.api.file.0) => return Err(Conflict),
            Write::Scale { of, version, .. } if stale(*version, self.api.workloads[*of].version) => {
                return Err(Conflict);
            }
            Write::Status(status, _) => self.write_status(status),
            Write::File(number, _) => self.api.file = (self.api.file.0 + 1, Some(*number)),
            Write::Keep(of, epoch) => {
                self.touch(*of, false);
                let workload = &mut self.api.workloads[*of];
                (workload.kept_at, workload.version) = (Some(*epoch), workload.version + 1);
            }
            Write::Scale { of, replicas, why, by, .. } => {
                match why {
                    Why::Start => self.check_start(world, *of, by),
                    Why::Stop => self.check_stop(world, *of, by),
                }
                self.touch(*of, *replicas == 0);
                let stopped = (*replicas == 0).then(|| by.status.status.epoch());
                self.api.workloads[*of].scale(*replicas);
                self.api.workloads[*of].stopped_at = stopped;
                self.stopped |= *replicas == 0;
            }
            Write::Publish(_) => {}
        }
        Ok(())
    }

    fn write_status(&mut self, status: &Kept) {
        let (before, after) = (&self.api.flag.status.status, &status.status);
        let falls = after.epoch() < before.epoch();
        let record = after.record.as_ref().map(|record| (record.epoch, record.hash.clone()));
        let known = record.as_ref().and_then(|(epoch, _)| self.written.get(epoch));
        let twice = record.as_ref().is_some_and(|(_, hash)| known.is_some_and(|known| known != hash));
        self.breaks_if(falls || twice, Law::TwoContents);
        self.written.extend(record);
        self.api.workloads[number(&after.active_version)].theirs = false;
        self.before = self.api.flag.clone();
        self.api.flag.status = status.clone();
        self.api.flag.version += 1;
    }

    /// A third version is somebody's until a spec names it, and whoever had it running keeps it until requests go there.
    fn touch(&mut self, of: usize, stops: bool) {
        let strange = !self.api.named[of] || (stops && self.api.workloads[of].theirs);
        self.breaks_if(strange, Law::ThirdVersion);
    }

    fn check_start(&mut self, world: &Protocol, of: usize, by: &Decision) {
        let (status, workload) = (&by.status.status, &self.api.workloads[of]);
        let since = workload.stopped_at.filter(|_| workload.replicas == 0);
        let goes = status.phase.before_flip() && status.target_version.as_deref() == Some(VERSIONS[of]);
        let back = goes || status.active_version == VERSIONS[of];
        // What broke the proof before the stop was seen is waited out with both of them there.
        let left = status.switch.as_ref().is_some_and(|switch| switch.from == VERSIONS[of]);
        // Of two that lead at once each undoes what the other one writes of the same epoch, the intent to stop among it.
        let alone = !world.both;
        let again = since.is_some_and(|epoch| !(back || left) || status.epoch() <= epoch);
        self.breaks_if(alone && again, Law::StoppedStays);
    }

    fn check_stop(&mut self, world: &Protocol, of: usize, by: &Decision) {
        let published = &self.published;
        let chooses = self
            .proxies
            .iter()
            .flat_map(|proxy| &proxy.vms)
            .any(|vm| vm.chooses(published) == Some(of) || vm.configured(published) == Some(of));
        let open = self.streams.iter().any(|(_, version)| *version == of);
        let back = |one: &u8| {
            let record = crate::proxy::record(published, *one);
            record.epoch > by.status.status.epoch() && number(&record.active) == of
        };
        let back = (0..published.len() as u8).any(|one| back(&one));
        let quiet = world.specs[0].settle.quiet_period.0;
        let early = self.now < self.used_at[of] + quiet || by.at < by.leads_since + quiet;
        self.breaks_if(back, Law::WayBack);
        self.breaks_if(chooses || open, Law::StillUsed);
        self.breaks_if(early, Law::Drain);
    }
}

/// What a status says that has to be on disk before it is acted on: all but what is seen again by whoever forgets it.
pub(crate) fn decided(status: &Status) -> Status {
    let mut decided = status.clone();
    decided.blocked = None;
    decided.history.clear();
    if let Some(switch) = &mut decided.switch {
        (switch.headroom_at, switch.ready_at, switch.promoted_at) = (None, None, None);
    }
    decided
}

/// Whether requests have just been led to another version.
pub(crate) fn flips(before: &Status, after: &Status) -> bool {
    before.record.is_some() && after.phase == Phase::Switching && before.active_version != after.active_version
}
