//! The messages of the ssh-agent protocol (draft-ietf-sshm-ssh-agent) that Clavel sends, answers and takes: the list of keys, and
//! a signature with an ed25519 key. Claveld speaks the client's side with an ssh-agent and with `claveld signer`, which speaks
//! the agent's.
//!
//! It only turns messages into bytes and back. The length of each message stands before it.

use std::io;

use ssh_encoding::{Decode as _, Encode as _};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::model::{Invalid, PublicKey, printable_line};

// The numbers of the messages.
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// The only accepted algorithm.
const ED25519: &str = "ssh-ed25519";

/// A request of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// For the list of keys.
    Identities,
    /// For a signature of `message`, by the key whose public half has these bytes.
    Sign { key: [u8; 32], message: Vec<u8> },
}

/// The answer of an agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It refuses the request.
    Failure,
    /// It has this key and no other. The name is the comment.
    Identity(PublicKey),
    /// A plain signature.
    Signature([u8; 64]),
}

impl Request {
    /// The request with its length.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Identities => body.push(REQUEST_IDENTITIES),
            Self::Sign { key, message } => {
                body.push(SIGN_REQUEST);
                append(&mut body, &key_blob(key));
                append(&mut body, message);
                // No flags.
                body.extend_from_slice(&[0; 4]);
            }
        }
        with_length(&body)
    }

    /// Parses a request without its length. The error says what is wrong with it.
    pub(super) fn parse(request: &[u8]) -> Result<Self, String> {
        let (number, mut rest) = request.split_first().ok_or("it is empty")?;
        let parsed = match *number {
            REQUEST_IDENTITIES => Self::Identities,
            SIGN_REQUEST => {
                let (key, message, flags) = decode_sign_request(&mut rest).map_err(|error| error.to_string())?;
                if flags != 0 {
                    return Err(format!("it has the flags {flags}, and a signature with ed25519 has none"));
                }
                Self::Sign { key: parse_key(&key)?, message }
            }
            other => return Err(format!("it is message number {other}")),
        };
        if rest.is_empty() { Ok(parsed) } else { Err("more bytes follow it".to_owned()) }
    }
}

impl Answer {
    /// The answer with its length.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Failure => body.push(FAILURE),
            Self::Identity(key) => {
                body.extend_from_slice(&[IDENTITIES_ANSWER, 0, 0, 0, 1]);
                append(&mut body, &key_blob(key.bytes()));
                append(&mut body, key.id().as_str().as_bytes());
            }
            Self::Signature(signature) => {
                body.push(SIGN_RESPONSE);
                append(&mut body, &blob(signature));
            }
        }
        with_length(&body)
    }

    /// Parses an answer without its length. The error says what is wrong with it.
    pub(super) fn parse(answer: &[u8]) -> Result<Self, String> {
        let (number, mut rest) = answer.split_first().ok_or("it is empty")?;
        let parsed = match *number {
            FAILURE => return Ok(Self::Failure),
            IDENTITIES_ANSWER => Self::Identity(parse_identity(&mut rest)?),
            SIGN_RESPONSE => {
                let signature: Vec<u8> =
                    Vec::decode(&mut rest).map_err(|error: ssh_encoding::Error| error.to_string())?;
                let signature = parse_blob(&signature)?;
                Self::Signature(signature.try_into().map_err(|_| "it has another length")?)
            }
            other => return Err(format!("it is message number {other}")),
        };
        if rest.is_empty() { Ok(parsed) } else { Err("more bytes follow it".to_owned()) }
    }
}

/// Reads a message of at most `most` bytes, after its length; none at the end of the stream.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), most: u32) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        length => length?,
    };
    let length = check_length(length, most)?;
    // The buffer grows with what arrives, whatever the length says.
    let mut message = Vec::new();
    stream.take(length as u64).read_to_end(&mut message).await?;
    if message.len() == length { Ok(Some(message)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The length of a message, if it is at most `most`.
pub(super) fn check_length(length: u32, most: u32) -> io::Result<usize> {
    if length > most {
        let why = format!("a message is {length} bytes long, and at most {most} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(length as usize)
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    append(&mut message, body);
    message
}

/// Appends a string in SSH's encoding: its length, then its bytes.
fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    // This never fails: a document has a bounded size, and the buffer grows.
    let _ = bytes.encode(to);
}

/// A key or a signature: the algorithm and the bytes.
fn blob(bytes: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    append(&mut blob, ED25519.as_bytes());
    append(&mut blob, bytes);
    blob
}

fn key_blob(key: &[u8; 32]) -> Vec<u8> {
    blob(key)
}

/// The bytes of a key or of a signature.
fn parse_blob(blob: &[u8]) -> Result<Vec<u8>, String> {
    let mut rest = blob;
    let mut decode = || Ok((Vec::decode(&mut rest)?, Vec::decode(&mut rest)?));
    let (algorithm, bytes) = decode().map_err(|error: ssh_encoding::Error| error.to_string())?;
    if algorithm != ED25519.as_bytes() {
        let algorithm = printable_line(&String::from_utf8_lossy(&algorithm), 40);
        return Err(format!("it has the algorithm `{algorithm}`"));
    }
    if rest.is_empty() { Ok(bytes) } else { Err("more bytes follow it".to_owned()) }
}

fn parse_key(blob: &[u8]) -> Result<[u8; 32], String> {
    parse_blob(blob)?.try_into().map_err(|_| "its key has another length".to_owned())
}

fn parse_identity(rest: &mut &[u8]) -> Result<PublicKey, String> {
    let (count, key, comment) = decode_identity(rest).map_err(|error| error.to_string())?;
    if count != 1 {
        return Err(format!("it has {count} keys"));
    }
    let id = comment.parse().map_err(|error: Invalid| error.to_string())?;
    Ok(PublicKey::new(id, parse_key(&key)?))
}

type Decoded<T> = Result<T, ssh_encoding::Error>;

fn decode_sign_request(rest: &mut &[u8]) -> Decoded<(Vec<u8>, Vec<u8>, u32)> {
    Ok((Vec::decode(rest)?, Vec::decode(rest)?, u32::decode(rest)?))
}

fn decode_identity(rest: &mut &[u8]) -> Decoded<(u32, Vec<u8>, String)> {
    Ok((u32::decode(rest)?, Vec::decode(rest)?, String::decode(rest)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signature(algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        append(&mut blob, algorithm);
        append(&mut blob, signature);
        let mut answer = vec![SIGN_RESPONSE];
        append(&mut answer, &blob);
        answer
    }

    #[test]
    fn only_a_well_formed_signature_is_accepted() {
        let good = signature(b"ssh-ed25519", &[7; 64]);
        assert_eq!(Answer::parse(&good), Ok(Answer::Signature([7; 64])));
        assert_eq!(Answer::parse(&[FAILURE]), Ok(Answer::Failure));
        for (bad, why) in [
            (Vec::new(), "empty"),
            (vec![6], "message number 6"),
            (vec![SIGN_RESPONSE], ""),
            ([good.clone(), vec![0]].concat(), "more bytes follow it"),
            (good[..good.len() - 1].to_vec(), ""),
            (signature(b"ssh-ed25519", &[7; 63]), "another length"),
            (signature(b"ssh-ed25519", &[7; 65]), "another length"),
            (signature(b"rsa-sha2-512", &[7; 64]), "`rsa-sha2-512`"),
        ] {
            let error = Answer::parse(&bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_request_has_the_bytes_of_the_protocol() {
        let request = Request::Sign { key: [7; 32], message: b"message".to_vec() };
        let blob = [&[0, 0, 0, 11], b"ssh-ed25519".as_slice(), &[0, 0, 0, 32], &[7; 32]].concat();
        let body = [&[13, 0, 0, 0, 51], blob.as_slice(), &[0, 0, 0, 7], b"message", &[0, 0, 0, 0]].concat();
        assert_eq!(request.to_bytes(), [&[0, 0, 0, u8::try_from(body.len()).unwrap()], body.as_slice()].concat());
        assert_eq!(Request::parse(&body), Ok(request));
        assert_eq!(Request::Identities.to_bytes(), [0, 0, 0, 1, 11]);
        for (bad, why) in [
            (Vec::new(), "empty"),
            (vec![17], "message number 17"),
            (vec![11, 0], "more bytes follow it"),
            ([body.as_slice(), &[0]].concat(), "more bytes follow it"),
            (body[..body.len() - 1].to_vec(), ""),
            ([&body[..body.len() - 1], &[2]].concat(), "the flags 2"),
            (vec![13, 0xff, 0xff, 0xff, 0xff], ""),
        ] {
            let error = Request::parse(&bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_key_of_a_signer_comes_back_as_it_was() {
        let key = PublicKey::new("claveld-1".parse().unwrap(), [7; 32]);
        let bytes = Answer::Identity(key.clone()).to_bytes();
        assert_eq!(Answer::parse(&bytes[4..]), Ok(Answer::Identity(key)));
        let none = Answer::parse(&[IDENTITIES_ANSWER, 0, 0, 0, 0]);
        assert!(none.is_err(), "{none:?}");
    }

    proptest! {
        #[test]
        fn an_answer_has_one_encoding(bytes: Vec<u8>, number in 11..16_u8) {
            for bytes in [bytes.clone(), [vec![number], bytes].concat()] {
                match Answer::parse(&bytes) {
                    Ok(Answer::Failure) | Err(_) => {}
                    Ok(answer) => prop_assert_eq!(&answer.to_bytes()[4..], &bytes),
                }
                if let Ok(request) = Request::parse(&bytes) {
                    prop_assert_eq!(&request.to_bytes()[4..], &bytes);
                }
            }
        }
    }
}
