//! The keys that claveld signs with: in files, in systemd credentials, or in an ssh-agent.
//!
//! Every document is signed with each of them. Verifying a signature belongs to `trust`, and so does the reading of a key
//! file.

mod ssh_agent;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use ssh_agent::AgentError;
use ssh_agent::AgentKey;

use crate::model::{KeyId, Payload, PublicKey};
use crate::trust::{AddError, KeyLocation, SecretKey, SecretKeyError, Signed, SshSignature};

/// How long an agent may take for one signature: it may have to ask somebody (`ssh-add -c`).
const PATIENCE: Duration = Duration::from_secs(30);

/// The most bytes that an agent is given as they are: OpenSSH's breaks off at a request of more than 256 KiB. Of what is
/// longer, such as the index of a large fleet, it signs the digest, in the form of `ssh-keygen`.
const MOST_AS_IT_IS: usize = 128 << 10;

/// One or more keys, each with a name of its own.
#[derive(Debug)]
pub struct Signers {
    first: Signer,
    more: Vec<Signer>,
}

#[derive(Debug)]
enum Signer {
    Secret(Box<SecretKey>),
    Agent(AgentKey),
}

/// The reason why claveld cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A key cannot be read.
    #[error(transparent)]
    SecretKey(#[from] SecretKeyError),
    /// There are no credentials.
    #[error(
        "there is no credential `{0}`, since CREDENTIALS_DIRECTORY is not set; a systemd service gets it with \
         LoadCredential={0}:FILE or LoadCredentialEncrypted={0}:FILE"
    )]
    NoCredentials(String),
    /// No key is named.
    #[error("there is no key to sign with")]
    NoKey,
    /// Two of the keys have one name.
    #[error("two of the keys to sign with are called `{0}`; name one, or give one another name")]
    Twice(KeyId),
    /// An ssh-agent did not sign.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// An ssh-agent gave something else than a signature by the key.
    #[error("what the ssh-agent at {} gave is not to be used: {source}", socket.display())]
    Lie {
        /// Its socket.
        socket: PathBuf,
        /// What is wrong.
        source: AddError,
    },
    /// More signatures than a document holds.
    #[error(transparent)]
    TooMany(#[from] crate::model::Invalid),
}

impl Signers {
    /// Reads the keys in files and credentials. An ssh-agent is first asked when something is signed.
    pub fn read(places: &[KeyLocation]) -> Result<Self, SignerError> {
        let mut signers = places.iter().map(Signer::read).collect::<Result<Vec<_>, _>>()?;
        for (at, signer) in signers.iter().enumerate() {
            let public = signer.public();
            if signers[..at].iter().any(|other| other.public().id() == public.id()) {
                return Err(SignerError::Twice(public.id().clone()));
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

    /// The name of the first.
    pub fn first(&self) -> KeyId {
        self.first.public().id().clone()
    }

    /// Their public halves.
    pub fn public(&self) -> Vec<PublicKey> {
        self.all().map(Signer::public).collect()
    }

    /// Signs `payload` with each.
    pub async fn sign<P: Payload>(&self, payload: P) -> Result<Signed<P>, SignerError> {
        let mut signed = Signed::unsigned(payload);
        for signer in self.all() {
            match signer {
                Signer::Secret(key) => signed.add(key)?,
                Signer::Agent(agent) => sign_by(agent, &mut signed).await?,
            }
        }
        Ok(signed)
    }
}

/// Adds the signature of the key that `agent` has.
async fn sign_by<P: Payload>(agent: &AgentKey, signed: &mut Signed<P>) -> Result<(), SignerError> {
    let message = signed.to_be_signed();
    let lie = |source| SignerError::Lie { socket: agent.socket.clone(), source };
    if message.len() <= MOST_AS_IT_IS {
        let signature = agent.sign(&message).await?;
        return signed.add_plain(&agent.key, signature).map_err(lie);
    }
    let digested = SshSignature::to_be_signed(&message).map_err(|error| lie(error.into()))?;
    let signature = agent.sign(&digested).await?;
    let signature = SshSignature::wrap(&agent.key, signature).map_err(|error| lie(error.into()))?;
    signed.add_ssh(&agent.key.clone().into(), signature).map_err(lie)
}

impl Signer {
    fn read(place: &KeyLocation) -> Result<Self, SignerError> {
        Ok(match place {
            KeyLocation::File(path) => Self::Secret(Box::new(SecretKey::read(path)?)),
            KeyLocation::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
                let folder = folder.ok_or_else(|| SignerError::NoCredentials(name.clone()))?;
                Self::Secret(Box::new(SecretKey::read_credential(&Path::new(&folder).join(name))?))
            }
            KeyLocation::Agent { socket, key } => {
                Self::Agent(AgentKey { socket: socket.clone(), key: key.clone(), patience: PATIENCE })
            }
        })
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Secret(key) => key.public(),
            Self::Agent(agent) => agent.key.clone(),
        }
    }
}
