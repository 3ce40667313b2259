//! Standard error, which never holds up a daemon.
//!
//! A write blocks for as long as the reader of a full pipe does not read. A daemon that waits for its reader misses its deadlines, so
//! it hands the bytes to a thread ([`never_wait`]), which alone waits. What does not fit into the queue is dropped, and counted.
//! This is a room of its own because `process` and `cli` both write there. What is written belongs to them.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The most pieces in the queue; each is 16 KiB at most.
const MAX_QUEUED: usize = 1024;

static QUEUE: OnceLock<Queue> = OnceLock::new();

struct Queue {
    sender: SyncSender<Piece>,
    dropped: Mutex<u64>,
}

enum Piece {
    Bytes(Vec<u8>),
    /// Everything before was written.
    Mark(SyncSender<()>),
}

/// From now on, [`write()`] waits for no reader.
pub fn never_wait() {
    QUEUE.get_or_init(|| {
        let (sender, receiver) = sync_channel(MAX_QUEUED);
        std::thread::spawn(move || write_all(&receiver));
        Queue { sender, dropped: Mutex::new(0) }
    });
}

/// Writes `bytes`. Where standard error is closed, nobody can read them.
pub fn write(bytes: &[u8]) {
    match QUEUE.get() {
        None => write_now(bytes),
        Some(queue) => queue.push(bytes),
    }
}

/// Waits until everything was written, but no longer than this.
pub fn flush(within: Duration) {
    let Some(queue) = QUEUE.get() else { return };
    let (sender, written) = sync_channel(1);
    // A queue that is full has a reader that does not read.
    if queue.sender.try_send(Piece::Mark(sender)).is_ok() {
        let _ = written.recv_timeout(within);
    }
}

impl Queue {
    fn push(&self, bytes: &[u8]) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if *dropped > 0 {
            let note = format!("({} pieces of output were dropped, because nobody read them)\n", *dropped);
            if self.sender.try_send(Piece::Bytes(note.into_bytes())).is_ok() {
                *dropped = 0;
            }
        }
        for piece in bytes.chunks(16 << 10) {
            match self.sender.try_send(Piece::Bytes(piece.to_owned())) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(_)) => *dropped += 1,
            }
        }
    }
}

fn write_all(queue: &Receiver<Piece>) {
    while let Ok(piece) = queue.recv() {
        match piece {
            Piece::Bytes(bytes) => write_now(&bytes),
            Piece::Mark(written) => drop(written.send(())),
        }
    }
}

fn write_now(bytes: &[u8]) {
    // If the terminal was closed, the work has to go on all the same.
    let _ = std::io::stderr().write_all(bytes);
}
