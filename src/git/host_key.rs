//! The public keys of a host of SSH, and the file in which ssh looks for them.

use std::fmt;
use std::io::{self, Write as _};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::model::Invalid;

/// The variable that names the file in a command of ssh, which a shell runs.
pub(super) const KNOWN_HOSTS: &str = "CLAVEL_KNOWN_HOSTS";
/// The most characters of a key. One of RSA with 16,384 bits has 2,800.
const MAX_CHARACTERS: usize = 4096;
/// The port that a line of a `known_hosts` file does not name.
const SSH_PORT: u16 = 22;

/// The public key of a host, as in a line of a `known_hosts` file without the host: `ssh-ed25519 AAAA…` (`sshd(8)`, the format of
/// that file).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostKey(String);

impl FromStr for HostKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why: &str| Invalid::new("the key of a host", &text.chars().take(60).collect::<String>(), why);
        let mut words = text.split_ascii_whitespace();
        let (Some(kind), Some(key)) = (words.next(), words.next()) else {
            return Err(invalid("it has to be like `ssh-ed25519 AAAA…`, as `ssh-keyscan` prints it behind the host"));
        };
        if text.len() > MAX_CHARACTERS || text.chars().any(char::is_control) {
            return Err(invalid("it is too long, or holds a control character; write one line for each key"));
        }
        let bytes = STANDARD.decode(key).unwrap_or_default();
        // The key names its own kind first, behind the length of the name (RFC 4253, section 6.6).
        let named = bytes.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            rest.split_at_checked(length).filter(|(_, rest)| !rest.is_empty()).map(|(name, _)| name)
        });
        if named != Some(kind.as_bytes()) {
            return Err(invalid(
                "it is not the kind of a key and the key, like `ssh-ed25519 AAAA…`; leave out the host that `ssh-keyscan` prints first",
            ));
        }
        // What follows is a comment.
        Ok(Self(format!("{kind} {key}")))
    }
}

impl TryFrom<String> for HostKey {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<HostKey> for String {
    fn from(key: HostKey) -> Self {
        key.0
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of a `known_hosts` file with these keys for the host of `url`. `None` where its name cannot be in such a file.
pub(super) fn known_hosts(keys: &[HostKey], url: &gix::Url) -> Option<String> {
    // ssh looks for the name in lower case, and for one with another port in brackets.
    let host = url.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "._-:%".contains(c));
    let name = match url.port {
        None | Some(SSH_PORT) => host,
        Some(port) => format!("[{host}]:{port}"),
    };
    let lines: Vec<String> = keys.iter().map(|key| format!("{name} {key}\n")).collect();
    is_name.then(|| lines.concat())
}

/// Writes a file that its owner alone can read. It is removed when this is dropped.
pub(super) fn private_file(text: &str) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix("clavel-")?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=";

    #[test]
    fn a_key_is_a_line_without_the_host() {
        for key in [KEY, ECDSA] {
            assert_eq!(key.parse::<HostKey>().unwrap().to_string(), key);
        }
        assert_eq!(format!("{KEY}  of the host ").parse::<HostKey>().unwrap().to_string(), KEY);
        for (bad, why) in [
            (String::new(), "has to be like"),
            ("ssh-ed25519".to_owned(), "has to be like"),
            (format!("git.example.org {KEY}"), "leave out the host"),
            (KEY.replace("ssh-ed25519", "ssh-rsa"), "leave out the host"),
            (KEY.replace("AAAAC3", "AAAA"), "leave out the host"),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".to_owned(), "leave out the host"),
            (format!("{KEY}\n{KEY}"), "one line for each key"),
        ] {
            let error = bad.parse::<HostKey>().unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn the_file_names_the_host_as_ssh_looks_for_it() {
        let of = |url: &str| known_hosts(&[KEY.parse().unwrap()], &gix::url::parse(url).unwrap());
        for (url, name) in [
            ("ssh://git@Git.example.org/x", "git.example.org"),
            ("git@git.example.org:x", "git.example.org"),
            ("ssh://git@git.example.org:22/x", "git.example.org"),
            ("ssh://git@git.example.org:2222/x", "[git.example.org]:2222"),
            ("ssh://[::1]/x", "::1"),
            ("ssh://[::1]:2222/x", "[::1]:2222"),
        ] {
            assert_eq!(of(url), Some(format!("{name} {KEY}\n")), "{url}");
        }
        assert_eq!(of("ssh://a,b/x"), None);
    }

    #[test]
    fn the_file_is_its_owners_and_goes() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = private_file("x\n").unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x\n");
        drop(file);
        assert!(!path.exists());
    }
}
