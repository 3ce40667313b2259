//! Whether what the branch shows may still be the newest, and whether this machine's clock can tell. Pure but for reading
//! the clocks.
//!
//! A branch that is stale and a clock that is wrong look alike, and ask for different people. What is signed says when it
//! was: a clock that is before it is behind. The kernel counts the seconds since it started, whatever the clock is set to:
//! a clock that moved otherwise was set. A clock that is far ahead from the start cannot be told from an old branch; then
//! both are named.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// How far two good clocks may be apart.
const TOLERANCE: Duration = Duration::from_mins(5);
/// A branch that was left alone for so long is rarer than a board without a battery.
const LONG: Duration = Duration::from_hours(24 * 365);

/// What this machine's clocks say at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// The clock on the wall.
    pub now: Timestamp,
    /// How long the machine has been up; none where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Up>,
}

/// How long a machine has been up, sleep included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Up {
    /// Which start of the machine it is counted from.
    pub boot: String,
    /// Seconds.
    pub seconds: u64,
}

/// What is wrong with this machine's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockTrouble {
    /// It is before something that has happened.
    Behind {
        /// What it says.
        now: Timestamp,
        /// When what it is before was signed.
        signed: Timestamp,
    },
    /// It was set.
    Set {
        /// What it would say if it had run on.
        expected: Timestamp,
        /// What it says.
        now: Timestamp,
        /// Since when the branch would be stale, if it had.
        stale: Option<Timestamp>,
    },
}

impl fmt::Display for ClockTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { now, signed } => write!(
                f,
                "this machine's clock is behind: it says {now}, and the branch was signed at {signed}; until it is set, \
                 nobody here can tell whether the branch is stale"
            ),
            Self::Set { expected, now, stale } => {
                let way = if now < expected { "back" } else { "ahead" };
                let by = rough(now.since(*expected).max(expected.since(*now)));
                write!(f, "this machine's clock was set {way} by {by}: it says {now}, not {expected}")?;
                match stale {
                    Some(since) => write!(f, "; if it was right before, the branch is stale since {since}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Something signed that is past its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// What it is: "the index (version 5)".
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// What this machine's clock says.
    pub now: Timestamp,
    /// What is wrong with that clock.
    pub clock: Option<ClockTrouble>,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, since, now, clock } = self;
        let ago = now.since(*since);
        write!(
            f,
            "{what} is stale since {since}, for {} by this machine's clock ({now}): nobody can tell whether it still is the \
             newest; see whether claveld runs, and whether the mirror is up to date",
            rough(ago)
        )?;
        match clock {
            Some(trouble) => write!(f, "; but {trouble}"),
            None if ago >= LONG => write!(f, "; so long is more often a clock that is wrong than a branch that is old"),
            None => Ok(()),
        }
    }
}

/// A length of time as people say it: in days, hours or minutes, whichever it has two of.
fn rough(time: Duration) -> humantime::FormattedDuration {
    let unit = [24 * 60 * 60, 60 * 60, 60].into_iter().find(|unit| time.as_secs() >= 2 * unit).unwrap_or(1);
    humantime::format_duration(Duration::from_secs((time.as_secs() + unit / 2) / unit * unit))
}

/// When something signed was made, and until when it is to be believed.
#[derive(Debug, Clone)]
pub(super) struct Validity {
    /// What it is: "the index (version 5)".
    pub(super) what: String,
    /// When it was signed, where it says so.
    pub(super) issued: Option<Timestamp>,
    /// Until when.
    pub(super) expires: Timestamp,
}

/// What a pass saw, as far as it says something about the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Nothing was believed.
    Nothing,
    /// What was believed is what was believed before.
    Known,
    /// An index was believed that was not before: the branch does not stand still.
    New,
    /// The clock is before what was signed.
    Behind,
}

/// What the clocks are measured by from now on, where it was `before` until now. A clock that was set back is measured by
/// what it said before, however often somebody looks: until the branch shows that it moves on.
pub(super) fn measure(before: Option<Clocks>, clocks: &Clocks, evidence: Evidence) -> Option<Clocks> {
    let set = before.as_ref().and_then(|before| was_set(clocks, before));
    let was_set_back = |(expected, now): (Timestamp, Timestamp)| now < expected;
    match (set, evidence) {
        (_, Evidence::Behind) | (Some(_), Evidence::Nothing) => before,
        (Some(set), Evidence::Known) if was_set_back(set) => before,
        (Some(_), Evidence::Known | Evidence::New) | (None, _) => Some(clocks.clone()),
    }
}

/// Whether something signed may still be the newest, by clocks that are measured by what they said `before`. What is wrong
/// with them, where it is not stale.
pub(super) fn judge(
    validity: &Validity,
    clocks: &Clocks,
    before: Option<&Clocks>,
) -> Result<Option<ClockTrouble>, Box<Stale>> {
    let now = clocks.now;
    let behind = validity.issued.filter(|issued| issued.since(now) > TOLERANCE);
    let behind = behind.map(|signed| ClockTrouble::Behind { now, signed });
    let set = before.and_then(|before| was_set(clocks, before)).map(|(expected, now)| {
        let stale = Some(validity.expires).filter(|expires| now < *expires && *expires <= expected);
        ClockTrouble::Set { expected, now, stale }
    });
    let trouble = behind.or(set);
    if now < validity.expires {
        return Ok(trouble);
    }
    let (what, since) = (validity.what.clone(), validity.expires);
    Err(Box::new(Stale { what, since, now, clock: trouble }))
}

/// What the clock would say if it had run on since `before`, and what it says, where that is not the same.
fn was_set(clocks: &Clocks, before: &Clocks) -> Option<(Timestamp, Timestamp)> {
    let now = clocks.now;
    let expected = match (&clocks.up, &before.up) {
        (Some(up), Some(then)) if up.boot == then.boot => {
            before.now.plus(Duration::from_secs(up.seconds.saturating_sub(then.seconds)))
        }
        // Nobody counted in between; it can only not have gone back.
        _ => before.now.max(now),
    };
    (now.since(expected) > TOLERANCE || expected.since(now) > TOLERANCE).then_some((expected, now))
}

impl Clocks {
    /// What they say now.
    pub(super) fn read() -> Self {
        Self { now: SystemTime::now().into(), up: up() }
    }
}

#[cfg(target_os = "linux")]
fn up() -> Option<Up> {
    use rustix::time::{ClockId, clock_gettime};
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let seconds = u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).ok()?;
    Some(Up { boot: boot.trim().chars().take(64).collect(), seconds })
}

#[cfg(not(target_os = "linux"))]
fn up() -> Option<Up> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-01-{text}Z").parse().unwrap()
    }

    fn clocks(now: &str, seconds: u64) -> Clocks {
        Clocks { now: at(now), up: Some(Up { boot: "a".to_owned(), seconds }) }
    }

    fn validity() -> Validity {
        Validity { what: "the index (version 5)".into(), issued: Some(at("10T00:00:00")), expires: at("17T00:00:00") }
    }

    fn judged(clocks: &Clocks, before: Option<&Clocks>) -> String {
        match judge(&validity(), clocks, before) {
            Ok(None) => "fresh".to_owned(),
            Ok(Some(trouble)) => trouble.to_string(),
            Err(stale) => stale.to_string(),
        }
    }

    #[test]
    fn what_is_past_its_time_is_stale_since_then_by_this_clock() {
        assert_eq!(judged(&clocks("16T23:59:59", 9), None), "fresh");
        let told = judged(&clocks("17T00:00:00", 9), None);
        assert!(told.starts_with("the index (version 5) is stale since 2026-01-17T00:00:00Z, for 0s by"), "{told}");
        let late = Clocks { now: "2027-01-18T00:00:00Z".parse().unwrap(), up: None };
        let told = judged(&late, None);
        assert!(told.contains("a clock that is wrong than a branch that is old"), "{told}");
    }

    #[test]
    fn a_clock_before_what_was_signed_is_behind_and_told_apart() {
        assert_eq!(judged(&clocks("09T23:56:00", 9), None), "fresh");
        let told = judged(&clocks("09T23:54:00", 9), None);
        assert!(told.starts_with("this machine's clock is behind: it says 2026-01-09T23:54:00Z"), "{told}");
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_by_what_the_kernel_counts() {
        let before = clocks("11T00:00:00", 1000);
        assert_eq!(judged(&clocks("11T01:00:00", 1000 + 3600), Some(&before)), "fresh");
        let back = judged(&clocks("10T12:00:00", 1060), Some(&before));
        assert!(back.contains("was set back by 12h"), "{back}");
        let ahead = judged(&clocks("12T00:01:00", 1060), Some(&before));
        assert!(ahead.contains("was set ahead by 1day"), "{ahead}");
        // It makes the branch look stale, and that is said of it.
        let stale = judged(&clocks("19T00:00:00", 1060), Some(&before));
        assert!(
            stale.contains("is stale since") && stale.contains("; but this machine's clock was set ahead"),
            "{stale}"
        );
    }

    #[test]
    fn across_a_restart_a_clock_can_only_not_go_back() {
        let before = clocks("11T00:00:00", 1000);
        let other = |now: &str| Clocks { now: at(now), up: Some(Up { boot: "b".to_owned(), seconds: 5 }) };
        assert_eq!(judged(&other("16T00:00:00"), Some(&before)), "fresh");
        let back = judged(&other("10T12:00:00"), Some(&before));
        assert!(back.contains("was set back by 12h"), "{back}");
        let unknown = Clocks { now: at("10T12:00:00"), up: None };
        assert!(judged(&unknown, Some(&before)).contains("was set back"));
    }

    #[test]
    fn a_clock_that_was_set_back_is_told_until_the_branch_moves_on() {
        let (before, back) = (clocks("12T00:00:00", 1000), clocks("10T12:00:00", 1060));
        let later = clocks("10T13:00:00", 1060 + 3600);
        let kept = measure(Some(before.clone()), &back, Evidence::Known);
        assert_eq!(kept.as_ref(), Some(&before));
        assert!(
            judged(&later, kept.as_ref()).contains("was set back by 1day 12h"),
            "{}",
            judged(&later, kept.as_ref())
        );
        // The branch looks fresh, and is not by what the clock said before.
        let late = clocks("16T12:00:00", 1000);
        let told = judged(&clocks("12T00:00:00", 1000 + 24 * 3600), Some(&late));
        assert!(told.ends_with("; if it was right before, the branch is stale since 2026-01-17T00:00:00Z"), "{told}");
        assert_eq!(measure(kept.clone(), &later, Evidence::Nothing), kept);
        assert_eq!(measure(kept, &later, Evidence::New), Some(later));
    }

    #[test]
    fn a_clock_is_not_measured_by_what_is_wrong_itself() {
        let (before, ahead) = (clocks("10T00:00:00", 1000), clocks("18T00:00:00", 1060));
        assert_eq!(measure(Some(before.clone()), &ahead, Evidence::Nothing), Some(before.clone()));
        assert_eq!(measure(Some(before.clone()), &ahead, Evidence::Known), Some(ahead.clone()));
        assert_eq!(measure(None, &ahead, Evidence::Behind), None);
        assert_eq!(measure(Some(before.clone()), &ahead, Evidence::Behind), Some(before));
        assert_eq!(measure(None, &ahead, Evidence::Known), Some(ahead));
    }

    #[test]
    fn a_real_clock_runs_as_the_kernel_counts() {
        let (before, now) = (Clocks::read(), Clocks::read());
        assert_eq!(was_set(&now, &before), None);
    }
}
