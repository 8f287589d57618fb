//! The program `versionflag`: its commands, over the crates that do the work.

pub mod cli;
