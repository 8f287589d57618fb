//! Routes of the Gateway API, which istiod brings to sidecars: an HTTPRoute for each port of a Service, and
//! a Service for each version.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`object`] | routes as they are read | none |
//! | [`routes`] | what is written | none |
//! | [`check`] | whether the routes that are there let the flag decide | none |

pub mod check;
pub mod object;
pub mod routes;
