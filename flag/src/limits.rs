//! Bounds on everything that is read from somebody else. Pure.

/// Bytes of a plugin configuration or a snapshot.
pub const SNAPSHOT_BYTES: usize = 1 << 20;
/// Bytes of a report.
pub const REPORT_BYTES: usize = 256 << 10;
/// Flags in one snapshot.
pub const FLAGS: usize = 1_000;
/// Services in one group.
pub const MEMBERS: usize = 32;
/// Hosts of one service.
pub const HOSTS: usize = 32;
/// Labels by which one service selects its pods.
pub const SELECTOR: usize = 32;
/// Versions that one flag names.
pub const VERSIONS: usize = 16;
/// Versions that one VM instance has counters of for one flag, those that are over included.
pub const COUNTED: usize = 32;
/// Clusters of one version of one service.
pub const CLUSTERS: usize = 16;
/// Different routes of requests that wait at one flag, in one VM instance.
pub const ROUTES: usize = 16;
/// Bytes of a version: a Kubernetes label value.
pub const VERSION_BYTES: usize = 63;
/// Bytes of any other name: host, service, cluster, uid, header.
pub const NAME_BYTES: usize = 253;
/// VM instances in one proxy: a worker each, with a second one while a new binary takes over.
pub const INSTANCES: u32 = 512;
/// Requests that one VM instance holds at a time.
pub const HELD: u64 = 8_192;
/// Those of them for one flag, and for the first answer.
pub const HELD_OF_FLAG: u64 = 4_096;
/// Bytes of a body that a held request may have: Envoy keeps them.
pub const HELD_BODY: u64 = 65_536;
/// Bytes of the bodies of all requests that one VM instance holds.
pub const HELD_BODIES: u64 = 64 << 20;
/// Requests that one VM instance releases at a time at first: each needs a connection that may have to be made, and one
/// that has ended leaves its own to the next.
pub const RELEASED_FIRST: u32 = 16;
/// The most at a time: one more for each that has ended, or goes on for longer than [`RELEASED_MS`], as a stream may for
/// ever. They may be the first on a connection of HTTP/2, where Envoy sends before it has heard how many a server takes at
/// once: no fewer than these, as RFC 9113 recommends, and what is more is refused.
pub const RELEASED: u32 = 100;
/// Milliseconds after which one that goes on makes room for the next. Longer keeps clients waiting at a gate that is open.
pub const RELEASED_MS: u64 = 250;
/// The longest that a fence may hold requests, in milliseconds.
pub const MAX_HOLD_MS: u32 = 60_000;
/// Addresses of callers without a filter that one VM instance tells apart.
pub const STRANGERS: usize = 8;
/// How far an epoch may be ahead of the clock, in milliseconds: a day.
pub const EPOCH_AHEAD_MS: u64 = 86_400_000;
/// The highest epoch that is believed, in Unix milliseconds: in the year 2200.
pub const EPOCH_MAX: u64 = 7_258_118_400_000;
/// Milliseconds that a proxy may be asked to wait between two reports.
pub const REPORT_EVERY_MS: std::ops::RangeInclusive<u32> = 20..=60_000;
