//! How old an index may be for an agent whose site is rarely visited. No I/O.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Invalid, Name, Pattern};

/// How old an index may be, counted from when it was issued. In JSON it is a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct IndexAge(#[schemars(range(min = 60, max = 94_608_000))] u64);

impl IndexAge {
    /// The shortest: a minute, in seconds.
    const MIN: u64 = 60;
    /// The longest: three years, in seconds. After that, nobody visits a site.
    const MAX: u64 = 3 * 365 * 24 * 60 * 60;

    /// The length of time.
    pub fn get(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl TryFrom<u64> for IndexAge {
    type Error = Invalid;
    fn try_from(seconds: u64) -> Result<Self, Invalid> {
        if (Self::MIN..=Self::MAX).contains(&seconds) {
            return Ok(Self(seconds));
        }
        Err(Invalid::new("the age of an index", &format!("{seconds}s"), "it has to be from one minute to three years"))
    }
}

impl FromStr for IndexAge {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let age = humantime::parse_duration(text);
        let age =
            age.map_err(|error| Invalid::new("the age of an index", text, format!("{error}; write it like `45d`")))?;
        age.as_secs().try_into()
    }
}

impl<'de> Deserialize<'de> for IndexAge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for IndexAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole days, since a month of humantime is 30.44 of them.
        const DAY: u64 = 24 * 60 * 60;
        match self.0 {
            seconds if seconds % DAY == 0 => write!(f, "{}d", seconds / DAY),
            seconds => write!(f, "{}", humantime::format_duration(Duration::from_secs(seconds))),
        }
    }
}

/// The agents of sites that are rarely visited, and how old an index may be for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexAgePolicy {
    /// The agents' names.
    #[serde(rename = "match")]
    pub pattern: Pattern,
    /// Until this age they believe an index, also where it has expired.
    #[serde(rename = "maxAge")]
    pub max_age: IndexAge,
}

impl IndexAgePolicy {
    /// The highest age that one of `policies` allows `agent`; none where no policy matches its name.
    pub fn for_agent(policies: &[Self], agent: &Name) -> Option<IndexAge> {
        policies.iter().filter(|policy| policy.pattern.matches_folded(agent)).map(|policy| policy.max_age).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_bounds_and_is_written_in_whole_days() {
        for (text, written) in [("45d", "45d"), ("1h 30m", "1h 30m"), ("6w", "42d"), ("1min", "1m")] {
            assert_eq!(text.parse::<IndexAge>().unwrap().to_string(), written);
        }
        for text in ["59s", "1096d", "soon", "", "-1d"] {
            assert!(text.parse::<IndexAge>().is_err(), "{text}");
        }
        assert_eq!(serde_json::to_string(&"45d".parse::<IndexAge>().unwrap()).unwrap(), "3888000");
        assert!(serde_json::from_str::<IndexAge>("59").is_err() && serde_json::from_str::<IndexAge>("60").is_ok());
    }

    #[test]
    fn the_highest_age_among_the_matching_policies_counts() {
        let policy = |pattern: &str, age: &str| IndexAgePolicy {
            pattern: pattern.parse().unwrap(),
            max_age: age.parse().unwrap(),
        };
        let policies = [policy("ship-*", "45d"), policy("*", "10d"), policy("ship-7", "1d")];
        let of = |name: &str| IndexAgePolicy::for_agent(&policies, &name.parse().unwrap()).map(|age| age.to_string());
        assert_eq!(of("SHIP-7"), Some("45d".to_owned()));
        assert_eq!(of("web-1"), Some("10d".to_owned()));
        assert_eq!(IndexAgePolicy::for_agent(&policies[2..], &"web-1".parse().unwrap()), None);
    }
}
