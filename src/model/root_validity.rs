//! How long a root is valid, the warning before it ends, and the commands that make the next one. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Root, RootVersion, Timestamp};

/// How long before its end a root is warned about: long enough to gather signatures of people who are on holiday.
const WARN_BEFORE: Duration = Duration::from_hours(60 * 24);

/// Until when a root is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RootValidity {
    /// The time from which on it is not valid.
    pub expires: Timestamp,
    /// The root's version.
    pub version: RootVersion,
}

impl RootValidity {
    /// The validity of `root`.
    pub fn of(root: &Root) -> Self {
        Self { expires: root.expires, version: root.version }
    }

    /// The warning at `now`; none where the root is valid for long.
    pub fn warning(self, now: Timestamp) -> Option<RootWarning> {
        let is_near = now.plus(WARN_BEFORE) >= self.expires;
        is_near.then_some(RootWarning { validity: self, now })
    }
}

/// A root ends soon, or has ended. Its text says when, and the commands to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootWarning {
    validity: RootValidity,
    now: Timestamp,
}

impl RootWarning {
    /// Whether the root has ended.
    pub fn is_expired(self) -> bool {
        self.now >= self.validity.expires
    }
}

impl fmt::Display for RootWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { validity: RootValidity { expires, version }, now } = *self;
        if self.is_expired() {
            write!(f, "the root (version {version}) expired at {expires}, and agents refuse the branch")?;
        } else {
            let days = expires.since(now).as_secs() / (24 * 60 * 60);
            let when = match days {
                0 => "in less than a day".to_owned(),
                1 => "in 1 day".to_owned(),
                days => format!("in {days} days"),
            };
            write!(f, "the root (version {version}) expires at {expires}, {when}, and agents then refuse the branch")?;
        }
        write!(f, "; {}", how_to_renew(version))
    }
}

impl schemars::JsonSchema for RootWarning {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RootWarning".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl Serialize for RootWarning {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The commands that put a root in the place of the one of this version, whether it has ended or not.
pub fn how_to_renew(version: RootVersion) -> String {
    let next = version.next().map_or_else(|| "next".to_owned(), |next| next.to_string());
    format!(
        "where the root keys are, run `clavel root next root.json -o root-{next}.json --key FILE` and then `clavel root publish \
         root-{next}.json`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_warned_about_from_60_days_before_its_end_on() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let validity = RootValidity { expires: at("2026-06-01T00:00:00Z"), version: RootVersion::FIRST };
        let warning = |now: &str| validity.warning(at(now)).map(|warning| warning.to_string());
        assert_eq!(warning("2026-04-01T23:59:59Z"), None);
        let commands = "where the root keys are, run `clavel root next root.json -o root-2.json --key FILE` and then `clavel root \
                        publish root-2.json`";
        let soon = |when: &str| {
            format!(
                "the root (version 1) expires at 2026-06-01T00:00:00Z, {when}, and agents then refuse the branch; {commands}"
            )
        };
        assert_eq!(warning("2026-04-02T00:00:00Z"), Some(soon("in 60 days")));
        assert_eq!(warning("2026-05-30T00:00:01Z"), Some(soon("in 1 day")));
        assert_eq!(warning("2026-05-31T23:00:00Z"), Some(soon("in less than a day")));
        let past =
            format!("the root (version 1) expired at 2026-06-01T00:00:00Z, and agents refuse the branch; {commands}");
        assert_eq!(warning("2026-06-01T00:00:00Z"), Some(past));
    }
}
