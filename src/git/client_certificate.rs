//! The certificate with which Clavel shows a host over HTTPS who it is, and its secret key.
//!
//! The TLS of libcurl and of git reads the files itself. They are checked here before, since neither says what is wrong with them.

use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The most bytes of either file: 64 KiB. A certificate may come with those of its CAs.
const MAX_BYTES: u64 = 64 << 10;
/// What others may not do with a key.
const FORBIDDEN: u32 = 0o077;
/// The same for a systemd credential: its access control list, for the service alone, shows as the group's right to read.
const FORBIDDEN_IN_CREDENTIAL: u32 = 0o037;

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificate {
    /// The file of the certificate, with those of the CAs between it and the root where the host needs them.
    pub certificate: PathBuf,
    /// Where the key is.
    pub key: ClientKey,
}

/// Where the secret key of a certificate is. It has no passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ClientKey {
    /// In this file, which its owner alone can read.
    File(PathBuf),
    /// In the systemd credential of this name (`systemd.exec(5)`, "Credentials").
    Systemd(String),
}

/// The files of a certificate and of its key, which were there and in order a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl ClientCertificate {
    /// The files. The error names neither, since pushers read it.
    pub(super) fn files(&self) -> Result<CertificateFiles, String> {
        let (setting, key, forbidden) = match &self.key {
            ClientKey::File(path) => ("client-key", path.clone(), FORBIDDEN),
            ClientKey::Systemd(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
                let folder = folder.ok_or(
                    "client-key-credential of [[credentials]] names a credential of systemd, and this process has none; run it \
                     as a service with LoadCredential=",
                )?;
                ("client-key-credential", Path::new(&folder).join(name), FORBIDDEN_IN_CREDENTIAL)
            }
        };
        check(&self.certificate, "client-certificate", None)?;
        check(&key, setting, Some(forbidden))?;
        Ok(CertificateFiles { certificate: self.certificate.clone(), key })
    }
}

/// Checks a file that `setting` names: of a certificate, or of a key on which nobody else has the rights `forbidden`.
fn check(path: &Path, setting: &str, forbidden: Option<u32>) -> Result<(), String> {
    let unreadable = |error: io::Error| format!("the {setting} that [[credentials]] names cannot be read: {error}");
    // Opening a pipe that nobody writes to would never return.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(format!("the {setting} that [[credentials]] names is not a regular file"));
    }
    if let Some(forbidden) = forbidden {
        let user = rustix::process::geteuid().as_raw();
        check_permissions(metadata.uid(), user, metadata.mode() & 0o7777, forbidden)
            .map_err(|why| format!("the {setting} that [[credentials]] names {why}"))?;
    }
    let mut text =
        Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len().min(MAX_BYTES)).unwrap_or_default()));
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(unreadable)?;
    let has = |mark: &str| memchr::memmem::find(&text, mark.as_bytes()).is_some();
    let wrong = match forbidden {
        None if !has("-----BEGIN CERTIFICATE-----") => "has no certificate in PEM",
        Some(_) if has("ENCRYPTED") => {
            "has a passphrase, which nobody is there to type; name a key without one (`openssl pkey -in OLD -out NEW`)"
        }
        Some(_) if !has("PRIVATE KEY-----") => "has no secret key in PEM",
        None | Some(_) => return Ok(()),
    };
    Err(format!("the {setting} that [[credentials]] names {wrong}"))
}

/// Refuses a key of another user than `user` and root, and one with the permission bits `forbidden`.
fn check_permissions(owner: u32, user: u32, mode: u32, forbidden: u32) -> Result<(), String> {
    if owner != user && owner != 0 {
        return Err(format!(
            "belongs to the user {owner}, and has to belong to the user {user}, who runs this, or to root"
        ));
    }
    if mode & forbidden != 0 {
        return Err(format!(
            "can be read by others (mode {mode:04o}); run `chmod 600` on it, and make a new key if somebody may have read this one"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_its_owners_alone() {
        assert_eq!(check_permissions(7, 7, 0o600, FORBIDDEN), Ok(()));
        assert_eq!(check_permissions(0, 7, 0o400, FORBIDDEN), Ok(()));
        assert_eq!(check_permissions(0, 7, 0o440, FORBIDDEN_IN_CREDENTIAL), Ok(()));
        assert!(check_permissions(8, 7, 0o600, FORBIDDEN).unwrap_err().contains("belongs to the user 8"));
        for (mode, forbidden) in [(0o640, FORBIDDEN), (0o604, FORBIDDEN), (0o444, FORBIDDEN_IN_CREDENTIAL)] {
            assert!(check_permissions(7, 7, mode, forbidden).unwrap_err().contains("chmod 600"), "{mode:o}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_and_the_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str, mode| {
            std::fs::write(at(name), text).unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        let files =
            || ClientCertificate { certificate: at("s3cret.pem"), key: ClientKey::File(at("s3cret.key")) }.files();
        let says = |why: &str| {
            let error = files().unwrap_err();
            assert!(error.contains(why) && !error.contains("s3cret"), "{error}");
        };
        says("client-certificate that [[credentials]] names cannot be read");
        write("s3cret.pem", "-----BEGIN PRIVATE KEY-----\n", 0o644);
        says("no certificate");
        write("s3cret.pem", "-----BEGIN CERTIFICATE-----\n", 0o644);
        says("client-key that [[credentials]] names cannot be read");
        write("s3cret.key", "-----BEGIN PRIVATE KEY-----\n", 0o644);
        says("can be read by others (mode 0644)");
        write("s3cret.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", 0o600);
        says("passphrase");
        write("s3cret.key", "-----BEGIN CERTIFICATE-----\n", 0o600);
        says("no secret key");
        write("s3cret.key", "-----BEGIN PRIVATE KEY-----\n", 0o600);
        assert_eq!(files(), Ok(CertificateFiles { certificate: at("s3cret.pem"), key: at("s3cret.key") }));
    }
}
