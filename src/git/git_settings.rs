//! What the `git` program gets so that it reaches a repository as Clavel does: variables for that one run, and nothing on disk.
//!
//! No password is among them: git asks for it (`credential_helper`).

use std::ffi::OsString;

use gix::url::Scheme;

use super::access::Access;
use super::client_certificate::CertificateFiles;
use super::credential_helper::{self, LOGIN};
use super::credentials::{Credentials, SecretLocation};
use super::host_key::KNOWN_HOSTS;
use super::login::Login;
use crate::model::describe_error;

/// Settings and variables for a run of git.
#[derive(Debug, Default)]
pub(super) struct GitSettings {
    config: Vec<(String, String)>,
    variables: Vec<(String, OsString)>,
    /// Files for the run: the variable that names each, and its text. No secret is in them.
    pub(super) files: Vec<(&'static str, String)>,
    /// The login, for a program beside git that needs it in another form.
    pub(super) login: Option<Login>,
}

impl GitSettings {
    /// What git needs to reach `url` like this. The error names no file and no secret.
    pub(super) fn to_reach(url: &gix::Url, access: &Access) -> Result<Self, String> {
        let mut settings = Self::default();
        for (variable, value) in access.for_git(url).map_err(|error| describe_error(&error))? {
            settings.set_variable(variable, value);
        }
        if url.scheme == Scheme::Ssh {
            // Without one, git's own settings count.
            if let Some(command) = access.ssh.configured() {
                settings.set_variable("GIT_SSH_COMMAND", command);
            }
            settings.files.extend(access.ssh.known_hosts_of(url)?.map(|text| (KNOWN_HOSTS, text)));
        }
        if let Some(proxy) = access.proxy.as_ref().filter(|_| url.scheme == Scheme::Https) {
            settings.set(format!("http.{}.proxy", host_of(url)), proxy.to_string());
        }
        if let Some(certificate) = access.certificate.as_ref().filter(|_| url.scheme == Scheme::Https) {
            let CertificateFiles { certificate, key } = certificate.files()?;
            let setting = |name: &str| format!("http.{}.{name}", host_of(url));
            settings.set(setting("sslCert"), certificate.to_string_lossy());
            settings.set(setting("sslKey"), key.to_string_lossy());
            // git would show the certificate to every host that this one sends it on to.
            settings.set(setting("followRedirects"), "false");
        }
        if let Some(credentials) = access.credentials.as_ref().filter(|_| url.scheme == Scheme::Https) {
            settings.authenticate(url, credentials)?;
        }
        Ok(settings)
    }

    /// Makes git use the credentials for the host of `url` alone: it may be sent on to another.
    fn authenticate(&mut self, url: &gix::Url, credentials: &Credentials) -> Result<(), String> {
        let host = host_of(url);
        let key = |name: &str| format!("credential.{host}.{name}");
        let helper = match &credentials.secret {
            SecretLocation::Git => return Ok(()),
            SecretLocation::Helper(helper) => {
                if let Some(user) = &credentials.user {
                    self.set(key("username"), user.as_str());
                }
                helper.clone()
            }
            SecretLocation::File(_) | SecretLocation::Systemd(_) | SecretLocation::Netrc(_) => {
                // What is wrong with it is told here; git would not say it.
                self.login = credentials.login(url)?;
                let (helper, request) = credential_helper::for_git(url, credentials)?;
                self.set_variable(LOGIN, request);
                helper
            }
        };
        // The empty value removes the machine's helpers. Git would ask them first, and hand them the password to store.
        self.set(key("helper"), "");
        self.set(key("helper"), helper);
        Ok(())
    }

    /// Sets one of git's settings.
    pub(super) fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.config.push((key.into(), value.into()));
    }

    fn set_variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// All of it as variables. `inherited` is the value of `GIT_CONFIG_COUNT` that this process has: its settings stay.
    pub(super) fn into_environment(self, inherited: Option<&str>) -> Vec<(String, OsString)> {
        let before = inherited.and_then(|count| count.parse::<usize>().ok()).unwrap_or_default();
        let mut variables = self.variables;
        if !self.config.is_empty() {
            variables.push(("GIT_CONFIG_COUNT".to_owned(), (before + self.config.len()).to_string().into()));
        }
        for (number, (key, value)) in self.config.into_iter().enumerate().map(|(at, pair)| (before + at, pair)) {
            variables.push((format!("GIT_CONFIG_KEY_{number}"), key.into()));
            variables.push((format!("GIT_CONFIG_VALUE_{number}"), value.into()));
        }
        variables
    }
}

/// The host of a URL of HTTPS, as git's settings name it.
fn host_of(url: &gix::Url) -> String {
    let port = url.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("https://{}{port}", url.host().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::access::SshAccess;
    use super::super::client_certificate::{ClientCertificate, ClientKey};
    use super::*;

    fn environment(url: &str, access: &Access) -> Vec<(String, String)> {
        let settings = GitSettings::to_reach(&gix::url::parse(url).unwrap(), access).unwrap();
        let variables = settings.into_environment(Some("2")).into_iter();
        variables.map(|(key, value)| (key, value.into_string().unwrap())).collect()
    }

    #[test]
    fn the_password_is_for_one_host_and_in_no_variable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let credentials = Some(Credentials { user: None, secret: SecretLocation::File(file) });
        let access = Access { credentials, ..Access::default() };
        let found = environment("https://h:8443/fleet.git", &access);
        let value = |key: &str| found.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        assert!(value(LOGIN).is_some_and(|request| request.contains("token")));
        // The two settings that were there before keep their numbers.
        assert_eq!(value("GIT_CONFIG_COUNT"), Some("4"));
        assert_eq!(value("GIT_CONFIG_KEY_2"), Some("credential.https://h:8443.helper"));
        assert!(value("GIT_CONFIG_VALUE_3").is_some_and(|helper| helper.ends_with(" credential")));
        assert!(found.iter().all(|(_, value)| !value.contains("s3cret")), "{found:?}");
        // The same access says nothing about a host that is reached in another way.
        assert!(environment("http://h/fleet.git", &access).is_empty());
    }

    #[test]
    fn the_proxy_is_for_one_host() {
        let access = Access { proxy: Some("http://proxy:3128".parse().unwrap()), ..Access::default() };
        let found = environment("https://h/fleet.git", &access);
        let is = |key: &str, value: &str| found.contains(&(key.to_owned(), value.to_owned()));
        assert!(is("GIT_CONFIG_KEY_2", "http.https://h.proxy") && is("GIT_CONFIG_VALUE_2", "http://proxy:3128"));
    }

    #[test]
    fn a_client_certificate_is_for_one_host_and_goes_no_further() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("c.key"));
        std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\n").unwrap();
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let names = [&certificate, &key].map(|path| path.display().to_string());
        let own = ClientCertificate { certificate, key: ClientKey::File(key) };
        let access = Access { certificate: Some(own), ..Access::default() };
        let found = environment("https://h:8443/fleet.git", &access);
        let of = |setting: &str| {
            let key = found.iter().find(|(_, value)| value == setting).unwrap().0.replace("KEY", "VALUE");
            found.iter().find(|(name, _)| *name == key).unwrap().1.clone()
        };
        assert_eq!([of("http.https://h:8443.sslCert"), of("http.https://h:8443.sslKey")], names);
        assert_eq!(of("http.https://h:8443.followRedirects"), "false");
        assert!(environment("http://h/fleet.git", &access).is_empty());
    }

    #[test]
    fn ssh_gets_the_key() {
        let ssh = SshAccess { identity: Some("/key".into()), ..SshAccess::default() };
        let found = environment("git@h:fleet.git", &Access { ssh, ..Access::default() });
        assert!(
            matches!(&found[..], [(key, value)] if key == "GIT_SSH_COMMAND" && value.contains("-i '/key'")),
            "{found:?}"
        );
    }
}
