//! The URL of a git repository, which is checked where it enters: no part of it may reach `git` or `ssh` as an option.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use gix::bstr::{BStr, ByteSlice as _};
use gix::url::{ArgumentSafety, Scheme};

use super::access::Access;
use super::client_certificate::{CertificateFiles, ClientCertificate};
use crate::model::Invalid;
use crate::redact::user_part;

/// The address of a repository: a URL or an absolute path, as git accepts them.
///
/// It has no password and no token: hosts accept tokens as the user too, so only an SSH URL has a user.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    text: String,
    url: gix::Url,
    access: Access,
}

impl RemoteUrl {
    /// Whether it is reached over SSH.
    pub(super) fn is_ssh(&self) -> bool {
        self.url.scheme == Scheme::Ssh
    }

    /// The same repository, reached like this.
    #[must_use]
    pub(super) fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// How the repository is reached.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// The files of the client certificate for the host. The error names none of them.
    pub(super) fn certificate_files(&self) -> Result<Option<CertificateFiles>, String> {
        let certificate = self.access.certificate.as_ref().filter(|_| self.url.scheme == Scheme::Https);
        certificate.map(ClientCertificate::files).transpose()
    }

    /// The path of a repository on this machine; `None` for one on another machine.
    pub fn local_path(&self) -> Option<PathBuf> {
        (self.url.scheme == Scheme::File).then(|| self.url.path.to_path_lossy().into_owned())
    }

    /// The parsed URL.
    pub(super) fn parsed(&self) -> &gix::Url {
        &self.url
    }
}

impl FromStr for RemoteUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why: String| Invalid::new("the URL of a repository", text, why);
        check_no_secret(text).map_err(|why| {
            // What follows the last `@` names the host, also where there is no scheme.
            let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
            let shown = shown.split('?').next().unwrap_or_default();
            Invalid::new("the URL of a repository", shown, why)
        })?;
        check_form(text).map_err(|why| invalid(why.to_owned()))?;
        let url = gix::url::parse(BStr::new(text)).map_err(|_| invalid("git cannot read it".to_owned()))?;
        check_parts(&url).map_err(|why| invalid(why.to_owned()))?;
        Ok(Self { text: text.to_owned(), url, access: Access::default() })
    }
}

/// Refuses a URL with a password or a token in it.
fn check_no_secret(text: &str) -> Result<(), &'static str> {
    match text.split_once("://") {
        Some(("ssh", rest)) if rest[..user_part(rest)].contains(':') => {
            Err("ssh takes no password from a URL; use a key, for example with ssh-command")
        }
        Some((scheme, rest)) if scheme != "ssh" && user_part(rest) > 0 => {
            Err("a user, a password or a token in a URL is shown in many \
             places; write it without, and put it into a file that a [[credentials]] table of the configuration names")
        }
        Some(("https" | "http", rest)) if rest.contains('?') => Err(
            "what follows `?` in a URL is shown in many places, and may be a token; write it without, and put a token into a file that a \
             [[credentials]] table of the configuration names",
        ),
        None if !text.starts_with('/') && text.split_once('@').is_some_and(|(user, _)| user.contains(':')) => {
            Err("ssh takes no password from an address; use a key, for example with ssh-command")
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks the text of a URL before it is parsed.
fn check_form(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.starts_with('-') {
        return Err("it may not begin with `-`, because programs would read it as an option");
    }
    if text.chars().any(char::is_control) {
        return Err("it holds a control character");
    }
    if text.split_once("::").is_some_and(|(helper, _)| helper.chars().all(|c| c.is_ascii_alphanumeric())) {
        return Err("remote helpers such as `ext::` run programs and are not supported");
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("https" | "http" | "ssh" | "file" | "git") => Ok(()),
        Some(_) => Err("only https, http, ssh, git and file URLs are supported"),
        None if text.starts_with('/') => Ok(()),
        None if text.split('/').next().is_some_and(|first| first.contains(':')) => Ok(()),
        None => Err("write a URL, host:path, or an absolute path; a relative path depends on where Clavel is started"),
    }
}

/// Checks the parts of a URL, so that none of them reaches `ssh` or `git` as an option.
fn check_parts(url: &gix::Url) -> Result<(), &'static str> {
    if matches!(url.host_as_argument(), ArgumentSafety::Dangerous(_)) {
        return Err("its host begins with `-`, which ssh would read as an option");
    }
    if matches!(url.user_as_argument(), ArgumentSafety::Dangerous(_)) {
        return Err("its user begins with `-`, which ssh would read as an option");
    }
    if url.path.starts_with(b"-") {
        return Err("its path begins with `-`, which git would read as an option");
    }
    match url.scheme {
        Scheme::File if url.host().is_some() => Err("a file URL has three slashes: file:///path"),
        Scheme::File | Scheme::Git | Scheme::Ssh | Scheme::Http | Scheme::Https => match url.host() {
            Some("") => Err("its host is missing"),
            None if url.scheme != Scheme::File => Err("its host is missing"),
            _ => Ok(()),
        },
        Scheme::Ext | Scheme::Helper(_) | Scheme::HelperUrl(_) => Err("remote helpers are not supported"),
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_git_accepts_are_accepted() {
        for good in [
            "https://example.org/fleet.git",
            "http://example.org:8080/fleet.git",
            "ssh://git@example.org:2222/fleet.git",
            "git@example.org:fleet.git",
            "example.org:fleet.git",
            "[::1]:fleet.git",
            "git://example.org/fleet.git",
            "file:///srv/fleet.git",
            "/srv/fleet.git",
            "/srv/with space/a:b.git",
        ] {
            let url: RemoteUrl = good.parse().unwrap();
            assert_eq!(url.to_string(), good);
        }
    }

    #[test]
    fn urls_that_could_run_a_program_are_refused() {
        for (bad, why) in [
            ("", "empty"),
            ("-oProxyCommand=x", "option"),
            ("ssh://-oProxyCommand=x/y", "option"),
            ("-x:y", "option"),
            ("ssh://-u@host/y", "option"),
            ("host:-y", "option"),
            ("ext::sh -c x", "helpers"),
            ("fd::3", "helpers"),
            ("ftp://example.org/x", "only https"),
            ("ext://x", "only https"),
            ("fleet.git", "absolute path"),
            ("./a:b", "absolute path"),
            ("https://example.org/\nx", "control"),
            ("ssh://git:secret@example.org/x", "password"),
            ("git:secret@example.org:x", "password"),
            ("http://me:secret@example.org/x", "[[credentials]]"),
            ("https://TOKEN@example.org/x", "[[credentials]]"),
            ("https://example.org/x?private_token=TOKEN", "[[credentials]]"),
            ("git://secret@example.org/x", "[[credentials]]"),
            ("https://me:sec/ret@example.org/x", "[[credentials]]"),
            ("https:///x", ""),
            ("file://host/x", ""),
        ] {
            let error = bad.parse::<RemoteUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
            assert!(["secret", "sec/", "TOKEN"].iter().all(|secret| !error.contains(secret)), "{bad}: {error}");
        }
    }

    #[test]
    fn a_local_path_is_recognised() {
        let path = |text: &str| text.parse::<RemoteUrl>().unwrap().local_path();
        assert_eq!(path("/srv/fleet.git"), Some("/srv/fleet.git".into()));
        assert_eq!(path("file:///srv/fleet.git"), Some("/srv/fleet.git".into()));
        assert_eq!(path("https://example.org/fleet.git"), None);
    }
}
