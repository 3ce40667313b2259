//! Which access counts for which URL: the longest beginning of the URL that a rule names.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

use gix::bstr::{BStr, ByteSlice as _};
use gix::url::Scheme;
use serde::Deserialize;

use super::access::Access;
use super::explain::explain;
use super::git_settings::GitSettings;
use super::netrc;
use super::remote::Remote;
use super::remote_url::RemoteUrl;
use crate::model::Invalid;

/// The beginning of the URLs of repositories: a host, or a host and the beginning of a path.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct UrlPrefix(RemoteUrl);

/// One rule: how the repositories are reached whose URLs begin like this.
#[derive(Debug, Clone)]
pub struct AccessRule {
    /// The beginning of the URLs.
    pub url: UrlPrefix,
    /// How they are reached.
    pub access: Access,
}

/// All rules, and how everything else is reached.
#[derive(Debug, Clone, Default)]
pub struct AccessRules {
    /// The rules.
    pub rules: Vec<AccessRule>,
    /// The access where no rule says otherwise. Its command of ssh and its credentials also count where a rule names none.
    pub default: Access,
}

/// What another program than Clavel gets.
#[derive(Default)]
pub struct ProgramAccess {
    /// Variables: settings for `git`, and for the libraries of TLS.
    pub environment: Vec<(String, OsString)>,
    /// Files without secrets for the run: the variable that names each, and its text.
    pub files: Vec<(&'static str, String)>,
    /// The text of a netrc file.
    pub netrc: Option<String>,
    /// The password or token by itself.
    pub token: Option<String>,
}

impl AccessRules {
    /// The remote, reached as the rules say.
    pub fn apply_to(&self, remote: Remote) -> Remote {
        let access = match &remote {
            Remote::Url(url) => self.access_of(url.parsed()),
            Remote::Static(url) => self.access_of(url.url().parsed()),
            // A file is reached without credentials.
            Remote::Bundle(_) => return remote,
        };
        remote.with_access(access)
    }

    /// What another program than Clavel gets to fetch from `url`. What no rule says is left to that program's own settings. The error names no file and no secret.
    pub fn for_program(&self, url: &str) -> Result<ProgramAccess, String> {
        let Ok(url) = url.parse::<RemoteUrl>() else { return Ok(ProgramAccess::default()) };
        let access = self.access_of(url.parsed());
        let mut settings = GitSettings::to_reach(url.parsed(), &access)?;
        let files = std::mem::take(&mut settings.files);
        let host = url.parsed().host().unwrap_or_default();
        let netrc = settings.login.as_ref().and_then(|login| netrc::entry(host, login));
        let token = settings.login.as_ref().map(|login| login.password.clone());
        let inherited = std::env::var("GIT_CONFIG_COUNT").ok();
        let mut environment = settings.into_environment(inherited.as_deref());
        if let (Some(file), Scheme::Https) = (access.ca_file, &url.parsed().scheme) {
            // What Nix downloads by itself.
            environment.push(("NIX_SSL_CERT_FILE".to_owned(), file.into()));
        }
        Ok(ProgramAccess { environment, files, netrc, token })
    }

    /// What to do where another program cannot fetch from `url` and says this.
    pub fn advice(&self, url: &str, words: &str) -> Option<&'static str> {
        let access = url.parse::<RemoteUrl>().map(|url| self.access_of(url.parsed())).unwrap_or_default();
        explain(words, &access).map(|known| known.advice)
    }

    /// How a URL is reached.
    pub(super) fn access_of(&self, url: &gix::Url) -> Access {
        let matching = self.rules.iter().filter(|rule| is_below(url, rule.url.parsed()));
        let Some(rule) = matching.max_by_key(|rule| rank(rule.url.parsed())) else { return self.default.clone() };
        let mut access = rule.access.clone();
        access.ssh.command = access.ssh.command.or_else(|| self.default.ssh.command.clone());
        access.credentials = access.credentials.or_else(|| self.default.credentials.clone());
        access
    }
}

impl UrlPrefix {
    /// Whether it is about SSH.
    pub fn is_ssh(&self) -> bool {
        self.0.is_ssh()
    }

    fn parsed(&self) -> &gix::Url {
        self.0.parsed()
    }
}

impl FromStr for UrlPrefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // A repository of SSH needs a path, and a whole host is good here.
        let is_host = text.strip_prefix("ssh://").is_some_and(|rest| !rest.contains('/'));
        if is_host { format!("{text}/") } else { text.to_owned() }.parse().map(Self)
    }
}

impl TryFrom<String> for UrlPrefix {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much of a URL a rule names.
fn rank(prefix: &gix::Url) -> (usize, bool) {
    (trimmed(prefix.path.as_bstr()).len(), prefix.user().is_some())
}

/// Whether `url` is `prefix`, or something below it. `git@host:path` is the short form of `ssh://git@host/path`.
fn is_below(url: &gix::Url, prefix: &gix::Url) -> bool {
    let host = |url: &gix::Url| url.host().map(str::to_ascii_lowercase);
    let is_user = prefix.user().is_none_or(|user| url.user() == Some(user));
    let (path, wanted) = (trimmed(url.path.as_bstr()), trimmed(prefix.path.as_bstr()));
    let is_path = path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || wanted.is_empty());
    url.scheme == prefix.scheme
        && host(url) == host(prefix)
        && url.port_or_default() == prefix.port_or_default()
        && is_user
        && is_path
}

fn trimmed(path: &BStr) -> &[u8] {
    let path = path.as_bytes();
    let path = path.strip_prefix(b"/").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::super::SshAccess;
    use super::*;

    #[test]
    fn the_longest_url_that_a_repository_begins_with_counts() {
        let rule = |url: &str, name: &str| AccessRule {
            url: url.parse().unwrap(),
            access: Access { ca_file: Some(name.into()), ..Access::default() },
        };
        let rules = [
            rule("https://git.example.org/", "all"),
            rule("https://git.example.org/team", "team"),
            rule("ssh://git@git.example.org", "ssh"),
            rule("ssh://git.example.org/team", "ssh-team"),
        ];
        let default =
            Access { ssh: SshAccess { command: Some("s".into()), ..Default::default() }, ..Default::default() };
        let rules = AccessRules { rules: rules.to_vec(), default };
        let found = |url: &str| {
            let remote = rules.apply_to(url.parse().unwrap());
            assert_eq!(remote.access().unwrap().ssh.command.as_deref(), Some("s"));
            remote.access().unwrap().ca_file.as_ref().map(|name| name.display().to_string())
        };
        for (url, name) in [
            ("https://git.example.org/fleet.git", Some("all")),
            ("https://GIT.example.org:443/fleet.git", Some("all")),
            ("https://git.example.org/team/fleet.git", Some("team")),
            ("https://git.example.org/teams.git", Some("all")),
            ("https://git.example.org:8443/fleet.git", None),
            ("https://git.example.org.evil.example/fleet.git", None),
            ("http://git.example.org/fleet.git", None),
            ("ssh://git@git.example.org/fleet.git", Some("ssh")),
            ("git@git.example.org:fleet.git", Some("ssh")),
            ("git@git.example.org:team/fleet.git", Some("ssh-team")),
            ("other@git.example.org:fleet.git", None),
            ("/srv/fleet.git", None),
        ] {
            assert_eq!(found(url).as_deref(), name, "{url}");
        }
    }
}
