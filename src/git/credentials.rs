//! Who Clavel is to the host of a repository over HTTPS: a name, and where the password or token is.
//!
//! The password is read where a program connects, and is nowhere else: not in a configuration, a URL, an argument or an error.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use gix::credentials::Program;
use gix::credentials::helper::{Action, invoke};
use gix::credentials::program::Kind;
use gix::credentials::protocol::{Context, ContextOptions};
use serde::{Deserialize, Serialize};

use super::login::Login;
use super::netrc;

/// The most bytes of a file with a password or token.
const MAX_BYTES: u64 = 16 << 10;
/// The user where none is named. A host that takes a token takes it from any user.
const DEFAULT_USER: &str = "git";

/// A user, and where the password or token is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// The user; `None` for the one that the secret names, or `git`.
    pub user: Option<String>,
    /// Where the password or token is.
    pub secret: SecretLocation,
}

/// Where a password or token is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum SecretLocation {
    /// In the first line of this file.
    File(PathBuf),
    /// In the first line of the systemd credential of this name (`systemd.exec(5)`, "Credentials").
    Systemd(String),
    /// A credential helper of git's gives it (`gitcredentials(7)`).
    Helper(String),
    /// In the entry of the host in this file (`netrc(5)`).
    Netrc(PathBuf),
    /// Where git of the user who runs this has it: in `~/.netrc`, or with the helpers of git's configuration.
    Git,
}

impl Credentials {
    /// The login for `url`; `None` where this machine has none for its host. The error says neither the file nor what is in it,
    /// since pushers read it.
    pub(super) fn login(&self, url: &gix::Url) -> Result<Option<Login>, String> {
        let with = |password| Login { user: self.user.clone().unwrap_or_else(|| DEFAULT_USER.to_owned()), password };
        match &self.secret {
            SecretLocation::File(path) => self.password(path, "the password-file or token-file").map(with).map(Some),
            SecretLocation::Systemd(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
                let folder = folder.ok_or(
                    "password-credential of [[credentials]] names a credential of systemd, and this process has none; run it as \
                     a service with LoadCredential=",
                )?;
                self.password(&Path::new(&folder).join(name), "the password-credential").map(with).map(Some)
            }
            SecretLocation::Netrc(path) => {
                let text = read(path, "the netrc-file")?;
                match netrc::find(&text, url.host().unwrap_or_default(), self.user.as_deref()) {
                    Some(login) => Ok(Some(login)),
                    None => Err("the netrc-file that [[credentials]] names has no entry for the host".to_owned()),
                }
            }
            SecretLocation::Helper(helper) => {
                let program = Program::from_custom_definition(helper.as_str());
                let login = program.ok().and_then(|program| self.ask(program, url));
                login.map(Some).ok_or_else(|| {
                    "the helper of [[credentials]] gave no user and password; try it by itself with the argument `get` \
                     (gitcredentials(7))"
                        .to_owned()
                })
            }
            SecretLocation::Git => {
                let own = std::env::var_os("NETRC").map(PathBuf::from);
                let own = own.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".netrc")));
                let text = own.and_then(|path| read(&path, "the netrc-file").ok()).unwrap_or_default();
                let found = netrc::find(&text, url.host().unwrap_or_default(), self.user.as_deref());
                Ok(found.or_else(|| self.ask(Program::from_kind(Kind::Builtin), url)))
            }
        }
    }

    /// The first line of a file that `what` of [[credentials]] names. It may be empty where the user is named: hosts take a token as the
    /// user, with an empty password.
    fn password(&self, path: &Path, what: &str) -> Result<String, String> {
        match read(path, what)?.lines().next().unwrap_or_default() {
            "" if self.user.is_none() => Err(format!("the first line of {what} that [[credentials]] names is empty")),
            line => Ok(line.to_owned()),
        }
    }

    /// Asks a helper, or git.
    fn ask(&self, program: Program, url: &gix::Url) -> Option<Login> {
        let mut context = Context::from_url(url.to_bstring(), ContextOptions::default());
        // A helper that is not run by git understands no URL, only its parts.
        context.destructure_url_in_place(true).ok()?;
        context.url = None;
        context.username = self.user.clone().or(context.username);
        // What a helper says about its failure may quote what it read.
        let mut found = invoke(&mut program.suppress_stderr(), &Action::Get(context)).ok()??;
        let user = found.username.take().or_else(|| self.user.clone())?;
        Some(Login { user, password: found.password.take()? })
    }
}

fn read(path: &Path, what: &str) -> Result<String, String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("{what} that [[credentials]] names cannot be read: {error}"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(secret: SecretLocation) -> Result<Option<Login>, String> {
        let url = gix::url::parse("https://git.example.org/team/fleet.git").unwrap();
        Credentials { user: None, secret }.login(&url)
    }

    fn is(user: &str, password: &str) -> Login {
        Login { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn the_password_is_the_first_line_and_no_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s3cret");
        let error = login(SecretLocation::File(path.clone())).unwrap_err();
        assert!(error.contains("cannot be read") && !error.contains("s3cret"), "{error}");
        std::fs::write(&path, "\n").unwrap();
        assert!(login(SecretLocation::File(path.clone())).unwrap_err().contains("is empty"));
        // With a user, which then is the token.
        let url = gix::url::parse("https://git.example.org/team/fleet.git").unwrap();
        let token = Credentials { user: Some("t0ken".to_owned()), secret: SecretLocation::File(path.clone()) };
        assert_eq!(token.login(&url), Ok(Some(is("t0ken", ""))));
        std::fs::write(&path, "s3cret\nabout it\n").unwrap();
        assert_eq!(login(SecretLocation::File(path)), Ok(Some(is("git", "s3cret"))));
        assert!(!format!("{:?}", is("git", "s3cret")).contains("s3cret"));
    }

    #[test]
    fn a_helper_gets_the_parts_of_the_url() {
        let helper =
            r#"!f() { test "$1" = get; host=$(sed -n s/^host=//p); echo username=me; echo password=for-$host; }; f"#;
        assert_eq!(login(SecretLocation::Helper(helper.to_owned())), Ok(Some(is("me", "for-git.example.org"))));
        let error = login(SecretLocation::Helper("!echo s3cret >&2; false".to_owned())).unwrap_err();
        assert!(error.contains("helper") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_netrc_file_has_an_entry_for_the_host_or_it_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netrc");
        std::fs::write(&path, "machine git.example.org login me password s3cret\n").unwrap();
        assert_eq!(login(SecretLocation::Netrc(path.clone())), Ok(Some(is("me", "s3cret"))));
        std::fs::write(&path, "machine example.org login me password s3cret\n").unwrap();
        let error = login(SecretLocation::Netrc(path)).unwrap_err();
        assert!(error.contains("no entry") && !error.contains("s3cret"), "{error}");
    }
}
