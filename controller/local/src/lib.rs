//! Versions as processes of this machine, Envoy configured by a file. I/O: files, processes.
//!
//! | module | job |
//! | --- | --- |
//! | [`file`] | the file of the operator |
//! | [`schema`] | what may stand in it, for editors and for the page of fields |
//! | [`clusters`] | where proxies reach each version |
//! | [`wasm`] | what is wrong with the file of the filter |
//! | [`sources`] | the files and directories that have the flags of one controller |
//! | `clashes` | what two flags may not share |
//! | `edits` | what an edit of the files means for the flags |
//! | `missing` | flags that have not begun, and what waits for them |
//! | `validate` | what of the file is not valid |
//! | [`yaml`] | its text, and where in it something stands |
//! | [`store`] | the state file and its lock |
//! | [`process`] | one start of a version: what is remembered of it, and how it is done |
//! | [`supervisor`] | starting, adopting, finding again and stopping versions |
//! | `live` | what is known of a version beside the state file |
//! | `group` | all processes of a version, whatever became of them |
//! | `sockets` | who listens on an address |
//! | `adoption` | whether a version may be started, or runs already |
//! | `restarts` | when a version that ended is started again |
//! | `logs` | what versions print, in files of bounded size |
//! | [`log_reader`] | reads that, over all files, while it is written |
//! | [`probe`] | whether a version is ready |
//! | [`headroom`] | whether the machine has room for one more |
//! | [`files`] | the files that Envoy reads |
//! | `shared_files` | one writer of those, each made of the parts of several flags |
//! | `proxy_files` | what one flag has in them, and what they name of it |
//! | [`driver`] | turns of the state machines, and edits of the files |
//! | `world` | one flag of this machine: observe, persist, show, execute |

mod adoption;
mod clashes;
pub mod clusters;
pub mod driver;
mod edits;
pub mod file;
pub mod files;
mod group;
pub mod headroom;
mod live;
pub mod log_reader;
mod logs;
mod missing;
pub mod probe;
pub mod process;
mod proxy_files;
mod restarts;
pub mod schema;
mod shared_files;
mod sockets;
pub mod sources;
pub mod store;
pub mod supervisor;
#[cfg(test)]
mod testing;
mod validate;
pub mod wasm;
mod world;
pub mod yaml;
