//! Which flag has a host, a cluster, or the workload beside the proxy, where several claim it. A flag that was deleted
//! and made again is another one, and a proxy that lives through that knows both. Pure.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::Flag;
use crate::host;

type Owned = FxHashMap<Box<str>, Rc<Flag>>;

/// The owners of everything that requests are told apart by.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Also by clusters of Istio's that records name: none of these is a host.
    pub(super) hosts: Owned,
    /// By the clusters of versions that are not Istio's.
    pub(super) clusters: Owned,
    /// Those whose group the proxy stands beside: one for each service.
    pub(super) own: Vec<Rc<Flag>>,
}

impl Flag {
    /// How much its claim is worth: the flag service's complete list comes before the configuration's, and both before
    /// what nobody lists any more.
    fn listed(&self) -> (bool, bool) {
        (self.observed.listed.get(), self.config_epoch.is_some())
    }

    /// Whether it has what both claim: among flags that are listed alike the one that was written last.
    pub(super) fn outranks(&self, other: &Flag) -> bool {
        (self.listed(), self.record.epoch) > (other.listed(), other.record.epoch)
    }

    fn is(&self, other: &Flag) -> bool {
        self.record.uid == other.record.uid
    }
}

impl Owners {
    pub(super) fn of(flags: &[Rc<Flag>]) -> Owners {
        let mut owners = Owners::default();
        for flag in flags {
            flag.observed.owns_hosts.set(true);
            flag.observed.rival_epoch.set(0);
        }
        for flag in flags {
            owners.add(flag);
        }
        let over = |flag: &Rc<Flag>| owners.has_replaced(flag);
        if !flags.iter().any(over) {
            return owners;
        }
        let mut current = Owners::default();
        for flag in flags.iter().filter(|flag| !over(flag)) {
            current.add(flag);
        }
        current
    }

    /// Whether the flag service lists another flag for something of this one, which it does not list: that one is over as
    /// a whole. What it still had would go to versions that nobody counts for it.
    fn has_replaced(&self, flag: &Rc<Flag>) -> bool {
        let other = |owner: Option<&Rc<Flag>>| owner.is_some_and(|one| !one.is(flag) && one.observed.listed.get());
        let mut hosts = flag.record.members.iter().flat_map(|member| &member.hosts);
        let mut clusters = flag.clusters.keys();
        !flag.observed.listed.get()
            && (hosts.any(|host| other(self.hosts.get(host.as_str())))
                || clusters.any(|one| other(self.clusters.get(one)) || other(self.hosts.get(one))))
    }

    fn add(&mut self, flag: &Rc<Flag>) {
        for member in &flag.record.members {
            for host in &member.hosts {
                claim(&mut self.hosts, host, flag, true);
            }
            if flag.near {
                claim(&mut self.hosts, &member.service, flag, false);
            }
        }
        for cluster in flag.clusters.keys() {
            let owned = if host::istio_host(cluster).is_some() { &mut self.hosts } else { &mut self.clusters };
            claim(owned, cluster, flag, false);
        }
        let Some(own) = &flag.own else { return };
        let same = |other: &&mut Rc<Flag>| other.own.as_ref().is_some_and(|other| other.service == own.service);
        match self.own.iter_mut().find(same) {
            None => self.own.push(Rc::clone(flag)),
            Some(other) if flag.outranks(other) => *other = Rc::clone(flag),
            Some(_) => {}
        }
    }

    /// Who has lost something since to a flag that is listed no less, and to which one.
    pub(super) fn lost_to(&self, now: &Owners) -> Vec<(Rc<Flag>, Rc<Flag>)> {
        let mut lost = Vec::new();
        let mut note = |old: &Rc<Flag>, new: &Rc<Flag>| {
            let known = |(one, other): &(Rc<Flag>, Rc<Flag>)| one.is(old) && other.is(new);
            if !old.is(new) && new.listed() >= old.listed() && !lost.iter().any(known) {
                lost.push((Rc::clone(old), Rc::clone(new)));
            }
        };
        for (before, now) in [(&self.hosts, &now.hosts), (&self.clusters, &now.clusters)] {
            for (name, old) in before {
                if let Some(new) = now.get(name) {
                    note(old, new);
                }
            }
        }
        lost
    }
}

/// A flag claims something; `host`: whoever does not have it is not in effect as a whole.
fn claim(owned: &mut Owned, name: &str, flag: &Rc<Flag>, host: bool) {
    if let Some(other) = owned.get(name).filter(|other| !other.is(flag)) {
        let wins = flag.outranks(other);
        let (winner, loser) = if wins { (flag, other) } else { (other, flag) };
        if host {
            loser.observed.owns_hosts.set(false);
            for (one, rival) in [(winner, loser), (loser, winner)] {
                let known = one.observed.rival_epoch.get();
                one.observed.rival_epoch.set(known.max(rival.record.epoch));
            }
        }
        if !wins {
            return;
        }
    }
    owned.insert(name.into(), Rc::clone(flag));
}
