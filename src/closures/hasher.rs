//! The SHA-256 of what is written, made beside the writing where there is much of it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};

/// From how many bytes on a thread is worth its start.
const WORTH_A_THREAD: u64 = 1 << 20;
/// How many buffers wait for the thread.
const AHEAD: usize = 4;

/// Hashes the bytes of one member.
#[derive(Debug)]
pub(super) enum Hasher {
    /// In this thread.
    Here(Sha256),
    /// In a thread of its own.
    Beside {
        /// Where the bytes go.
        bytes: SyncSender<Vec<u8>>,
        /// Where the buffers come back, to be filled again.
        used: Receiver<Vec<u8>>,
        thread: JoinHandle<[u8; 32]>,
    },
}

impl Hasher {
    /// For a member of so many bytes.
    pub(super) fn of(size: u64) -> io::Result<Self> {
        if size < WORTH_A_THREAD {
            return Ok(Self::Here(Sha256::new()));
        }
        let (bytes, filled) = sync_channel::<Vec<u8>>(AHEAD);
        let (emptied, used) = sync_channel(AHEAD + 1);
        let hash = move || {
            let mut hash = Sha256::new();
            for mut buffer in filled {
                hash.update(&buffer);
                buffer.clear();
                // Nobody fills it again where the member is complete.
                let _ = emptied.try_send(buffer);
            }
            hash.finalize().into()
        };
        let thread = thread::Builder::new().name("hash".to_owned()).stack_size(256 << 10).spawn(hash)?;
        Ok(Self::Beside { bytes, used, thread })
    }

    /// Hashes what is in the buffer, and returns an empty one.
    pub(super) fn update(&mut self, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Here(hash) => {
                hash.update(&buffer);
                buffer.clear();
                Ok(buffer)
            }
            Self::Beside { bytes, used, .. } => {
                let capacity = buffer.capacity();
                bytes.send(buffer).map_err(|_| panicked())?;
                Ok(used.try_recv().unwrap_or_else(|_| Vec::with_capacity(capacity)))
            }
        }
    }

    /// The hash of all of it.
    pub(super) fn finish(self) -> io::Result<[u8; 32]> {
        match self {
            Self::Here(hash) => Ok(hash.finalize().into()),
            Self::Beside { bytes, thread, .. } => {
                drop(bytes);
                thread.join().map_err(|_| panicked())
            }
        }
    }
}

fn panicked() -> io::Error {
    io::Error::other("the thread that hashes panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_give_the_same() {
        for size in [WORTH_A_THREAD - 1, WORTH_A_THREAD, 3 * WORTH_A_THREAD + 1] {
            let all: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut hasher = Hasher::of(size).unwrap();
            assert_eq!(matches!(hasher, Hasher::Beside { .. }), size >= WORTH_A_THREAD);
            let mut buffer = Vec::with_capacity(100_000);
            for part in all.chunks(100_000) {
                buffer.extend_from_slice(part);
                buffer = hasher.update(buffer).unwrap();
                assert!(buffer.is_empty());
            }
            assert_eq!(hasher.finish().unwrap(), <[u8; 32]>::from(Sha256::digest(&all)));
        }
    }
}
