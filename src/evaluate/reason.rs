//! The reasons for which an attribute is evaluated and its recorded answer is not used. No I/O.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// Why an attribute was evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EvalReason {
    /// The record has no answer for it.
    New,
    /// It failed the last time, and Clavel does not know which change would repair it.
    Broken,
    /// Nix, its settings or Clavel changed.
    Environment,
    /// This path of the source, which it reads, changed.
    Changed(
        #[serde(serialize_with = "as_printable")]
        #[schemars(with = "String")]
        PathBuf,
    ),
    /// It uses this attribute of `self`, whose value changed.
    Own(String),
    /// It uses this input, which changed.
    Input(String),
    /// Its answer depends on the store path of the source, which changes with the source.
    Location,
    /// It was not learnt yet what it depends on.
    Unlearnt,
    /// Its derivation is not in the store any more.
    DerivationGone,
    /// Clavel cannot see what it depends on, because of this.
    Unobservable(String),
    /// The evaluation of everything was requested.
    Full,
}

/// A path for people, also one that is no text.
fn as_printable<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl fmt::Display for EvalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => write!(f, "new"),
            Self::Broken => write!(f, "it was broken the last time"),
            Self::Environment => write!(f, "Nix, its settings or Clavel changed"),
            Self::Changed(path) if path.as_os_str().is_empty() => {
                write!(f, "the names at the top of the source changed")
            }
            Self::Changed(path) => write!(f, "{} changed", path.display()),
            Self::Own(name) => write!(f, "it uses self.{name}"),
            Self::Input(name) => write!(f, "the input {name} changed"),
            Self::Location => write!(f, "it depends on the store path of the source, which changes with the source"),
            Self::Unlearnt => write!(f, "Clavel had not learnt yet what it depends on"),
            Self::DerivationGone => write!(f, "its derivation is not in the store any more"),
            Self::Unobservable(why) => write!(f, "each time, since {why}"),
            Self::Full => write!(f, "the evaluation of everything was requested"),
        }
    }
}
