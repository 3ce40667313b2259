//! Deciding what a log says again: a log that repeats itself every minute finds no reader. What holds is said when it begins, when it
//! changes, and once a day while somebody has to look at it. No I/O.

use std::time::{Duration, Instant};

/// How often a log says again what waits or has failed.
const AGAIN: Duration = Duration::from_hours(24);

/// What a log said last about one thing.
#[derive(Debug, Default)]
pub struct News(Option<(String, Instant)>);

/// Whether somebody has to look at a result, so that it is said again after a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Something waits or has failed.
    Open,
    /// Nothing is left to do.
    Done,
}

impl News {
    /// Whether this is to be said now, and notes that it is. The gist leaves out what changes each time although nothing happened.
    pub fn is_news(&mut self, gist: &str, standing: Standing, now: Instant) -> bool {
        let is_known = self.0.as_ref().is_some_and(|(said, at)| {
            said == gist && (standing == Standing::Done || now.saturating_duration_since(*at) < AGAIN)
        });
        if !is_known {
            self.0 = Some((gist.to_owned(), now));
        }
        !is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_said_when_it_begins_when_it_changes_and_once_a_day() {
        let mut news = News::default();
        let begin = Instant::now();
        let hours = |hours| begin + Duration::from_hours(hours);
        let said = [
            ("waits", 0, true),
            ("waits", 1, false),
            ("waits", 23, false),
            ("waits", 24, true),
            ("waits", 25, false),
            ("failed", 26, true),
            ("waits", 27, true),
            ("waits", 50, false),
            ("waits", 51, true),
        ];
        for (gist, at, expected) in said {
            assert_eq!(news.is_news(gist, Standing::Open, hours(at)), expected, "{gist} after {at} h");
        }
        assert!(news.is_news("up to date", Standing::Done, hours(52)));
        assert!(!news.is_news("up to date", Standing::Done, hours(5200)));
    }
}
