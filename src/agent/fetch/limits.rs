//! What one fetch may take of this machine.
//!
//! Measured with a branch of 10,000 units, which has 30,000 documents and an index of 5.3 MB: its first fetch receives
//! a pack of 11.4 MB, writes an index of 0.8 MB beside it, and reads all of it in less than a second; the process has 17 MB of
//! private memory then and holds 29 MB in all. Later fetches are far smaller. One that finds nothing new takes 5 ms and
//! holds 10 MB.

use std::time::Duration;

/// The largest file that is written, in bytes: 128 MiB, eleven times that pack.
pub(super) const LARGEST_FILE: u64 = 128 << 20;
/// The most that all files of one fetch add, in bytes: 192 MiB, for a pack beside its index.
pub(super) const MOST_ADDED: u64 = 192 << 20;
/// The most that fetches may have brought into one copy, in bytes: 256 MiB. A larger copy is started afresh.
pub(super) const MOST_KEPT: u64 = 256 << 20;
/// The most private memory of the process, in bytes: 256 MiB.
pub(super) const MOST_DATA: u64 = 256 << 20;
/// The most that it and what it starts hold, in bytes: 512 MiB, since the files that it maps count here as well.
pub(super) const MOST_HELD: u64 = 512 << 20;
/// How much longer than its own deadline the process is given to say that it passed it.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at the disk.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The most bytes of a request: 64 KiB.
pub(super) const LARGEST_REQUEST: u64 = 64 << 10;
/// The most bytes of an answer: 64 KiB.
pub(super) const LARGEST_ANSWER: usize = 64 << 10;
/// The most characters of what a mirror is quoted with: servers choose their words.
pub(super) const LONGEST_MESSAGE: usize = 2000;
