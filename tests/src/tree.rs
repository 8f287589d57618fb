//! What `versionflag status` draws, read again. Pure.

use anyhow::{Context, Result, bail};

/// The requests a second, and those in flight, in the line that begins so.
pub fn rate(tree: &str, line: &str) -> Result<(f64, u64)> {
    let unread = || tree.to_owned();
    let found = tree.lines().find(|one| one.starts_with(line)).with_context(unread)?;
    let words: Vec<&str> = found.split_whitespace().collect();
    let Some([rate, "rps", "in", "flight", open]) = words.last_chunk() else { bail!("{tree}") };
    Ok((rate.parse().with_context(unread)?, open.parse().with_context(unread)?))
}
