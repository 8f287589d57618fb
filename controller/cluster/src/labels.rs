//! Whether labels are those that are wanted. Pure.

use std::collections::BTreeMap;

/// Whether all wanted labels are there, with their values. Where none is wanted, any fit.
pub fn match_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
