//! A CA of the test's own, which issues client certificates with OpenSSL.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{program, run};

/// How each secret key is made.
const NEW: [&str; 6] = ["req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// A CA, with its files.
#[derive(Debug)]
pub(crate) struct Authority(TempDir);

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self(TempDir::new().unwrap());
        let mut openssl = program("openssl");
        openssl.args(NEW).args(["-x509", "-days", "2", "-subj", "/CN=test-ca"]);
        run(openssl.arg("-out").arg(authority.certificate()).arg("-keyout").arg(authority.at("ca.key")));
        authority
    }

    /// The file of its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.at("ca.pem")
    }

    /// Issues a certificate. Returns its file and that of its key, which its owner alone can read.
    pub(crate) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let [certificate, key, request] = ["pem", "key", "csr"].map(|kind| self.at(&format!("{name}.{kind}")));
        let mut openssl = program("openssl");
        openssl.args(NEW).args(["-subj", &format!("/CN={name}")]);
        run(openssl.arg("-out").arg(&request).arg("-keyout").arg(&key));
        let mut openssl = program("openssl");
        openssl
            .args(["x509", "-req", "-days", "2", "-set_serial", "2", "-in"])
            .arg(&request)
            .arg("-out")
            .arg(&certificate);
        run(openssl.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.at("ca.key")));
        (certificate, key)
    }

    fn at(&self, name: &str) -> PathBuf {
        Path::new(self.0.path()).join(name)
    }
}
