//! Signs documents with claveld's keys: keys in files, in systemd credentials, in `claveld signer`, or in an ssh-agent.
//!
//! Claveld signs every document with each of its keys. `server` is the other side, for the process that has the key and nothing
//! else. The key files and the verification of signatures belong to `trust`.

mod server;
mod ssh_agent;
mod wire;

use std::path::Path;
use std::time::Duration;

pub use server::{SigningEvent, SigningRefusal, SigningServer};
use ssh_agent::SshAgentKey;
pub use ssh_agent::{AgentSocket, SshAgentError};

use crate::model::{KeyId, Payload, PublicKey};
use crate::trust::{AddError, KeyLocation, SecretKey, SecretKeyError, Signed, SshSignature};

/// How long an agent may take for one signature. It may have to ask its user (`ssh-add -c`).
const SSH_AGENT_DEADLINE: Duration = Duration::from_secs(30);

/// How long the signer may take for one answer. It asks nobody.
const SIGNER_DEADLINE: Duration = Duration::from_secs(10);

/// The most bytes of a request that a signer reads. The largest document, an index, has some 400 KiB.
const MAX_SIGNER_MESSAGE: u32 = 1 << 20;

/// The most bytes of a message that an ssh-agent signs as a whole. OpenSSH's agent closes the connection at a request of more than
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
    Agent(SshAgentKey),
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
    /// A signer or an ssh-agent did not sign.
    #[error(transparent)]
    Agent(#[from] SshAgentError),
    /// The signature of a signer or an ssh-agent is not valid.
    #[error("{agent} gave an invalid signature")]
    InvalidSignature {
        /// The agent.
        agent: AgentSocket,
        /// The reason.
        source: AddError,
    },
    /// There are more signatures than a document holds.
    #[error(transparent)]
    TooMany(#[from] crate::model::Invalid),
}

impl Signers {
    /// Reads the keys in files and credentials, and asks a signer for the public half of its key. It does not contact an ssh-agent;
    /// `sign` does.
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
                Signer::Agent(key) => sign_with_agent(key, &mut signed).await?,
            }
        }
        Ok(signed)
    }
}

/// Reads the key that the service manager passed as the credential `name`.
pub fn read_credential(name: &str) -> Result<SecretKey, SignerError> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    let folder = folder.ok_or_else(|| SignerError::NoCredentials(name.to_owned()))?;
    Ok(SecretKey::read_credential(&Path::new(&folder).join(name))?)
}

/// Adds the signature of a key in a signer or an ssh-agent.
async fn sign_with_agent<P: Payload>(agent_key: &SshAgentKey, signed: &mut Signed<P>) -> Result<(), SignerError> {
    let message = signed.to_be_signed();
    let invalid = |source| SignerError::InvalidSignature { agent: agent_key.agent.clone(), source };
    if message.len() <= MAX_WHOLE_BYTES || matches!(agent_key.agent, AgentSocket::Signer(_)) {
        let signature = agent_key.sign(message).await?;
        return signed.add_plain(&agent_key.key, signature).map_err(invalid);
    }
    let message_with_digest = SshSignature::to_be_signed(&message).map_err(|error| invalid(error.into()))?;
    let signature = agent_key.sign(message_with_digest).await?;
    let signature = SshSignature::wrap(&agent_key.key, signature).map_err(|error| invalid(error.into()))?;
    signed.add_ssh(&agent_key.key.clone().into(), signature).map_err(invalid)
}

impl Signer {
    fn read(location: &KeyLocation) -> Result<Self, SignerError> {
        Ok(match location {
            KeyLocation::File(path) => Self::Secret(Box::new(SecretKey::read(path)?)),
            KeyLocation::Credential(name) => Self::Secret(Box::new(read_credential(name)?)),
            KeyLocation::Signer(socket) => Self::Agent(ssh_agent::key_of_signer(socket.clone(), SIGNER_DEADLINE)?),
            KeyLocation::SshAgent { socket, key } => Self::Agent(SshAgentKey {
                agent: AgentSocket::SshAgent(socket.clone()),
                key: key.clone(),
                deadline: SSH_AGENT_DEADLINE,
            }),
        })
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Secret(key) => key.public(),
            Self::Agent(agent) => agent.key.clone(),
        }
    }
}
