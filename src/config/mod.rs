//! Reads configuration files, and turns them into settings.
//!
//! Parsing is strict: an unknown key is an error with its line. The only file that this module reads is the configuration, and
//! it contacts no host.

mod agent;
mod claveld;
mod credentials;
mod hooks;
mod mirrors;

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub use agent::{AgentConfig, UnitConfig, UserName};
pub use claveld::{ClaveldConfig, EvaluateConfig, PublishConfig};
pub use credentials::{credentials_of_git, read_credentials};
pub use hooks::{HookCommand, HookStep, Hooks};

use crate::model::Invalid;
use crate::trust::AnchorLocation;

/// The most bytes that are read of a configuration: 1 MiB.
const MAX_BYTES: u64 = 1 << 20;

/// The reason why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file does not parse. The message has the line, and never a secret.
    #[error("the configuration {} is not valid: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The reason, with the line.
        why: String,
    },
    /// The file parses, and a setting is not allowed or is missing.
    #[error("the configuration {} is not valid: `{key}`: {why}", path.display())]
    BadSetting {
        /// The file.
        path: PathBuf,
        /// The key to change.
        key: &'static str,
        /// The reason.
        why: String,
    },
}

/// The parsed text of a configuration file, which becomes settings.
trait ConfigFile: DeserializeOwned {
    type Settings;
    /// Turns it into settings. Relative paths are relative to `directory`. An error has the key and the reason.
    fn into_settings(self, directory: &Path) -> Result<Self::Settings, (&'static str, String)>;
}

fn read<F: ConfigFile>(path: &Path) -> Result<F::Settings, ConfigError> {
    use std::io::Read as _;
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path).map_err(unreadable)?.take(MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    let malformed = |error: toml::de::Error| ConfigError::Malformed {
        path: path.to_owned(),
        why: describe_toml_error(&text, &error),
    };
    let file: F = toml::from_str(&text).map_err(malformed)?;
    let path = &std::path::absolute(path).map_err(unreadable)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let bad_setting =
        |(key, why): (_, String)| ConfigError::BadSetting { path: path.to_owned(), key, why: mask_keys(&why) };
    file.into_settings(directory).map_err(bad_setting)
}

/// Describes a parse error with the number of its line. It does not show the line, which may contain a secret.
fn describe_toml_error(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1));
    format!("{line}{}", mask_keys(error.message()))
}

/// Replaces every part of `text` that may be a key, or most of one, by `…`: 40 or more base64 characters in a row, with
/// lower-case and upper-case letters among them. Digests, revisions and store paths have no upper-case letters.
fn mask_keys(text: &str) -> String {
    const FEWEST: usize = 40;
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let is_key = |run: &str| {
        let has = |kind: fn(&char) -> bool| run.chars().any(|c| kind(&c));
        run.len() >= FEWEST && has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase)
    };
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (run, after) = rest.split_at(rest.find(|c| !is_base64(c)).unwrap_or(rest.len()));
        let (between, after) = after.split_at(after.find(is_base64).unwrap_or(after.len()));
        masked.extend([if is_key(run) { "…" } else { run }, between]);
        rest = after;
    }
    masked
}

/// The location of the trust anchor, as people write it: a file, or 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WrittenAnchor(AnchorLocation);

impl<'de> Deserialize<'de> for WrittenAnchor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            let why = "`root` has to be a file with a root, or the digest of the fleet's first one";
            return Err(serde::de::Error::custom(why));
        }
        let Ok(location) = text.parse();
        Ok(Self(location))
    }
}

/// A number of bytes, which people write as `512 MiB` or `4 GiB`.
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
    fn keys_are_masked_and_other_long_words_are_not() {
        let key = "6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
        assert_eq!(mask_keys(&format!("`cache-1:{key}` and {}", &key[..40])), "`cache-1:…` and …");
        for plain in [
            "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-nixos-system-web-1-26.05.drv",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "git+https://git.example.org/Fleets/Europe/machines.git?ref=main&rev=0123456789abcdef0123456789abcdef01234567",
            "`ä` is not a name",
            "",
        ] {
            assert_eq!(mask_keys(plain), plain);
        }
    }
}
