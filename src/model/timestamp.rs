//! Points in time, to the second, in the form of documents.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::Invalid;
use super::text::as_text;

/// A point in time in UTC, to the second: `2026-01-01T00:00:00Z` (RFC 3339, in this one form alone).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds_since_epoch: u64,
}

impl Timestamp {
    /// The last second that has four digits for its year.
    const LAST: u64 = 253_402_300_799;

    /// `duration` later, at most the end of the year 9999.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let seconds = self.seconds_since_epoch.saturating_add(duration.as_secs());
        Self { seconds_since_epoch: seconds.min(Self::LAST) }
    }

    /// The time so many seconds after 1970; none after the year 9999, which RFC 3339 cannot write.
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        (seconds <= Self::LAST).then_some(Self { seconds_since_epoch: seconds })
    }

    /// The time from `earlier` to this one; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.seconds_since_epoch.saturating_sub(earlier.seconds_since_epoch))
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.seconds_since_epoch
    }

    fn system_time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.seconds_since_epoch)
    }
}

impl From<SystemTime> for Timestamp {
    /// A time before 1970 becomes 1970, and a time after 9999 the end of that year.
    fn from(time: SystemTime) -> Self {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { seconds_since_epoch: seconds.min(Self::LAST) }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(self.system_time()).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("a time", text, "it has to read like 2026-01-01T00:00:00Z");
        let time = Self::from(humantime::parse_rfc3339(text).map_err(|_| bad())?);
        if time.to_string() == text { Ok(time) } else { Err(bad()) }
    }
}

as_text!(Timestamp, pattern: r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$", about: "A time in UTC, to the second");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_text() {
        assert_eq!("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().seconds(), 1_767_225_600);
        for bad in ["2026-01-01T00:00:00.0Z", "2026-01-01T00:00:00+00:00", "2026-02-30T00:00:00Z", "2026-01-01", ""] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }
}
