//! Reads the keys that arguments name, and signs with them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::exit::{Code, Exit};
use crate::disk;
use crate::model::{KeyId, Payload, RoleKey, describe_error};
use crate::process::{Invocation, ProcessError};
use crate::trust::{SecretKey, Signed, SshSignature};

/// The most bytes that are read of a public key or of a signature.
const MAX_BYTES: u64 = 16 << 10;
/// How long ssh-keygen may wait for a passphrase or for a touch of the key.
const SIGNING_DEADLINE: Duration = Duration::from_mins(3);

/// The keys to sign with.
#[derive(Debug, clap::Args)]
pub(super) struct SigningArguments {
    /// A secret key that signs, in Nix's format; may be given more than once.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// An OpenSSH key, with which ssh-keygen signs: a secret key, a hardware key, or the public half of a key in an ssh-agent;
    /// may be given more than once.
    ///
    /// Its name is the comment of its public half, unless NAME= gives another.
    #[arg(long = "ssh-key", value_name = "[NAME=]FILE")]
    ssh_keys: Vec<String>,
}

/// A key to sign with.
pub(super) enum SigningKey {
    /// A key that was read from its file.
    Secret(SecretKey),
    /// A key that ssh-keygen signs with: its public half, and the file that ssh-keygen gets.
    Ssh(RoleKey, PathBuf),
}

fn wrong<'a>(error: impl Into<Box<dyn Error + 'a>>) -> Exit {
    Exit::new(Code::Configuration, error)
}

impl SigningArguments {
    /// Reads the keys, in their order.
    pub(super) fn read(&self) -> Result<Vec<SigningKey>, Exit> {
        self.read_each().into_iter().map(|(_, key)| key).collect()
    }

    /// Reads each key by itself, with the argument that names it.
    pub(super) fn read_each(&self) -> Vec<(String, Result<SigningKey, Exit>)> {
        let secret = self.keys.iter().map(|path| {
            let key = SecretKey::read(path).map(SigningKey::Secret).map_err(Exit::from);
            (path.display().to_string(), key)
        });
        secret.chain(self.ssh_keys.iter().map(|text| (text.clone(), ssh_key(text)))).collect()
    }

    /// Reads the keys. At least one has to be given.
    pub(super) fn read_some(&self) -> Result<Vec<SigningKey>, Exit> {
        let keys = self.read()?;
        if keys.is_empty() { Err(wrong("no key to sign with: give --key FILE or --ssh-key FILE")) } else { Ok(keys) }
    }
}

impl SigningKey {
    /// Its public half.
    pub(super) fn public(&self) -> RoleKey {
        match self {
            Self::Secret(key) => key.public().into(),
            Self::Ssh(key, _) => key.clone(),
        }
    }

    /// Gives an OpenSSH key another name.
    #[must_use]
    pub(super) fn named(self, name: KeyId) -> Self {
        match self {
            Self::Ssh(key, file) => Self::Ssh(key.named(name), file),
            // A key in Nix's format keeps the name that its file has.
            secret @ Self::Secret(_) => secret,
        }
    }

    /// Signs with it, under its own name.
    pub(super) async fn sign<P: Payload>(&self, signed: &mut Signed<P>) -> Result<(), Exit> {
        match self {
            Self::Secret(key) => signed.add(key).map_err(wrong),
            Self::Ssh(key, file) => {
                let armored = sign_by_ssh_keygen(file, &signed.to_be_signed()).await?;
                let refused = |error: &dyn Error| {
                    let why = describe_error(error);
                    wrong(format!("cannot use the signature that ssh-keygen made with {}: {why}", file.display()))
                };
                let signature = SshSignature::from_armor(&armored).map_err(|error| refused(&error))?;
                signed.add_ssh(key, signature).map_err(|error| refused(&error))
            }
        }
    }
}

/// Parses the argument for a key of a role: a public half, a file with it, or the file of a secret half. `NAME=` before it gives
/// the key another name.
pub(super) fn role_key(text: &str) -> Result<RoleKey, Exit> {
    let (name, text) = split_name(text);
    if !Path::new(text).exists() {
        // The error does not show the argument, which may be a secret. A text without a colon is most likely the name of a file.
        let hint = if text.contains([':', ' ']) { "" } else { "; and there is no file of that name" };
        return parse_public_key(text, name).map_err(|error| wrong(format!("{error}{hint}")));
    }
    if let Ok(secret) = SecretKey::read(Path::new(text)) {
        return Ok(renamed(secret.public().into(), name));
    }
    let file = read(Path::new(text))?;
    parse_public_key(&file, name).map_err(|error| wrong(format!("the file {text} holds no public key: {error}")))
}

/// Splits `NAME=REST`. A file whose name has a `=`, and a key whose base64 ends with it, have no name in front.
fn split_name(text: &str) -> (Option<KeyId>, &str) {
    let split = text.split_once('=').filter(|(_, rest)| !rest.is_empty() && !Path::new(text).exists());
    let named = split.and_then(|(name, rest)| Some((name.parse().ok()?, rest)));
    named.map_or((None, text), |(name, rest)| (Some(name), rest))
}

fn parse_public_key(text: &str, name: Option<KeyId>) -> Result<RoleKey, String> {
    let text = text.trim();
    if text.contains("PRIVATE KEY") {
        // The error shows nothing of the secret key.
        return Err("it is a secret key of OpenSSH; give its public half, the file that ends in .pub".to_owned());
    }
    if RoleKey::is_openssh(text) {
        return RoleKey::from_openssh(text, name).map_err(|error| error.to_string());
    }
    let key = text.parse().map_err(|error| format!("{error}"))?;
    Ok(renamed(key, name))
}

/// The key under `name`, if there is one, and otherwise under its own.
fn renamed(key: RoleKey, name: Option<KeyId>) -> RoleKey {
    match name {
        Some(name) => key.named(name),
        None => key,
    }
}

fn read(path: &Path) -> Result<String, Exit> {
    let unreadable = |error| wrong(format!("cannot read the key {}: {error}", path.display()));
    disk::read_text(path, MAX_BYTES).map_err(unreadable)
}

fn ssh_key(text: &str) -> Result<SigningKey, Exit> {
    let (name, file) = split_name(text);
    let path = PathBuf::from(file);
    let public = PathBuf::from(format!("{file}.pub"));
    let content = if public.exists() { read(&public)? } else { read(&path)? };
    if !RoleKey::is_openssh(&content) {
        return Err(wrong(format!(
            "cannot find the public half of {file}; `ssh-keygen -y -f {file} > {}` makes it",
            public.display()
        )));
    }
    let key = RoleKey::from_openssh(&content, name).map_err(|error| wrong(format!("{file}: {error}")))?;
    Ok(SigningKey::Ssh(key, path))
}

/// Runs ssh-keygen to sign `message` with the key in `file`, and returns the armoured signature. ssh-keygen itself finds an
/// ssh-agent, and asks for a passphrase or for a touch.
async fn sign_by_ssh_keygen(file: &Path, message: &[u8]) -> Result<String, Exit> {
    let folder = tempfile::tempdir().map_err(Exit::machine)?;
    let document = folder.path().join("document");
    std::fs::write(&document, message).map_err(Exit::machine)?;
    // `-Y sign` writes document.sig; `-n` is the namespace.
    let sign = Invocation::new("ssh-keygen").args(["-Y", "sign", "-n", "clavel", "-f"]).arg(file).arg(&document);
    match sign.passing_output_on().at_the_terminal().within(SIGNING_DEADLINE).run().await {
        Ok(_) => {}
        Err(ProcessError::Failed { code, .. }) => {
            let message =
                format!("ssh-keygen did not sign with {} (exit code {code}); it says why above", file.display());
            return Err(wrong(message));
        }
        Err(error) => return Err(Exit::machine(error)),
    }
    disk::read_text(&folder.path().join("document.sig"), MAX_BYTES).map_err(Exit::machine)
}
