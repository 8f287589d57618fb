//! The flag service: what proxies and people talk to, and what the drivers of the state machine share with it.
//! I/O: HTTP, with TLS or without; the clock.
//!
//! A driver publishes records and shows flags at the [`Hub`], and takes reports and requests from there. Nothing in
//! this crate decides what happens to a flag, nothing in it is persisted, and no lock is held while anything is
//! awaited.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`hub`] | owns what the flag service and a driver share, and wakes the driver | clock |
//! | [`pollers`] | who polls, and is woken by what concerns it | |
//! | [`publications`] | which record each proxy is sent, and its snapshot | |
//! | [`reports`] | the reports that were taken in, what they say together, and who has reported | clock |
//! | `refused` | proxies that are not believed, for people to see | |
//! | [`flip_times`] | where the milliseconds of each flag's last flip went | clock |
//! | [`requests`] | requests and orders by hand that wait for the driver | |
//! | [`views`] | what is shown of each flag | |
//! | [`readiness`] | whether proxies can be served | files |
//! | [`endpoints`] | the HTTP API: snapshot, report, requests, orders, status, readyz, metrics | HTTP |
//! | [`metrics`] | what `GET /metrics` shows | |
//! | [`authenticator`] | who may speak for a proxy | |
//! | [`reviews`] | what is remembered of tokens that somebody else reviews | |
//! | [`spiffe`] | whose a certificate of the mesh is | |
//! | `in_use` | whether a connection is in use | clock |
//! | [`peers`] | how many connections each address has | |
//! | [`server`] | connections: how many, and for how long without a request | TCP, limits |
//! | [`tls`] | mutual TLS, by certificates that others renew | files, TLS |
//! | [`http`] | one exchange with somebody else, bounded in bytes and in time | HTTP |
//! | [`check_runner`] | asks the checks' questions, and remembers the last answers | HTTP, clock |
//! | [`check_hosts`] | which hosts checks may ask | |
//! | [`audit`] | the audit log: one JSON object a line for each change | files |
//! | [`clock`], [`id`], [`lock`] | the time, ids that nobody else has, locks whose holder may have panicked | clock, files |
//! | [`failpoint`] | where tests let the process end or stop | environment |

pub mod audit;
mod authenticator;
pub mod check_hosts;
pub mod check_runner;
pub mod clock;
mod endpoints;
pub mod failpoint;
mod fences;
pub mod flip_times;
pub mod http;
mod hub;
pub mod id;
mod in_use;
pub mod lock;
mod metrics;
mod pages;
pub mod peers;
mod pollers;
mod publications;
mod readiness;
mod refused;
mod reports;
mod requests;
pub mod reviews;
mod server;
pub mod spiffe;
pub mod tls;
mod views;

pub use authenticator::{AddressCheck, Authenticator, TokenReviewer};
pub use endpoints::{OrderBody, RequestAccepted, RequestBody, is_asked_by_own_name, router, routes};
pub use fences::Fences;
pub use flip_times::{FlipTimes, Spread};
pub use hub::{Hub, LEAVING};
pub use metrics::ApiRequests;
pub use readiness::Readiness;
pub use reports::Reports;
pub use requests::RequestQueue;
pub use server::{Limits, Server, serve, serve_within};
pub use views::FlagView;
