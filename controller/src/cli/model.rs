//! One flag as people are shown it, whichever way it was asked for. Pure.

use flag::ledger::{Laggard, Quiet};
use kube::ResourceExt;

use crate::kube::resource::{self, ResourceStatus, Role, VersionFlag};
use crate::observation::Workload;
use crate::service::FlagView;
use crate::status::{Phase, Status};

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
    pub(super) blocked: Option<Blocked>,
    pub(super) versions: Vec<Version>,
    pub(super) proxies: Proxies,
    /// What is known of the requests to the version that is left.
    pub(super) old: Option<Quiet>,
    /// What is waited for.
    pub(super) waiting: String,
    /// Whether what the spec asks for is so: `True`, `False` or `Unknown`.
    pub(super) ready: String,
    /// Unix milliseconds.
    pub(super) created: Option<u64>,
    /// Unix milliseconds of this view.
    pub(super) now: u64,
    /// What follows the name of a command that is about this flag.
    pub(super) at: String,
}

/// What keeps a flag from moving on.
#[derive(Debug, Clone)]
pub(super) struct Blocked {
    pub(super) reason: String,
    pub(super) message: String,
    /// Unix milliseconds.
    pub(super) since: Option<u64>,
}

/// One version.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) name: String,
    pub(super) role: &'static str,
    /// What is known of it.
    pub(super) state: String,
}

/// Who has to ack, and who did.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    pub(super) expected: usize,
    pub(super) acked: usize,
    /// Those that hold the flag up, or the first of them.
    pub(super) laggards: Vec<Laggard>,
}

impl Model {
    /// As the flag service has it.
    pub(super) fn of_view(view: &FlagView, at: &str) -> Model {
        let (status, fleet) = (&view.status, &view.fleet);
        let (namespace, name) = match view.name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, view.name.as_str()),
        };
        let versions = view.versions.iter().filter_map(|(name, workload)| {
            let active = *name == status.active_version;
            let totals = fleet.sent.get(name).copied().unwrap_or_default();
            if !active && !workload.running && totals.started == 0 {
                return None;
            }
            let role = match () {
                () if active => "● active",
                () if status.target_version.as_ref() == Some(name) => "○ target",
                () => "○ old",
            };
            let open = totals.open().map_or_else(|| "?".to_owned(), |open| open.to_string());
            let state = format!("{}  in flight {open}  {} requests", strength(workload), totals.started);
            Some(Version { name: name.clone(), role, state })
        });
        let serves = view.versions.get(&view.spec_version).is_some_and(|workload| workload.ready);
        let ready = serves && status.blocked.is_none() && status.active_version == view.spec_version;
        Model {
            namespace,
            name: name.to_owned(),
            spec_version: view.spec_version.clone(),
            status: Some(status.clone()),
            blocked: status.blocked.as_ref().map(|blocked| Blocked {
                reason: blocked.reason.clone(),
                message: blocked.message.clone(),
                since: Some(blocked.since),
            }),
            versions: versions.collect(),
            proxies: Proxies { expected: fleet.expected, acked: fleet.acked, laggards: status.phase.laggards(fleet) },
            old: Some(fleet.old),
            waiting: view.waiting.clone(),
            ready: if ready { "True" } else { "False" }.to_owned(),
            created: None,
            now: view.now,
            at: at.to_owned(),
        }
    }

    /// As the resource has it.
    pub(super) fn of_resource(flag: &VersionFlag, at: String, now: u64) -> Model {
        let none = ResourceStatus::default();
        let status = flag.status.as_ref().unwrap_or(&none);
        let machine = status.machine.as_ref();
        let count = |count: i32| usize::try_from(count).unwrap_or_default();
        let proxies = status.proxies.as_ref().map(|proxies| Proxies {
            expected: count(proxies.expected),
            acked: count(proxies.acked),
            laggards: proxies
                .laggards
                .iter()
                .map(|one| Laggard { proxy: one.proxy.clone(), why: one.why.clone() })
                .collect(),
        });
        let versions = status.versions.iter().filter(|version| version.role != Role::Other || version.replicas > 0);
        let versions = versions.map(|version| Version {
            name: version.name.clone(),
            role: role(version.role),
            state: state(version),
        });
        let created = flag.creation_timestamp().and_then(|time| u64::try_from(time.0.as_millisecond()).ok());
        Model {
            namespace: flag.namespace(),
            name: flag.name_any(),
            spec_version: flag.spec.version.clone(),
            status: machine.cloned(),
            blocked: blocked(status),
            versions: versions.collect(),
            proxies: proxies.unwrap_or_default(),
            old: None,
            waiting: waiting(status),
            ready: condition(status, "Ready").map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone()),
            created,
            now,
            at,
        }
    }

    /// The command that helps, or takes back.
    pub(super) fn advice(&self) -> Option<&'static str> {
        let status = self.status.as_ref()?;
        Some(match status.phase {
            _ if status.suspended => "resume",
            Phase::AwaitingPromotion => "promote",
            Phase::Coexisting | Phase::ProvingRoutes => "abort",
            // To take a rollback back is to try again what it took back.
            Phase::Switching | Phase::Settling | Phase::Retaining if status.r#override.is_some() => "retry",
            Phase::Switching | Phase::Settling | Phase::Retaining => "rollback",
            Phase::Stable if status.r#override.is_some() => "retry",
            _ => return None,
        })
    }
}

fn strength(workload: &Workload) -> String {
    match &workload.exited {
        Some(how) => format!("ended ({how})"),
        None if workload.ready => "ready".to_owned(),
        None if workload.running => "not ready".to_owned(),
        None => "stopped".to_owned(),
    }
}

fn state(version: &resource::Version) -> String {
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

fn role(role: Role) -> &'static str {
    match role {
        Role::Active => "● active",
        Role::Target => "○ target",
        Role::Old => "○ old",
        Role::Leftover => "○ leftover",
        Role::Other => "○ other",
    }
}

fn condition<'a>(
    status: &'a ResourceStatus,
    name: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status.conditions.iter().find(|condition| condition.type_ == name)
}

fn blocked(status: &ResourceStatus) -> Option<Blocked> {
    let message = status.blocked_by.clone()?;
    // What blocks is why it is not ready, in one word.
    let reason = condition(status, "Ready").map_or_else(|| "Blocked".to_owned(), |ready| ready.reason.clone());
    let machine = status.machine.as_ref().and_then(|machine| machine.blocked.as_ref());
    let since = machine.filter(|machine| machine.reason == reason).map(|machine| machine.since);
    Some(Blocked { reason, message, since })
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
        Some(Phase::Switching) => "Switched",
        Some(Phase::Settling) => "Settled",
        Some(Phase::Retaining | Phase::Removing) => "CleanedUp",
    };
    condition(status, next).map(|condition| condition.message.clone()).unwrap_or_default()
}
