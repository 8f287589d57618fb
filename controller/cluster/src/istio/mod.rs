//! Istio: routes as VirtualServices and DestinationRules, and the filter as a plugin.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`object`] | Istio's objects as they are read | none |
//! | [`routes`] | the routes that are written | none |
//! | [`check`] | whether the routes that are there let the flag decide | none |
//! | [`plugin`] | the filter with the flags of a namespace | none |
//! | [`watch`] | what the cluster holds of it, if it has it at all | API |
//! | [`mesh`] | writes what is not as it has to be | API |

pub mod check;
pub mod mesh;
pub mod object;
pub mod plugin;
pub mod routes;
pub mod watch;

use self::object::MeshObject;
use crate::names::{MANAGED_BY, MANAGER};

/// Whether the controller wrote an object.
pub fn ours<K>(object: &MeshObject<K>) -> bool {
    object.label(MANAGED_BY) == Some(MANAGER)
}
