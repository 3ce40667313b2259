//! What the evaluation of one source may use in all, however many processes it takes.

use std::time::{Duration, Instant};

use crate::process::WriteAllowance;

/// The most bytes that all processes of one evaluation of a source may write: 16 GiB. A thousand real hosts write some 15 GiB of
/// `.drv` files when all of them are new.
const MAX_WRITTEN: u64 = 16 << 30;

/// The time and the writes of one evaluation of a source. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct SourceAllowance {
    time: Duration,
    began: Instant,
    pub(super) writes: WriteAllowance,
}

/// The allowance of a source that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpentAllowance {
    /// Its time.
    #[error(
        "the evaluation of its source took {} in all (`source-timeout` below [evaluate]); it is tried again the next time",
        humantime::format_duration(*.0)
    )]
    Time(Duration),
    /// Its writes, in bytes.
    #[error("the evaluation of its source wrote more than {} in all", bytesize::ByteSize(*.0))]
    Writes(u64),
}

impl SourceAllowance {
    /// An allowance that begins now.
    pub(super) fn new(time: Duration) -> Self {
        Self { time, began: Instant::now(), writes: WriteAllowance::new(MAX_WRITTEN) }
    }

    /// The time since its beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time that is left.
    pub(super) fn remaining(&self) -> Result<Duration, SpentAllowance> {
        if let Some(limit) = self.writes.spent() {
            return Err(SpentAllowance::Writes(limit));
        }
        let left = self.time.saturating_sub(self.elapsed());
        if left.is_zero() { Err(SpentAllowance::Time(self.time)) } else { Ok(left) }
    }
}
