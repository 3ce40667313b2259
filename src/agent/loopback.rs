//! Serves the closures of bundles to this machine's Nix, as binary caches over HTTP on 127.0.0.1.
//!
//! Nix cannot read a cache inside of a file, and a copy of all NARs would need as much disk again. So each NAR is read from the bundle
//! while Nix asks for it. The path in the URL has a secret, since every user of this machine can connect; what they could read is on the
//! stick, but they could keep the server busy. Nothing else is served than entries of the one known form and the NARs that they name.
//! Which bundles there are is for `carried` to say.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::closures::{ClosureBundle, Span};
use crate::model::describe_error;

/// The most connections at a time. Nix opens up to 25.
const MAX_CONNECTIONS: usize = 32;
/// How many bytes of a NAR are read at a time, and how many such pieces wait for Nix.
const CHUNK: usize = 64 << 10;
const CHUNKS_AHEAD: usize = 2;
/// The most reasons that are kept why a member was not served.
const MAX_PROBLEMS: usize = 5;
/// What Nix reads first. A number below those of other caches lets it ask this one first.
const CACHE_INFO: &[u8] = b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 1\n";

/// Where a server listens. The next one of this process listens there again, so that Nix sees the same caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoopbackAddress {
    port: u16,
    secret: String,
}

/// A bundle that is served, with the name that people know it by.
#[derive(Debug)]
pub(super) struct ServedBundle {
    pub(super) name: String,
    pub(super) bundle: ClosureBundle,
}

/// A server. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct LoopbackServer {
    address: LoopbackAddress,
    served: Arc<Served>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Served {
    secret: String,
    bundles: Vec<ServedBundle>,
    problems: Mutex<Vec<String>>,
}

impl LoopbackServer {
    /// Begins to serve the bundles, at the former address if that is free.
    pub(super) async fn start(bundles: Vec<ServedBundle>, former: Option<LoopbackAddress>) -> io::Result<Self> {
        let secret = match &former {
            Some(former) => former.secret.clone(),
            None => new_secret()?,
        };
        let bind = async |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let again = match former {
            Some(former) => bind(former.port).await.ok(),
            None => None,
        };
        let listener = match again {
            Some(listener) => listener,
            None => bind(0).await?,
        };
        let address = LoopbackAddress { port: listener.local_addr()?.port(), secret: secret.clone() };
        let served = Arc::new(Served { secret, bundles, problems: Mutex::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&served))).abort_handle();
        Ok(Self { address, served, task })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> LoopbackAddress {
        self.address.clone()
    }

    /// The URL of each bundle as a cache, with the bundle's name.
    pub(super) fn caches(&self) -> Vec<(String, &str)> {
        let LoopbackAddress { port, secret } = &self.address;
        let url = |place: usize| format!("http://{}:{port}/{secret}/{place}", Ipv4Addr::LOCALHOST);
        self.served.bundles.iter().enumerate().map(|(place, served)| (url(place), served.name.as_str())).collect()
    }

    /// Why members were not served since the last call.
    pub(super) fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut *self.served.problems.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for LoopbackServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn new_secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(faster_hex::hex_string(&bytes))
}

async fn accept(listener: TcpListener, served: Arc<Served>) {
    // Dropping the set ends all connections.
    let mut connections = JoinSet::new();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The connection is gone already, or this process has no more files to open until one is closed.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection of Nix");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let served = Arc::clone(&served);
        connections.spawn(async move {
            let answer = service_fn(|request| {
                let served = Arc::clone(&served);
                async move { Ok::<_, Infallible>(answer(&served, &request)) }
            });
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(%error, "a connection of Nix ended");
            }
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// What a URL asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    CacheInfo,
    Entry(&'a str),
    Nar(&'a str),
}

/// Reads the path of a URL below the secret: the place of the bundle, and what is wanted of it.
fn parse_path<'a>(path: &'a str, secret: &str) -> Option<(usize, Wanted<'a>)> {
    let rest = path.strip_prefix('/')?.strip_prefix(secret)?.strip_prefix('/')?;
    let (place, name) = rest.split_once('/')?;
    let is_base32 = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let wanted = match name {
        "nix-cache-info" => Wanted::CacheInfo,
        _ => match (name.strip_suffix(".narinfo"), name.strip_prefix("nar/").and_then(|n| n.strip_suffix(".nar"))) {
            (Some(hash), None) if is_base32(hash, 32) => Wanted::Entry(hash),
            (None, Some(hash)) if is_base32(hash, 52) => Wanted::Nar(hash),
            _ => return None,
        },
    };
    Some((place.parse().ok()?, wanted))
}

fn answer(served: &Arc<Served>, request: &Request<Incoming>) -> Response<Answer> {
    let with_body = match *request.method() {
        Method::GET => true,
        Method::HEAD => false,
        _ => return status(StatusCode::METHOD_NOT_ALLOWED),
    };
    let Some((place, wanted)) = parse_path(request.uri().path(), &served.secret) else {
        return status(StatusCode::NOT_FOUND);
    };
    let Some(ServedBundle { bundle, .. }) = served.bundles.get(place) else { return status(StatusCode::NOT_FOUND) };
    match wanted {
        Wanted::CacheInfo => Response::new(Answer::whole(CACHE_INFO.into())),
        Wanted::Entry(hash) => match bundle.entry(hash) {
            Some(Ok(entry)) => Response::new(Answer::whole(entry)),
            // To Nix it is absent, so that it asks other caches.
            Some(Err(error)) => {
                served.note(place, &describe_error(&error));
                status(StatusCode::NOT_FOUND)
            }
            None => status(StatusCode::NOT_FOUND),
        },
        Wanted::Nar(hash) => match bundle.nar(hash) {
            Some(nar) if with_body => {
                let name = format!("nar/{hash}.nar");
                Answer::streamed(Arc::clone(served), place, name, nar)
                    .map_or_else(|_| status(StatusCode::SERVICE_UNAVAILABLE), Response::new)
            }
            Some(_) => Response::new(Answer::whole(Vec::new())),
            None => status(StatusCode::NOT_FOUND),
        },
    }
}

fn status(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::whole(Vec::new()));
    *response.status_mut() = status;
    response
}

impl Served {
    fn note(&self, place: usize, problem: &str) {
        let name = self.bundles.get(place).map_or("", |served| &served.name);
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = format!("{name}: {problem}");
        if problems.len() < MAX_PROBLEMS && !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

/// The body of an answer: a few bytes, or a NAR that a thread reads. The reader may wait for a stick, so it is no task.
enum Answer {
    Whole(Option<Bytes>),
    Streamed { pieces: mpsc::Receiver<io::Result<Bytes>>, left: u64 },
}

impl Answer {
    fn whole(bytes: Vec<u8>) -> Self {
        Self::Whole((!bytes.is_empty()).then(|| bytes.into()))
    }

    fn streamed(served: Arc<Served>, place: usize, name: String, nar: Span) -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel(CHUNKS_AHEAD);
        let read = move || {
            let Some(ServedBundle { bundle, .. }) = served.bundles.get(place) else { return };
            let mut input = bundle.read(nar);
            let mut buffer = vec![0; CHUNK];
            loop {
                let piece = match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                    Err(error) => {
                        let why = "it cannot be read; plug the stick in again, and the next pass goes on";
                        served.note(place, &format!("{name}: {why}: {error}"));
                        Err(error)
                    }
                };
                let failed = piece.is_err();
                // Nix does not want the rest.
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("nar".to_owned()).spawn(read)?;
        Ok(Self::Streamed { pieces, left: nar.size })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { pieces, left } => pieces.poll_recv(context).map(|piece| {
                piece.map(|piece| {
                    let piece = piece?;
                    *left = left.saturating_sub(piece.len() as u64);
                    Ok(Frame::data(piece))
                })
            }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Streamed { left, .. } => *left,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_and_nars_below_the_secret_are_asked_for() {
        let (hash, nar) = ("35ir4klckx5pcsb9drk2xjh46sppdcry", "1".repeat(52));
        let parsed = |path: &str| parse_path(path, "s3cret").map(|(place, wanted)| (place, format!("{wanted:?}")));
        assert_eq!(parsed("/s3cret/0/nix-cache-info"), Some((0, "CacheInfo".to_owned())));
        assert_eq!(parsed(&format!("/s3cret/7/{hash}.narinfo")), Some((7, format!("Entry({hash:?})"))));
        assert_eq!(parsed(&format!("/s3cret/1/nar/{nar}.nar")), Some((1, format!("Nar({nar:?})"))));
        for bad in [
            "/",
            "/0/nix-cache-info",
            "/other/0/nix-cache-info",
            "/s3cret0/nix-cache-info",
            "/s3cret/nix-cache-info",
            "/s3cret/-1/nix-cache-info",
            "/s3cret/0/bundle.json",
            "/s3cret/0/../0/nix-cache-info",
            "/s3cret/0/x.narinfo",
            "/s3cret/0/nar/../x.nar",
            &format!("/s3cret/0/nar/{hash}.narinfo"),
            &format!("/s3cret/0/{nar}.nar"),
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
