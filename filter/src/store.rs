//! What all VM instances of one proxy share: who lives, who polls, the snapshot, and each one's
//! part of the next report. Shared data and queues; hostcalls.
//!
//! Other filters use the same space: keys have a prefix, and whatever is read may be anything.

use flag::instance::{Instance, InstanceFindings};
use flag::json::{self, Read};
use flag::lease::Lease;
use flag::{level, limits, read_fields};
use serde::Serialize;

use crate::hostcalls::{self, Failure};

const REGISTRY: &str = "versionflag.1/registry";
const LEASE: &str = "versionflag.1/lease";
const SNAPSHOT: &str = "versionflag.1/snapshot";
const SNAPSHOT_2: &str = "versionflag.1/snapshot/2";
const REVISION: &str = "versionflag.1/revision";
const ROUND: &str = "versionflag.1/round";
const SERVES: &str = "versionflag.1/serves";

/// No proxy lives for as many rounds: a higher number is nobody's.
const MOST_ROUNDS: u64 = 1 << 48;

/// Tries of a compare-and-swap before it is left to the next tick.
const TRIES: u32 = 64;

/// A VM instance that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Live {
    pub(crate) id: u32,
    pub(crate) queue: u32,
}

read_fields! { Live { id: "id", queue: "queue" } }

/// The VM instances of the proxy.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Registry {
    /// Names this run of the proxy.
    pub(crate) boot: String,
    next: u32,
    /// In the order of their ids.
    pub(crate) live: Vec<Live>,
}

read_fields! { Registry { boot: "boot", next: "next", live: "live" } }

impl Registry {
    pub(crate) fn lists(&self, live: Live) -> bool {
        self.live.contains(&live)
    }
}

fn read<T: Read>(key: &str) -> (Option<T>, Option<u32>) {
    let (bytes, cas) = hostcalls::shared_data(key);
    let bytes = bytes.filter(|bytes| bytes.len() <= limits::SNAPSHOT_BYTES);
    (bytes.and_then(|bytes| json::parse(&bytes).ok()), cas)
}

fn write<T: Serialize>(key: &str, value: &T, cas: Option<u32>) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    hostcalls::set_shared_data(key, &bytes, cas)
}

pub(crate) fn registry() -> Option<Registry> {
    read_registry().0
}

/// The queue of an instance that is listed.
pub(crate) fn queue_of(id: u32) -> Option<u32> {
    registry()?.live.iter().find(|live| live.id == id).map(|live| live.queue)
}

/// One that no instance of this filter would write is none.
fn read_registry() -> (Option<Registry>, Option<u32>) {
    let (registry, cas) = read::<Registry>(REGISTRY);
    let possible = |it: &Registry| {
        let few = it.live.len() <= limits::INSTANCES as usize;
        !it.boot.is_empty() && few && it.live.is_sorted_by(|one, other| one.id < other.id) && it.next < u32::MAX
    };
    (registry.filter(possible), cas)
}

/// Adds this instance. `None`: too many others write at once, or there is no room; the next tick
/// tries again.
pub(crate) fn register(now_ns: u64, known: Option<Live>) -> Option<Live> {
    // An id is taken before its queue is registered: of two instances that register the same queue the
    // later one would be woken in place of the other.
    let mut taken: Option<(String, Live)> = None;
    for _ in 0..TRIES {
        let (registry, cas) = read_registry();
        let Some(mut registry) = registry else {
            // The very first write has nothing to compare with, so it may undo what another one wrote
            // meanwhile. That has another boot, to the nanosecond, and so other ids and queues: who is
            // no longer listed with its queue sees it on a tick, and registers again.
            let fresh = Registry { boot: format!("{now_ns:x}"), next: first_id(now_ns), ..Registry::default() };
            let _ = write(REGISTRY, &fresh, cas);
            continue;
        };
        // It only could not be read a moment ago.
        if let Some(live) = known.filter(|live| registry.lists(*live)) {
            return Some(Live { queue: listen(&registry.boot, live.id)?, ..live });
        }
        if registry.live.len() >= limits::INSTANCES as usize {
            return None;
        }
        match &taken {
            Some((boot, live)) if *boot == registry.boot => {
                let place = registry.live.partition_point(|other| other.id < live.id);
                registry.live.insert(place, *live);
                if write(REGISTRY, &registry, cas).is_ok() {
                    return Some(*live);
                }
            }
            _ => {
                let id = registry.next.checked_add(1)?;
                registry.next = id;
                if write(REGISTRY, &registry, cas).is_ok() {
                    let queue = listen(&registry.boot, id)?;
                    taken = Some((registry.boot, Live { id, queue }));
                }
            }
        }
    }
    None
}

/// Where the ids of a boot begin: each nanosecond has as many of its own as there may be instances.
fn first_id(now_ns: u64) -> u32 {
    (now_ns as u32).wrapping_mul(2 * limits::INSTANCES) >> 1
}

/// The queue of an instance. It wakes the plugin that registered last.
pub(crate) fn listen(boot: &str, id: u32) -> Option<u32> {
    hostcalls::register_queue(&format!("versionflag.1/{boot}/{id}")).ok()
}

/// Takes this instance away once it has nothing open.
pub(crate) fn deregister(id: u32) {
    for _ in 0..TRIES {
        let (Some(mut registry), cas) = read::<Registry>(REGISTRY) else { return };
        let before = registry.live.len();
        registry.live.retain(|live| live.id != id);
        if registry.live.len() == before || write(REGISTRY, &registry, cas).is_ok() {
            break;
        }
    }
    for key in [instance_key(id), findings_key(id)] {
        let _ = hostcalls::set_shared_data(&key, &[], None);
    }
}

pub(crate) fn lease() -> (Option<Lease>, Option<u32>) {
    read(LEASE)
}

/// False where another instance was faster.
pub(crate) fn write_lease(lease: Lease, cas: Option<u32>) -> bool {
    write(LEASE, &lease, cas).is_ok()
}

/// An instance that is listed, and that requests come to.
pub(crate) fn serving() -> Option<u32> {
    read(SERVES).0.filter(|id| queue_of(*id).is_some())
}

/// Says that requests come to this instance, unless another one is known.
pub(crate) fn serves(id: u32) {
    if serving().is_none() {
        let _ = write(SERVES, &id, None);
    }
}

pub(crate) fn revision() -> String {
    read(REVISION).0.unwrap_or_default()
}

/// With what level 2 adds, or added to another snapshot.
pub(crate) fn snapshot() -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    Some((hostcalls::shared_data(SNAPSHOT).0?, hostcalls::shared_data(SNAPSHOT_2).0))
}

/// The revision comes last: who sees it finds the snapshot.
pub(crate) fn publish(revision: &str, snapshot: &[u8]) -> Result<(), Failure> {
    let (first, second) = level::parts(snapshot);
    hostcalls::set_shared_data(SNAPSHOT_2, second.unwrap_or_default(), None)?;
    hostcalls::set_shared_data(SNAPSHOT, first, None)?;
    write(REVISION, &revision, None)
}

pub(crate) fn round() -> u64 {
    read(ROUND).0.filter(|round| *round < MOST_ROUNDS).unwrap_or_default()
}

pub(crate) fn begin_round(round: u64) -> Result<(), Failure> {
    write(ROUND, &round, None)
}

fn instance_key(id: u32) -> String {
    format!("versionflag.1/instance/{id}")
}

fn findings_key(id: u32) -> String {
    format!("versionflag.1/instance/{id}/2")
}

/// What answers the round comes last: who sees it finds the rest.
pub(crate) fn write_instance(instance: &Instance, findings: Option<&InstanceFindings>) -> Result<(), Failure> {
    if let Some(findings) = findings {
        write(&findings_key(instance.id), findings, None)?;
    }
    write(&instance_key(instance.id), instance, None)
}

pub(crate) fn findings<'a>(ids: impl Iterator<Item = &'a u32>) -> Vec<InstanceFindings> {
    ids.filter_map(|id| read::<InstanceFindings>(&findings_key(*id)).0.filter(|part| part.id == *id)).collect()
}

pub(crate) fn instances<'a>(ids: impl Iterator<Item = &'a u32>) -> Vec<Instance> {
    ids.filter_map(|id| read::<Instance>(&instance_key(*id)).0.filter(|instance| instance.id == *id)).collect()
}

/// Wakes another instance: says who woke it.
pub(crate) fn wake(queue: u32, from: u32) {
    // A queue that is gone belongs to an instance that is gone; the round shows it as missing.
    let _ = hostcalls::enqueue(queue, &from.to_le_bytes());
}

/// Wakes another instance, if it is listed.
pub(crate) fn wake_instance(id: u32, from: u32) {
    if let Some(queue) = queue_of(id) {
        wake(queue, from);
    }
}

/// Everybody who woke this instance since it looked last.
pub(crate) fn drain(queue: u32) -> Vec<u32> {
    std::iter::from_fn(|| hostcalls::dequeue(queue))
        .take(4 * limits::INSTANCES as usize)
        .filter_map(|bytes| Some(u32::from_le_bytes(bytes.as_slice().try_into().ok()?)))
        .collect()
}
