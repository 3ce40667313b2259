//! One file of a static folder after the other, from a server or from this machine.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::address::StaticUrl;
use super::error::StaticError;
use super::http::{HttpAnswer, HttpClient};
use super::paths::{STATIC_TIP, static_object_path};
use super::tip_record::Validators;
use crate::model::{FileDigest, Sha256Digest};

/// The most bytes of a tip: 2 MiB. The index in it has 1 MiB at most.
const MAX_TIP_BYTES: u64 = 2 << 20;
/// The most bytes of an object: 2 MiB. The largest are bins, of 1 MiB at most, and the list of the roots.
const MAX_OBJECT_BYTES: u64 = 2 << 20;

/// Where the files come from.
enum Place<'a> {
    Server(Box<HttpClient<'a>>),
    Folder(PathBuf),
}

/// A static folder from which files are read.
pub(super) struct StaticSource<'a> {
    place: Place<'a>,
    /// The bytes that may still be read.
    left: u64,
    most: u64,
}

impl<'a> StaticSource<'a> {
    /// The folder at `url`, from which at most `most` bytes are read. Nothing is asked for yet.
    pub(super) fn open(url: &'a StaticUrl, most: u64) -> Result<Self, StaticError> {
        let place = match url.folder() {
            Some(folder) => Place::Folder(folder),
            None => Place::Server(Box::new(HttpClient::new(url.url())?)),
        };
        Ok(Self { place, left: most, most })
    }

    /// The tip, unless it is as `known` says.
    pub(super) fn tip(&mut self, known: Option<&Validators>) -> Result<HttpAnswer, StaticError> {
        self.get(STATIC_TIP, MAX_TIP_BYTES, known)
    }

    /// The object with this digest.
    pub(super) fn object(&mut self, digest: &FileDigest) -> Result<Vec<u8>, StaticError> {
        let path = static_object_path(&digest.sha256);
        match self.get(&path, digest.length.min(MAX_OBJECT_BYTES), None)? {
            HttpAnswer::File(bytes, _) if FileDigest::of(&bytes) == *digest => Ok(bytes),
            HttpAnswer::File(bytes, _) => Err(StaticError::OtherBytes { file: path, found: Sha256Digest::of(&bytes) }),
            HttpAnswer::Missing | HttpAnswer::NotModified => Err(StaticError::NotThere { file: path }),
        }
    }

    fn get(&mut self, path: &str, limit: u64, known: Option<&Validators>) -> Result<HttpAnswer, StaticError> {
        if limit > self.left {
            return Err(StaticError::TooMuch { limit: self.most });
        }
        let answer = match &mut self.place {
            Place::Server(client) => client.get(path, limit, known)?,
            Place::Folder(folder) => read(&folder.join(path), limit)?,
        };
        if let HttpAnswer::File(bytes, _) = &answer {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Ok(answer)
    }
}

/// Reads a regular file of this machine. Another program may have put a pipe in its place, on which a reader waits for ever.
fn read(path: &Path, limit: u64) -> Result<HttpAnswer, StaticError> {
    let failed = |source: io::Error| StaticError::Read { file: path.display().to_string(), source };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from) {
        Ok(file) => File::from(file),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(HttpAnswer::Missing);
        }
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(StaticError::TooLong { file: path.display().to_string(), limit });
    }
    Ok(HttpAnswer::File(bytes, Validators::default()))
}
