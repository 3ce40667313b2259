//! The reasons why a static folder cannot be read.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytesize::ByteSize;

use crate::git::repository::GitError;
use crate::model::Sha256Digest;

/// What to do about an answer that is none of the folder.
const CHECK: &str = "see that the URL is that of a folder which `clavel export --static` wrote";

/// Why nothing was taken from a static folder.
#[derive(Debug, thiserror::Error)]
pub enum StaticError {
    /// The server refuses this user.
    #[error(
        "the server refuses {file} (HTTP status {status}); name a token, or the client-certificate that it asks for, with a [[credentials]] table, whose url is without \
         `static+`"
    )]
    Refused {
        /// The URL of the file.
        file: String,
        /// The status.
        status: u32,
    },
    /// The credentials cannot be read.
    #[error("cannot log in: {0}")]
    Credentials(String),
    /// A file that the tip names is not there.
    #[error(
        "the tip names {file}, which is not there; a cache may show a newer tip than its other files, and then the next attempt finds \
         it; otherwise export the branch anew into an empty folder"
    )]
    NotThere {
        /// The URL of the file.
        file: String,
    },
    /// The server sends the client elsewhere.
    #[error("the server sends {file} on to {to}, and redirects are not followed; write the URL where the folder is")]
    Redirect {
        /// The URL of the file.
        file: String,
        /// Where to, without a user.
        to: String,
    },
    /// The server answers with another status.
    #[error("the server answers {file} with the HTTP status {status}; try again later, and look at its log")]
    Status {
        /// The URL of the file.
        file: String,
        /// The status.
        status: u32,
        /// For how long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The connection fails.
    #[error("cannot get {file}: {why}")]
    Connection {
        /// The URL of the file.
        file: String,
        /// The error of libcurl.
        why: String,
    },
    /// A file is longer than it may be.
    #[error("{file} is longer than {}, so the rest was not read; {CHECK}", ByteSize(*limit))]
    TooLong {
        /// The URL of the file.
        file: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// All files together are longer than one fetch may be.
    #[error("its files are longer than {} together", ByteSize(*limit))]
    TooMuch {
        /// The limit in bytes.
        limit: u64,
    },
    /// A file has other bytes than its name says.
    #[error(
        "{file} has other bytes than its name says (SHA-256 {}…): it was damaged or altered; see what the server or the cache before it has there",
        found.short()
    )]
    OtherBytes {
        /// The URL of the file.
        file: String,
        /// The digest of its bytes.
        found: Sha256Digest,
    },
    /// A file of a folder on this machine cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// The path.
        file: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A file is not what it has to be.
    #[error("{what} cannot be read; {CHECK}")]
    Content {
        /// The file.
        what: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The local repository cannot be read or written.
    #[error(transparent)]
    Local(#[from] GitError),
}
