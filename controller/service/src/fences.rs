//! Which flags hold requests, and of which callers: fences that share callers go one after the other, or a request that
//! passes two of them would wait for both. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::lock::lock;

/// Who holds the requests of which proxies, by the uid of the flag.
#[derive(Debug, Default)]
pub struct Fences(Mutex<BTreeMap<String, Claim>>);

#[derive(Debug)]
struct Claim {
    name: String,
    callers: BTreeSet<String>,
}

impl Fences {
    /// Another flag than `uid` that holds requests of one of these proxies, by name.
    pub fn other(&self, uid: &str, callers: &BTreeSet<String>) -> Option<String> {
        other(&lock(&self.0), uid, callers)
    }

    /// Has the proxies for a flag, unless another one has one of them. One that has them already has these from now on.
    pub fn claim(&self, uid: &str, name: &str, callers: &BTreeSet<String>) -> bool {
        let mut all = lock(&self.0);
        let free = other(&all, uid, callers).is_none();
        if free {
            all.insert(uid.to_owned(), Claim { name: name.to_owned(), callers: callers.clone() });
        }
        free
    }

    /// A flag holds nothing any more.
    pub fn release(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }
}

fn other(all: &BTreeMap<String, Claim>, uid: &str, callers: &BTreeSet<String>) -> Option<String> {
    let mut others = all.iter().filter(|(of, claim)| of.as_str() != uid && !claim.callers.is_disjoint(callers));
    others.next().map(|(_, claim)| claim.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn fences_that_share_a_caller_go_one_after_the_other() {
        let fences = Fences::default();
        let (web, both, other) = (names(&["web"]), names(&["web", "edge"]), names(&["other"]));
        assert!(fences.claim("1", "reviews", &web) && fences.claim("1", "reviews", &both));
        assert!(!fences.claim("2", "ratings", &names(&["edge", "more"])));
        assert!(fences.claim("3", "details", &other));
        assert_eq!(fences.other("2", &both).as_deref(), Some("reviews"));
        assert_eq!((fences.other("1", &both), fences.other("2", &names(&["more"]))), (None, None));
        fences.release("1");
        assert!(fences.claim("2", "ratings", &both));
        assert_eq!(fences.other("1", &web).as_deref(), Some("ratings"));
    }
}
