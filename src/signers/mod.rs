//! Signs documents with claveld's keys: keys in files, in systemd credentials, or in an ssh-agent.
//!
//! Claveld signs every document with each of its keys. The key files and the verification of signatures belong to `trust`.

mod ssh_agent;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use ssh_agent::SshAgentError;
use ssh_agent::SshAgentKey;

use crate::model::{KeyId, Payload, PublicKey};
use crate::trust::{AddError, KeyLocation, SecretKey, SecretKeyError, Signed, SshSignature};

/// How long an agent may take for one signature. It may have to ask its user (`ssh-add -c`).
const SSH_AGENT_DEADLINE: Duration = Duration::from_secs(30);

/// The most bytes of a message that an agent signs as a whole. OpenSSH's agent closes the connection at a request of more than
/// 256 KiB. For a longer message, such as the index of a large fleet, an agent signs the digest, in the format of `ssh-keygen`.
const MAX_WHOLE_BYTES: usize = 128 << 10;

/// The keys to sign with: at least one, with different names.
#[derive(Debug)]
pub struct Signers {
    first: Signer,
    more: Vec<Signer>,
}

#[derive(Debug)]
enum Signer {
    Secret(Box<SecretKey>),
    SshAgent(SshAgentKey),
}

/// The reason why claveld cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A key cannot be read.
    #[error(transparent)]
    SecretKey(#[from] SecretKeyError),
    /// A credential is configured, and the service manager passed none.
    #[error(
        "there is no credential `{0}`, since CREDENTIALS_DIRECTORY is not set; a systemd service gets it with \
         LoadCredential={0}:FILE or LoadCredentialEncrypted={0}:FILE"
    )]
    NoCredentials(String),
    /// No key is configured.
    #[error("there is no key to sign with")]
    NoKey,
    /// Two of the keys have the same name.
    #[error("two of the keys to sign with are called `{0}`; configure one of them alone, or rename one")]
    DuplicateName(KeyId),
    /// An ssh-agent did not sign.
    #[error(transparent)]
    Agent(#[from] SshAgentError),
    /// The signature of an ssh-agent is not valid.
    #[error("the ssh-agent at {} gave an invalid signature", socket.display())]
    InvalidSignature {
        /// Its socket.
        socket: PathBuf,
        /// The reason.
        source: AddError,
    },
    /// There are more signatures than a document holds.
    #[error(transparent)]
    TooMany(#[from] crate::model::Invalid),
}

impl Signers {
    /// Reads the keys in files and credentials. It does not contact an ssh-agent; `sign` does.
    pub fn read(locations: &[KeyLocation]) -> Result<Self, SignerError> {
        let mut signers = locations.iter().map(Signer::read).collect::<Result<Vec<_>, _>>()?;
        for (at, signer) in signers.iter().enumerate() {
            let public = signer.public();
            if signers[..at].iter().any(|other| other.public().id() == public.id()) {
                return Err(SignerError::DuplicateName(public.id().clone()));
            }
        }
        if signers.is_empty() {
            return Err(SignerError::NoKey);
        }
        Ok(Self { first: signers.remove(0), more: signers })
    }

    fn all(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// The name of the first key.
    pub fn first(&self) -> KeyId {
        self.first.public().id().clone()
    }

    /// The public halves of the keys.
    pub fn public(&self) -> Vec<PublicKey> {
        self.all().map(Signer::public).collect()
    }

    /// Signs `payload` with each key.
    pub async fn sign<P: Payload>(&self, payload: P) -> Result<Signed<P>, SignerError> {
        let mut signed = Signed::unsigned(payload);
        for signer in self.all() {
            match signer {
                Signer::Secret(key) => signed.add(key)?,
                Signer::SshAgent(key) => sign_with_ssh_agent(key, &mut signed).await?,
            }
        }
        Ok(signed)
    }
}

/// Adds the signature of a key in an ssh-agent.
async fn sign_with_ssh_agent<P: Payload>(ssh_agent: &SshAgentKey, signed: &mut Signed<P>) -> Result<(), SignerError> {
    let message = signed.to_be_signed();
    let invalid = |source| SignerError::InvalidSignature { socket: ssh_agent.socket.clone(), source };
    if message.len() <= MAX_WHOLE_BYTES {
        let signature = ssh_agent.sign(&message).await?;
        return signed.add_plain(&ssh_agent.key, signature).map_err(invalid);
    }
    let message_with_digest = SshSignature::to_be_signed(&message).map_err(|error| invalid(error.into()))?;
    let signature = ssh_agent.sign(&message_with_digest).await?;
    let signature = SshSignature::wrap(&ssh_agent.key, signature).map_err(|error| invalid(error.into()))?;
    signed.add_ssh(&ssh_agent.key.clone().into(), signature).map_err(invalid)
}

impl Signer {
    fn read(location: &KeyLocation) -> Result<Self, SignerError> {
        Ok(match location {
            KeyLocation::File(path) => Self::Secret(Box::new(SecretKey::read(path)?)),
            KeyLocation::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
                let folder = folder.ok_or_else(|| SignerError::NoCredentials(name.clone()))?;
                Self::Secret(Box::new(SecretKey::read_credential(&Path::new(&folder).join(name))?))
            }
            KeyLocation::SshAgent { socket, key } => {
                Self::SshAgent(SshAgentKey { socket: socket.clone(), key: key.clone(), deadline: SSH_AGENT_DEADLINE })
            }
        })
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Secret(key) => key.public(),
            Self::SshAgent(ssh_agent) => ssh_agent.key.clone(),
        }
    }
}
