//! `switch.mode: Fenced` on real Envoys: two versions never have a request open at the same time. Every request of the
//! load is checked, and the backends say when each was open.
//!
//! | module | the fence |
//! | --- | --- |
//! | [`flips`] | under load, beside a flip without one |
//! | [`crowd`] | with ten thousand requests that wait, some of whose clients leave |
//! | [`trees`] | with calls that leave the group and come back |
//! | [`ends`] | whose controller ends, or stands still |
//! | [`trapped`] | where the filter of a proxy fails |
//! | [`updated`] | while the proxies get another configuration, binary and listener |

mod crowd;
mod ends;
mod flips;
mod trapped;
mod trees;
mod updated;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use harness::Call;
use harness::client::Answer;
use tokio::task::JoinSet;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// So many requests at once, which are answered when they go on.
fn calls(to: SocketAddr, count: usize) -> JoinSet<Result<Answer>> {
    let call = Call::get(to, "/").host("reviews").limit(LIMIT);
    (0..count).map(|_| call.clone()).map(|call| async move { call.send().await }).collect()
}
