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
const LARGEST: usize = 1024;

/// A secret ed25519 key. It is wiped from memory when it is dropped, and shows nothing of itself.
pub struct SecretKey {
    id: KeyId,
    key: SigningKey,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}:…)", self.id)
    }
}

/// Why there is no secret key.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The file cannot be read or written.
    #[error("cannot {act} the secret key {}: {source}", without_key(path))]
    Io {
        /// `read` or `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is somebody else's, who can read it and put another in its place.
    #[error(
        "the secret key {} belongs to the user {owner}, and has to belong to the user {user}, who is reading it, or to root; \
         run this as its owner, or `chown {user} {}`",
        path.display(), path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The number of the user that it belongs to.
        owner: u32,
        /// The number of the user who reads it.
        user: u32,
    },
    /// Others can read the file.
    #[error(
        "the secret key {} can be read by others (mode {mode:04o}); `chmod 600 {}`, and make a new key if somebody may have read it",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What it holds is no secret key.
    #[error("{} holds no secret key: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without a byte of it.
        why: &'static str,
    },
    /// It cannot be written in OpenSSH's format.
    #[error("cannot write the key as OpenSSH does: {0}")]
    Unwritable(String),
    /// The system gave no randomness.
    #[error("the system gave no randomness for a new key: {0}")]
    NoRandomness(String),
}

impl SecretKey {
    /// Makes a new key under the name `id`.
    pub fn generate(id: KeyId) -> Result<Self, SecretKeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| SecretKeyError::NoRandomness(error.to_string()))?;
        Ok(Self { id, key: SigningKey::from_bytes(&seed) })
    }

    /// Reads a key that Nix or Clavel made. A file of another user's than this one and root is refused, and so is one that
    /// the group or others can read.
    pub fn read(path: &Path) -> Result<Self, SecretKeyError> {
        Self::read_kept_from(path, 0o077)
    }

    /// Reads a key that is a systemd credential. What lets the service alone read that is an access control list, which
    /// shows as the group's right to read; the folder that it is in keeps everybody else out.
    pub fn read_credential(path: &Path) -> Result<Self, SecretKeyError> {
        Self::read_kept_from(path, 0o037)
    }

    /// Reads a key from a file with none of the permission bits `exposing`.
    fn read_kept_from(path: &Path, exposing: u32) -> Result<Self, SecretKeyError> {
        let io = |source| SecretKeyError::Io { act: "read", path: path.to_owned(), source };
        // A pipe that nobody writes to would never be opened otherwise.
        let at_once = OFlags::NONBLOCK.bits().cast_signed();
        let file = std::fs::OpenOptions::new().read(true).custom_flags(at_once).open(path).map_err(io)?;
        // Owner and mode are asked of what was opened, so that nobody can swap the file between the question and the reading.
        let metadata = file.metadata().map_err(io)?;
        let malformed = |why| SecretKeyError::Malformed { path: path.to_owned(), why };
        if !metadata.is_file() && !metadata.file_type().is_fifo() {
            return Err(malformed("it is neither a file nor a pipe"));
        }
        check_guarded(path, &metadata, rustix::process::geteuid().as_raw(), exposing)?;
        // Whoever does write to it may take their time.
        rustix::fs::fcntl_setfl(&file, OFlags::empty()).map_err(|error| io(error.into()))?;
        let mut buffer = Zeroizing::new([0; LARGEST + 1]);
        let bytes = read_whole(file, buffer.as_mut()).map_err(io)?;
        if bytes.len() > LARGEST {
            return Err(malformed("it is too long for one"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is no text"))?;
        Self::parse(text.trim_end()).map_err(malformed)
    }

    /// Reads a key from its text.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (id, encoded) = text.split_once(':').ok_or("it has to be NAME:BASE64")?;
        let id = id.parse().map_err(|_: Invalid| "the name before the colon is none")?;
        let mut bytes = Zeroizing::new([0; 96]);
        let length = STANDARD
            .decode_slice(encoded, bytes.as_mut())
            .map_err(|_| "what follows the colon is not the base64 of a key")?;
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

    /// The key that verifies what this one signs.
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

    /// The key as OpenSSH writes one that has no passphrase, with its name for a comment.
    fn to_openssh(&self) -> Result<Zeroizing<String>, ssh_key::Error> {
        let pair = Zeroizing::new(self.key.to_keypair_bytes());
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_bytes(&pair)?);
        ssh_key::PrivateKey::new(pair, self.id.as_str())?.to_openssh(LineEnding::LF)
    }

    /// Writes the key to a new file that its owner alone can read. A file that is there already is left as it is.
    pub fn write_new(&self, path: &Path) -> Result<(), SecretKeyError> {
        write_new(path, self.to_text().as_bytes())
    }

    /// The same in OpenSSH's format, without a passphrase.
    pub fn write_new_for_openssh(&self, path: &Path) -> Result<(), SecretKeyError> {
        // No byte of the key is in that error.
        let failed = |error: ssh_key::Error| SecretKeyError::Unwritable(error.to_string());
        write_new(path, self.to_openssh().map_err(failed)?.as_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.id.clone(), self.key.sign(message).to_bytes())
    }
}

/// A path without what may be a key: whoever takes the key itself for its file, with its name or without, does not get to see
/// it.
fn without_key(path: &Path) -> String {
    let text = path.display().to_string();
    if let Some((name, _)) = text.split_once(':') {
        return format!("{name}:…");
    }
    // The base64 of a key, of its seed, and of the public half; a path that was made absolute stands before it.
    let is_key = |at: &usize| text[*at..].ends_with('=') && STANDARD.decode(&text[*at..]).is_ok();
    let ends = [88, 44].into_iter().filter_map(|length| text.len().checked_sub(length));
    let key = ends.filter(|at| text.is_char_boundary(*at)).find(is_key);
    key.map_or(text.clone(), |at| format!("{}…", &text[..at]))
}

/// Refuses a file that is neither `user`'s nor root's, or that has one of the permission bits `exposing`.
fn check_guarded(path: &Path, metadata: &std::fs::Metadata, user: u32, exposing: u32) -> Result<(), SecretKeyError> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != user && owner != 0 {
        return Err(SecretKeyError::Foreign { path: path.to_owned(), owner, user });
    }
    if mode & exposing != 0 {
        return Err(SecretKeyError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Reads what there is, as far as `buffer` goes. No other memory holds a byte of it: a text that grew would leave copies
/// behind that nobody wipes.
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

    fn key() -> SecretKey {
        SecretKey::generate("test-1".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_key_comes_back_from_its_file() {
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
            assert!(matches!(error, SecretKeyError::Exposed { .. }), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        key().write_new(&path).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let owner = metadata.uid();
        assert!(check_guarded(&path, &metadata, owner, 0o077).is_ok());
        // Root's key is everybody's who can read it, and nobody else's is root's.
        assert_eq!(check_guarded(&path, &metadata, owner + 1, 0o077).is_ok(), owner == 0);
        if owner != 0 {
            return;
        }
        std::os::unix::fs::chown(&path, Some(7), None).unwrap();
        for error in [SecretKey::read(&path).unwrap_err(), SecretKey::read_credential(&path).unwrap_err()] {
            assert!(matches!(error, SecretKeyError::Foreign { owner: 7, user: 0, .. }), "{error}");
        }
        let metadata = std::fs::metadata(&path).unwrap();
        assert!(check_guarded(&path, &metadata, 7, 0o077).is_ok());
        assert!(check_guarded(&path, &metadata, 8, 0o077).is_err());
    }

    /// A byte at a time, and an interruption before each.
    struct Dripping<'a> {
        rest: &'a [u8],
        interrupted: bool,
    }

    impl Read for Dripping<'_> {
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
            let from = Dripping { rest: text.as_bytes(), interrupted: false };
            assert_eq!(read_whole(from, &mut buffer).unwrap(), read.as_bytes());
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let written = key();
        written.write_new(&path).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let padding = LARGEST - written.to_text().len();
        file.write_all(&vec![b'\n'; padding]).unwrap();
        assert_eq!(SecretKey::read(&path).unwrap().public(), written.public());
        file.write_all(b"\n").unwrap();
        assert!(
            SecretKey::read(&path).unwrap_err().to_string().ends_with("holds no secret key: it is too long for one")
        );
        std::fs::write(&path, b"k:\xff").unwrap();
        assert!(SecretKey::read(&path).unwrap_err().to_string().ends_with("holds no secret key: it is no text"));
    }

    #[test]
    fn a_key_in_the_place_of_its_file_is_not_shown() {
        let text = key().to_text();
        let error = SecretKey::read(Path::new(text.as_str())).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the secret key test-1:…: "), "{error}");
        // Nor is one without its name, as a path or as the end of one, and nor is its seed.
        let pair = &text["test-1:".len()..];
        let seed = STANDARD.encode(&STANDARD.decode(pair).unwrap()[..32]);
        for (given, told) in [
            (pair.to_owned(), "…".to_owned()),
            (format!("/run/credentials/claveld/{pair}"), "/run/credentials/claveld/…".to_owned()),
            (format!("/etc/{seed}"), "/etc/…".to_owned()),
            ("/etc/clavel/claveld-1.secret".to_owned(), "/etc/clavel/claveld-1.secret".to_owned()),
        ] {
            assert_eq!(without_key(Path::new(&given)), told);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
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
