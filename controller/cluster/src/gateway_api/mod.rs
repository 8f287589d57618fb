//! Routes of the Gateway API, which istiod brings to sidecars and gateways: an HTTPRoute for each port of a
//! Service and for each Gateway that leads there, and a Service for each version.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`object`] | routes as they are read | none |
//! | [`attach`] | to what each HTTPRoute is attached, and what is said of it | none |
//! | [`routes`] | what is written | none |
//! | [`check`] | whether the routes that are there let the flag decide | none |

pub mod attach;
pub mod check;
pub mod object;
pub mod routes;
