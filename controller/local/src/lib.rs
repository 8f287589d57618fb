//! Versions as processes of this machine, Envoy configured by a file. I/O: files, processes.
//!
//! | module | job |
//! | --- | --- |
//! | [`file`] | the file of the operator |
//! | `validate` | what of the file is not valid |
//! | [`store`] | the state file and its lock |
//! | [`process`] | starting, finding again and stopping versions |
//! | [`probe`] | whether a version is ready |
//! | [`headroom`] | whether the machine has room for one more |
//! | [`files`] | the files that Envoy reads |
//! | [`driver`] | turns of the state machine, and edits of the file |
//! | `world` | one flag of this machine: observe, persist, show, execute |

pub mod driver;
pub mod file;
pub mod files;
pub mod headroom;
pub mod probe;
pub mod process;
pub mod store;
mod validate;
mod world;
