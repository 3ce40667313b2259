//! The URL of a static folder.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use gix::url::Scheme;

use crate::git::access::Access;
use crate::git::remote_url::RemoteUrl;
use crate::model::Invalid;

/// What stands before the URL of the folder.
const PREFIX: &str = "static+";

/// The URL of a static folder: `static+https://…`, `static+http://…` or `static+file:///…`. It has no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StaticUrl(RemoteUrl);

impl StaticUrl {
    /// Whether a text is meant as such a URL.
    pub(in crate::git) fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// The URL of the folder itself.
    pub(in crate::git) fn url(&self) -> &RemoteUrl {
        &self.0
    }

    /// The same folder, reached like this.
    #[must_use]
    pub(in crate::git) fn with_access(self, access: Access) -> Self {
        Self(self.0.with_access(access))
    }

    /// The folder on this machine; `None` for one on a server.
    pub fn folder(&self) -> Option<PathBuf> {
        self.0.local_path()
    }
}

impl FromStr for StaticUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let url: RemoteUrl = text.strip_prefix(PREFIX).unwrap_or(text).parse()?;
        let is_written_out =
            ["https://", "http://", "file:///"].iter().any(|scheme| url.to_string().starts_with(scheme));
        if is_written_out && matches!(url.parsed().scheme, Scheme::Https | Scheme::Http | Scheme::File) {
            return Ok(Self(url));
        }
        let why = "it has to be static+https://host/path, static+http://host/path, or static+file:///path";
        Err(Invalid::new("the URL of a static folder", text, why))
    }
}

impl fmt::Display for StaticUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{PREFIX}{}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_folder_is_on_a_web_server_or_on_this_machine() {
        for good in ["static+https://h/fleet/", "static+http://h:8080/fleet", "static+file:///srv/www/fleet"] {
            assert_eq!(good.parse::<StaticUrl>().unwrap().to_string(), good);
        }
        for (bad, why) in [
            ("static+ssh://git@h/fleet", "static+https"),
            ("static+/srv/www", "static+https"),
            ("static+git@h:fleet", "static+https"),
            ("static+https://TOKEN@h/fleet", "[[credentials]]"),
            ("static+https://h/fleet?token=TOKEN", "[[credentials]]"),
            ("static+file://h/fleet", "three slashes"),
            ("static+", "empty"),
        ] {
            let error = bad.parse::<StaticUrl>().unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("TOKEN"), "{bad}: {error}");
        }
    }
}
