//! The controller of versionflag: a pure state machine, and the adapters around it.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`spec`], [`span`], [`quantity`] | what an operator asks for | none |
//! | [`status`] | everything that is remembered | none |
//! | [`observation`] | what is seen of the world in one pass | none |
//! | [`mod@step`] | the state machine: spec, status and observation to a plan | none |
//! | [`service`] | the flag service: snapshots, reports, requests, metrics | HTTP |
//! | [`envoy`] | what Envoy reads from files | none |
//! | [`local`] | versions as processes of this machine, Envoy configured by a file | files, processes |
//! | [`kube`] | versions as Deployments and StatefulSets of a Kubernetes cluster | in part |
//! | [`audit`] | one line of JSON for everything that happens | a file |
//! | [`checks`] | what checks ask, and what the answers mean | HTTP |
//! | [`cli`] | the command line | terminal, HTTP, the Kubernetes API |
//! | `fault` | where tests let the process die | environment |

pub mod audit;
pub mod checks;
pub mod cli;
pub mod envoy;
mod fault;
pub mod kube;
pub mod local;
pub mod observation;
pub mod quantity;
pub mod service;
pub mod span;
pub mod spec;
pub mod status;
pub mod step;
