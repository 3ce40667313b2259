//! Says which process has the keys that claveld signs with.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::trust::KeyLocation;

/// The process that has a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum KeyHolder {
    /// `claveld signer`, at this socket.
    Signer {
        /// Its socket.
        socket: PathBuf,
    },
    /// An ssh-agent.
    SshAgent {
        /// Its socket.
        socket: PathBuf,
    },
    /// Claveld itself, which evaluates as the same user.
    Claveld {
        /// The file of the key, or its credential.
        from: String,
    },
}

impl From<&KeyLocation> for KeyHolder {
    fn from(location: &KeyLocation) -> Self {
        match location {
            KeyLocation::Signer(socket) => Self::Signer { socket: socket.clone() },
            KeyLocation::SshAgent { socket, .. } => Self::SshAgent { socket: socket.clone() },
            KeyLocation::File(path) => Self::Claveld { from: path.display().to_string() },
            KeyLocation::Credential(name) => Self::Claveld { from: format!("the credential `{name}`") },
        }
    }
}

impl fmt::Display for KeyHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signer { socket } => write!(f, "in the signer at {}", socket.display()),
            Self::SshAgent { socket } => write!(f, "in the ssh-agent at {}", socket.display()),
            Self::Claveld { from } => {
                write!(
                    f,
                    "{from}, read by claveld itself, which evaluates as the same user (`secret-key-signer` ends that)"
                )
            }
        }
    }
}
