//! Istio: routes as VirtualServices and DestinationRules, and the filter as a plugin.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`object`] | Istio's objects as they are read | none |
//! | [`routes`] | the routes that are written | none |
//! | `past` | how routes of others lead past the flag | none |
//! | [`rules`] | which DestinationRules proxies go by | none |
//! | [`check`] | whether the routes that are there let the flag decide | none |
//! | [`keys`] | what routes and rules are looked for by | none |
//! | [`plugin`] | the filter with the flags of a namespace | none |
//! | [`plugins`] | which plugins may not be as they have to be | none |
//! | [`watch`] | what the cluster holds of it, if it has it at all | API |
//! | [`mesh`] | writes what is not as it has to be | API |

pub mod check;
pub mod keys;
pub mod mesh;
pub mod object;
mod past;
pub mod plugin;
pub mod plugins;
pub mod routes;
pub mod rules;
pub mod watch;

use self::object::{Kind, MeshObject};
use crate::names::{MANAGED_BY, MANAGER};

/// Whether the controller wrote an object.
pub fn ours<K: Kind>(object: &MeshObject<K>) -> bool {
    object.label(MANAGED_BY) == Some(MANAGER)
}
