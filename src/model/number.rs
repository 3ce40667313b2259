//! The counters of the branch.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::Invalid;

/// The largest integer that every JSON reader reads alike (RFC 8259, section 6): 2^53 - 1.
pub(super) const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Reads an integer that every JSON reader reads alike.
pub(super) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    let bad = || Invalid::new("an integer of a file on a branch", &number.to_string(), "it has to be at most 2^53 - 1");
    if number <= MAX_INTEGER { Ok(number) } else { Err(serde::de::Error::custom(bad())) }
}

macro_rules! counter {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(NonZeroU64);

        impl $type {
            /// The first number.
            pub const FIRST: Self = Self(NonZeroU64::MIN);

            /// The number itself, from 1 to 2^53 - 1.
            pub fn get(self) -> u64 {
                self.0.get()
            }

            /// The next number; `None` after 2^53 - 1.
            pub fn next(self) -> Option<Self> {
                Self::try_from(self.get() + 1).ok()
            }
        }

        impl TryFrom<u64> for $type {
            type Error = Invalid;
            fn try_from(number: u64) -> Result<Self, Invalid> {
                let bad = || Invalid::new($what, &number.to_string(), "it has to be from 1 to 2^53 - 1");
                NonZeroU64::new(number).filter(|n| n.get() <= MAX_INTEGER).map(Self).ok_or_else(bad)
            }
        }

        impl FromStr for $type {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                let number: u64 = text.parse().map_err(|_| Invalid::new($what, text, "it is not a whole number"))?;
                number.try_into()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u64::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_INTEGER })
            }
        }
    };
}

counter! {
    /// The revision of a document. It starts at 1 and goes up by one with each change. The content of a name and a revision
    /// never changes.
    Revision, "a revision"
}

counter! {
    /// The version of the index, which goes up by one with every publication.
    IndexVersion, "an index version"
}

counter! {
    /// The version of the root, counted from 1.
    RootVersion, "a root version"
}

counter! {
    /// The epoch of the root, counted from 1. A new epoch makes everything that was signed before invalid.
    Epoch, "an epoch"
}

counter! {
    /// The format of a fleet's files, which its root names. Claveld writes no newer one, so every reader has to know it before an
    /// operator raises it.
    Format, "a format"
}

impl Format {
    /// The newest format that this version knows.
    pub const CURRENT: Self = Self::FIRST;

    /// The format of a root that names none.
    pub(super) fn first() -> Self {
        Self::FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_that_every_json_reader_accepts_are_valid() {
        for bad in ["0", "-1", "1.0", "1e3", "9007199254740992", "18446744073709551616", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Revision>(bad).is_err(), "{bad}");
        }
        let largest: Revision = serde_json::from_str("9007199254740991").unwrap();
        assert_eq!(largest.next(), None);
        assert_eq!(Revision::FIRST.next().map(Revision::get), Some(2));
    }
}
