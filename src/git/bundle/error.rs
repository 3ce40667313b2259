//! The reasons why a bundle cannot be read.

use std::io;

use bytesize::ByteSize;

use crate::closures::ReadError;
use crate::git::address::CommitId;
use crate::git::objects::ReadError as ObjectError;

/// The most bytes of a header: 64 KiB.
pub(super) const MAX_HEADER_BYTES: u64 = 64 << 10;
/// The most lines of a header.
pub(super) const MAX_LINES: usize = 512;
/// What to do about a bundle that was damaged on its way.
const COPY_AGAIN: &str = "copy it again";

/// Why a bundle was not taken. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is no such file.
    #[error("the file is not there; plug in the stick that has it, or correct the path")]
    NoFile,
    /// Something else than a file has the name.
    #[error(
        "it is {0}, and a bundle is a regular file; put the file itself there, or give a repository a name that does not end in .bundle"
    )]
    NotAFile(&'static str),
    /// The system cannot open it.
    #[error("the file cannot be opened")]
    Open(#[source] io::Error),
    /// A pattern names any number of files.
    #[error("it is a pattern, and here one file has to be named")]
    Pattern,
    /// It is a bundle with closures, and its beginning is damaged.
    #[error("the bundle with closures is damaged")]
    Closures(#[source] Box<ReadError>),
    /// The beginning of the file is not that of a bundle.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It was made on top of commits that are not here.
    #[error(
        "it builds on commit {0}, which is not among what came in earlier bundles from there; bring a complete bundle, or the one \
         in between"
    )]
    MissingPrerequisite(CommitId),
    /// Its objects are damaged, or the file ends too early.
    #[error("its objects cannot be read, so nothing of it was kept: {0}; {COPY_AGAIN}")]
    Pack(String),
    /// Its objects are good, and some are missing.
    #[error("it lacks a part of its commit, so nothing of it was kept (make it again, or {COPY_AGAIN})")]
    Incomplete(#[source] Box<ObjectError>),
}

/// Why the beginning of a file is not that of a bundle that Clavel reads.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file cannot be read, or ends within it.
    #[error("the file cannot be read; {COPY_AGAIN}")]
    Read(#[source] io::Error),
    /// The first line is another.
    #[error("the file is not a git bundle of version 2 or 3; make one with `clavel bundle create`")]
    NotABundle,
    /// It has a capability that Clavel does not know.
    #[error("the bundle needs `{0}`, which Clavel does not have; make one with `clavel bundle create`")]
    Capability(String),
    /// A line is damaged.
    #[error("a line at its beginning is damaged; {COPY_AGAIN}")]
    Line,
    /// It is longer than any header.
    #[error(
        "what stands before its objects is longer than {} or has more than {MAX_LINES} lines; make one with `clavel bundle create`",
        ByteSize(MAX_HEADER_BYTES)
    )]
    TooLong,
    /// It names one ref twice.
    #[error("it names the ref {0} twice; make one with `clavel bundle create`")]
    Twice(String),
}
