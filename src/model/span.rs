//! Lengths of time, as people write them. No I/O.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;

/// A length of time as people write it: `90s`, `10m`, `7d`. It is longer than zero, and at most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    /// The longest: ten years of 366 days.
    const MAX: Duration = Duration::from_hours(10 * 366 * 24);

    /// Of so many seconds, which are more than none and at most [`Span::MAX`].
    pub(crate) const fn of_seconds(seconds: u64) -> Self {
        assert!(seconds > 0 && seconds <= Self::MAX.as_secs(), "out of its bounds");
        Self(Duration::from_secs(seconds))
    }

    /// The length of time.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |why: String| Err(Invalid::new("a length of time", text, why));
        match humantime::parse_duration(text) {
            Err(error) => bad(format!("{error}; write it like 90s, 10m or 7d")),
            Ok(duration) if duration.is_zero() => bad("it has to be longer than zero".to_owned()),
            Ok(duration) if duration > Self::MAX => bad("it may be ten years at most".to_owned()),
            Ok(duration) => Ok(Self(duration)),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A length of time, such as `90s`, `10m` or `7d`.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["1ns", "100ms", "90s", "5m", "1h 30m", "7days", "10years"] {
            let span: Span = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        for (text, why) in
            [("0s", "longer than zero"), ("11years", "ten years"), ("x", "write it like"), ("", "write it")]
        {
            assert!(text.parse::<Span>().unwrap_err().why.contains(why), "{text}");
        }
    }
}
