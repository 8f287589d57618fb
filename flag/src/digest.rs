//! SHA-256 as hex digits: what tells contents and long names apart. Pure.

use sha2::{Digest, Sha256};

/// The first `count` bytes of the SHA-256 of `bytes`, two lower-case hex digits for each.
pub fn hex_prefix(bytes: &[u8], count: usize) -> String {
    Sha256::digest(bytes).iter().take(count).map(|byte| format!("{byte:02x}")).collect()
}
