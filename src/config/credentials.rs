//! The `[[credentials]]` tables, which the configurations of all programs have: how the repositories at a URL are reached.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, ConfigFile};
use crate::git::{Access, AccessRule, AccessRules, Credentials, ProxyUrl, SecretLocation, SshAccess, UrlPrefix};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct CredentialsTable {
    /// The beginning of the URLs that it is about.
    url: UrlPrefix,
    user: Option<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    password_credential: Option<String>,
    helper: Option<String>,
    netrc_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    proxy: Option<ProxyUrl>,
    ssh_identity: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    ssh_command: Option<String>,
}

/// An error of a table: the key, and why.
type TableError = (&'static str, String);

/// The rules that the tables make. The paths in them are relative to `directory`; `default` counts where no table does.
pub(super) fn access_rules(
    tables: Vec<CredentialsTable>,
    default: Access,
    directory: &Path,
) -> Result<AccessRules, TableError> {
    let rules = tables.into_iter().map(|table| table.into_rule(directory)).collect::<Result<_, _>>()?;
    Ok(AccessRules { rules, default })
}

/// The access of a program whose configuration names this command in place of `ssh`, for every URL.
pub(super) fn with_ssh_command(command: Option<String>) -> Access {
    Access { ssh: SshAccess { command, ..SshAccess::default() }, ..Access::default() }
}

/// Checks the name of a systemd credential. The error does not show it, since it may be the secret itself.
pub(super) fn check_credential_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_graphic() && !"/:".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
        return Err("it is not the name of a credential, which has to be a file name".to_owned());
    }
    Ok(())
}

/// The file of `clavel --credentials`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct CredentialsFile {
    credentials: Vec<CredentialsTable>,
}

impl ConfigFile for CredentialsFile {
    type Settings = AccessRules;

    fn into_settings(self, directory: &Path) -> Result<AccessRules, TableError> {
        access_rules(self.credentials, access_of_git(), directory)
    }
}

/// Every setting of a table, which the complete examples have.
#[cfg(test)]
pub(super) const CREDENTIALS_KEYS: [&str; 12] = [
    "url",
    "user",
    "password-file",
    "token-file",
    "password-credential",
    "helper",
    "netrc-file",
    "ca-file",
    "proxy",
    "ssh-identity",
    "known-hosts",
    "ssh-command",
];

/// Reads a file of `[[credentials]]` tables. Where none is about a URL, what git has counts.
pub fn read_credentials(path: &Path) -> Result<AccessRules, ConfigError> {
    super::read::<CredentialsFile>(path)
}

/// The rules of a person: what git has counts everywhere.
pub fn credentials_of_git() -> AccessRules {
    AccessRules { rules: Vec::new(), default: access_of_git() }
}

fn access_of_git() -> Access {
    Access { credentials: Some(Credentials { user: None, secret: SecretLocation::Git }), ..Access::default() }
}

impl CredentialsTable {
    fn into_rule(self, directory: &Path) -> Result<AccessRule, TableError> {
        let at = |path: Option<PathBuf>| path.map(|path| directory.join(path));
        let url = self.url.to_string();
        let ssh =
            SshAccess { command: self.ssh_command, identity: at(self.ssh_identity), known_hosts: at(self.known_hosts) };
        if let Some(name) = &self.password_credential {
            check_credential_name(name).map_err(|why| ("credentials.password-credential", why))?;
        }
        let mut secrets = [
            at(self.password_file).map(SecretLocation::File),
            at(self.token_file).map(SecretLocation::File),
            self.password_credential.map(SecretLocation::Systemd),
            self.helper.map(SecretLocation::Helper),
            at(self.netrc_file).map(SecretLocation::Netrc),
        ]
        .into_iter()
        .flatten();
        let (secret, more) = (secrets.next(), secrets.next());
        let credentials = secret.map(|secret| Credentials { user: self.user.clone(), secret });
        let access = Access { credentials, ca_file: at(self.ca_file), proxy: self.proxy, ssh };
        let is_for_https =
            access.credentials.is_some() || access.ca_file.is_some() || access.proxy.is_some() || self.user.is_some();
        let is_for_ssh = access.ssh != SshAccess::default();
        let why = if more.is_some() {
            "names more than one of password-file, token-file, password-credential, helper and netrc-file"
        } else if self.user.is_some() && access.credentials.is_none() {
            "has a user and no password; name a password-file, or put the user of ssh into the URL"
        } else if !is_for_https && !is_for_ssh {
            "says nothing; name for example a token-file, or with ssh an ssh-identity"
        } else if url.starts_with("https://") && is_for_ssh {
            "is about https, where ssh-identity, known-hosts and ssh-command mean nothing"
        } else if !url.starts_with("https://") && is_for_https {
            "is not about https, where alone user, password, token, ca-file and proxy count"
        } else if !url.starts_with("https://") && !self.url.is_ssh() {
            "is neither an https:// nor an ssh:// URL"
        } else {
            return Ok(AccessRule { url: self.url, access });
        };
        Err(("credentials", format!("the table of {url} {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Access, String> {
        let table: CredentialsTable = toml::from_str(text).map_err(|error| error.to_string())?;
        table.into_rule(Path::new("/etc/clavel")).map(|rule| rule.access).map_err(|(_, why)| why)
    }

    #[test]
    fn a_table_is_about_https_or_about_ssh() {
        let https = |more: &str| rule(&format!("url = \"https://h\"\n{more}"));
        let secret = |more: &str| https(more).unwrap().credentials.unwrap().secret;
        assert_eq!(secret("password-file = 'p'"), SecretLocation::File("/etc/clavel/p".into()));
        assert_eq!(secret("token-file = '/t'"), SecretLocation::File("/t".into()));
        assert_eq!(secret("password-credential = 'c'"), SecretLocation::Systemd("c".to_owned()));
        assert_eq!(secret("helper = '!h'"), SecretLocation::Helper("!h".to_owned()));
        assert_eq!(secret("netrc-file = 'n'"), SecretLocation::Netrc("/etc/clavel/n".into()));
        assert_eq!(https("ca-file = 'c'").unwrap().ca_file, Some("/etc/clavel/c".into()));
        assert_eq!(https("proxy = 'http://p:3128'").unwrap().proxy, Some("http://p:3128".parse().unwrap()));
        let ssh = rule("url = 'ssh://git@h'\nssh-identity = 'i'\nknown-hosts = 'k'\nssh-command = 's'").unwrap().ssh;
        assert_eq!(ssh.identity, Some("/etc/clavel/i".into()));
        assert_eq!((ssh.known_hosts, ssh.command), (Some("/etc/clavel/k".into()), Some("s".to_owned())));
        rule("url = 'git@h:team'\nssh-identity = 'i'").unwrap();
        for (text, why) in [
            ("url = 'https://h'", "says nothing"),
            ("url = 'https://h'\nuser = 'u'", "no password"),
            ("url = 'https://h'\ntoken-file = 't'\nhelper = 'h'", "more than one"),
            ("url = 'https://h'\nssh-identity = 'i'", "is about https"),
            ("url = 'ssh://h'\ntoken-file = 't'", "is not about https"),
            ("url = 'http://h'\ntoken-file = 't'", "is not about https"),
            ("url = 'ssh://h'\nproxy = 'http://p'", "is not about https"),
            ("url = 'https://h'\nproxy = 'http://me:secret@p'", "logs in to no proxy"),
            ("url = '/srv'\nssh-identity = 'i'", "neither an https:// nor an ssh:// URL"),
            ("url = 'https://h'\npassword-credential = '../x'", "not the name of a credential"),
            ("url = 'https://h'\npassword = 'x'", "unknown field"),
        ] {
            let error = rule(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
