//! Since when a version has been ready without a break. What happened between two looks is known from what its pods
//! count: restarts of their containers, and when they were ready last. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use machine::time::UnixMs;

use crate::pods;

/// What changes in the life of one pod whenever it was not ready: how often its containers were started again, and
/// when it got ready last. The time is another machine's: it is only compared with itself.
type Life = (i32, Option<String>);

/// How steady one version is, as far as this process has seen it.
#[derive(Debug, Clone, Default)]
pub struct Steadiness {
    since: Option<UnixMs>,
    lives: BTreeMap<String, Life>,
}

impl Steadiness {
    /// Takes in a look at a version, and says since when it has been ready.
    pub fn take<'a>(&mut self, now: UnixMs, ready: bool, pods: impl Iterator<Item = &'a Pod>) -> Option<UnixMs> {
        let lives: BTreeMap<String, Life> = pods.map(|pod| (pod.uid().unwrap_or_default(), life(pod))).collect();
        let broken = lives.iter().any(|(uid, life)| self.lives.get(uid).is_some_and(|before| before != life));
        self.lives = lives;
        self.since = if !ready {
            None
        } else if broken {
            Some(now)
        } else {
            self.since.or(Some(now))
        };
        self.since
    }
}

fn life(pod: &Pod) -> Life {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let restarts = containers.map(|container| container.restart_count).fold(0, i32::saturating_add);
    let ready = pods::readiness(pod).and_then(|ready| ready.last_transition_time.as_ref());
    (restarts, ready.map(|time| time.0.to_string()))
}
