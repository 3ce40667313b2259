//! Secret keys and the files they are in, in Nix's own format: `NAME:BASE64` of 64 bytes, the seed and the public key.

use std::fmt;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use rustix::fs::OFlags;
use ssh_key::LineEnding;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use zeroize::Zeroizing;

use super::Signature;
use crate::model::{Invalid, KeyId, PublicKey};

/// The most bytes of a key file.
const MAX_BYTES: usize = 1024;

/// A secret ed25519 key. It is wiped from memory when it is dropped, and its `Debug` text has its name alone.
pub struct SecretKey {
    id: KeyId,
    key: SigningKey,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}:…)", self.id)
    }
}

/// The reason why a secret key cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The file cannot be read or written.
    #[error("cannot {act} the secret key {}", mask_key(path))]
    Io {
        /// `read` or `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file belongs to another user, who could read it or replace it.
    #[error(
        "the secret key {} belongs to the user {owner}, and has to belong to the user {user}, who runs this command, or to root; \
         run this command as the owner, or run `chown {user} {}`",
        path.display(), path.display()
    )]
    WrongOwner {
        /// The file.
        path: PathBuf,
        /// The number of the user who owns it.
        owner: u32,
        /// The number of the user who reads it.
        user: u32,
    },
    /// Other users can read the file.
    #[error(
        "the secret key {} can be read by others (mode {mode:04o}); run `chmod 600 {}`, and make \
         a new key if somebody may have read this one",
        path.display(), path.display()
    )]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no valid secret key.
    #[error("{} holds no secret key: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The rule that the content breaks; it never quotes the content.
        why: &'static str,
    },
    /// The key cannot be encoded in OpenSSH's format.
    #[error("cannot encode the key in OpenSSH's format: {0}")]
    Unencodable(String),
    /// The system gave no random bytes.
    #[error("cannot make a new key, since the system gave no random bytes: {0}")]
    NoRandomBytes(String),
}

impl SecretKey {
    /// Makes a new key under the name `id`.
    pub fn generate(id: KeyId) -> Result<Self, SecretKeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| SecretKeyError::NoRandomBytes(error.to_string()))?;
        Ok(Self { id, key: SigningKey::from_bytes(&seed) })
    }

    /// Reads a key that Nix or Clavel made. It refuses a file that belongs to neither this user nor root, and a file that the
    /// group or others can read.
    pub fn read(path: &Path) -> Result<Self, SecretKeyError> {
        Self::read_protected(path, 0o077)
    }

    /// Reads a key that is a systemd credential. An access control list lets the service alone read the file. The list shows
    /// as the group's right to read, so that right is allowed here; the credential's folder keeps every other user out.
    pub fn read_credential(path: &Path) -> Result<Self, SecretKeyError> {
        Self::read_protected(path, 0o037)
    }

    /// Reads a key from a file that has none of the permission bits `forbidden`.
    fn read_protected(path: &Path, forbidden: u32) -> Result<Self, SecretKeyError> {
        let io = |source| SecretKeyError::Io { act: "read", path: path.to_owned(), source };
        // Without this flag, opening a pipe that has no writer never returns.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(io)?;
        // Take owner and mode from the open file, so that nobody can replace the file between the check and the read.
        let metadata = file.metadata().map_err(io)?;
        let malformed = |why| SecretKeyError::Malformed { path: path.to_owned(), why };
        if !metadata.is_file() && !metadata.file_type().is_fifo() {
            return Err(malformed("it is neither a file nor a pipe"));
        }
        check_permissions(path, &metadata, rustix::process::geteuid().as_raw(), forbidden)?;
        // The reads below block again: the writer of a pipe may be slow.
        rustix::fs::fcntl_setfl(&file, OFlags::empty()).map_err(|error| io(error.into()))?;
        let mut buffer = Zeroizing::new([0; MAX_BYTES + 1]);
        let bytes = read_whole(file, buffer.as_mut()).map_err(io)?;
        if bytes.len() > MAX_BYTES {
            return Err(malformed("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8 text"))?;
        Self::parse(text.trim_end()).map_err(malformed)
    }

    /// Parses a key from its text.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (id, encoded) = text.split_once(':').ok_or("it has to be NAME:BASE64")?;
        let id = id.parse().map_err(|_: Invalid| "the part before the colon is not a valid name")?;
        let mut bytes = Zeroizing::new([0; 96]);
        let length = STANDARD
            .decode_slice(encoded, bytes.as_mut())
            .map_err(|_| "the part after the colon is not the base64 of a key")?;
        if length == 32 {
            return Err("it is a public key; the secret one is 64 bytes long");
        }
        let pair: &[u8; 64] = bytes[..length].try_into().map_err(|_| "an ed25519 secret key is 64 bytes long")?;
        let key = SigningKey::from_keypair_bytes(pair).map_err(|_| "its two halves do not belong together")?;
        Ok(Self { id, key })
    }

    /// Its name.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The public key, which verifies the signatures of this key.
    pub fn public(&self) -> PublicKey {
        PublicKey::new(self.id.clone(), self.key.verifying_key().to_bytes())
    }

    /// The key in Nix's format, as `nix key generate-secret` prints it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let pair = Zeroizing::new(self.key.to_keypair_bytes());
        let mut text = Zeroizing::new(String::with_capacity(self.id.as_str().len() + 1 + 88));
        text.push_str(self.id.as_str());
        text.push(':');
        STANDARD.encode_string(pair.as_ref(), &mut text);
        text
    }

    /// The key in OpenSSH's format, without a passphrase, and with its name as the comment.
    fn to_openssh(&self) -> Result<Zeroizing<String>, ssh_key::Error> {
        let pair = Zeroizing::new(self.key.to_keypair_bytes());
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_bytes(&pair)?);
        ssh_key::PrivateKey::new(pair, self.id.as_str())?.to_openssh(LineEnding::LF)
    }

    /// Writes the key to a new file that its owner alone can read. It never replaces an existing file.
    pub fn write_new(&self, path: &Path) -> Result<(), SecretKeyError> {
        write_new(path, self.to_text().as_bytes())
    }

    /// Does the same in OpenSSH's format, without a passphrase.
    pub fn write_new_for_openssh(&self, path: &Path) -> Result<(), SecretKeyError> {
        // This error has no byte of the key.
        let unencodable = |error: ssh_key::Error| SecretKeyError::Unencodable(error.to_string());
        write_new(path, self.to_openssh().map_err(unencodable)?.as_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.id.clone(), self.sign_bytes(message))
    }

    pub(super) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// The text of `path`, with `…` in place of a key. A user may pass a key where its file belongs, with its name or without, and
/// the error then must not show the key.
fn mask_key(path: &Path) -> String {
    let text = path.display().to_string();
    if let Some((name, _)) = text.split_once(':') {
        return format!("{name}:…");
    }
    // 88 characters are the base64 of a key; 44 are that of its seed, or of its public half. A folder may stand before them.
    let is_key = |at: &usize| text[*at..].ends_with('=') && STANDARD.decode(&text[*at..]).is_ok();
    let ends = [88, 44].into_iter().filter_map(|length| text.len().checked_sub(length));
    let key = ends.filter(|at| text.is_char_boundary(*at)).find(is_key);
    key.map_or(text.clone(), |at| format!("{}…", &text[..at]))
}

/// Refuses a file that belongs to neither `user` nor root, or that has one of the permission bits `forbidden`.
fn check_permissions(
    path: &Path,
    metadata: &std::fs::Metadata,
    user: u32,
    forbidden: u32,
) -> Result<(), SecretKeyError> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != user && owner != 0 {
        return Err(SecretKeyError::WrongOwner { path: path.to_owned(), owner, user });
    }
    if mode & forbidden != 0 {
        return Err(SecretKeyError::ReadableByOthers { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Reads to the end of the file or of `buffer`. The buffer never grows, since a buffer that grows leaves copies of the key in
/// memory that nobody wipes.
fn read_whole(mut from: impl Read, buffer: &mut [u8]) -> io::Result<&[u8]> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&buffer[..length])
}

fn write_new(path: &Path, text: &[u8]) -> Result<(), SecretKeyError> {
    let io = |source| SecretKeyError::Io { act: "write", path: path.to_owned(), source };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::describe_error;

    fn key() -> SecretKey {
        SecretKey::generate("test-1".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let written = key();
        written.write_new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SecretKey::read(&path).unwrap().public(), written.public());
        assert!(matches!(key().write_new(&path), Err(SecretKeyError::Io { act: "write", .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        key().write_new(&path).unwrap();
        for mode in [0o640, 0o604, 0o644, 0o620] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = SecretKey::read(&path).unwrap_err();
            assert!(matches!(error, SecretKeyError::ReadableByOthers { .. }), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        key().write_new(&path).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let owner = metadata.uid();
        assert!(check_permissions(&path, &metadata, owner, 0o077).is_ok());
        // Every user may use a key that belongs to root; a key of another user is refused, to root as well.
        assert_eq!(check_permissions(&path, &metadata, owner + 1, 0o077).is_ok(), owner == 0);
        if owner != 0 {
            return;
        }
        std::os::unix::fs::chown(&path, Some(7), None).unwrap();
        for error in [SecretKey::read(&path).unwrap_err(), SecretKey::read_credential(&path).unwrap_err()] {
            assert!(matches!(error, SecretKeyError::WrongOwner { owner: 7, user: 0, .. }), "{error}");
        }
        let metadata = std::fs::metadata(&path).unwrap();
        assert!(check_permissions(&path, &metadata, 7, 0o077).is_ok());
        assert!(check_permissions(&path, &metadata, 8, 0o077).is_err());
    }

    /// A reader that returns one byte at a time, and an interruption before each.
    struct SlowReader<'a> {
        rest: &'a [u8],
        interrupted: bool,
    }

    impl Read for SlowReader<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let next = buffer.len().min(1);
            self.rest.read(&mut buffer[..next])
        }
    }

    #[test]
    fn a_key_is_read_to_its_end_and_no_further_than_its_buffer() {
        let mut buffer = [0; 8];
        for (text, read) in [("", ""), ("k:abc", "k:abc"), ("12345678", "12345678"), ("123456789", "12345678")] {
            let from = SlowReader { rest: text.as_bytes(), interrupted: false };
            assert_eq!(read_whole(from, &mut buffer).unwrap(), read.as_bytes());
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let written = key();
        written.write_new(&path).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let padding = MAX_BYTES - written.to_text().len();
        file.write_all(&vec![b'\n'; padding]).unwrap();
        assert_eq!(SecretKey::read(&path).unwrap().public(), written.public());
        file.write_all(b"\n").unwrap();
        assert!(SecretKey::read(&path).unwrap_err().to_string().ends_with("holds no secret key: it is too long"));
        std::fs::write(&path, b"k:\xff").unwrap();
        assert!(SecretKey::read(&path).unwrap_err().to_string().ends_with("holds no secret key: it is not UTF-8 text"));
    }

    #[test]
    fn no_error_shows_a_key_that_was_passed_as_a_path() {
        let text = key().to_text();
        let error = describe_error(&SecretKey::read(Path::new(text.as_str())).unwrap_err());
        assert!(error.starts_with("cannot read the secret key test-1:…: "), "{error}");
        // The same holds for a key without its name, as the path or as its end, and for the seed.
        let pair = &text["test-1:".len()..];
        let seed = STANDARD.encode(&STANDARD.decode(pair).unwrap()[..32]);
        for (given, expected) in [
            (pair.to_owned(), "…".to_owned()),
            (format!("/run/credentials/claveld/{pair}"), "/run/credentials/claveld/…".to_owned()),
            (format!("/etc/{seed}"), "/etc/…".to_owned()),
            ("/etc/clavel/claveld-1.secret".to_owned(), "/etc/clavel/claveld-1.secret".to_owned()),
        ] {
            assert_eq!(mask_key(Path::new(&given)), expected);
        }
    }

    #[test]
    fn an_invalid_key_is_refused_and_not_shown() {
        let text = key().to_text();
        let other = key().to_text();
        // The seed of one key and the public half of another.
        let mixed = {
            let half = |text: &str| STANDARD.decode(&text[7..]).unwrap();
            format!("test-1:{}", STANDARD.encode([&half(&text)[..32], &half(&other)[32..]].concat()))
        };
        for (bad, why) in [
            (key().public().to_string(), "it is a public key"),
            (mixed, "halves"),
            ("nonsense".to_owned(), "NAME:BASE64"),
            (text[..text.len() - 4].to_owned(), "64 bytes"),
            (String::new(), "NAME:BASE64"),
        ] {
            let error = SecretKey::parse(&bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(format!("{:?}", key()), "SecretKey(test-1:…)");
    }
}
