//! How what crosses the wire grows. Pure.
//!
//! A document has parts: the first is what every build reads, and never changes; part N is what level N adds. Who
//! reads takes the parts that it knows and leaves the rest. A proxy names its level when it polls, and is sent no part
//! above it; it sends none that the service has not shown to know. In the data that the VM instances of a proxy share,
//! each part has a key of its own, so that two builds of the filter share one registry.
//!
//! The first part is read strictly, like every record: a field that is not understood may change where requests go,
//! so that who does not know it must not ack it. In the other parts what is not known is left out.

/// The highest level that is understood here. Level 2 added probes and strays.
pub const LEVEL: u32 = 2;

/// Between two parts: ASCII's record separator, which no JSON has.
const SEPARATOR: u8 = 0x1e;

/// The first part of a document, and the second.
pub fn parts(document: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = document.split(|byte| *byte == SEPARATOR);
    let first = parts.next().unwrap_or_default();
    (first, parts.next().filter(|part| !part.is_empty()))
}

/// A document of two parts.
pub fn joined(mut first: Vec<u8>, second: &[u8]) -> Vec<u8> {
    first.push(SEPARATOR);
    first.extend_from_slice(second);
    first
}
