//! The location of a secret key.

use std::path::PathBuf;

use crate::model::PublicKey;

/// The location of a secret key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// In a file.
    File(PathBuf),
    /// In the systemd credential of that name (`systemd.exec(5)`, "Credentials").
    Credential(String),
    /// In the process of `claveld signer` that answers at this socket.
    Signer(PathBuf),
    /// In an ssh-agent.
    SshAgent {
        /// The agent's socket.
        socket: PathBuf,
        /// The public half of the key.
        key: PublicKey,
    },
}
