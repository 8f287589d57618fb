//! What is remembered of tokens that somebody else reviews: each is asked about once in a while, whatever the answer
//! was, and few at a time. I/O: only what the question does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::lock::lock;

/// Reviews at the same time.
const AT_ONCE: usize = 16;
/// Tokens that are remembered.
const REMEMBERED: usize = 16_384;

/// How long answers are remembered.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// That a token is of a proxy.
    pub believed: Duration,
    /// That it is not.
    pub refused: Duration,
    /// That nobody could say.
    pub unanswered: Duration,
}

/// What a review came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Review {
    /// The token is that of this proxy.
    Of(String),
    /// It is of none: why.
    Refused(String),
    /// Nobody could say: why.
    Unanswered(String),
}

/// The answer on one token; `None`: nobody has asked.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Review)>>>;

/// The reviews of all tokens.
#[derive(Debug)]
pub struct Reviews {
    memory: Memory,
    room: Semaphore,
    /// By the SHA-256 of the token.
    slots: Mutex<HashMap<[u8; 32], Slot>>,
}

impl Reviews {
    /// Nothing is known yet.
    pub fn new(memory: Memory) -> Reviews {
        Reviews { memory, room: Semaphore::new(AT_ONCE), slots: Mutex::default() }
    }

    /// The proxy of a token. Who asks about one that is asked about waits for the same answer.
    pub async fn review<F>(&self, token: &str, ask: impl FnOnce() -> F) -> Result<String, String>
    where
        F: Future<Output = Review>,
    {
        let slot = self.slot(Sha256::digest(token.as_bytes()).into());
        let mut known = slot.lock().await;
        let review = match known.as_ref().filter(|(at, review)| self.holds(*at, review)) {
            Some((_, review)) => review.clone(),
            None => {
                // Nobody closes it.
                let _room = self.room.acquire().await.map_err(|error| error.to_string())?;
                let review = ask().await;
                *known = Some((Instant::now(), review.clone()));
                review
            }
        };
        match review {
            Review::Of(proxy) => Ok(proxy),
            Review::Refused(why) | Review::Unanswered(why) => Err(why),
        }
    }

    fn holds(&self, at: Instant, review: &Review) -> bool {
        let memory = match review {
            Review::Of(_) => self.memory.believed,
            Review::Refused(_) => self.memory.refused,
            Review::Unanswered(_) => self.memory.unanswered,
        };
        at.elapsed() < memory
    }

    /// Where the answer is. Where too many are remembered those go first that are out of date, and then all refusals:
    /// anybody can make up tokens.
    fn slot(&self, key: [u8; 32]) -> Slot {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(&key) {
            return Arc::clone(slot);
        }
        // What is asked about now is locked.
        let known = |slot: &Slot| slot.try_lock().map_or(None, |known| known.clone());
        let asked = |slot: &Slot| slot.try_lock().is_err();
        if slots.len() >= REMEMBERED {
            slots.retain(|_, slot| asked(slot) || known(slot).is_some_and(|(at, review)| self.holds(at, &review)));
        }
        if slots.len() >= REMEMBERED {
            slots.retain(|_, slot| {
                asked(slot) || known(slot).is_some_and(|(_, review)| matches!(review, Review::Of(_)))
            });
        }
        let slot = Slot::default();
        if slots.len() < REMEMBERED {
            slots.insert(key, Arc::clone(&slot));
        }
        slot
    }

    /// How many tokens are remembered.
    pub fn remembered(&self) -> usize {
        lock(&self.slots).len()
    }
}
