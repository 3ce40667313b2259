//! The repository that a branch is fetched from and pushed to.
//!
//! A remote is a URL, a git bundle or a static folder, and a further kind would be one more variant of [`Remote`], with an arm in each
//! `match` on it: here, in `rules`, in `fetch` and in `push`. No other room matches on the variants.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::access::Access;
use super::bundle::files::BundleFiles;
use super::certificates::CertificatesError;
use super::remote_url::RemoteUrl;
use super::static_files::address::StaticUrl;
use crate::model::Invalid;

/// The repository that a branch is fetched from and pushed to. It has no secrets: its credentials are elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Remote {
    /// A repository that git reaches by a URL, or by a path on this machine.
    Url(Box<RemoteUrl>),
    /// A git bundle on this machine, or a pattern of bundles. Its path ends in `.bundle`.
    Bundle(BundleFiles),
    /// A folder of plain files with the branch, on a web server or on this machine. Its URL begins with `static+`.
    Static(Box<StaticUrl>),
}

impl Remote {
    /// The same repository, reached like this.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        match self {
            Self::Url(url) => Self::Url(Box::new(url.with_access(access))),
            Self::Bundle(files) => Self::Bundle(files),
            Self::Static(url) => Self::Static(Box::new(url.with_access(access))),
        }
    }

    /// Whether it is reached over SSH.
    pub fn is_ssh(&self) -> bool {
        match self {
            Self::Url(url) => url.is_ssh(),
            Self::Bundle(_) | Self::Static(_) => false,
        }
    }

    /// How the repository is reached; `None` for a bundle, which is a file.
    pub fn access(&self) -> Option<&Access> {
        match self {
            Self::Url(url) => Some(url.access()),
            Self::Bundle(_) => None,
            Self::Static(url) => Some(url.url().access()),
        }
    }

    /// The variables with which a process that fetches with gix finds the certificates. `empty` is a folder without any.
    pub(super) fn certificates_for_gix(
        &self,
        empty: &Path,
    ) -> Result<Vec<(&'static str, OsString)>, CertificatesError> {
        match self {
            Self::Url(url) => url.access().for_gix(url.parsed(), empty),
            Self::Bundle(_) => Ok(Vec::new()),
            Self::Static(url) => url.url().access().for_gix(url.url().parsed(), empty),
        }
    }

    /// The path of a repository on this machine, which can be opened without a fetch; `None` for any other remote.
    pub fn local_path(&self) -> Option<PathBuf> {
        match self {
            Self::Url(url) => url.local_path(),
            Self::Bundle(_) | Self::Static(_) => None,
        }
    }

    /// The bundle or the pattern of bundles; `None` for a repository.
    pub fn bundle(&self) -> Option<&BundleFiles> {
        match self {
            Self::Url(_) | Self::Static(_) => None,
            Self::Bundle(files) => Some(files),
        }
    }

    /// The static folder; `None` for a repository or a bundle.
    pub fn static_url(&self) -> Option<&StaticUrl> {
        match self {
            Self::Url(_) | Self::Bundle(_) => None,
            Self::Static(url) => Some(url),
        }
    }
}

impl FromStr for Remote {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if StaticUrl::is_meant(text) {
            text.parse().map(|url| Self::Static(Box::new(url)))
        } else if BundleFiles::is_meant(text) {
            text.parse().map(Self::Bundle)
        } else {
            text.parse().map(|url| Self::Url(Box::new(url)))
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Bundle(files) => files.fmt(f),
            Self::Static(url) => url.fmt(f),
        }
    }
}

impl TryFrom<String> for Remote {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl schemars::JsonSchema for Remote {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Remote".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "The address of a git repository: a URL or an absolute path; a path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a static folder" })
    }
}
