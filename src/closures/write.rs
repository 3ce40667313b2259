//! Writes the file, member by member, and goes on where an earlier run was ended.
//!
//! The bytes follow from what is written alone. So a run that finds a `.partial` file of an earlier one compares, keeps the whole
//! members at its beginning that are what it would write, and writes the rest. Nothing is kept in memory.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::gradual_sync::GradualSync;
use super::hasher::Hasher;
use super::manifest::{Manifest, ManifestError};
use super::narinfo::Narinfo;
use super::tar::{BLOCK, END, MemberName, Span, header, span_at};
use crate::model::{Content, StorePath};

/// How many bytes are copied at a time.
const CHUNK: usize = 128 << 10;
/// What Nix reads first. A cache with a lower priority number is asked before others; cache.nixos.org has 40.
pub(super) const CACHE_INFO: &[u8] = b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 10\n";

/// Writes one file.
#[derive(Debug)]
pub struct ClosureWriter {
    target: PathBuf,
    partial: PathBuf,
    file: File,
    /// Where the next member begins.
    position: u64,
    /// How much of the file an earlier run wrote, as far as it may still be used.
    earlier: u64,
    sync: GradualSync,
    written_nars: HashSet<[u8; 32]>,
    reused: u64,
    done: Arc<AtomicU64>,
}

/// Why the file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The system failed.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// The action.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process writes the same file.
    #[error("another process is writing {}; wait until it ends", .0.display())]
    Busy(PathBuf),
    /// A store path cannot be read.
    #[error("cannot read {path} from the store")]
    Dump {
        /// The path.
        path: StorePath,
        /// Its reader's error.
        source: io::Error,
    },
    /// The files of a store path are not those that the store has recorded.
    #[error(
        "the files of {0} in this machine's store are not what was fetched; repair them with `nix-store --repair-path {0}`"
    )]
    Corrupt(StorePath),
    /// Too much is to be written.
    #[error("cannot list what is to be written")]
    Manifest(#[source] ManifestError),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The length of the file in bytes.
    pub bytes: u64,
    /// How many of them an earlier run had written.
    pub reused: u64,
}

impl ClosureWriter {
    /// Begins to write what is to be at `target`. `done` counts the bytes that are there.
    pub fn open(target: &Path, done: Arc<AtomicU64>) -> Result<Self, WriteError> {
        let mut name = OsString::from(target);
        name.push(".partial");
        let partial = PathBuf::from(name);
        let io = |source| WriteError::Io { act: "write", path: partial.clone(), source };
        // The stick may have a link to another file of this machine in its place.
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(flags);
        let file = options.open(&partial).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WriteError::Busy(partial)),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(io(io::Error::other("it is not a regular file")));
        }
        Ok(Self {
            target: target.to_owned(),
            file,
            position: 0,
            earlier: metadata.len(),
            sync: GradualSync::default(),
            written_nars: HashSet::new(),
            reused: 0,
            done,
            partial,
        })
    }

    /// Writes what stands before the store paths: the manifest, and the branch as a git bundle, which `git` has from its beginning.
    pub fn begin(&mut self, manifest: &Manifest, git: &File) -> Result<(), WriteError> {
        let bytes = manifest.render().map_err(WriteError::Manifest)?;
        self.add_bytes(&MemberName::Manifest, &bytes)?;
        let io = |source| WriteError::Io { act: "read the git bundle for", path: self.target.clone(), source };
        let whole = Span { offset: 0, size: git.metadata().map_err(io)?.len() };
        let hash = hash_of(git, whole).map_err(io)?;
        self.add(&MemberName::GitBundle, whole.size, hash, |output| {
            io::copy(&mut SpanReader::of(git, whole), output).map(drop)
        })
        .map_err(|error| {
            error.unwrap_or_else(|| WriteError::Io {
                act: "read the git bundle for",
                path: self.target.clone(),
                source: io::Error::other("it changed while it was read"),
            })
        })?;
        self.add_bytes(&MemberName::CacheInfo, CACHE_INFO)
    }

    /// Writes a store path: its entry, and the NAR that `dump` writes. Paths of the same content share one NAR.
    pub fn add_path(
        &mut self,
        path: &StorePath,
        content: Content,
        entry: &Narinfo,
        dump: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        self.add_bytes(&MemberName::narinfo(path), &entry.render())?;
        let Content { nar_hash, nar_size } = content;
        if !self.written_nars.insert(*nar_hash.bytes()) {
            return Ok(());
        }
        let mut failed = None;
        let written = self.add(&MemberName::nar(&nar_hash), nar_size, *nar_hash.bytes(), |output| {
            let mut output = Watched { output, failed: false };
            let dumped = dump(&mut output);
            match dumped {
                Err(source) if !output.failed => {
                    failed = Some(source);
                    Ok(())
                }
                dumped => dumped,
            }
        });
        match (written, failed) {
            (Err(_), Some(source)) => Err(WriteError::Dump { path: path.clone(), source }),
            (written, _) => written.map_err(|error| error.unwrap_or_else(|| WriteError::Corrupt(path.clone()))),
        }
    }

    /// Ends the file, and gives it its name once it is on the disk.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        let io = |source| WriteError::Io { act: "write", path: self.partial.clone(), source };
        self.file.write_all_at(&END, self.position).map_err(io)?;
        self.position += END.len() as u64;
        self.file.set_len(self.position).map_err(io)?;
        self.sync.wait().and_then(|()| self.file.sync_all()).map_err(io)?;
        let rename = |source| WriteError::Io { act: "give its name to", path: self.target.clone(), source };
        fs::rename(&self.partial, &self.target).map_err(rename)?;
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(rename)?;
        Ok(Written { bytes: self.position, reused: self.reused })
    }

    fn add_bytes(&mut self, name: &MemberName, bytes: &[u8]) -> Result<(), WriteError> {
        let added = self.add(name, bytes.len() as u64, Sha256::digest(bytes).into(), |output| output.write_all(bytes));
        added.map_err(|error| {
            error.unwrap_or_else(|| WriteError::Io {
                act: "write",
                path: self.partial.clone(),
                source: io::Error::other(format!("{name} changed while it was written")),
            })
        })
    }

    /// Adds a member of this size and hash. The error is empty where `write` wrote something else.
    fn add(
        &mut self,
        name: &MemberName,
        size: u64,
        hash: [u8; 32],
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Option<WriteError>> {
        let partial = self.partial.clone();
        let io = |source| Some(WriteError::Io { act: "write", path: partial.clone(), source });
        let span = Span { offset: self.position + BLOCK, size };
        let next = span.next_header().ok_or_else(|| io(io::ErrorKind::FileTooLarge.into()))?;
        if self.has_earlier(name, span, next, hash).map_err(io)? {
            self.reused += next - self.position;
        } else {
            if self.earlier > 0 {
                self.file.set_len(self.position).map_err(io)?;
                self.earlier = 0;
            }
            self.file.write_all_at(&header(name, size).map_err(io)?, self.position).map_err(io)?;
            let mut output = MemberOutput::begin(self, span).map_err(io)?;
            write(&mut output).and_then(|()| output.flush()).map_err(io)?;
            let MemberOutput { hash: found, length, .. } = output;
            if length != size || found.finish().map_err(io)? != hash {
                self.file.set_len(self.position).map_err(io)?;
                return Err(None);
            }
            let padding = usize::try_from(next - span.offset - size).unwrap_or_default();
            self.file.write_all_at(&END[..padding], span.offset + size).map_err(io)?;
        }
        self.position = next;
        Ok(())
    }

    /// Whether an earlier run wrote this member here, and the disk still has it.
    fn has_earlier(&self, name: &MemberName, span: Span, next: u64, hash: [u8; 32]) -> io::Result<bool> {
        if next > self.earlier || span_at(&self.file, self.position, name)? != Some(span) {
            return Ok(false);
        }
        let mut padding = vec![0; usize::try_from(next - span.offset - span.size).unwrap_or_default()];
        self.file.read_exact_at(&mut padding, span.offset + span.size)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let mut reader = SpanReader::of(&self.file, span);
        let is_same = hash_with(&mut reader, |count| self.count(count))? == hash;
        Ok(is_same)
    }

    fn count(&self, bytes: usize) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Takes what is written of a member.
struct MemberOutput<'a> {
    writer: &'a mut ClosureWriter,
    span: Span,
    length: u64,
    hash: Hasher,
    buffer: Vec<u8>,
}

impl<'a> MemberOutput<'a> {
    fn begin(writer: &'a mut ClosureWriter, span: Span) -> io::Result<Self> {
        Ok(Self { writer, span, length: 0, hash: Hasher::of(span.size)?, buffer: Vec::with_capacity(CHUNK) })
    }
}

impl Write for MemberOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let pending = self.length + self.buffer.len() as u64;
        // A path that is larger than recorded is noticed here, before it fills the stick.
        if pending + bytes.len() as u64 > self.span.size {
            return Err(io::Error::other("it is longer than the store has recorded"));
        }
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        let fits = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let count = buffer.len();
        self.writer.file.write_all_at(&buffer, self.span.offset + self.length)?;
        self.buffer = self.hash.update(buffer)?;
        self.length += count as u64;
        self.writer.count(count);
        self.writer.sync.wrote(&self.writer.file, count)
    }
}

/// Remembers whether an error came from the output, and not from what is read.
struct Watched<'a> {
    output: &'a mut dyn Write,
    failed: bool,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes).inspect_err(|_| self.failed = true)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush().inspect_err(|_| self.failed = true)
    }
}

/// Reads the bytes of a member, from wherever the file stands.
#[derive(Debug)]
pub(super) struct SpanReader<'a> {
    file: &'a File,
    span: Span,
}

impl<'a> SpanReader<'a> {
    pub(super) fn of(file: &'a File, span: Span) -> Self {
        Self { file, span }
    }
}

impl Read for SpanReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.span.size).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..most], self.span.offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.span = Span { offset: self.span.offset + count as u64, size: self.span.size - count as u64 };
        Ok(count)
    }
}

/// The SHA-256 of a part of a file.
fn hash_of(file: &File, span: Span) -> io::Result<[u8; 32]> {
    hash_with(&mut SpanReader::of(file, span), |_| ())
}

/// The SHA-256 of all that `input` gives. `count` hears of each piece.
pub(super) fn hash_with(input: &mut impl Read, count: impl Fn(usize)) -> io::Result<[u8; 32]> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            length => {
                hash.update(&buffer[..length]);
                count(length);
            }
        }
    }
}
