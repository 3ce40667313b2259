//! Finds the members of the file by seeking from header to header. The bytes of the NARs are not read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::manifest::{self, CarriedPath, Manifest, ManifestError};
use super::narinfo::{self, Narinfo, NarinfoError};
use super::tar::{END, MemberName, Span, span_at};
use super::write::{CACHE_INFO, SpanReader};
use crate::model::Content;

/// The most bytes of `nix-cache-info`: 4 KiB.
const MAX_CACHE_INFO_BYTES: u64 = 4 << 10;

/// An open bundle with closures, whose members are known.
#[derive(Debug)]
pub struct ClosureBundle {
    file: File,
    manifest: Manifest,
    /// For each path of the manifest, where its entry is.
    entries: Vec<Span>,
    /// For each hash of a path, its place in the manifest.
    by_hash: HashMap<String, usize>,
    /// For each hash of a NAR in Nix's base 32, where it is.
    nars: HashMap<String, Span>,
}

/// Why a member cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{member}")]
pub struct ReadError {
    /// The name of the member.
    pub member: String,
    /// What is wrong with it.
    pub source: MemberError,
}

/// What is wrong with a member.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The file cannot be read.
    #[error("it cannot be read; copy the bundle again, or plug the stick in again")]
    Read(#[source] io::Error),
    /// The file ends before the end of the member.
    #[error("the file ends too early; copy the bundle again")]
    Truncated,
    /// Another member, or none, stands where it has to be.
    #[error("it is not where bundle.json says that it is; copy the bundle again")]
    NotThere,
    /// It is larger than any such member.
    #[error("it has {0} bytes, and at most {1} are allowed")]
    TooLong(u64, u64),
    /// The file goes on after the last member.
    #[error("the file goes on after it; copy the bundle again")]
    More,
    /// It has other bytes than every bundle has there.
    #[error("it is not written as Clavel writes it; copy the bundle again")]
    OtherForm,
    /// The list of what is in the file is wrong.
    #[error(transparent)]
    Manifest(ManifestError),
    /// The entry of a path is wrong.
    #[error(transparent)]
    Narinfo(NarinfoError),
    /// The files of a path are others than its entry says.
    #[error("its content is not that of its narinfo; copy the bundle again")]
    OtherContent,
}

impl MemberError {
    fn of(self, member: &MemberName) -> ReadError {
        ReadError { member: member.to_string(), source: self }
    }
}

/// Where the git bundle is in a bundle with closures; `None` in a file that is none.
pub fn git_bundle_in(file: &File) -> Result<Option<Span>, ReadError> {
    if !begins_as_one(file).map_err(|error| io_error(error).of(&MemberName::Manifest))? {
        return Ok(None);
    }
    let manifest = find(file, 0, &MemberName::Manifest)?;
    find(file, next(manifest, &MemberName::Manifest)?, &MemberName::GitBundle).map(Some)
}

/// Whether the file begins with the member that no git bundle begins with.
fn begins_as_one(file: &File) -> io::Result<bool> {
    let mut found = [0; 12];
    match file.read_exact_at(&mut found, 0) {
        Ok(()) => Ok(found == *b"bundle.json\0"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn io_error(error: io::Error) -> MemberError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => MemberError::Truncated,
        _ => MemberError::Read(error),
    }
}

fn find(file: &File, offset: u64, name: &MemberName) -> Result<Span, ReadError> {
    let span = span_at(file, offset, name).map_err(|error| io_error(error).of(name))?;
    span.ok_or_else(|| MemberError::NotThere.of(name))
}

fn next(span: Span, name: &MemberName) -> Result<u64, ReadError> {
    span.next_header().ok_or_else(|| MemberError::NotThere.of(name))
}

fn read(file: &File, span: Span, limit: u64, name: &MemberName) -> Result<Vec<u8>, ReadError> {
    if span.size > limit {
        return Err(MemberError::TooLong(span.size, limit).of(name));
    }
    let mut bytes = Vec::new();
    SpanReader::of(file, span).read_to_end(&mut bytes).map_err(|error| io_error(error).of(name))?;
    Ok(bytes)
}

impl ClosureBundle {
    /// Finds all members; `None` where the file is no bundle with closures.
    pub fn open(file: File) -> Result<Option<Self>, ReadError> {
        let Some(git) = git_bundle_in(&file)? else { return Ok(None) };
        let manifest = find(&file, 0, &MemberName::Manifest)?;
        let bytes = read(&file, manifest, manifest::MAX_BYTES, &MemberName::Manifest)?;
        let manifest =
            Manifest::parse(&bytes).map_err(|error| MemberError::Manifest(error).of(&MemberName::Manifest))?;
        drop(bytes);
        let mut last = MemberName::GitBundle;
        let mut position = next(git, &last)?;
        let mut member = |name: MemberName| {
            let span = find(&file, position, &name)?;
            position = next(span, &name)?;
            last = name;
            Ok(span)
        };
        let info = member(MemberName::CacheInfo)?;
        if read(&file, info, MAX_CACHE_INFO_BYTES, &MemberName::CacheInfo)? != CACHE_INFO {
            return Err(MemberError::OtherForm.of(&MemberName::CacheInfo));
        }
        let (mut entries, mut by_hash, mut nars) = (Vec::new(), HashMap::new(), HashMap::new());
        for (place, CarriedPath { path, nar_hash, nar_size }) in manifest.paths.iter().enumerate() {
            let name = MemberName::narinfo(path);
            let span = member(name.clone())?;
            if span.size > narinfo::MAX_BYTES || by_hash.insert(path.hash_part(), place).is_some() {
                return Err(MemberError::TooLong(span.size, narinfo::MAX_BYTES).of(&name));
            }
            entries.push(span);
            let name = MemberName::nar(nar_hash);
            if let MemberName::Nar(hash) = &name
                && !nars.contains_key(hash)
            {
                let span = member(name.clone())?;
                if span.size != *nar_size {
                    return Err(MemberError::NotThere.of(&name));
                }
                nars.insert(hash.clone(), span);
            }
        }
        let mut end = [1; END.len()];
        file.read_exact_at(&mut end, position).map_err(|error| io_error(error).of(&last))?;
        let length = file.metadata().map_err(|error| MemberError::Read(error).of(&last))?.len();
        if end != END || length != position + END.len() as u64 {
            return Err(MemberError::More.of(&last));
        }
        Ok(Some(Self { file, manifest, entries, by_hash, nars }))
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads the entry of the path at `place` of the manifest.
    pub fn narinfo(&self, place: usize) -> Result<Narinfo, ReadError> {
        let (Some(CarriedPath { path, nar_hash, nar_size }), Some(span)) =
            (self.manifest.paths.get(place), self.entries.get(place))
        else {
            return Err(MemberError::NotThere.of(&MemberName::Manifest));
        };
        let name = MemberName::narinfo(path);
        let bytes = read(&self.file, *span, narinfo::MAX_BYTES, &name)?;
        let content = Content { nar_hash: *nar_hash, nar_size: *nar_size };
        Narinfo::parse(&bytes, path, content).map_err(|error| MemberError::Narinfo(error).of(&name))
    }

    /// The bytes of the entry of the path with this hash, once it was read; `None` if no path has it.
    pub fn entry(&self, hash: &str) -> Option<Result<Vec<u8>, ReadError>> {
        Some(self.narinfo(*self.by_hash.get(hash)?).map(|entry| entry.render()))
    }

    /// Where the NAR with this hash, in Nix's base 32, is.
    pub fn nar(&self, hash: &str) -> Option<Span> {
        self.nars.get(hash).copied()
    }

    /// Reads from a NAR.
    pub fn read(&self, nar: Span) -> impl Read {
        SpanReader::of(&self.file, nar)
    }

    /// Each NAR in it: its name and where it is, in the order of the file.
    pub(super) fn all_nars(&self) -> Vec<(MemberName, Span, [u8; 32])> {
        let mut all: Vec<_> = self
            .manifest
            .paths
            .iter()
            .filter_map(|CarriedPath { nar_hash, .. }| {
                let name = MemberName::nar(nar_hash);
                let MemberName::Nar(hash) = &name else { return None };
                Some((name.clone(), self.nar(hash)?, *nar_hash.bytes()))
            })
            .collect();
        all.sort_by_key(|(_, span, _)| span.offset);
        all.dedup_by_key(|(_, span, _)| span.offset);
        all
    }

    pub(super) fn other_content(name: &MemberName) -> ReadError {
        MemberError::OtherContent.of(name)
    }

    pub(super) fn unreadable(name: &MemberName, error: io::Error) -> ReadError {
        io_error(error).of(name)
    }
}
