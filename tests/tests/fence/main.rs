//! `switch.mode: Fenced` on real Envoys: two versions never have a request open at the same time. Every request of the
//! load is checked, and the backends say when each was open.
//!
//! | module | the fence |
//! | --- | --- |
//! | [`flips`] | under load, beside a flip without one |
//! | [`crowd`] | with ten thousand requests that wait, some of whose clients leave |
//! | [`trees`] | with calls that leave the group and come back |
//! | [`trapped`] | where the filter of a proxy fails |
//! | [`updated`] | while the proxies get another configuration, binary and listener |

mod crowd;
mod flips;
mod trapped;
mod trees;
mod updated;

use std::time::Duration;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
