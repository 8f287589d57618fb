//! Since when a version has been ready without a break. What happened between two looks is known from what its pods
//! count: restarts of their containers, and when they were ready last. Where none of them was ready in both looks nobody
//! knows what was in between. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use machine::time::UnixMs;

use crate::pods;

/// What changes in the life of one pod whenever it was not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    restarts: i32,
    ready: bool,
    /// When it got ready last. The time is another machine's: it is only compared with itself.
    since: Option<String>,
}

/// How steady one version is, as far as this process has seen it.
#[derive(Debug, Clone, Default)]
pub struct Steadiness {
    since: Option<UnixMs>,
    lives: BTreeMap<String, Life>,
}

impl Steadiness {
    /// Takes in a look at a version, and says since when it has been ready. Its pods come by service, with how many of
    /// them may be missing.
    pub fn take<'a>(
        &mut self,
        now: UnixMs,
        ready: bool,
        services: impl Iterator<Item = (usize, &'a [Arc<Pod>])>,
    ) -> Option<UnixMs> {
        let (mut lives, mut broken) = (BTreeMap::new(), false);
        for (spare, pods) in services {
            let of = |pod: &Arc<Pod>| (pod.uid().unwrap_or_default(), life(pod));
            let changed = |pod: &Arc<Pod>| {
                let (uid, life) = of(pod);
                self.lives.get(&uid).is_some_and(|before| *before != life)
            };
            let stayed = |pod: &Arc<Pod>| {
                let (uid, life) = of(pod);
                life.ready && self.lives.get(&uid) == Some(&life)
            };
            // Whoever was away may have been so while all others were that are away now.
            let away = pods.iter().filter(|pod| changed(pod) || !pods::ready(pod)).count();
            broken |= pods.iter().any(changed) && away > spare;
            broken |= !pods.iter().any(stayed);
            lives.extend(pods.iter().map(of));
        }
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
    let ready = pods::readiness(pod);
    let since = ready.and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0.to_string());
    Life { restarts, ready: ready.is_some(), since }
}
