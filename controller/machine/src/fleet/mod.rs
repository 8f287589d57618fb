//! What the proxies together say, from their reports. Pure.
//!
//! | module | decides |
//! | --- | --- |
//! | [`ledger`] | who acked, and who lags |
//! | `quiet` | whether the old version is quiet |
//! | [`traffic`] | how many requests a version gets lately, and for how long two versions got new ones |
//! | [`unmanaged`] | who comes to the old version past all filters, and how often |

pub mod ledger;
mod quiet;
pub mod traffic;
pub mod unmanaged;
