//! For how long requests were open on two versions at once: backends note the begin and the end of every request by the
//! same clock. I/O: reads what they wrote.

use std::path::Path;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

use crate::dir::TestDir;

/// Microseconds of the machine's steady clock: the same in every process.
pub fn steady_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a steady clock");
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000
}

/// One request at a backend, in microseconds of [`steady_us`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// It came.
    pub begin_us: u64,
    /// Its answer was sent, or given up.
    pub end_us: u64,
}

impl Span {
    /// As a backend writes it, with the id of the request.
    pub fn line(self, id: &str) -> String {
        format!("{} {} {id}\n", self.begin_us, self.end_us)
    }
}

/// Those that a backend has written until now.
pub fn read(path: &Path) -> Result<Vec<Span>> {
    Ok(read_with_ids(path)?.into_iter().map(|(span, _)| span).collect())
}

/// The same of all backends whose names begin like this, those included that are gone.
pub fn read_all(dir: &TestDir, prefix: &str) -> Result<Vec<Span>> {
    let mut all = vec![];
    for path in dir.files(prefix, ".spans")? {
        all.extend(read(&path)?);
    }
    Ok(all)
}

/// The same with the id that Envoy gave each request.
pub fn read_with_ids(path: &Path) -> Result<Vec<(Span, String)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let span = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (begin, end, id) = (words.next()?, words.next()?, words.next()?);
        Some((Span { begin_us: begin.parse().ok()?, end_us: end.parse().ok()? }, id.to_owned()))
    };
    text.lines().map(|line| span(line).with_context(|| format!("no span: {line}"))).collect()
}

/// For how long all of these together, in milliseconds.
pub fn total_ms<'a>(spans: impl IntoIterator<Item = &'a Span>) -> f64 {
    spans.into_iter().map(|span| span.end_us - span.begin_us).sum::<u64>() as f64 / 1_000.0
}

/// When requests were open on both, in the order of time.
pub fn both(one: &[Span], other: &[Span]) -> Vec<Span> {
    let edges = |spans: &[Span], place: usize| {
        spans.iter().flat_map(move |span| [(span.begin_us, 1, place), (span.end_us, -1, place)]).collect::<Vec<_>>()
    };
    let mut all = [edges(one, 0), edges(other, 1)].concat();
    // What ends in the same microsecond as another one begins does not overlap with it.
    all.sort_unstable();
    let (mut open, mut since, mut found) = ([0_i64; 2], None, vec![]);
    for (at, by, place) in all {
        open[place] += by;
        match (open.iter().all(|count| *count > 0), since) {
            (true, None) => since = Some(at),
            (false, Some(begin_us)) => {
                found.push(Span { begin_us, end_us: at });
                since = None;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(all: &[(u64, u64)]) -> Vec<Span> {
        all.iter().map(|(begin_us, end_us)| Span { begin_us: *begin_us, end_us: *end_us }).collect()
    }

    #[test]
    fn what_overlaps() {
        type Spans<'a> = &'a [(u64, u64)];
        let cases: [(&str, Spans<'_>, Spans<'_>, Spans<'_>); 5] = [
            ("none", &[(1, 5)], &[], &[]),
            ("one after the other", &[(1, 5)], &[(5, 9)], &[]),
            ("inside", &[(1, 9)], &[(3, 5)], &[(3, 5)]),
            ("a gap", &[(1, 9)], &[(2, 3), (4, 5)], &[(2, 3), (4, 5)]),
            ("no gap", &[(1, 4), (3, 9)], &[(2, 6), (5, 7)], &[(2, 7)]),
        ];
        for (what, one, other, found) in cases {
            assert_eq!(both(&spans(one), &spans(other)), spans(found), "{what}");
            assert_eq!(both(&spans(other), &spans(one)), spans(found), "{what}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = crate::TestDir::new("spans");
        let all = spans(&[(1, 5), (2, 1_000_000)]);
        std::fs::write(dir.file("v1"), all.iter().map(|one| one.line("-")).collect::<String>()).unwrap();
        assert_eq!(read(&dir.file("v1")).unwrap(), all);
    }
}
