//! How often claveld checks itself. No I/O.

use std::time::Duration;

use serde::Deserialize;

use super::Timestamp;

/// How often claveld evaluates everything anew and compares, while it has nothing else to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelfCheck {
    /// Never.
    Off,
    /// Each night, after 02:00 UTC.
    #[default]
    Nightly,
    /// In the night to each Sunday, after 02:00 UTC.
    Weekly,
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// The time of 02:00 UTC on the first Sunday after the beginning of 1970, which was a Thursday.
const FIRST_SUNDAY: u64 = 3 * DAY + 2 * HOUR;

impl SelfCheck {
    /// When the next check is due after one at `last`; none where there is to be none.
    pub fn next_after(self, last: Timestamp) -> Option<Timestamp> {
        let (first, period) = match self {
            Self::Off => return None,
            Self::Nightly => (2 * HOUR, DAY),
            Self::Weekly => (FIRST_SUNDAY, 7 * DAY),
        };
        let begun = last.seconds().checked_sub(first).map_or(0, |since| since / period + 1);
        Some(Timestamp::from_seconds(0)?.plus(Duration::from_secs(first + begun * period)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_due_in_the_next_night_or_in_the_next_night_to_a_sunday() {
        let next = |check: SelfCheck, last: &str| check.next_after(last.parse().unwrap()).map(|at| at.to_string());
        for (last, nightly, weekly) in [
            // A Sunday.
            ("2026-11-29T22:00:00Z", "2026-11-30T02:00:00Z", "2026-12-06T02:00:00Z"),
            ("2026-11-30T01:59:59Z", "2026-11-30T02:00:00Z", "2026-12-06T02:00:00Z"),
            ("2026-11-30T02:00:00Z", "2026-12-01T02:00:00Z", "2026-12-06T02:00:00Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T02:00:00Z", "1970-01-04T02:00:00Z"),
        ] {
            assert_eq!(next(SelfCheck::Nightly, last).as_deref(), Some(nightly));
            assert_eq!(next(SelfCheck::Weekly, last).as_deref(), Some(weekly));
            assert_eq!(next(SelfCheck::Off, last), None);
        }
    }
}
