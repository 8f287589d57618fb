//! Versions as Deployments and StatefulSets of a Kubernetes cluster.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`resource`] | the custom resource, and its status as people read it | none |
//! | [`workloads`], [`pods`] | which workloads belong to which version, and how strong they are | none |
//! | [`mod@status`], `conditions` | the status of the resource, from what is remembered and seen | none |
//! | [`headroom`] | whether the nodes and the quotas have room for more pods | none |
//! | [`proxies`] | who has to ack | none |
//! | [`leader`] | where proxies find the controller that leads | none |

mod conditions;
pub mod headroom;
pub mod leader;
pub mod pods;
pub mod proxies;
pub mod resource;
pub mod status;
pub mod workloads;
