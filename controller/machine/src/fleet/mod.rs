//! What the proxies together say, from their reports. Pure.
//!
//! | module | decides |
//! | --- | --- |
//! | [`ledger`] | who acked, and who lags |
//! | [`fence`] | whether requests are held everywhere, and nothing is open on the version that is left |
//! | [`counted`] | how many requests were sent to each version: a number that never falls |
//! | `proxy` | what is known of one proxy, over its boots |
//! | `quiet` | whether the old version is quiet |
//! | `reached` | whether a proxy reaches the version that is gone to, and since when |
//! | [`traffic`] | how many requests a version gets lately, and for how long two versions got new ones |
//! | [`unmanaged`] | who comes to the old version past all filters, and how often |

pub mod counted;
pub mod fence;
pub mod ledger;
mod proxy;
mod quiet;
mod reached;
pub mod traffic;
pub mod unmanaged;
