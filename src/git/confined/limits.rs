//! The limits of one fetch on memory and disk.
//!
//! They were measured with a branch of 100,000 units, which has 300,000 documents. Its first fetch receives a pack of 200 MB; the
//! process then has 58 MB of private memory, and 251 MB in all with the mapped pack. With 10,000 units it is a tenth of that. Later
//! fetches are far smaller.

use std::time::Duration;

use crate::git::fetch::Depth;
use crate::git::remote::Remote;

/// The largest file that a fetch writes, in bytes: 256 MiB.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;
/// The most that all files of one fetch add, in bytes: 320 MiB, for a pack and its index.
pub(super) const MAX_ADDED_BYTES: u64 = 320 << 20;
/// How long after its own deadline the process may still report that it reached it.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// The time between two measurements of the disk.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// The most bytes of a request: 256 KiB. An agent may want 1,024 deployments, with names of 128 characters.
pub(super) const MAX_REQUEST_BYTES: u64 = 256 << 10;
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
/// From a repository on this machine, `git upload-pack` runs below the process and has the same limits: to pack the branch of 100,000
/// units it needs 88 MB of private memory, and 272 MB in all.
pub(super) fn memory_for(remote: &Remote, depth: Depth) -> MemoryLimits {
    match (depth, remote.local_path()) {
        (Depth::Tip, None) => MemoryLimits { data: 72 << 20, held: 384 << 20 },
        (Depth::Full, None) => MemoryLimits { data: 256 << 20, held: 512 << 20 },
        (Depth::Tip | Depth::Full, Some(_)) => MemoryLimits { data: 160 << 20, held: 640 << 20 },
    }
}
