//! Tokens that somebody else reviews.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use service::reviews::{Memory, Review, Reviews};
use tokio::task::JoinSet;

const LONG: Duration = Duration::from_secs(60);

/// How often somebody was asked, and by how many at once at the most.
#[derive(Default)]
struct Asked {
    times: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Asked {
    async fn answer(&self, review: Review) -> Review {
        self.times.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        review
    }

    fn times(&self) -> usize {
        self.times.load(Ordering::SeqCst)
    }
}

fn remembering(refused: Duration) -> Reviews {
    Reviews::new(Memory { believed: LONG, refused, unanswered: Duration::ZERO })
}

// C15
#[tokio::test]
async fn a_bad_token_is_reviewed_once_for_a_while() {
    let (reviews, asked) = (Arc::new(remembering(LONG)), Arc::new(Asked::default()));
    let refused = || Review::Refused("it is none".to_owned());
    let mut all = JoinSet::new();
    for _ in 0..1_500 {
        let (reviews, asked) = (Arc::clone(&reviews), Arc::clone(&asked));
        all.spawn(async move { reviews.review("bad", || asked.answer(refused())).await });
    }
    assert!(all.join_all().await.iter().all(|one| *one == Err("it is none".to_owned())));
    assert_eq!(asked.times(), 1);
    reviews.review("bad", || asked.answer(refused())).await.unwrap_err();
    assert_eq!(asked.times(), 1);
    // What nobody could say is asked again, and so is what was refused long ago.
    for _ in 0..2 {
        reviews.review("late", || asked.answer(Review::Unanswered("no answer".to_owned()))).await.unwrap_err();
    }
    assert_eq!(asked.times(), 3);
    let short = remembering(Duration::ZERO);
    for _ in 0..2 {
        short.review("bad", || asked.answer(refused())).await.unwrap_err();
    }
    assert_eq!(asked.times(), 5);
}

// C15
#[tokio::test]
async fn few_tokens_are_reviewed_at_once() {
    let (reviews, asked) = (Arc::new(remembering(LONG)), Arc::new(Asked::default()));
    let mut all = JoinSet::new();
    for one in 0..200 {
        let (reviews, asked) = (Arc::clone(&reviews), Arc::clone(&asked));
        let good = Review::Of("web.shop".to_owned());
        all.spawn(async move { reviews.review(&format!("token-{one}"), || asked.answer(good)).await });
    }
    assert!(all.join_all().await.iter().all(|one| one.as_deref() == Ok("web.shop")));
    assert_eq!((asked.times(), asked.most.load(Ordering::SeqCst)), (200, 16));
}

// C15
#[tokio::test]
async fn tokens_that_are_made_up_leave_room_for_good_ones() {
    let reviews = remembering(LONG);
    let good = async || reviews.review("good", || async { Review::Of("web.shop".to_owned()) }).await;
    good().await.unwrap();
    for one in 0..20_000 {
        reviews.review(&format!("bad-{one}"), || async { Review::Refused(String::new()) }).await.unwrap_err();
    }
    assert!(reviews.remembered() <= 16_384, "{}", reviews.remembered());
    assert_eq!(reviews.review("good", || async { Review::Refused(String::new()) }).await.unwrap(), "web.shop");
}
