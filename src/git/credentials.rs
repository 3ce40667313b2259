//! Who Clavel is to the host of a repository over HTTPS: a name, and the file with the password.
//!
//! The password is read where a program connects, and is nowhere else: not in a configuration, a URL, an argument or an error.

use std::io::Read as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The most bytes of a password or token.
const MAX_BYTES: u64 = 16 << 10;

/// A user, and the file with the password or token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The file whose first line is the password or token.
    pub password_file: PathBuf,
}

impl Credentials {
    /// Reads the password. The error says neither the file nor what is in it, since pushers read it.
    pub(super) fn password(&self) -> Result<String, String> {
        let unreadable =
            |error: std::io::Error| format!("the password-file that [[credentials]] names cannot be read: {error}");
        let mut text = String::new();
        std::fs::File::open(&self.password_file)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .map_err(unreadable)?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(line.to_owned()),
            _ => Err("the first line of the password-file that [[credentials]] names is empty".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_and_no_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = Credentials { user: "git".to_owned(), password_file: folder.path().join("token") };
        let error = credentials.password().unwrap_err();
        assert!(error.contains("cannot be read") && !error.contains("token"), "{error}");
        std::fs::write(&credentials.password_file, "\n").unwrap();
        assert!(credentials.password().unwrap_err().contains("is empty"));
        std::fs::write(&credentials.password_file, "s3cret\nabout it\n").unwrap();
        assert_eq!(credentials.password().unwrap(), "s3cret");
    }
}
