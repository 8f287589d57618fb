//! Versions as Deployments and StatefulSets of a Kubernetes cluster.
//!
//! | module | job | I/O |
//! | --- | --- | --- |
//! | [`resource`] | the custom resource, and its status as people read it | none |

pub mod resource;
