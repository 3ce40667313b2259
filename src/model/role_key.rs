//! The keys of a root's roles: plain keys, and keys in hardware.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::public::KeyData;

use super::text::as_text;
use super::{Invalid, KeyId, PublicKey};

/// The algorithm of a plain key.
const PLAIN: &str = "ssh-ed25519";
/// The algorithm of a hardware key, with which its text begins (OpenSSH's PROTOCOL.u2f).
const HARDWARE: &str = "sk-ssh-ed25519@openssh.com";
/// The most characters of the application that a hardware key is bound to. `ssh-keygen` uses `ssh:` by default.
const MAX_APPLICATION_LENGTH: usize = 128;

/// A key of a role. Its text is `NAME:BASE64`, or `sk-ssh-ed25519@openssh.com BASE64 NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RoleKey {
    /// An ed25519 key in a file or in an ssh-agent.
    Plain(PublicKey),
    /// An ed25519 key in a FIDO authenticator, which signs when somebody touches it.
    Hardware(HardwareKey),
}

/// The public half of an OpenSSH key in a FIDO authenticator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HardwareKey {
    id: KeyId,
    bytes: [u8; 32],
    application: String,
}

impl RoleKey {
    /// Its name.
    pub fn id(&self) -> &KeyId {
        match self {
            Self::Plain(key) => key.id(),
            Self::Hardware(key) => &key.id,
        }
    }

    /// The ed25519 key itself.
    pub fn bytes(&self) -> &[u8; 32] {
        match self {
            Self::Plain(key) => key.bytes(),
            Self::Hardware(key) => &key.bytes,
        }
    }

    /// The same key under another name.
    #[must_use]
    pub fn named(self, id: KeyId) -> Self {
        match self {
            Self::Plain(key) => Self::Plain(PublicKey::new(id, *key.bytes())),
            Self::Hardware(key) => Self::Hardware(HardwareKey { id, ..key }),
        }
    }

    /// Whether `text` looks like a line of an OpenSSH public key file, of any algorithm.
    pub fn is_openssh(text: &str) -> bool {
        // The name of a Nix key may begin in the same way, but a Nix key has a colon.
        let algorithm = text.trim_start().split_once(' ').map(|(word, _)| word).filter(|word| !word.contains(':'));
        algorithm.is_some_and(|word| ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| word.starts_with(kind)))
    }

    /// Parses a line of an OpenSSH public key file, `ALGORITHM BASE64 COMMENT`. The key's name is `name`, or else the comment.
    pub fn from_openssh(line: &str, name: Option<KeyId>) -> Result<Self, Invalid> {
        let line = line.trim();
        let bad = |why: String| Invalid::new("an OpenSSH public key", line, why);
        let algorithm = line.split(' ').next().unwrap_or_default();
        if ![PLAIN, HARDWARE].contains(&algorithm) {
            return Err(bad(format!(
                "its algorithm is {algorithm}, and only {PLAIN} and {HARDWARE} are supported; `ssh-keygen -t ed25519` makes \
                 such a key"
            )));
        }
        let key = ssh_key::PublicKey::from_openssh(line).map_err(|error| bad(error.to_string()))?;
        let key_name = || {
            match (name, key.comment()) {
            (Some(name), _) => Ok(name),
            (None, comment) => comment.parse().map_err(|_| {
                bad(format!("its comment, `{comment}`, is not a valid name of a key; write NAME=KEY or NAME=FILE to name the key"))
            }),
        }
        };
        match key.key_data() {
            KeyData::Ed25519(bytes) => Ok(Self::Plain(PublicKey::new(key_name()?, bytes.0))),
            KeyData::SkEd25519(hardware) => {
                let application = check_application(hardware.application()).map_err(bad)?;
                Ok(Self::Hardware(HardwareKey { id: key_name()?, bytes: hardware.public_key().0, application }))
            }
            // The algorithm inside the base64 has to be the one before it.
            _ => Err(bad("its base64 has another algorithm".to_owned())),
        }
    }
}

impl HardwareKey {
    /// The application that it is bound to, such as `ssh:`.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The key in SSH's encoding: its algorithm, its bytes and its application, each after its length.
    fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        for part in [HARDWARE.as_bytes(), &self.bytes, self.application.as_bytes()] {
            // The parts are short, so each length fits into 32 bits.
            blob.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            blob.extend_from_slice(part);
        }
        blob
    }
}

fn check_application(application: &str) -> Result<String, String> {
    let printable = application.chars().all(|c| c.is_ascii_graphic());
    if application.starts_with("ssh:") && printable && application.len() <= MAX_APPLICATION_LENGTH {
        return Ok(application.to_owned());
    }
    Err(format!(
        "its application has to begin with `ssh:` and have at most {MAX_APPLICATION_LENGTH} printable characters"
    ))
}

impl From<PublicKey> for RoleKey {
    fn from(key: PublicKey) -> Self {
        Self::Plain(key)
    }
}

impl fmt::Display for RoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(key) => key.fmt(f),
            Self::Hardware(key) => write!(f, "{HARDWARE} {} {}", STANDARD.encode(key.blob()), key.id),
        }
    }
}

impl FromStr for RoleKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let Some(rest) = text.strip_prefix(HARDWARE).and_then(|rest| rest.strip_prefix(' ')) else {
            return text.parse().map(Self::Plain);
        };
        let bad = |why: &str| Invalid::new("a hardware key", text, why);
        let (_, id) = rest.split_once(' ').ok_or_else(|| bad("it has to be ALGORITHM BASE64 NAME"))?;
        let key = Self::from_openssh(text, Some(id.parse()?))?;
        if key.to_string() == text { Ok(key) } else { Err(bad("it is not written in the one form of a key")) }
    }
}

as_text!(
    RoleKey,
    pattern: r"^([!-9;-~]{1,128}:[A-Za-z0-9+/]{43}=|sk-ssh-ed25519@openssh\.com [A-Za-z0-9+/]+={0,2} [!-9;-~]{1,128})$",
    about: "An ed25519 public key: NAME:BASE64 as Nix writes it, or the line of an OpenSSH hardware key with its name"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hardware(application: &str) -> RoleKey {
        let application = application.to_owned();
        RoleKey::Hardware(HardwareKey { id: "alice".parse().unwrap(), bytes: [7; 32], application })
    }

    #[test]
    fn a_hardware_key_is_read_and_written_back() {
        let text = hardware("ssh:").to_string();
        assert_eq!(
            text,
            "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\
             BwcHAAAABHNzaDo= alice"
        );
        assert_eq!(text.parse::<RoleKey>().unwrap(), hardware("ssh:"));
        assert_eq!(RoleKey::from_openssh(&format!("{text}\n"), None).unwrap(), hardware("ssh:"));
    }

    #[test]
    fn a_hardware_key_has_one_text() {
        let text = hardware("ssh:").to_string();
        for bad in [
            format!(" {text}"),
            format!("{text} "),
            format!("{text}\n"),
            text.replace("com AAAA", "com  AAAA"),
            text.replace("= alice", " alice"),
            text.replace(" alice", ""),
            text.replace(" alice", " alice laptop"),
            hardware("web:").to_string(),
            hardware("").to_string(),
            hardware(&format!("ssh:{}", "x".repeat(MAX_APPLICATION_LENGTH))).to_string(),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH alice".to_owned(),
        ] {
            assert!(bad.parse::<RoleKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_openssh_key_has_the_given_name_or_its_comment_as_name() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";
        let plain = |name: &str| RoleKey::Plain(PublicKey::new(name.parse().unwrap(), [7; 32]));
        assert_eq!(RoleKey::from_openssh(&format!("{line} alice@laptop\n"), None).unwrap(), plain("alice@laptop"));
        assert_eq!(
            RoleKey::from_openssh(&format!("{line} my laptop"), Some("bob".parse().unwrap())).unwrap(),
            plain("bob")
        );
        let error = RoleKey::from_openssh(&format!("{line} my laptop"), None).unwrap_err().to_string();
        assert!(error.contains("`my laptop`, is not a valid name of a key"), "{error}");
        assert!(RoleKey::from_openssh(line, None).is_err());
        let other = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9n\
                     kt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg= x";
        let error = RoleKey::from_openssh(other, None).unwrap_err().to_string();
        assert!(error.contains("only ssh-ed25519"), "{error}");
    }

    proptest! {
        #[test]
        fn a_parsed_key_is_written_as_it_was_read(text in any::<String>(), blob: Vec<u8>, name in "[!-9;-~]{1,9}") {
            let composed = format!("{HARDWARE} {} {name}", STANDARD.encode(blob));
            for text in [text, composed] {
                if let Ok(key) = text.parse::<RoleKey>() {
                    prop_assert_eq!(key.to_string(), text);
                }
            }
        }

        #[test]
        fn every_hardware_key_is_read_as_it_was_written(bytes: [u8; 32], application in "ssh:[!-~]{0,124}", name in "[!-9;-~]{1,128}") {
            let key = RoleKey::Hardware(HardwareKey { id: name.parse().unwrap(), bytes, application });
            prop_assert_eq!(key.to_string().parse::<RoleKey>().unwrap(), key);
        }
    }
}
