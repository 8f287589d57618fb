//! What both models are made of: a status and a publication that can be told apart quickly, and chance.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use machine::publication::Publication;
use machine::status::Status;

pub(crate) fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A status. What happened is of no consequence for what is decided, and is left out.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) status: Arc<Status>,
    hash: u64,
}

impl Kept {
    pub(crate) fn new(mut status: Status) -> Kept {
        status.history.clear();
        let hash = hash(&serde_json::to_string(&status).unwrap());
        Kept { status: Arc::new(status), hash }
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Kept {}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// What a controller published, and what it is told from others by.
#[derive(Debug, Clone)]
pub(crate) struct Published(pub(crate) Arc<Publication>, pub(crate) u64);

impl Published {
    pub(crate) fn new(publication: Publication) -> Published {
        let fence = publication.fence.as_ref();
        let fence = fence.map(|fence| (fence.epoch, fence.since, &fence.old, &fence.marked, &fence.closed));
        let probe = publication.probe.as_ref().map(|probe| &probe.id);
        let hash = hash(&(&publication.record.hash, fence, probe));
        Published(publication.into(), hash)
    }
}

impl PartialEq for Published {
    fn eq(&self, other: &Published) -> bool {
        self.1 == other.1
    }
}

impl Eq for Published {}

impl Hash for Published {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.1.hash(state);
    }
}

/// A generator of numbers that look like chance.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides.max(1)) as usize
    }

    /// One of so many, by weight.
    pub(crate) fn choose(&mut self, weights: impl Iterator<Item = u64> + Clone) -> usize {
        let mut left = self.roll(weights.clone().sum()) as u64;
        let hit = |weight| {
            let hit = left < weight;
            left = left.saturating_sub(weight);
            hit
        };
        weights.map(hit).position(|hit| hit).unwrap_or(0)
    }
}
