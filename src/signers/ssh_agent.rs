//! Signs with a key that another process has: an ssh-agent (draft-ietf-sshm-ssh-agent), or `claveld signer`, which speaks its
//! protocol. The secret key itself stays there.
//!
//! With an ed25519 key, an agent signs the bare message, so its answer is the plain signature that a document needs. Each
//! connection carries one request and one answer. The caller verifies the signature before it uses it.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::wire::{self, Answer, Request};
use crate::model::PublicKey;

/// The most bytes of an answer. An answer with a signature has 88.
const MAX_BYTES: u32 = 4096;

/// The process that has a key, with its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSocket {
    /// An ssh-agent. It signs anything, up to a length.
    SshAgent(PathBuf),
    /// `claveld signer`. It signs documents alone, and has to see the whole of each.
    Signer(PathBuf),
}

impl AgentSocket {
    fn path(&self) -> &PathBuf {
        match self {
            Self::SshAgent(path) | Self::Signer(path) => path,
        }
    }
}

impl fmt::Display for AgentSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SshAgent(path) => write!(f, "the ssh-agent at {}", path.display()),
            Self::Signer(path) => write!(f, "the signer at {}", path.display()),
        }
    }
}

/// A key in an agent.
#[derive(Debug)]
pub(super) struct SshAgentKey {
    pub(super) agent: AgentSocket,
    pub(super) key: PublicKey,
    /// How long the agent may take for one signature.
    pub(super) deadline: Duration,
}

/// The reason why an agent did not sign.
#[derive(Debug, thiserror::Error)]
pub enum SshAgentError {
    /// The agent cannot be reached, or it closed the connection.
    #[error("cannot talk to {agent}{}", advice(agent))]
    Unreachable {
        /// The agent.
        agent: AgentSocket,
        /// The error of the system.
        source: io::Error,
    },
    /// The agent refused to sign.
    #[error("{agent} does not sign with `{key}`: {}", refusal(agent))]
    Refused {
        /// The agent.
        agent: AgentSocket,
        /// The key's name.
        key: String,
    },
    /// The agent did not answer in time.
    #[error("{agent} did not answer within {} s", deadline.as_secs_f32())]
    Timeout {
        /// The agent.
        agent: AgentSocket,
        /// The time that it had.
        deadline: Duration,
    },
    /// The answer is not valid.
    #[error("the answer of {agent} is not {expected}: {why}")]
    InvalidAnswer {
        /// The agent.
        agent: AgentSocket,
        /// What was asked for.
        expected: &'static str,
        /// The reason.
        why: String,
    },
}

fn advice(agent: &AgentSocket) -> &'static str {
    match agent {
        AgentSocket::SshAgent(_) => "",
        AgentSocket::Signer(_) => {
            " (does `claveld signer` run? `systemctl status claveld-signer` says why it does not)"
        }
    }
}

fn refusal(agent: &AgentSocket) -> &'static str {
    match agent {
        AgentSocket::SshAgent(_) => {
            "it is locked, it does not have that key, or its user declined; `ssh-add -l` lists its keys, and `clavel key to-ssh` \
             converts a key that Clavel made"
        }
        AgentSocket::Signer(_) => {
            "its log says why; if it has another key by now, restart claveld, and if it is of another version than claveld, \
             restart it"
        }
    }
}

/// Asks the signer for its key. This blocks, for as long as `deadline` at each step.
pub(super) fn key_of_signer(socket: PathBuf, deadline: Duration) -> Result<SshAgentKey, SshAgentError> {
    let agent = AgentSocket::Signer(socket);
    let exchange = || {
        let mut stream = std::os::unix::net::UnixStream::connect(agent.path())?;
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(deadline))?;
        stream.write_all(&Request::Identities.to_bytes())?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = wire::check_length(u32::from_be_bytes(length), MAX_BYTES)?;
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).map(|()| answer)
    };
    let answer = match exchange() {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(SshAgentError::Timeout { agent, deadline });
        }
        Err(source) => return Err(SshAgentError::Unreachable { agent, source }),
    };
    let why = match Answer::parse(&answer) {
        Ok(Answer::Identity(key)) => return Ok(SshAgentKey { agent, key, deadline }),
        Ok(other) => format!("it is {other:?}"),
        Err(why) => why,
    };
    Err(SshAgentError::InvalidAnswer { agent, expected: "one ed25519 key", why })
}

impl SshAgentKey {
    /// Asks the agent to sign `message`. The caller has to verify the signature.
    pub(super) async fn sign(&self, message: Vec<u8>) -> Result<[u8; 64], SshAgentError> {
        let Self { agent, key, deadline } = self;
        let agent = || agent.clone();
        let timeout = |_| SshAgentError::Timeout { agent: agent(), deadline: *deadline };
        let request = Request::Sign { key: *key.bytes(), message }.to_bytes();
        let result = tokio::time::timeout(*deadline, self.exchange(&request)).await.map_err(timeout)?;
        let answer = result.map_err(|source| SshAgentError::Unreachable { agent: agent(), source })?;
        let why = match Answer::parse(&answer) {
            Ok(Answer::Signature(signature)) => return Ok(signature),
            Ok(Answer::Failure) => {
                return Err(SshAgentError::Refused { agent: agent(), key: key.id().to_string() });
            }
            Ok(Answer::Identity(_)) => "it is a list of keys".to_owned(),
            Err(why) => why,
        };
        Err(SshAgentError::InvalidAnswer { agent: agent(), expected: "an ed25519 signature", why })
    }

    /// Sends a request and reads the answer.
    async fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(self.agent.path()).await?;
        stream.write_all(request).await?;
        wire::read(&mut stream, MAX_BYTES).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn an_agent_that_never_answers_times_out() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        // This server accepts the connection, and never reads.
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let key = PublicKey::new("k".parse().unwrap(), [7; 32]);
        let deadline = Duration::from_millis(50);
        let agent = SshAgentKey { agent: AgentSocket::SshAgent(socket.clone()), key, deadline };
        let error = agent.sign(b"message".to_vec()).await.unwrap_err().to_string();
        assert!(error.ends_with("did not answer within 0.05 s"), "{error}");
        let error = key_of_signer(socket, deadline).unwrap_err().to_string();
        assert!(error.starts_with("the signer at") && error.ends_with("did not answer within 0.05 s"), "{error}");
    }
}
