//! Which CA certificates vouch for a server, decided once for everything that connects: gix's HTTP, `git`, and what Nix fetches.
//!
//! OpenSSL, libcurl, git and Nix each look in other places, and as a service, without a single variable, some of them look nowhere
//! that the machine has certificates. So Clavel decides, and tells them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The variables that name a file, the first one first. Nix sets the first for itself, and every program of OpenSSL's reads the second.
const FILE_VARIABLES: [&str; 2] = ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"];
/// The variable that names a folder.
const FOLDER_VARIABLE: &str = "SSL_CERT_DIR";

/// The files with all certificates that systems have.
const FILES: [&str; 9] = [
    // Debian, Ubuntu, Arch, Gentoo, NixOS.
    "/etc/ssl/certs/ca-certificates.crt",
    // NixOS.
    "/etc/ssl/certs/ca-bundle.crt",
    // Fedora, RHEL.
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // openSUSE.
    "/etc/ssl/ca-bundle.pem",
    // Alpine, macOS.
    "/etc/ssl/cert.pem",
    // OpenSSL's own folder, where Debian, its source and Homebrew have it.
    "/usr/lib/ssl/cert.pem",
    "/usr/local/ssl/cert.pem",
    "/opt/homebrew/etc/openssl@3/cert.pem",
];
/// The folders with one file for each certificate, named by its hash.
const FOLDERS: [&str; 3] = ["/etc/ssl/certs", "/etc/pki/tls/certs", "/usr/lib/ssl/certs"];

/// The certificates that vouch for a server: a file, a folder, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificates {
    /// A file with any number of certificates.
    pub(super) file: Option<PathBuf>,
    /// A folder with one file for each certificate.
    pub(super) folder: Option<PathBuf>,
    /// Who chose them.
    pub(super) chosen: Chosen,
}

/// Who chose the certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chosen {
    /// The configuration or the environment names them.
    ByName,
    /// They are the machine's own.
    ByDefault,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// What somebody named cannot be read.
    #[error("{named_by} names {}, and that cannot be read; correct it", path.display())]
    Unreadable {
        /// The setting or variable.
        named_by: String,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Nobody named any, and the machine has none.
    #[error(
        "no CA certificates found on this machine, so no server can be believed over HTTPS; install them (the package is mostly \
         called ca-certificates), or name a file with SSL_CERT_FILE or with `ca-file` in a [[credentials]] table"
    )]
    None,
}

impl Certificates {
    /// The certificates for a server whose `ca-file` this is.
    pub(super) fn of_this_machine(ca_file: Option<&Path>) -> Result<Self, CertificatesError> {
        Self::choose(ca_file, |variable| std::env::var_os(variable), has_certificates)
    }

    /// Has a connection believe these and no others.
    pub(super) fn apply_to<H>(&self, easy: &mut curl::easy::Easy2<H>) -> Result<(), curl::Error> {
        self.file.iter().try_for_each(|file| easy.cainfo(file))?;
        self.folder.iter().try_for_each(|folder| easy.capath(folder))
    }

    /// Chooses: what the configuration names, else what the environment names, else the first that this machine has. What is
    /// named and cannot be used is an error, since somebody meant these and no others.
    fn choose(
        ca_file: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
        check: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<Self, CertificatesError> {
        let checked = |named_by: String, path: PathBuf| match check(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(CertificatesError::Unreadable { named_by, path, source }),
        };
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = ca_file {
            let file = checked("`ca-file` of [[credentials]]".to_owned(), path.to_owned())?;
            return Ok(Self { file: Some(file), folder: None, chosen: Chosen::ByName });
        }
        let file = FILE_VARIABLES.iter().find_map(|name| set(name).map(|path| (format!("the variable {name}"), path)));
        let file = file.map(|(named_by, path)| checked(named_by, path)).transpose()?;
        // As for OpenSSL, the variable may name several folders.
        let folder = set(&FOLDER_VARIABLE).map(|folders| {
            let mut folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
            let at = folders.iter().position(|folder| check(folder).is_ok()).unwrap_or_default();
            if folders.is_empty() { PathBuf::new() } else { folders.swap_remove(at) }
        });
        let folder = folder.map(|path| checked(format!("the variable {FOLDER_VARIABLE}"), path)).transpose()?;
        if file.is_some() || folder.is_some() {
            return Ok(Self { file, folder, chosen: Chosen::ByName });
        }
        let usable = |path: &&&str| check(Path::new(path)).is_ok();
        let (file, folder) = (FILES.iter().find(usable), FOLDERS.iter().find(usable));
        match (file, folder) {
            (None, None) => Err(CertificatesError::None),
            (Some(file), _) => Ok(Self { file: Some(file.into()), folder: None, chosen: Chosen::ByDefault }),
            (None, Some(folder)) => Ok(Self { file: None, folder: Some(folder.into()), chosen: Chosen::ByDefault }),
        }
    }
}

/// Whether this is a file that can be read and has a certificate in it, or a folder with at least one.
fn has_certificates(path: &Path) -> io::Result<()> {
    let nothing = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has no {what}")));
    if !path.is_dir() {
        let text = std::fs::read(path)?;
        let is_there = memchr::memmem::find(&text, b"-----BEGIN ").is_some();
        return if is_there { Ok(()) } else { nothing("certificate in it") };
    }
    if any_certificate(path).is_some() {
        return Ok(());
    }
    std::fs::read_dir(path)?;
    nothing("certificate in it; `openssl rehash` names them as it has to be")
}

/// One of the files with certificates in a folder. Its name is eight digits and a number, for example `5ed36f99.0`.
pub(super) fn any_certificate(folder: &Path) -> Option<PathBuf> {
    let is_hash = |name: &str| {
        name.split_once('.').is_some_and(|(hash, number)| {
            hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && number.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let mut entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    entries.find(|entry| entry.file_name().to_str().is_some_and(is_hash)).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::describe_error;

    fn choose(ca_file: Option<&str>, variables: &[(&str, &str)], there: &[&str]) -> Result<Certificates, String> {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let check = |path: &Path| {
            let is_there = there.iter().any(|known| Path::new(known) == path);
            if is_there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        };
        Certificates::choose(ca_file.map(Path::new), variable, check).map_err(|error| describe_error(&error))
    }

    #[test]
    fn what_is_named_counts_before_what_the_machine_has() {
        let machine = "/etc/ssl/certs/ca-certificates.crt";
        let there = ["/own", "/nix", "/file", "/folder", machine, "/etc/ssl/certs"];
        let all = [("NIX_SSL_CERT_FILE", "/nix"), ("SSL_CERT_FILE", "/file"), ("SSL_CERT_DIR", "/folder")];
        let pair = |found: Result<Certificates, String>| {
            let found = found.unwrap();
            let text = |path: Option<PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
            (text(found.file), text(found.folder), found.chosen)
        };
        let is = |file: &str, folder: &str, chosen| (file.to_owned(), folder.to_owned(), chosen);
        assert_eq!(pair(choose(Some("/own"), &all, &there)), is("/own", "", Chosen::ByName));
        assert_eq!(pair(choose(None, &all, &there)), is("/nix", "/folder", Chosen::ByName));
        assert_eq!(pair(choose(None, &all[1..2], &there)), is("/file", "", Chosen::ByName));
        assert_eq!(pair(choose(None, &[("SSL_CERT_DIR", "/none:/folder")], &there)), is("", "/folder", Chosen::ByName));
        assert_eq!(pair(choose(None, &[("SSL_CERT_FILE", "")], &there)), is(machine, "", Chosen::ByDefault));
        for file in FILES {
            assert_eq!(pair(choose(None, &[], &[file])), is(file, "", Chosen::ByDefault));
        }
        assert_eq!(pair(choose(None, &[], &["/etc/ssl/certs"])), is("", "/etc/ssl/certs", Chosen::ByDefault));
    }

    #[test]
    fn what_is_named_and_not_there_is_an_error_that_says_who_named_it() {
        let machine = ["/etc/ssl/certs/ca-certificates.crt"];
        for (ca_file, variables, named_by) in [
            (Some("/x"), vec![], "`ca-file`"),
            (None, vec![("NIX_SSL_CERT_FILE", "/x")], "NIX_SSL_CERT_FILE"),
            (None, vec![("SSL_CERT_FILE", "/x")], "SSL_CERT_FILE"),
            (None, vec![("SSL_CERT_DIR", "/x")], "SSL_CERT_DIR"),
        ] {
            let error = choose(ca_file, &variables, &machine).unwrap_err();
            assert!(error.contains(named_by) && error.contains("names /x"), "{error}");
        }
        assert!(choose(None, &[], &[]).unwrap_err().starts_with("no CA certificates found"));
    }

    #[test]
    fn a_file_or_a_folder_without_a_certificate_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        assert!(has_certificates(&file).is_err());
        std::fs::write(&file, "").unwrap();
        assert!(has_certificates(&file).is_err());
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
        has_certificates(&file).unwrap();
        assert!(has_certificates(folder.path()).is_err());
        std::fs::write(folder.path().join("5ed36f99.0"), "").unwrap();
        has_certificates(folder.path()).unwrap();
    }
}
