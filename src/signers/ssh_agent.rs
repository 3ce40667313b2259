//! A key that an ssh-agent has (draft-ietf-sshm-ssh-agent): it signs, and the key itself is never seen here.
//!
//! An agent signs what it is given with an ed25519 key as it is, so its answer is the signature that a document takes. One
//! question and one answer; whatever is in the answer is verified before it is used.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ssh_encoding::{Decode as _, Encode as _, Reader as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::model::PublicKey;

/// The most bytes of an answer. One with a signature has 88.
const LARGEST: u32 = 4096;
/// The numbers of the messages.
const FAILURE: u8 = 5;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// The one algorithm.
const ED25519: &str = "ssh-ed25519";

/// A key in an agent.
#[derive(Debug)]
pub(super) struct AgentKey {
    pub(super) socket: PathBuf,
    pub(super) key: PublicKey,
    /// How long it may take for one signature.
    pub(super) patience: Duration,
}

/// Why an agent did not sign.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It cannot be reached, or broke off.
    #[error("cannot talk to the ssh-agent at {}: {source}", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said no.
    #[error(
        "the ssh-agent at {} does not sign with `{key}`: it is locked, or has no such key, or somebody refused it there; \
         see `ssh-add -l`, and `clavel key to-ssh` for a key that Clavel made",
        socket.display()
    )]
    Refused {
        /// Its socket.
        socket: PathBuf,
        /// The key's name.
        key: String,
    },
    /// It said nothing for so long.
    #[error("the ssh-agent at {} did not answer within {} s", socket.display(), patience.as_secs_f32())]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// How long.
        patience: Duration,
    },
    /// It said what no agent says.
    #[error("the ssh-agent at {} answered with no ed25519 signature: {why}", socket.display())]
    Nonsense {
        /// Its socket.
        socket: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Signature([u8; 64]),
    No,
}

impl AgentKey {
    /// Has the agent sign `message`. Whether it did, the caller verifies.
    pub(super) async fn sign(&self, message: &[u8]) -> Result<[u8; 64], AgentError> {
        let Self { socket, key, patience } = self;
        let silent = |_| AgentError::Silent { socket: socket.clone(), patience: *patience };
        let answered = tokio::time::timeout(*patience, ask(socket, &request(key, message))).await.map_err(silent)?;
        let answer = answered.map_err(|source| AgentError::Unreachable { socket: socket.clone(), source })?;
        match parse(&answer) {
            Ok(Answer::Signature(signature)) => Ok(signature),
            Ok(Answer::No) => Err(AgentError::Refused { socket: socket.clone(), key: key.id().to_string() }),
            Err(why) => Err(AgentError::Nonsense { socket: socket.clone(), why }),
        }
    }
}

/// Sends a message and reads the one that comes back, each after its length.
async fn ask(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request).await?;
    let length = stream.read_u32().await?;
    if length > LARGEST {
        return Err(io::Error::other(format!("its answer is {length} bytes long")));
    }
    let mut answer = Vec::new();
    stream.take(length.into()).read_to_end(&mut answer).await?;
    if answer.len() as u64 == u64::from(length) { Ok(answer) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The question: the number, the key, the message, and no flags; after its length.
fn request(key: &PublicKey, message: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    put(&mut blob, ED25519.as_bytes());
    put(&mut blob, key.bytes());
    let mut body = vec![SIGN_REQUEST];
    put(&mut body, &blob);
    put(&mut body, message);
    body.extend_from_slice(&[0; 4]);
    let mut request = Vec::new();
    put(&mut request, &body);
    request
}

/// Appends a string as SSH writes it, after its length.
fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    // A document is of bounded size, and memory takes what is written: neither fails.
    let _ = bytes.encode(to);
}

fn parse(answer: &[u8]) -> Result<Answer, String> {
    let (number, mut rest) = answer.split_first().ok_or("it is empty")?;
    match *number {
        FAILURE => Ok(Answer::No),
        SIGN_RESPONSE => signature(&mut rest).map_err(|error| error.to_string()).and_then(|(algorithm, signature)| {
            if !rest.is_empty() {
                return Err("there is more behind it".to_owned());
            }
            let signature = signature.try_into().map_err(|_| "it is of another length".to_owned())?;
            if algorithm == ED25519 { Ok(Answer::Signature(signature)) } else { Err(format!("it is of `{algorithm}`")) }
        }),
        other => Err(format!("it is the message {other}")),
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
        put(&mut blob, algorithm);
        put(&mut blob, signature);
        let mut answer = vec![SIGN_RESPONSE];
        put(&mut answer, &blob);
        answer
    }

    #[test]
    fn a_signature_is_read_and_nothing_else() {
        let good = answer(b"ssh-ed25519", &[7; 64]);
        assert_eq!(parse(&good), Ok(Answer::Signature([7; 64])));
        assert_eq!(parse(&[FAILURE]), Ok(Answer::No));
        for (bad, why) in [
            (Vec::new(), "empty"),
            (vec![6], "message 6"),
            (vec![SIGN_RESPONSE], ""),
            ([good.clone(), vec![0]].concat(), "more behind it"),
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
    async fn one_that_never_answers_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        // It is connected to, and never reads.
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let key = PublicKey::new("k".parse().unwrap(), [7; 32]);
        let agent = AgentKey { socket, key, patience: Duration::from_millis(50) };
        let error = agent.sign(b"message").await.unwrap_err().to_string();
        assert!(error.ends_with("did not answer within 0.05 s"), "{error}");
    }

    #[test]
    fn the_question_is_that_of_the_protocol() {
        let key = PublicKey::new("k".parse().unwrap(), [7; 32]);
        let request = request(&key, b"message");
        let blob = [&[0, 0, 0, 11], b"ssh-ed25519".as_slice(), &[0, 0, 0, 32], &[7; 32]].concat();
        let body = [&[13, 0, 0, 0, 51], blob.as_slice(), &[0, 0, 0, 7], b"message", &[0, 0, 0, 0]].concat();
        assert_eq!(request, [&[0, 0, 0, u8::try_from(body.len()).unwrap()], body.as_slice()].concat());
    }

    proptest! {
        #[test]
        fn one_answer_has_one_reading(bytes: Vec<u8>, as_answer: bool) {
            let bytes = if as_answer { [vec![SIGN_RESPONSE], bytes].concat() } else { bytes };
            if let Ok(Answer::Signature(signature)) = parse(&bytes) {
                prop_assert_eq!(answer(b"ssh-ed25519", &signature), bytes);
            }
        }
    }
}
