//! Whether the branch may still be the newest, and whether this machine's clock can tell. No I/O but reading the clocks.
//!
//! A stale branch and a wrong clock look alike, and different people repair them. A signed index says when it was issued: a
//! clock before that time is behind. The kernel counts the seconds since it started, whatever the clock is set to: a clock
//! that moved by another amount was set. A clock that was far ahead from the start looks like an old branch; the error then
//! names both.
//!
//! Signatures and versions belong to `verify`.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::{IndexAge, Timestamp};

/// How far two correct clocks may be apart.
const TOLERANCE: Duration = Duration::from_mins(5);
/// Past this time, a machine without a clock battery is more likely than a branch that nobody signed.
const CLOCK_IS_LIKELIER_AFTER: Duration = Duration::from_hours(24 * 365);

/// The readings of this machine's clocks at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// The time of day.
    pub now: Timestamp,
    /// How long the machine has been up; `None` on a system where Clavel cannot read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime: Option<Uptime>,
}

/// How long a machine has been up, sleep included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Uptime {
    /// The identity of the machine's last start.
    pub boot: String,
    /// Seconds.
    pub seconds: u64,
}

/// An error of this machine's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockTrouble {
    /// It is earlier than a time that has passed.
    Behind {
        /// The time on the clock.
        now: Timestamp,
        /// The time at which the index was signed.
        signed: Timestamp,
    },
    /// It was set to another time.
    Set {
        /// The time that it would show if it had run on.
        expected: Timestamp,
        /// The time on the clock.
        now: Timestamp,
        /// Since when the branch would be stale, by the expected time.
        stale: Option<Timestamp>,
    },
}

impl fmt::Display for ClockTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { now, signed } => write!(
                f,
                "this machine's clock is behind: it says {now}, and the branch was signed at {signed}; set the clock, because \
                 until then the agent cannot tell whether the branch is stale"
            ),
            Self::Set { expected, now, stale } => {
                let way = if now < expected { "back" } else { "ahead" };
                let by = approximate(now.since(*expected).max(expected.since(*now)));
                write!(f, "this machine's clock was set {way} by {by}: it says {now}, not {expected}")?;
                match stale {
                    Some(since) => write!(f, "; if it was right before, the branch is stale since {since}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A signed document that has expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The document: "the index (version 5)".
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// When it expired.
    pub since: Timestamp,
    /// The time on this machine's clock.
    pub now: Timestamp,
    /// The error of that clock, if there is one.
    pub clock: Option<ClockTrouble>,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, remedy, since, now, clock } = self;
        let ago = now.since(*since);
        write!(
            f,
            "{what} is stale since {since}, for {} by this machine's clock ({now}): it may no longer be the newest; {remedy}",
            approximate(ago)
        )?;
        match clock {
            Some(trouble) => write!(f, "; but {trouble}"),
            None if ago >= CLOCK_IS_LIKELIER_AFTER => {
                write!(f, "; after so long, a wrong clock is more likely than an old branch")
            }
            None => Ok(()),
        }
    }
}

/// A length of time in the largest of days, hours and minutes that it has at least two of.
fn approximate(time: Duration) -> humantime::FormattedDuration {
    let unit = [24 * 60 * 60, 60 * 60, 60].into_iter().find(|unit| time.as_secs() >= 2 * unit).unwrap_or(1);
    humantime::format_duration(Duration::from_secs((time.as_secs() + unit / 2) / unit * unit))
}

/// When a signed document was issued, and when it expires.
#[derive(Debug, Clone)]
pub(super) struct Validity {
    /// The document: "the index (version 5)".
    pub(super) what: String,
    /// What to do once it has expired.
    pub(super) remedy: String,
    /// When it was issued, where it says so.
    pub(super) issued: Option<Timestamp>,
    /// When it expires.
    pub(super) expires: Timestamp,
}

/// How old an index may be for an agent, beside what the index says itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct IndexAges {
    /// By the root, for this agent. It is signed, so it may be longer than what the index says.
    pub(super) signed: Option<IndexAge>,
    /// By the configuration of this machine, which is not signed, so it may only be shorter.
    pub(super) own: Option<IndexAge>,
}

impl IndexAges {
    /// Until when an index may count as the newest.
    pub(super) fn good_until(self, issued: Timestamp, expires: Timestamp) -> Timestamp {
        let signed = self.signed.map_or(expires, |age| expires.max(issued.plus(age.get())));
        self.own.map_or(signed, |age| signed.min(issued.plus(age.get())))
    }

    /// What to do about an index that is older.
    pub(super) fn remedy(self) -> String {
        let look = "see whether claveld runs, and whether the mirror is up to date";
        match self {
            Self { own: Some(age), .. } => {
                format!("`max-index-age` of this agent's configuration is {age}; {look}")
            }
            Self { signed: Some(age), .. } => {
                format!("the root lets this agent believe an index for {age}; bring it a newer branch, or {look}")
            }
            Self { signed: None, own: None } => look.to_owned(),
        }
    }
}

/// The part of a pass's result that concerns the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockSample {
    /// Nothing, because no branch was believed.
    NothingBelieved,
    /// The believed index is the same as before.
    KnownIndex,
    /// The believed index is new, so the branch moves on.
    NewIndex,
    /// The clock is earlier than the index.
    Behind,
}

/// The baseline by which the next pass measures the clocks, where `before` was this one's. A clock that was set back keeps
/// its old baseline until the branch moves on, however many passes that takes.
pub(super) fn next_baseline(before: Option<Clocks>, clocks: &Clocks, sample: ClockSample) -> Option<Clocks> {
    let set = before.as_ref().and_then(|before| was_set(clocks, before));
    let was_set_back = |(expected, now): (Timestamp, Timestamp)| now < expected;
    match (set, sample) {
        (_, ClockSample::Behind) | (Some(_), ClockSample::NothingBelieved) => before,
        (Some(set), ClockSample::KnownIndex) if was_set_back(set) => before,
        (Some(_), ClockSample::KnownIndex | ClockSample::NewIndex) | (None, _) => Some(clocks.clone()),
    }
}

/// Checks that a document has not expired, by clocks that are measured by `baseline`. Returns what is wrong with the clock,
/// where the document is fresh all the same.
pub(super) fn check_validity(
    validity: &Validity,
    clocks: &Clocks,
    baseline: Option<&Clocks>,
) -> Result<Option<ClockTrouble>, Box<Stale>> {
    let now = clocks.now;
    let behind = validity.issued.filter(|issued| issued.since(now) > TOLERANCE);
    let behind = behind.map(|signed| ClockTrouble::Behind { now, signed });
    let set = baseline.and_then(|baseline| was_set(clocks, baseline)).map(|(expected, now)| {
        let stale = Some(validity.expires).filter(|expires| now < *expires && *expires <= expected);
        ClockTrouble::Set { expected, now, stale }
    });
    let trouble = behind.or(set);
    if now < validity.expires {
        return Ok(trouble);
    }
    let Validity { what, remedy, issued: _, expires: since } = validity.clone();
    Err(Box::new(Stale { what, remedy, since, now, clock: trouble }))
}

/// The time that the clock would show if it had run on since `baseline`, and the time that it shows, where the two differ.
fn was_set(clocks: &Clocks, baseline: &Clocks) -> Option<(Timestamp, Timestamp)> {
    let now = clocks.now;
    let expected = match (&clocks.uptime, &baseline.uptime) {
        (Some(uptime), Some(then)) if uptime.boot == then.boot => {
            baseline.now.plus(Duration::from_secs(uptime.seconds.saturating_sub(then.seconds)))
        }
        // The seconds in between are unknown; it is only certain that time did not go back.
        _ => baseline.now.max(now),
    };
    (now.since(expected) > TOLERANCE || expected.since(now) > TOLERANCE).then_some((expected, now))
}

impl Clocks {
    /// Reads the clocks.
    pub(super) fn read() -> Self {
        Self { now: SystemTime::now().into(), uptime: uptime() }
    }
}

#[cfg(target_os = "linux")]
fn uptime() -> Option<Uptime> {
    use rustix::time::{ClockId, clock_gettime};
    let boot = procfs::sys::kernel::random::boot_id().ok()?;
    let seconds = u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).ok()?;
    Some(Uptime { boot: boot.trim().chars().take(64).collect(), seconds })
}

#[cfg(not(target_os = "linux"))]
fn uptime() -> Option<Uptime> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-01-{text}Z").parse().unwrap()
    }

    fn clocks(now: &str, seconds: u64) -> Clocks {
        Clocks { now: at(now), uptime: Some(Uptime { boot: "a".to_owned(), seconds }) }
    }

    fn validity() -> Validity {
        Validity {
            what: "the index (version 5)".into(),
            remedy: "look".into(),
            issued: Some(at("10T00:00:00")),
            expires: at("17T00:00:00"),
        }
    }

    fn checked(clocks: &Clocks, before: Option<&Clocks>) -> String {
        match check_validity(&validity(), clocks, before) {
            Ok(None) => "fresh".to_owned(),
            Ok(Some(trouble)) => trouble.to_string(),
            Err(stale) => stale.to_string(),
        }
    }

    #[test]
    fn only_what_is_signed_makes_an_index_count_for_longer() {
        let age = |text: &str| Some(text.parse().unwrap());
        let until = |signed, own| IndexAges { signed, own }.good_until(at("10T00:00:00"), at("17T00:00:00"));
        assert_eq!(until(None, None), at("17T00:00:00"));
        assert_eq!(until(age("20d"), None), at("30T00:00:00"));
        assert_eq!(until(age("2d"), None), at("17T00:00:00"));
        assert_eq!(until(None, age("2d")), at("12T00:00:00"));
        assert_eq!(until(None, age("20d")), at("17T00:00:00"));
        assert_eq!(until(age("20d"), age("15d")), at("25T00:00:00"));
        let remedy = |signed, own| IndexAges { signed, own }.remedy();
        assert!(remedy(age("45d"), None).contains("the root lets this agent believe an index for 45d"));
        assert!(remedy(age("45d"), age("2d")).contains("`max-index-age` of this agent's configuration is 2d"));
    }

    #[test]
    fn an_expired_index_is_stale_since_it_expired() {
        assert_eq!(checked(&clocks("16T23:59:59", 9), None), "fresh");
        let message = checked(&clocks("17T00:00:00", 9), None);
        assert!(
            message.starts_with("the index (version 5) is stale since 2026-01-17T00:00:00Z, for 0s by"),
            "{message}"
        );
        let late = Clocks { now: "2027-01-18T00:00:00Z".parse().unwrap(), uptime: None };
        let message = checked(&late, None);
        assert!(message.contains("a wrong clock is more likely than an old branch"), "{message}");
    }

    #[test]
    fn a_clock_before_the_issue_of_the_index_is_behind() {
        assert_eq!(checked(&clocks("09T23:56:00", 9), None), "fresh");
        let message = checked(&clocks("09T23:54:00", 9), None);
        assert!(message.starts_with("this machine's clock is behind: it says 2026-01-09T23:54:00Z"), "{message}");
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_by_the_uptime() {
        let before = clocks("11T00:00:00", 1000);
        assert_eq!(checked(&clocks("11T01:00:00", 1000 + 3600), Some(&before)), "fresh");
        let back = checked(&clocks("10T12:00:00", 1060), Some(&before));
        assert!(back.contains("was set back by 12h"), "{back}");
        let ahead = checked(&clocks("12T00:01:00", 1060), Some(&before));
        assert!(ahead.contains("was set ahead by 1day"), "{ahead}");
        // A clock that is ahead makes the branch look stale, and the error names the clock.
        let stale = checked(&clocks("19T00:00:00", 1060), Some(&before));
        assert!(
            stale.contains("is stale since") && stale.contains("; but this machine's clock was set ahead"),
            "{stale}"
        );
    }

    #[test]
    fn across_a_restart_a_clock_must_not_go_back() {
        let before = clocks("11T00:00:00", 1000);
        let other = |now: &str| Clocks { now: at(now), uptime: Some(Uptime { boot: "b".to_owned(), seconds: 5 }) };
        assert_eq!(checked(&other("16T00:00:00"), Some(&before)), "fresh");
        let back = checked(&other("10T12:00:00"), Some(&before));
        assert!(back.contains("was set back by 12h"), "{back}");
        let unknown = Clocks { now: at("10T12:00:00"), uptime: None };
        assert!(checked(&unknown, Some(&before)).contains("was set back"));
    }

    #[test]
    fn a_clock_that_was_set_back_is_reported_until_the_branch_moves_on() {
        let (before, back) = (clocks("12T00:00:00", 1000), clocks("10T12:00:00", 1060));
        let later = clocks("10T13:00:00", 1060 + 3600);
        let kept = next_baseline(Some(before.clone()), &back, ClockSample::KnownIndex);
        assert_eq!(kept.as_ref(), Some(&before));
        assert!(
            checked(&later, kept.as_ref()).contains("was set back by 1day 12h"),
            "{}",
            checked(&later, kept.as_ref())
        );
        // The branch looks fresh, and is stale by the time that the clock showed before.
        let late = clocks("16T12:00:00", 1000);
        let message = checked(&clocks("12T00:00:00", 1000 + 24 * 3600), Some(&late));
        assert!(
            message.ends_with("; if it was right before, the branch is stale since 2026-01-17T00:00:00Z"),
            "{message}"
        );
        assert_eq!(next_baseline(kept.clone(), &later, ClockSample::NothingBelieved), kept);
        assert_eq!(next_baseline(kept, &later, ClockSample::NewIndex), Some(later));
    }

    #[test]
    fn a_wrong_clock_never_becomes_the_baseline() {
        let (before, ahead) = (clocks("10T00:00:00", 1000), clocks("18T00:00:00", 1060));
        assert_eq!(next_baseline(Some(before.clone()), &ahead, ClockSample::NothingBelieved), Some(before.clone()));
        assert_eq!(next_baseline(Some(before.clone()), &ahead, ClockSample::KnownIndex), Some(ahead.clone()));
        assert_eq!(next_baseline(None, &ahead, ClockSample::Behind), None);
        assert_eq!(next_baseline(Some(before.clone()), &ahead, ClockSample::Behind), Some(before));
        assert_eq!(next_baseline(None, &ahead, ClockSample::KnownIndex), Some(ahead));
    }

    #[test]
    fn a_real_clock_agrees_with_the_uptime() {
        let (before, now) = (Clocks::read(), Clocks::read());
        assert_eq!(was_set(&now, &before), None);
    }
}
