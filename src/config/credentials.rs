//! The `[[credentials]]` tables, which the configurations of all programs have: how the repositories at a URL are reached.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, ConfigFile};
use crate::git::{
    Access, AccessRule, AccessRules, ClientCertificate, ClientKey, Credentials, HostKey, ProxyUrl, SecretLocation,
    SshAccess, UrlPrefix,
};

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
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    client_key_credential: Option<String>,
    ssh_identity: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    host_keys: Option<Vec<HostKey>>,
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
pub(super) const CREDENTIALS_KEYS: [&str; 16] = [
    "url",
    "user",
    "password-file",
    "token-file",
    "password-credential",
    "helper",
    "netrc-file",
    "ca-file",
    "proxy",
    "client-certificate",
    "client-key",
    "client-key-credential",
    "ssh-identity",
    "known-hosts",
    "host-keys",
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
        let has_no_host_key = self.host_keys.as_ref().is_some_and(Vec::is_empty);
        let ssh = SshAccess {
            command: self.ssh_command,
            identity: at(self.ssh_identity),
            known_hosts: at(self.known_hosts),
            host_keys: self.host_keys.unwrap_or_default(),
        };
        for (key, name) in [
            ("credentials.password-credential", &self.password_credential),
            ("credentials.client-key-credential", &self.client_key_credential),
        ] {
            name.as_deref().map_or(Ok(()), check_credential_name).map_err(|why| (key, why))?;
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
        let key = at(self.client_key).map(ClientKey::File);
        let key_of_systemd = self.client_key_credential.map(ClientKey::Systemd);
        let has_two_keys = key.is_some() && key_of_systemd.is_some();
        let (certificate, key) = (at(self.client_certificate), key.or(key_of_systemd));
        let is_half = certificate.is_some() != key.is_some();
        let certificate = certificate.zip(key).map(|(certificate, key)| ClientCertificate { certificate, key });
        let access = Access { credentials, ca_file: at(self.ca_file), proxy: self.proxy, certificate, ssh };
        let is_for_https = access.credentials.is_some()
            || access.ca_file.is_some()
            || access.proxy.is_some()
            || access.certificate.is_some()
            || self.user.is_some();
        let is_for_ssh = access.ssh != SshAccess::default();
        let why = if more.is_some() {
            "names more than one of password-file, token-file, password-credential, helper and netrc-file"
        } else if is_half {
            "has one of client-certificate and its key, and needs both: client-certificate, and client-key or client-key-credential"
        } else if has_two_keys {
            "names both client-key and client-key-credential"
        } else if access.ssh.known_hosts.is_some() && !access.ssh.host_keys.is_empty() {
            "names both known-hosts and host-keys"
        } else if has_no_host_key {
            "has no key in host-keys"
        } else if self.user.is_some() && access.credentials.is_none() {
            "has a user and no password; name a password-file, or put the user of ssh into the URL"
        } else if !is_for_https && !is_for_ssh {
            "says nothing; name for example a token-file, or with ssh an ssh-identity"
        } else if url.starts_with("https://") && is_for_ssh {
            "is about https, where ssh-identity, known-hosts, host-keys and ssh-command mean nothing"
        } else if !url.starts_with("https://") && is_for_https {
            "is not about https, where alone user, password, token, ca-file, client-certificate and proxy count"
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
        let certificate =
            |more: &str| https(&format!("client-certificate = 'c'\n{more}")).unwrap().certificate.unwrap();
        assert_eq!(certificate("client-key = 'k'").key, ClientKey::File("/etc/clavel/k".into()));
        assert_eq!(certificate("client-key-credential = 'k'").key, ClientKey::Systemd("k".to_owned()));
        assert_eq!(certificate("client-key = 'k'").certificate, Path::new("/etc/clavel/c"));
        let host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        let keys = rule(&format!("url = 'ssh://git@h'\nhost-keys = ['{host_key} comment']")).unwrap().ssh.host_keys;
        assert_eq!(keys, [host_key.parse().unwrap()]);
        let both = format!("url = 'ssh://h'\nknown-hosts = 'k'\nhost-keys = ['{host_key}']");
        assert!(rule(&both).unwrap_err().contains("both known-hosts and host-keys"));
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
            ("url = 'https://h'\nclient-certificate = 'c'", "needs both"),
            ("url = 'https://h'\nclient-key = 'k'", "needs both"),
            ("url = 'https://h'\nclient-key-credential = '../k'", "not the name of a credential"),
            (
                "url = 'https://h'\nclient-certificate = 'c'\nclient-key = 'k'\nclient-key-credential = 'k'",
                "both client-key and client-key-credential",
            ),
            ("url = 'ssh://h'\nclient-certificate = 'c'\nclient-key = 'k'", "is not about https"),
            ("url = 'ssh://h'\nhost-keys = []", "no key in host-keys"),
            ("url = 'ssh://h'\nhost-keys = ['h ssh-ed25519 AAAA']", "leave out the host"),
            ("url = 'https://h'\nhost-keys = ['x']", "has to be like"),
        ] {
            let error = rule(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
