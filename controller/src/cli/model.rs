//! One flag as people are shown it, whichever way it was asked for. Pure.

use kube::ResourceExt;
use machine::fleet::ledger::{Laggard, Quiet};
use machine::fleet::traffic::Flow;

use cluster::resource::{self, ResourceStatus, VersionFlag, VersionRole, unix_ms};
use machine::checks::{CheckAnswers, Verdict};
use machine::observation::VersionState;
use machine::plan::{Upcoming, upcoming};
use machine::spec::Percent;
use machine::status::{Phase, Status};
use machine::time::UnixMs;
use service::FlagView;

/// One flag.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// In a cluster.
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// The version that the spec asks for.
    pub(super) spec_version: String,
    /// What the controller remembers; `None`: it has not looked at the flag yet.
    pub(super) status: Option<Status>,
    pub(super) blocked: Option<Blocker>,
    pub(super) versions: Vec<VersionRow>,
    pub(super) proxies: ProxiesRow,
    /// Proxies that ask for the flag and are not believed.
    pub(super) refused: Vec<Laggard>,
    /// What is asked about the new version now.
    pub(super) checks: Vec<Checked>,
    /// For how long both versions of the switch got new requests, in milliseconds, as far as it was seen.
    pub(super) overlap: Option<u64>,
    /// What is done after what is waited for.
    pub(super) next: Option<Upcoming>,
    /// What is known of the requests to the version that is left.
    pub(super) old: Option<Quiet>,
    /// What is waited for.
    pub(super) waiting: String,
    /// Whether what the spec asks for is so: `True`, `False` or `Unknown`.
    pub(super) ready: String,
    /// Whether this is of the spec as it is now, as far as the resource says.
    pub(super) is_current: bool,
    /// When the resource was made.
    pub(super) created: Option<UnixMs>,
    /// When this view is of.
    pub(super) now: UnixMs,
    /// What follows the name of a command that is about this flag.
    pub(super) at: String,
}

/// What keeps a flag from moving on.
#[derive(Debug, Clone)]
pub(super) struct Blocker {
    pub(super) reason: String,
    pub(super) message: String,
    /// Since when it has been so.
    pub(super) since: Option<UnixMs>,
}

/// One version.
#[derive(Debug, Clone)]
pub(super) struct VersionRow {
    pub(super) name: String,
    pub(super) role: &'static str,
    /// What is known of it.
    pub(super) state: String,
    /// What is known of its requests, which changes all the time.
    pub(super) requests: String,
    /// When it is started again, if it waits for that.
    pub(super) next_start: Option<UnixMs>,
    /// What people should know of it, in sentences.
    pub(super) notes: Vec<String>,
}

/// Who has to ack, and who did.
#[derive(Debug, Clone, Default)]
pub(super) struct ProxiesRow {
    pub(super) expected: usize,
    pub(super) acked: usize,
    /// Those that hold the flag up, or the first of them.
    pub(super) laggards: Vec<Laggard>,
}

/// One check.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) mark: char,
    /// The numbers.
    pub(super) message: String,
}

impl Model {
    /// As the flag service has it.
    pub(super) fn of_view(view: &FlagView, at: &str) -> Model {
        let (status, fleet) = (&*view.status, &view.fleet);
        let (namespace, name) = match view.name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, view.name.as_str()),
        };
        let versions = view.versions.iter().filter_map(|(name, workload)| {
            let active = *name == status.active_version;
            let never = view.traffic.versions.get(name).is_none_or(|flow| flow.started == 0);
            let unmoved = workload.next_start.is_none() && workload.barred.is_none();
            let ordered = status.halted.contains(name) || status.restarts.contains_key(name);
            if !active && !workload.running && never && unmoved && !ordered {
                return None;
            }
            let role = match () {
                () if active => "● active",
                () if status.target_version.as_ref() == Some(name) => "○ target",
                () => "○ old",
            };
            let requests = requests(view, name);
            let mut notes = workload.notes.clone();
            // Nobody starts what was given up again.
            let switched = status.switch.as_ref().is_some_and(|switch| [&switch.from, &switch.to].contains(&name));
            let next_start = workload.next_start.filter(|_| active || switched);
            let restarts = status.restarts.contains_key(name);
            notes.extend(restarts.then(|| format!("{name} is being started anew, as was asked for")));
            let halted = status.halted.contains(name);
            notes.extend(halted.then(|| {
                let restart = format!("`versionflag restart {at} --version {name}`");
                format!("{name} was stopped by request, until {restart} or a switch")
            }));
            Some(VersionRow { name: name.clone(), role, state: strength(workload), requests, next_start, notes })
        });
        let serves = view.versions.get(&view.spec_version).is_some_and(|workload| workload.ready);
        let acked = fleet.acked >= fleet.expected;
        let ready = serves && acked && status.blocked.is_none() && status.active_version == view.spec_version;
        Model {
            namespace,
            name: name.to_owned(),
            spec_version: view.spec_version.clone(),
            status: Some(status.clone()),
            blocked: status.blocked.as_ref().map(|blocked| Blocker {
                reason: blocked.reason.name().to_owned(),
                message: blocked.message.clone(),
                since: Some(blocked.since),
            }),
            versions: versions.collect(),
            proxies: proxies(view),
            refused: view.refused.clone(),
            checks: checks(&view.checks),
            overlap: overlap(view),
            next: view.next.clone(),
            old: Some(fleet.old),
            waiting: view.waiting.clone(),
            ready: if ready { "True" } else { "False" }.to_owned(),
            is_current: true,
            created: None,
            now: view.now,
            at: at.to_owned(),
        }
    }

    /// As the resource has it, with what the flag service knows besides, if it was asked.
    pub(super) fn of_resource(flag: &VersionFlag, live: Option<&FlagView>, at: String, now: UnixMs) -> Model {
        let none = ResourceStatus::default();
        let status = flag.status.as_ref().unwrap_or(&none);
        let machine = status.machine.as_deref();
        let live = live.filter(|live| Some(&live.status.uid) == machine.map(|machine| &machine.uid));
        let count = |count: i32| usize::try_from(count).unwrap_or_default();
        let written = status.proxies.as_ref().map(|proxies| ProxiesRow {
            expected: count(proxies.expected),
            acked: count(proxies.acked),
            laggards: proxies
                .laggards
                .iter()
                .map(|one| Laggard { proxy: one.proxy.clone(), why: one.why.clone() })
                .collect(),
        });
        let versions =
            status.versions.iter().filter(|version| version.role != VersionRole::Other || version.replicas > 0);
        let versions = versions.map(|version| VersionRow {
            name: version.name.clone(),
            role: role(version.role),
            state: state(version),
            requests: live.map(|live| requests(live, &version.name)).unwrap_or_default(),
            next_start: None,
            notes: vec![],
        });
        let created = flag.creation_timestamp().map(|time| unix_ms(time.0));
        Model {
            namespace: flag.namespace(),
            name: flag.name_any(),
            spec_version: flag.spec.version.clone(),
            status: machine.cloned(),
            blocked: blocked(status),
            versions: versions.collect(),
            proxies: live.map(proxies).or(written).unwrap_or_default(),
            refused: live.map(|live| live.refused.clone()).unwrap_or_default(),
            checks: live.map_or_else(|| asked(status), |live| checks(&live.checks)),
            overlap: live.and_then(overlap).or(machine.and_then(|machine| machine.switch.as_ref()?.overlap_ms)),
            next: machine.and_then(|machine| upcoming(&flag.spec, machine)),
            old: live.map(|live| live.fleet.old),
            waiting: live.map_or_else(|| waiting(status), |live| live.waiting.clone()),
            ready: condition(status, "Ready").map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone()),
            is_current: status.observed_generation >= flag.metadata.generation,
            created,
            now,
            at,
        }
    }

    /// The command that helps, or takes back.
    pub(super) fn advice(&self) -> Option<&'static str> {
        self.status.as_ref()?.advice()
    }
}

/// Requests of a version by second and in flight, and the share that failed, each as far as it is known.
fn requests(view: &FlagView, version: &str) -> String {
    let (traffic, fleet) = (&view.traffic, &view.fleet);
    let listed = view.status.record.as_ref().is_some_and(|record| record.versions.contains(version));
    let flow = traffic.versions.get(version).copied();
    // The flag says nothing of it, and nobody counts it.
    if !listed && flow.is_none() {
        return String::new();
    }
    let flow = flow.unwrap_or(Flow { rated: traffic.known, ..Flow::default() });
    let known = |by: usize, text: String| match by {
        0 => "?".to_owned(),
        by if by < traffic.expected => format!("≥{text}"),
        _ => text,
    };
    let rate = if flow.per_second < 9.95 && flow.per_second > 0.0 { 1 } else { 0 };
    let rate = known(flow.rated, format!("{:.rate$}", flow.per_second));
    let open = known(traffic.known, flow.open.to_string());
    let answers = fleet.answers.get(version).filter(|answers| answers.count() > 0);
    let failed = answers.map_or_else(String::new, |answers| {
        let count = answers.count();
        let share = u128::from(answers.failed) * 1_000_000 / u128::from(count.max(1));
        format!("  {} 5xx of {count}", Percent(u32::try_from(share).unwrap_or(u32::MAX)))
    });
    format!("  {rate} rps  in flight {open}{failed}")
}

fn proxies(view: &FlagView) -> ProxiesRow {
    let fleet = &view.fleet;
    ProxiesRow { expected: fleet.expected, acked: fleet.acked, laggards: view.status.phase.laggards(fleet) }
}

fn checks(answers: &CheckAnswers) -> Vec<Checked> {
    let mark = |verdict: Verdict| match verdict {
        Verdict::Passed => '✔',
        Verdict::Failed => '✘',
        Verdict::Inconclusive => '?',
    };
    let checked = |(name, answer): (&String, &machine::checks::CheckAnswer)| Checked {
        name: name.clone(),
        mark: mark(answer.verdict),
        message: answer.message.clone(),
    };
    answers.iter().map(checked).collect()
}

/// The same, from the condition.
fn asked(status: &ResourceStatus) -> Vec<Checked> {
    let found = condition(status, "ChecksPassed").and_then(|found| {
        let mark = match found.reason.as_str() {
            "Passed" => '✔',
            "Failed" => '✘',
            "Inconclusive" => '?',
            _ => return None,
        };
        Some(Checked { name: String::new(), mark, message: found.message.clone() })
    });
    found.into_iter().collect()
}

/// Of the switch under way, or of the last one.
fn overlap(view: &FlagView) -> Option<u64> {
    let switch = view.status.switch.as_ref()?;
    let seen = view.fleet.overlap.as_ref().filter(|seen| seen.from == switch.from && seen.to == switch.to);
    switch.overlap_ms.or(seen.map(|seen| seen.ms))
}

fn strength(workload: &VersionState) -> String {
    match (&workload.barred, &workload.exited) {
        (Some(_), _) => "not started".to_owned(),
        (_, Some(how)) => format!("ended ({how})"),
        _ if workload.ready => "ready".to_owned(),
        _ if workload.running => {
            workload.lacks.as_ref().map_or_else(|| "not ready".to_owned(), |lacks| format!("not ready: {lacks}"))
        }
        _ => "stopped".to_owned(),
    }
}

fn state(version: &resource::VersionStatus) -> String {
    let mut state = match (version.replicas, version.ready) {
        (0, _) => "stopped".to_owned(),
        (replicas, true) => format!("ready  {replicas} replicas"),
        (replicas, false) => format!("not ready  {replicas} replicas"),
    };
    let others: Vec<&str> = version.autoscalers.iter().chain(&version.managers).map(String::as_str).collect();
    if !others.is_empty() {
        state.push_str(&format!("  also scaled by {}", others.join(", ")));
    }
    state
}

fn role(role: VersionRole) -> &'static str {
    match role {
        VersionRole::Active => "● active",
        VersionRole::Target => "○ target",
        VersionRole::Old => "○ old",
        VersionRole::Leftover => "○ leftover",
        VersionRole::Other => "○ other",
    }
}

fn condition<'a>(
    status: &'a ResourceStatus,
    name: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status.conditions.iter().find(|condition| condition.type_ == name)
}

fn blocked(status: &ResourceStatus) -> Option<Blocker> {
    let message = status.blocked_by.clone()?;
    // What blocks is why it is not ready, in one word.
    let reason = condition(status, "Ready").map_or_else(|| "Blocked".to_owned(), |ready| ready.reason.clone());
    let machine = status.machine.as_ref().and_then(|machine| machine.blocked.as_ref());
    let since = machine.filter(|machine| machine.reason.name() == reason).map(|machine| machine.since);
    Some(Blocker { reason, message, since })
}

/// The sentence of the condition that has to come true next.
fn waiting(status: &ResourceStatus) -> String {
    if let Some(message) = &status.blocked_by {
        return message.clone();
    }
    let next = match status.phase {
        None => return "the controller to look at it: check that it runs".to_owned(),
        Some(Phase::Stable) if condition(status, "Ready").is_some_and(|ready| ready.status == "True") => {
            return format!("nothing: {} serves", status.active_version.as_deref().unwrap_or_default());
        }
        Some(Phase::AwaitingPromotion) => return "a promotion".to_owned(),
        Some(Phase::Adopting | Phase::Stable) => "Ready",
        Some(Phase::Coexisting) if condition(status, "HeadroomAvailable").is_some_and(|room| room.status != "True") => {
            "HeadroomAvailable"
        }
        Some(Phase::Coexisting) => "TargetReady",
        Some(Phase::ProvingRoutes) => "RoutesReady",
        Some(Phase::Holding | Phase::Committing | Phase::Switching) => "Switched",
        Some(Phase::Settling) => "Settled",
        Some(Phase::Retaining | Phase::Removing) => "CleanedUp",
    };
    condition(status, next).map(|condition| condition.message.clone()).unwrap_or_default()
}
