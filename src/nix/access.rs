//! What Nix gets to fetch from one URL, in that run alone: variables for the `git` that it runs, a netrc file for what it downloads, and
//! a token for the API of a host.
//!
//! Whose secrets these are, and for which URLs, is not known here.

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::process::Invocation;

/// What one URL needs. Its `Debug` has no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FetchAccess {
    /// Variables.
    pub environment: Vec<(String, OsString)>,
    /// Files without secrets: the variable that names each, and its text.
    pub files: Vec<(&'static str, String)>,
    /// The text of a netrc file.
    pub netrc: Option<String>,
    /// The token, for a host whose API Nix asks.
    pub token: Option<String>,
}

impl fmt::Debug for FetchAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FetchAccess({} variables)", self.environment.len())
    }
}

/// Says what a URL needs, or why this machine does not have it.
type AccessOf = dyn Fn(&str) -> Result<FetchAccess, String> + Send + Sync;

/// Says what to do where a URL cannot be fetched from and a program says this.
type AdviceOf = dyn Fn(&str, &str) -> Option<&'static str> + Send + Sync;

/// Says for each URL what it needs. The default is nothing: Nix and git then go by their own settings.
#[derive(Clone)]
pub struct FetchKeys {
    access_of: Arc<AccessOf>,
    advice_of: Arc<AdviceOf>,
}

impl FetchKeys {
    /// What `access_of` says.
    pub fn new(access_of: impl Fn(&str) -> Result<FetchAccess, String> + Send + Sync + 'static) -> Self {
        Self { access_of: Arc::new(access_of), advice_of: Arc::new(|_, _| None) }
    }

    /// The same, with advice for what a program says where it cannot fetch.
    #[must_use]
    pub fn with_advice(self, advice_of: impl Fn(&str, &str) -> Option<&'static str> + Send + Sync + 'static) -> Self {
        Self { advice_of: Arc::new(advice_of), ..self }
    }

    /// What to do where a program cannot fetch from `url`, and says this.
    pub(super) fn advice(&self, url: &str, words: &str) -> Option<&'static str> {
        (self.advice_of)(url, words)
    }

    /// What the fetch of these attributes, or of this URL, needs (Nix's manual, `fetchTree`).
    pub(super) fn of(&self, fetched: &Value) -> Result<FetchAccess, String> {
        let Some(place) = place_of(fetched) else { return Ok(FetchAccess::default()) };
        let mut access = (self.access_of)(&place.url)?;
        access.token = access.token.take().zip(place.token_of).map(|(token, form)| form.replace("TOKEN", &token));
        Ok(access)
    }
}

impl Default for FetchKeys {
    fn default() -> Self {
        Self::new(|_| Ok(FetchAccess::default()))
    }
}

impl fmt::Debug for FetchKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FetchKeys")
    }
}

/// Where something is fetched from.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    url: String,
    /// How Nix's `access-tokens` names the token `TOKEN` for the host.
    token_of: Option<String>,
}

fn place_of(fetched: &Value) -> Option<Place> {
    match fetched {
        Value::String(url) => Some(Place { url: plain(url), token_of: None }),
        Value::Object(attributes) => place_of_attributes(attributes),
        _ => None,
    }
}

fn place_of_attributes(attributes: &Map<String, Value>) -> Option<Place> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    let (host, token) = match text("type")? {
        "github" => ("github.com", "TOKEN"),
        // Nix tells a personal token from one of OAuth2 by this word.
        "gitlab" => ("gitlab.com", "PAT:TOKEN"),
        "sourcehut" => ("git.sr.ht", "TOKEN"),
        _ => return text("url").map(|url| Place { url: plain(url), token_of: None }),
    };
    let host = text("host").unwrap_or(host);
    let url = format!("https://{host}/{}/{}", text("owner")?, text("repo")?);
    Some(Place { url, token_of: Some(format!("{host}={token}")) })
}

/// The URL without what Nix adds to it: `git+https://h/x?ref=main` is `https://h/x`.
fn plain(url: &str) -> String {
    let front = url.split(['?', '#']).next().unwrap_or_default();
    match front.split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.rsplit('+').next().unwrap_or(scheme)),
        None => front.to_owned(),
    }
}

/// A run that has an access. The files live as long as this.
pub(super) struct WithAccess {
    pub(super) run: Invocation,
    pub(super) _files: Vec<NamedTempFile>,
}

impl FetchAccess {
    /// Gives `run`, which is git, this access.
    pub(super) fn give_to_git(self, run: Invocation) -> std::io::Result<WithAccess> {
        let mut run = self.environment.into_iter().fold(run, |run, (key, value)| run.env(key, value));
        let mut files = Vec::new();
        for (variable, text) in self.files {
            let file = private_file(&text)?;
            run = run.env(variable, file.path());
            files.push(file);
        }
        Ok(WithAccess { run, _files: files })
    }

    /// Gives `run`, a program of Nix, this access.
    pub(super) fn give_to(mut self, run: Invocation) -> std::io::Result<WithAccess> {
        let (token, netrc) = (self.token.take(), self.netrc.take());
        let WithAccess { mut run, _files: mut files } = self.give_to_git(run)?;
        if let Some(token) = token.filter(|token| !token.contains(char::is_whitespace)) {
            let own = std::env::var("NIX_CONFIG").unwrap_or_default();
            // Not an argument, since every user of the machine can read those. The variables of a process are for its own user alone.
            run = run.env("NIX_CONFIG", format!("{own}\nextra-access-tokens = {token}\n"));
        }
        if let Some(netrc) = netrc {
            let file = private_file(&netrc)?;
            run = run.args(["--option", "netrc-file"]).arg(file.path().as_os_str());
            files.push(file);
        }
        Ok(WithAccess { run, _files: files })
    }
}

/// A file that only its owner can read.
fn private_file(text: &str) -> std::io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_an_input_has_a_plain_url() {
        for (fetched, url, token_of) in [
            (json!("git+https://h/x.git?ref=main"), "https://h/x.git", None),
            (json!("git+ssh://git@h/x?dir=a"), "ssh://git@h/x", None),
            (json!("https://h/x.tar.gz"), "https://h/x.tar.gz", None),
            (json!({"type": "git", "url": "git@h:x"}), "git@h:x", None),
            (json!({"type": "tarball", "url": "https://h/x.tar.gz"}), "https://h/x.tar.gz", None),
            (json!({"type": "github", "owner": "o", "repo": "r"}), "https://github.com/o/r", Some("github.com=TOKEN")),
            (
                json!({"type": "gitlab", "host": "git.lan", "owner": "o", "repo": "r"}),
                "https://git.lan/o/r",
                Some("git.lan=PAT:TOKEN"),
            ),
        ] {
            let expected = Place { url: url.to_owned(), token_of: token_of.map(str::to_owned) };
            assert_eq!(place_of(&fetched), Some(expected), "{fetched}");
        }
        assert_eq!(place_of(&json!({"type": "path", "path": "/x"})), None);
    }

    #[test]
    fn a_token_is_for_its_host_and_not_shown() {
        let keys = FetchKeys::new(|url| {
            Ok(FetchAccess {
                token: url.starts_with("https://github.com/o/").then(|| "s3cret".to_owned()),
                ..FetchAccess::default()
            })
        });
        let of = |owner: &str| keys.of(&json!({"type": "github", "owner": owner, "repo": "r"})).unwrap();
        assert_eq!(of("o").token.as_deref(), Some("github.com=s3cret"));
        assert_eq!(of("other").token, None);
        assert!(!format!("{:?} {keys:?}", of("o")).contains("s3cret"));
        // git does not ask the API.
        assert_eq!(keys.of(&json!("git+https://github.com/o/r")).unwrap().token, None);
    }
}
