//! How Clavel reaches the host of a repository: who it is there, whose certificates count, and how ssh is run.
//!
//! One [`Access`] serves everything that connects to the host: Clavel's own fetches, and `git`, where it pushes and where Nix runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use gix::url::Scheme;
use serde::{Deserialize, Serialize};

use super::certificates::{Certificates, CertificatesError, Chosen, any_certificate};
use super::client_certificate::ClientCertificate;
use super::credentials::Credentials;
use super::host_key::{HostKey, KNOWN_HOSTS, known_hosts};
use super::proxy::ProxyUrl;

/// The ssh command where none is configured. `BatchMode`, because nobody is there to type a password; the other options
/// end a connection that hangs, because gix cannot interrupt a read.
const SSH: &str = "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4";

/// How a repository is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Who Clavel is over HTTPS, where it is somebody.
    pub credentials: Option<Credentials>,
    /// The file with the CA certificates that alone vouch for the host. The default is the machine's.
    pub ca_file: Option<PathBuf>,
    /// The proxy for HTTPS. The default is that of the environment, where it names one.
    pub proxy: Option<ProxyUrl>,
    /// The certificate that Clavel shows the host over HTTPS.
    pub certificate: Option<ClientCertificate>,
    /// How ssh is run.
    pub ssh: SshAccess,
}

/// How ssh is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SshAccess {
    /// The command that replaces plain `ssh`. It has to understand OpenSSH's options.
    pub command: Option<String>,
    /// The file of the secret key; no other key is offered then.
    pub identity: Option<PathBuf>,
    /// The file with the keys of hosts; a host whose key is not there is refused then.
    pub known_hosts: Option<PathBuf>,
    /// The keys of the host itself, in place of such a file.
    pub host_keys: Vec<HostKey>,
}

impl SshAccess {
    /// The command, for a shell; `None` where nothing is configured.
    pub(super) fn configured(&self) -> Option<String> {
        (*self != Self::default()).then(|| self.command())
    }

    /// The command, for a shell. Where [`Self::known_hosts_of`] has a text, the variable [`KNOWN_HOSTS`] has to name a file with it.
    pub(super) fn command(&self) -> String {
        let command = self.command.as_deref().unwrap_or(SSH);
        let identity = self.identity.as_ref().map(|identity| {
            let file = quoted(&identity.to_string_lossy());
            format!(" -i {file} -o IdentitiesOnly=yes")
        });
        // ssh takes white space in this value for the end of a path.
        let known_hosts = match &self.known_hosts {
            Some(known_hosts) => Some(quoted(&format!("UserKnownHostsFile=\"{}\"", known_hosts.display()))),
            // The file is made for each run.
            None if !self.host_keys.is_empty() => Some(format!("\"UserKnownHostsFile=\\\"${KNOWN_HOSTS}\\\"\"")),
            None => None,
        };
        let known_hosts = known_hosts
            .map(|file| format!(" -o {file} -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"));
        format!("{command}{}{}", identity.unwrap_or_default(), known_hosts.unwrap_or_default())
    }

    /// The text of the file with the keys of the host of `url`, where the configuration has them.
    pub(super) fn known_hosts_of(&self, url: &gix::Url) -> Result<Option<String>, String> {
        if self.host_keys.is_empty() || url.scheme != Scheme::Ssh {
            return Ok(None);
        }
        let unusable = "the name of the host cannot be in a known_hosts file; correct the URL";
        known_hosts(&self.host_keys, url).map(Some).ok_or_else(|| unusable.to_owned())
    }
}

/// The text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Access {
    /// The variables with which the program that fetches with gix finds the certificates for `url`. `empty` is a folder without
    /// certificates.
    ///
    /// gix's HTTP asks OpenSSL's variables, and where one of them is not set, it adds what it finds on the machine. So both are set.
    pub(super) fn for_gix(
        &self,
        url: &gix::Url,
        empty: &Path,
    ) -> Result<Vec<(&'static str, OsString)>, CertificatesError> {
        if url.scheme != Scheme::Https {
            return Ok(Vec::new());
        }
        let found = Certificates::of_this_machine(self.ca_file.as_deref())?;
        // OpenSSL refuses a file without a certificate, so a folder stands beside one of its own files.
        let file = found.file.or_else(|| found.folder.as_deref().and_then(any_certificate)).unwrap_or_default();
        let folder = found.folder.unwrap_or_else(|| empty.to_owned());
        Ok(vec![("SSL_CERT_FILE", file.into()), ("SSL_CERT_DIR", folder.into())])
    }

    /// The variables with which `git` finds the certificates for `url`. Its own settings count, unless somebody named others to Clavel.
    pub(super) fn for_git(&self, url: &gix::Url) -> Result<Vec<(&'static str, OsString)>, CertificatesError> {
        if url.scheme != Scheme::Https {
            return Ok(Vec::new());
        }
        match Certificates::of_this_machine(self.ca_file.as_deref()) {
            Ok(Certificates { file, folder, chosen: Chosen::ByName }) => {
                let file = file.map(|file| ("GIT_SSL_CAINFO", file.into()));
                let folder = folder.map(|folder| ("GIT_SSL_CAPATH", folder.into()));
                Ok(file.into_iter().chain(folder).collect())
            }
            // git may know better, by settings of its own.
            Ok(Certificates { chosen: Chosen::ByDefault, .. }) | Err(CertificatesError::None) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ssh_command_has_the_key_and_the_known_hosts() {
        assert_eq!(SshAccess::default().configured(), None);
        assert_eq!(SshAccess::default().command(), SSH);
        let own = SshAccess { command: Some("ssh -p 22".to_owned()), ..SshAccess::default() };
        assert_eq!(own.configured().as_deref(), Some("ssh -p 22"));
        let both = SshAccess { identity: Some("/it's/key".into()), known_hosts: Some("/a b".into()), ..own.clone() };
        assert_eq!(
            both.command(),
            r#"ssh -p 22 -i '/it'\''s/key' -o IdentitiesOnly=yes -o 'UserKnownHostsFile="/a b"' -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"#
        );
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        let keys = SshAccess { host_keys: vec![key.parse().unwrap()], ..own };
        assert_eq!(
            keys.command(),
            r#"ssh -p 22 -o "UserKnownHostsFile=\"$CLAVEL_KNOWN_HOSTS\"" -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"#
        );
        let of = |url: &str| keys.known_hosts_of(&gix::url::parse(url).unwrap());
        assert_eq!(of("git@h:x"), Ok(Some(format!("h {key}\n"))));
        assert_eq!(of("https://h/x"), Ok(None));
    }
}
