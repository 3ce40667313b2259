//! Holds a publisher's key, and signs documents with it for those who can connect to a socket: the agent's side of the ssh-agent
//! protocol, of which it answers two requests. `claveld signer` runs it, as a user of its own.
//!
//! No client is trusted: the socket's owner and mode say who may ask, and [`PublisherMessage`] says what is signed.
//! Requests, connections and time are limited.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::MAX_SIGNER_MESSAGE;
use super::wire::{self, Answer, Request};
use crate::model::PublicKey;
use crate::trust::{PublisherMessage, PublisherMessageError, SecretKey};

/// How many connections are served at once. Others wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may say nothing. A program sends its request at once.
const IDLE: Duration = Duration::from_millis(500);
/// How long a connection may last. It is less than claveld waits for an answer, so idle connections cannot keep claveld from one.
const DEADLINE: Duration = Duration::from_secs(4);

/// A publisher's key, for those who can connect to a socket.
#[derive(Debug)]
pub struct SigningServer {
    key: SecretKey,
}

/// What a signer did, or did not do, for a client.
#[derive(Debug)]
pub enum SigningEvent {
    /// It signed this document.
    Signed(String),
    /// It refused a request.
    Refused(SigningRefusal),
}

/// The reason why a signer refused a request.
#[derive(Debug, thiserror::Error)]
pub enum SigningRefusal {
    /// It is not one of the two requests that a signer answers.
    #[error("it is no request that a signer answers: {0}")]
    Malformed(String),
    /// It is for another key.
    #[error("it asks for the signature of another key")]
    OtherKey,
    /// It is for something that a publisher does not sign.
    #[error("it asks for a signature of something else than a publisher's document")]
    Message(#[from] PublisherMessageError),
    /// The connection broke, or a message is too long.
    #[error("the connection failed")]
    Connection(#[from] io::Error),
    /// The connection lasted too long.
    #[error("the connection was still open after {} s", DEADLINE.as_secs())]
    Timeout,
}

impl fmt::Display for SigningEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(subject) => write!(f, "signed the {subject}"),
            Self::Refused(refusal) => write!(f, "refused a request: {}", crate::model::describe_error(refusal)),
        }
    }
}

impl SigningServer {
    /// A server that signs with `key`.
    pub fn new(key: SecretKey) -> Self {
        Self { key }
    }

    /// The public half of its key.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Serves those who connect, until the listener fails.
    pub async fn serve(&self, listener: &UnixListener, report: &dyn Fn(SigningEvent)) -> io::Result<Infallible> {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    connections.push(self.serve_connection(accepted?.0, report));
                }
                Some(()) = connections.next() => {}
            }
        }
    }

    async fn serve_connection(&self, mut stream: UnixStream, report: &dyn Fn(SigningEvent)) {
        let served = tokio::time::timeout(DEADLINE, self.answer_all(&mut stream, report)).await;
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => report(SigningEvent::Refused(error.into())),
            Err(_) => report(SigningEvent::Refused(SigningRefusal::Timeout)),
        }
    }

    /// Answers one request after the other, until the client closes the connection.
    async fn answer_all(&self, stream: &mut UnixStream, report: &dyn Fn(SigningEvent)) -> io::Result<()> {
        loop {
            let mut first = [0];
            match tokio::time::timeout(IDLE, stream.read(&mut first)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) | Err(_) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            }
            let mut whole = (&first[..]).chain(&mut *stream);
            let request = match wire::read(&mut whole, MAX_SIGNER_MESSAGE).await {
                Ok(None) => return Ok(()),
                Ok(Some(request)) => request,
                Err(error) => {
                    // Nothing says where the next request begins.
                    if error.kind() == io::ErrorKind::InvalidData {
                        stream.write_all(&Answer::Failure.to_bytes()).await?;
                    }
                    return Err(error);
                }
            };
            let answer = self.answer(&request, report).unwrap_or_else(|refusal| {
                report(SigningEvent::Refused(refusal));
                Answer::Failure
            });
            stream.write_all(&answer.to_bytes()).await?;
        }
    }

    fn answer(&self, request: &[u8], report: &dyn Fn(SigningEvent)) -> Result<Answer, SigningRefusal> {
        match Request::parse(request).map_err(SigningRefusal::Malformed)? {
            Request::Identities => Ok(Answer::Identity(self.public())),
            Request::Sign { key, .. } if key != *self.public().bytes() => Err(SigningRefusal::OtherKey),
            Request::Sign { message, .. } => {
                let message = PublisherMessage::parse(&message)?;
                report(SigningEvent::Signed(message.subject().to_owned()));
                Ok(Answer::Signature(message.sign(&self.key)))
            }
        }
    }
}
