//! Reads configuration files, and turns them into settings.
//!
//! Reading is strict: an unknown key is an error with its line. No file but the configuration is read here, and no host is
//! contacted.

mod agent;
mod claveld;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub use agent::{AgentConfig, UnitConfig, UserName};
pub use claveld::{ClaveldConfig, EvaluateConfig, PublishConfig};

use crate::model::Invalid;
use crate::trust::AnchorLocation;

/// The most bytes that are read of a configuration: 1 MiB.
const LARGEST: u64 = 1 << 20;

/// The reason why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What it says is not a configuration; the message has its line, and not a key of it.
    #[error("the configuration {} is not right: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        why: String,
    },
    /// Every key is right by itself, and something does not fit.
    #[error("the configuration {} is not right: `{key}`: {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// The key to change.
        key: &'static str,
        /// What does not fit.
        why: String,
    },
}

/// A file as it is written, that becomes settings.
trait Written: DeserializeOwned {
    type Settings;
    /// The settings; relative paths count from `directory`. An error names the key and what does not fit.
    fn into_settings(self, directory: &Path) -> Result<Self::Settings, (&'static str, String)>;
}

fn read<W: Written>(path: &Path) -> Result<W::Settings, ConfigError> {
    use std::io::Read as _;
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path).map_err(unreadable)?.take(LARGEST).read_to_string(&mut text).map_err(unreadable)?;
    let malformed = |error: toml::de::Error| ConfigError::Malformed {
        path: path.to_owned(),
        why: describe_toml_error(&text, &error),
    };
    let written: W = toml::from_str(&text).map_err(malformed)?;
    let path = &std::path::absolute(path).map_err(unreadable)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let unfit = |(key, why): (_, String)| ConfigError::Unfit { path: path.to_owned(), key, why: without_keys(&why) };
    written.into_settings(directory).map_err(unfit)
}

/// What is wrong with `text`, and in which line. The line itself is not shown: a secret may stand in it.
fn describe_toml_error(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1));
    format!("{line}{}", without_keys(error.message()))
}

/// `text` without what may be a key or most of one: 40 or more characters of base64 on end, with small and large letters
/// among them. Digests, revisions and store paths have small ones alone.
fn without_keys(text: &str) -> String {
    const FEWEST: usize = 40;
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let is_key = |run: &str| {
        let has = |kind: fn(&char) -> bool| run.chars().any(|c| kind(&c));
        run.len() >= FEWEST && has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase)
    };
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (run, behind) = rest.split_at(rest.find(|c| !is_base64(c)).unwrap_or(rest.len()));
        let (between, behind) = behind.split_at(behind.find(is_base64).unwrap_or(behind.len()));
        shown.extend([if is_key(run) { "…" } else { run }, between]);
        rest = behind;
    }
    shown
}

/// A length of time as people write it: `90s`, `10m`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span(Duration);

impl FromStr for Span {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |why: String| Invalid::new("a length of time", text, why);
        let duration =
            humantime::parse_duration(text).map_err(|e| bad(format!("{e}; write it like 90s, 10m or 7d")))?;
        if duration.is_zero() { Err(bad("it has to be longer than nothing".to_owned())) } else { Ok(Self(duration)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whom to believe from the start, as people write it: a file, or 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Anchor(AnchorLocation);

impl<'de> Deserialize<'de> for Anchor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            let why = "`root` has to be a file with a root, or the digest of the fleet's first one";
            return Err(serde::de::Error::custom(why));
        }
        let Ok(place) = text.parse();
        Ok(Self(place))
    }
}

/// A size as people write it: `512 MiB`, `4 GiB`; in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = |_| Invalid::new("a size", &text, "write it like 512 MiB or 4 GiB");
        text.parse::<ByteSize>().map_err(bad).map(|size| Self(size.as_u64())).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hidden_and_what_only_looks_like_them_is_not() {
        let key = "6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
        assert_eq!(without_keys(&format!("`cache-1:{key}` and {}", &key[..40])), "`cache-1:…` and …");
        for shown in [
            "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-nixos-system-web-1-26.05.drv",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "git+https://git.example.org/Fleets/Europe/machines.git?ref=main&rev=0123456789abcdef0123456789abcdef01234567",
            "`ä` is not a name",
            "",
        ] {
            assert_eq!(without_keys(shown), shown);
        }
    }
}
