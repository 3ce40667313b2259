//! The limits of one fetch on time, memory and disk.
//!
//! They were measured with a branch of 10,000 units, which has 30,000 documents and an index of 5.3 MB. Its first fetch
//! receives a pack of 11.4 MB, writes a pack index of 0.8 MB, and reads all of it in less than a second; the process then has
//! 17 MB of private memory and 29 MB in all. Later fetches are far smaller: one that finds nothing new takes 5 ms and 10 MB.

use std::time::Duration;

/// The largest file that a fetch writes, in bytes: 256 MiB, for the pack of 100,000 units.
pub(super) const LARGEST_FILE: u64 = 256 << 20;
/// The most that all files of one fetch add, in bytes: 320 MiB, for a pack and its index.
pub(super) const MAX_ADDED_BYTES: u64 = 320 << 20;
/// The most that all fetches together bring into one copy, in bytes: 512 MiB. A larger copy is started afresh.
pub(super) const MAX_COPY_BYTES: u64 = 512 << 20;
/// The most private memory of the process, in bytes: 256 MiB.
pub(super) const MAX_PRIVATE_MEMORY: u64 = 256 << 20;
/// The most resident memory of the process and its children, in bytes: 512 MiB, because mapped files count as well.
pub(super) const MAX_RESIDENT_MEMORY: u64 = 512 << 20;
/// How long after its own deadline the process may still report that it reached it.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// The time between two measurements of the disk.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// The most bytes of a request: 64 KiB.
pub(super) const LARGEST_REQUEST: u64 = 64 << 10;
/// The most bytes of an answer: 64 KiB.
pub(super) const LARGEST_ANSWER: usize = 64 << 10;
/// The most characters of a server's message in an error, because a server can send any amount.
pub(super) const LONGEST_MESSAGE: usize = 2000;
