//! Versions as Deployments and StatefulSets of a Kubernetes cluster.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`resource`] | the custom resource, and its status as people read it | none |
//! | [`reading`] | a flag as it was read, or why it cannot be | none |
//! | [`workloads`], `version_group`, [`scaled_object`], [`pods`] | which workloads belong to which version, and how strong they are | none |
//! | `services`, `endpoints` | whether versions of a Service can be switched, and which pods it leads to | none |
//! | [`left`] | what belongs to the version that a switch leaves | none |
//! | [`mod@status`], `conditions` | the status of the resource, from what is remembered and seen | none |
//! | [`steadiness`] | since when a version has been ready without a break | none |
//! | [`field_managers`] | who else writes the number of pods | none |
//! | [`headroom`] | whether the nodes and the quotas have room for more pods | none |
//! | [`proxies`], `liveness` | who has to ack, until when | none |
//! | [`labels`] | whether labels are those that are wanted | none |
//! | [`names`] | names that the controller and Istio give to things | none |
//! | [`domain`] | how a cluster names its Services | none |
//! | [`hosts`] | which flags name a host that another one has | none |
//! | [`heard`] | when the API server last answered a watch of each kind | none |
//! | [`alias`] | Services that are another name of a flag's | none |
//! | [`consent`] | whether other namespaces let a flag have their callers and hosts | none |
//! | [`index`], [`prune`] | what is kept of the objects, by namespace | none |
//! | [`cache`] | what the cluster holds, kept current | API |
//! | [`api_requests`] | counts what is asked of the API server, and hears which watches it answers | none |
//! | [`writer`] | everything that is written to it | API |
//! | [`mod@lease`] | which replica acts | API |
//! | `stalled` | tells people of flags that cannot be read | API |
//! | [`driver`], `turns`, `work_queue`, `reconciler` | observe, step, persist, act, where something may have changed | API |
//! | [`identity`] | which pod a request comes from | API |
//! | [`istio`] | routes and plugins of Istio | in part |
//! | [`gateway_api`] | routes of the Gateway API | none |
//! | [`listener`] | where the flag service listens | sockets |
//! | [`leader`] | where proxies find the controller that leads | none |

pub mod alias;
pub mod api_requests;
pub mod cache;
mod conditions;
pub mod consent;
mod context;
pub mod domain;
pub mod driver;
mod endpoints;
#[cfg(test)]
#[path = "tests/fake_api.rs"]
mod fake_api;
pub mod field_managers;
pub mod gateway_api;
pub mod headroom;
pub mod heard;
pub mod hosts;
pub mod identity;
pub mod index;
pub mod istio;
pub mod labels;
pub mod leader;
pub mod lease;
pub mod left;
pub mod listener;
mod liveness;
pub mod names;
pub mod pods;
mod providers;
pub mod proxies;
pub mod prune;
mod readiness;
pub mod reading;
mod reconciler;
pub mod resource;
pub mod scaled_object;
pub mod service_facts;
mod services;
mod stalled;
pub mod status;
pub mod steadiness;
mod turns;
mod version_group;
mod work_queue;
pub mod workloads;
pub mod writer;
