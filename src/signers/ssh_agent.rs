//! Signs with a key in an ssh-agent (draft-ietf-sshm-ssh-agent). The secret key itself stays in the agent.
//!
//! With an ed25519 key, an agent signs the bare message, so its answer is the plain signature that a document needs. Each
//! connection carries one request and one answer. The caller verifies the signature before it uses it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ssh_encoding::{Decode as _, Encode as _, Reader as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::model::PublicKey;

/// The most bytes of an answer. An answer with a signature has 88.
const MAX_BYTES: u32 = 4096;
// The numbers of the messages.
const FAILURE: u8 = 5;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// The only accepted algorithm.
const ED25519: &str = "ssh-ed25519";

/// A key in an agent.
#[derive(Debug)]
pub(super) struct SshAgentKey {
    pub(super) socket: PathBuf,
    pub(super) key: PublicKey,
    /// How long the agent may take for one signature.
    pub(super) deadline: Duration,
}

/// The reason why an agent did not sign.
#[derive(Debug, thiserror::Error)]
pub enum SshAgentError {
    /// The agent cannot be reached, or it closed the connection.
    #[error("cannot talk to the ssh-agent at {}", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The agent refused to sign.
    #[error(
        "the ssh-agent at {} does not sign with `{key}`: it is locked, it does not have that key, or its user declined; \
         `ssh-add -l` lists its keys, and `clavel key to-ssh` converts a key that Clavel made",
        socket.display()
    )]
    Refused {
        /// Its socket.
        socket: PathBuf,
        /// The key's name.
        key: String,
    },
    /// The agent did not answer in time.
    #[error("the ssh-agent at {} did not answer within {} s", socket.display(), deadline.as_secs_f32())]
    Timeout {
        /// Its socket.
        socket: PathBuf,
        /// The time that it had.
        deadline: Duration,
    },
    /// The answer is not valid.
    #[error("the answer of the ssh-agent at {} is not an ed25519 signature: {why}", socket.display())]
    InvalidAnswer {
        /// Its socket.
        socket: PathBuf,
        /// The reason.
        why: String,
    },
}

/// A valid answer of an agent.
#[derive(Debug, PartialEq, Eq)]
enum SshAgentAnswer {
    Signature([u8; 64]),
    Refusal,
}

impl SshAgentKey {
    /// Asks the agent to sign `message`. The caller has to verify the signature.
    pub(super) async fn sign(&self, message: &[u8]) -> Result<[u8; 64], SshAgentError> {
        let Self { socket, key, deadline } = self;
        let timeout = |_| SshAgentError::Timeout { socket: socket.clone(), deadline: *deadline };
        let result =
            tokio::time::timeout(*deadline, exchange(socket, &request(key, message))).await.map_err(timeout)?;
        let answer = result.map_err(|source| SshAgentError::Unreachable { socket: socket.clone(), source })?;
        match parse(&answer) {
            Ok(SshAgentAnswer::Signature(signature)) => Ok(signature),
            Ok(SshAgentAnswer::Refusal) => {
                Err(SshAgentError::Refused { socket: socket.clone(), key: key.id().to_string() })
            }
            Err(why) => Err(SshAgentError::InvalidAnswer { socket: socket.clone(), why }),
        }
    }
}

/// Sends a request and reads the answer. The length of each stands before it.
async fn exchange(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request).await?;
    let length = stream.read_u32().await?;
    if length > MAX_BYTES {
        return Err(io::Error::other(format!("its answer is {length} bytes long")));
    }
    let mut answer = Vec::new();
    stream.take(length.into()).read_to_end(&mut answer).await?;
    if answer.len() as u64 == u64::from(length) { Ok(answer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The request, after its length: the number, the key, the message, and no flags.
fn request(key: &PublicKey, message: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    append(&mut blob, ED25519.as_bytes());
    append(&mut blob, key.bytes());
    let mut body = vec![SIGN_REQUEST];
    append(&mut body, &blob);
    append(&mut body, message);
    body.extend_from_slice(&[0; 4]);
    let mut request = Vec::new();
    append(&mut request, &body);
    request
}

/// Appends a string in SSH's encoding: its length, then its bytes.
fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    // This never fails: a document has a bounded size, and the buffer grows.
    let _ = bytes.encode(to);
}

fn parse(answer: &[u8]) -> Result<SshAgentAnswer, String> {
    let (number, mut rest) = answer.split_first().ok_or("it is empty")?;
    match *number {
        FAILURE => Ok(SshAgentAnswer::Refusal),
        SIGN_RESPONSE => signature(&mut rest).map_err(|error| error.to_string()).and_then(|(algorithm, signature)| {
            if !rest.is_empty() {
                return Err("more bytes follow it".to_owned());
            }
            let signature = signature.try_into().map_err(|_| "it has another length".to_owned())?;
            if algorithm == ED25519 {
                Ok(SshAgentAnswer::Signature(signature))
            } else {
                Err(format!("it has the algorithm `{algorithm}`"))
            }
        }),
        other => Err(format!("it is message number {other}")),
    }
}

fn signature(rest: &mut &[u8]) -> Result<(String, Vec<u8>), ssh_encoding::Error> {
    rest.read_prefixed(|blob| Ok((String::decode(blob)?, Vec::decode(blob)?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        append(&mut blob, algorithm);
        append(&mut blob, signature);
        let mut answer = vec![SIGN_RESPONSE];
        append(&mut answer, &blob);
        answer
    }

    #[test]
    fn only_a_well_formed_signature_is_accepted() {
        let good = answer(b"ssh-ed25519", &[7; 64]);
        assert_eq!(parse(&good), Ok(SshAgentAnswer::Signature([7; 64])));
        assert_eq!(parse(&[FAILURE]), Ok(SshAgentAnswer::Refusal));
        for (bad, why) in [
            (Vec::new(), "empty"),
            (vec![6], "message number 6"),
            (vec![SIGN_RESPONSE], ""),
            ([good.clone(), vec![0]].concat(), "more bytes follow it"),
            (good[..good.len() - 1].to_vec(), ""),
            (answer(b"ssh-ed25519", &[7; 63]), "another length"),
            (answer(b"ssh-ed25519", &[7; 65]), "another length"),
            (answer(b"rsa-sha2-512", &[7; 64]), "`rsa-sha2-512`"),
        ] {
            let error = parse(&bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_agent_that_never_answers_times_out() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        // This server accepts the connection, and never reads.
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let key = PublicKey::new("k".parse().unwrap(), [7; 32]);
        let agent = SshAgentKey { socket, key, deadline: Duration::from_millis(50) };
        let error = agent.sign(b"message").await.unwrap_err().to_string();
        assert!(error.ends_with("did not answer within 0.05 s"), "{error}");
    }

    #[test]
    fn a_request_has_the_bytes_of_the_protocol() {
        let key = PublicKey::new("k".parse().unwrap(), [7; 32]);
        let request = request(&key, b"message");
        let blob = [&[0, 0, 0, 11], b"ssh-ed25519".as_slice(), &[0, 0, 0, 32], &[7; 32]].concat();
        let body = [&[13, 0, 0, 0, 51], blob.as_slice(), &[0, 0, 0, 7], b"message", &[0, 0, 0, 0]].concat();
        assert_eq!(request, [&[0, 0, 0, u8::try_from(body.len()).unwrap()], body.as_slice()].concat());
    }

    proptest! {
        #[test]
        fn a_signature_has_one_encoding(bytes: Vec<u8>, as_answer: bool) {
            let bytes = if as_answer { [vec![SIGN_RESPONSE], bytes].concat() } else { bytes };
            if let Ok(SshAgentAnswer::Signature(signature)) = parse(&bytes) {
                prop_assert_eq!(answer(b"ssh-ed25519", &signature), bytes);
            }
        }
    }
}
