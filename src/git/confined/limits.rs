//! The limits of one fetch on memory and disk.
//!
//! They were measured with a branch of 10,000 units, which has 30,000 documents and an index of 5.3 MB. Its first fetch
//! receives a pack of 11.4 MB, writes a pack index of 0.8 MB, and reads all of it in less than a second; the process then has
//! 17 MB of private memory and 29 MB in all. Later fetches are far smaller: one that finds nothing new takes 5 ms and 10 MB.

use std::time::Duration;

use crate::git::fetch::Depth;

/// The largest file that a fetch writes, in bytes: 256 MiB.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;
/// The most that all files of one fetch add, in bytes: 320 MiB, for a pack and its index.
pub(super) const MAX_ADDED_BYTES: u64 = 320 << 20;
/// How long after its own deadline the process may still report that it reached it.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// The time between two measurements of the disk.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// The most bytes of a request: 64 KiB.
pub(super) const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// The most bytes of an answer: 64 KiB.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The most characters of a server's message in an error, because a server can send any amount.
pub(super) const MAX_MESSAGE_CHARACTERS: usize = 2000;

/// The most memory of one fetch, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryLimits {
    /// The private memory of the process.
    pub(super) data: u64,
    /// The resident memory of the process and its children. Mapped files count as well, which the system can take back.
    pub(super) held: u64,
}

/// A reader fetches one commit, on machines that may be small. A writer fetches the whole history, whose objects take memory each.
pub(super) fn memory_for(depth: Depth) -> MemoryLimits {
    match depth {
        Depth::Tip => MemoryLimits { data: 72 << 20, held: 384 << 20 },
        Depth::Full => MemoryLimits { data: 256 << 20, held: 512 << 20 },
    }
}
