//! Keeping the evidence of a fork: two signed contents of one version or revision.
//!
//! Somebody has to find out who signed twice, so both contents are kept as files. Refusing them belongs to `verify` and
//! `mirrors`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fetch::FetchedMirror;
use super::mirrors::Rejection;
use super::verify::Refusal;
use crate::branch::{Layout, RootsError, find_document};
use crate::git::{CommitId, Repository, Snapshot};
use crate::model::{BranchFile as _, DocumentPath, Index, Root, Sha256Digest, Timestamp, describe_error, json};

/// How many forks are kept. Further ones of the same attacker tell nothing new.
const MAX_KEPT_FORKS: usize = 32;
/// The largest file that is kept: 16 MiB. The error has the digest of a larger one.
const MAX_FILE_BYTES: usize = 16 << 20;

/// A fork, as its refusal describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fork {
    /// The file on the branch.
    file: ForkedFile,
    /// The place of the other content.
    other: OtherSide,
    /// The digest of the refused content.
    found: Sha256Digest,
}

/// The file that a fork is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ForkedFile {
    Index,
    Root,
    Document(DocumentPath),
}

impl fmt::Display for ForkedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index => f.write_str(Layout::INDEX),
            Self::Root => f.write_str(Layout::NEWEST_ROOT),
            Self::Document(path) => path.fmt(f),
        }
    }
}

impl ForkedFile {
    /// Reads it from these files; `None` where it cannot be read.
    fn read(&self, files: &Snapshot) -> Option<Vec<u8>> {
        let found = match self {
            Self::Index => files.read(Layout::INDEX, Index::MAX_BYTES),
            Self::Root => files.read(Layout::NEWEST_ROOT, Root::MAX_BYTES),
            Self::Document(path) => find_document(files, path),
        };
        found.ok().flatten()
    }
}

/// The place of the other content of a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OtherSide {
    /// It is the one that was believed before.
    Believed,
    /// Another mirror shows it.
    Mirror(String),
}

/// The fork that `refusal` is about, if it is about one.
fn fork_of(refusal: &Refusal) -> Option<Fork> {
    let (file, other, found) = match refusal {
        Refusal::IndexFork { found, .. } => (ForkedFile::Index, OtherSide::Believed, found),
        Refusal::MirrorFork { other, found, .. } => (ForkedFile::Index, OtherSide::Mirror(other.clone()), found),
        Refusal::MirrorDocumentFork { path, other, found, .. } => {
            (ForkedFile::Document(path.clone()), OtherSide::Mirror(other.clone()), found)
        }
        Refusal::Fork { path, found, .. } => (ForkedFile::Document(path.clone()), OtherSide::Believed, found),
        Refusal::Roots(RootsError::Fork { found, .. }) => (ForkedFile::Root, OtherSide::Believed, found),
        Refusal::Roots(_)
        | Refusal::Branch(_)
        | Refusal::Stale(_)
        | Refusal::EpochRollback { .. }
        | Refusal::UnknownAgent { .. }
        | Refusal::TooManyDocuments { .. }
        | Refusal::IndexRollback { .. }
        | Refusal::Rollback { .. }
        | Refusal::CameBack { .. }
        | Refusal::NotAllowed { .. }
        | Refusal::SharedUnit { .. } => return None,
    };
    Some(Fork { file, other, found: *found })
}

/// The agent's copy of one mirror, from which both contents are read again.
#[derive(Debug)]
pub(super) struct MirrorCopy {
    mirror: String,
    repository: Repository,
    tip: CommitId,
}

impl MirrorCopy {
    pub(super) fn of(fetched: &FetchedMirror) -> Option<Self> {
        let (repository, tip) = fetched.tip.as_ref().ok()?;
        Some(Self { mirror: fetched.mirror.clone(), repository: repository.clone(), tip: *tip })
    }

    /// Reads a file of a commit; `None` where it cannot be read.
    fn read(&self, commit: CommitId, file: &ForkedFile) -> Option<Vec<u8>> {
        file.read(&self.repository.snapshot(commit).ok()?)
    }
}

/// The content that was believed before.
#[derive(Debug)]
pub(super) struct Remembered<'a> {
    /// The files of the branch.
    pub(super) files: &'a BelievedFiles,
    /// The bytes of the root.
    pub(super) root: Option<&'a [u8]>,
}

/// The files of the branch that was believed last: the index, and the documents that concern this agent.
#[derive(Debug)]
pub(super) struct BelievedFiles {
    /// The folder for them, once the copy of the mirror that has them is deleted.
    pub(super) folder: PathBuf,
    /// The commit that they were read from.
    pub(super) at: Option<CommitId>,
    /// The documents.
    pub(super) documents: Vec<DocumentPath>,
}

impl BelievedFiles {
    /// Saves the files from a copy that will be deleted. Another copy may have those that this one lacks.
    pub(super) fn rescue(&self, copy: &Path) {
        let Some(commit) = self.at else { return };
        let target = self.folder.join(commit.to_string());
        if target.exists() {
            return;
        }
        let Ok(files) = Repository::open(copy).map_err(drop).and_then(|copy| copy.snapshot(commit).map_err(drop))
        else {
            return;
        };
        let write = || -> io::Result<()> {
            // The files of an earlier commit are not needed any more.
            if self.folder.exists() {
                fs::remove_dir_all(&self.folder)?;
            }
            fs::create_dir_all(&self.folder)?;
            let unfinished = tempfile::Builder::new().prefix(".files-").tempdir_in(&self.folder)?;
            let documents = self.documents.iter().cloned().map(ForkedFile::Document);
            for file in std::iter::once(ForkedFile::Index).chain(documents) {
                let Some(bytes) = file.read(&files) else { continue };
                let file = unfinished.path().join(file.to_string());
                file.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::write(file, bytes)?;
            }
            fs::rename(unfinished.keep(), &target)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot save the believed files from a copy that is deleted");
        }
    }

    /// Reads a file from the first copy that has it, or from the saved files.
    fn read(&self, copies: &[MirrorCopy], file: &ForkedFile) -> Option<Vec<u8>> {
        let at = self.at?;
        let in_a_copy = copies.iter().find_map(|copy| copy.read(at, file));
        in_a_copy.or_else(|| fs::read(self.folder.join(at.to_string()).join(file.to_string())).ok())
    }
}

/// The evidence that a pass kept.
#[derive(Debug, Default)]
pub(super) struct KeptEvidence {
    /// The folder of each new fork.
    pub(super) folders: Vec<PathBuf>,
    /// Whether there was no room for another one.
    pub(super) is_full: bool,
}

/// Keeps both contents of every fork below `folder`.
pub(super) fn keep_all(
    folder: &Path,
    copies: &[MirrorCopy],
    rejected: &[(String, Rejection)],
    remembered: &Remembered<'_>,
    now: Timestamp,
) -> KeptEvidence {
    let mut evidence = KeptEvidence::default();
    for (mirror, rejection) in rejected {
        let Rejection::Refused(refusal) = rejection else { continue };
        let Some(Fork { file, other, found: content_digest }) = fork_of(refusal) else { continue };
        let path = file.to_string();
        if place_of(folder, &path, content_digest).exists() {
            // It was kept at an earlier pass. A mirror may show a fork for days, and its files are large.
            continue;
        }
        let copy_of = |wanted: &str| copies.iter().find(|copy| copy.mirror == wanted);
        let Some(found) = copy_of(mirror).and_then(|copy| copy.read(copy.tip, &file)) else { continue };
        let other = match &other {
            OtherSide::Mirror(other) => copy_of(other).and_then(|copy| copy.read(copy.tip, &file)),
            OtherSide::Believed if file == ForkedFile::Root => remembered.root.map(<[u8]>::to_vec),
            OtherSide::Believed => remembered.files.read(copies, &file),
        };
        let refusal = describe_error(refusal);
        let case =
            ForkCase { path: &path, mirror, refusal, content_digest, found: &found, other: other.as_deref(), at: now };
        match case.keep(folder) {
            Ok(KeptFork::New(place)) => evidence.folders.push(place),
            Ok(KeptFork::Known) => {}
            Ok(KeptFork::Full) => evidence.is_full = true,
            Err(error) => tracing::warn!(%error, "cannot keep both contents of a fork"),
        }
    }
    evidence
}

/// The result of keeping a fork.
#[derive(Debug, PartialEq, Eq)]
enum KeptFork {
    New(PathBuf),
    Known,
    Full,
}

/// A fork, with the bytes of both contents.
#[derive(Debug)]
struct ForkCase<'a> {
    /// The file on the branch.
    path: &'a str,
    /// The mirror with the refused content.
    mirror: &'a str,
    /// Why it was refused.
    refusal: String,
    /// The digest of the refused content.
    content_digest: Sha256Digest,
    /// The refused bytes.
    found: &'a [u8],
    /// The other bytes; `None` where this machine does not have them any more.
    other: Option<&'a [u8]>,
    /// The time of the pass.
    at: Timestamp,
}

#[derive(Serialize)]
struct ForkSummary<'a> {
    at: Timestamp,
    mirror: &'a str,
    path: &'a str,
    refusal: &'a str,
}

impl ForkCase<'_> {
    /// Keeps both contents below `folder`.
    fn keep(&self, folder: &Path) -> io::Result<KeptFork> {
        let place = place_of(folder, self.path, self.content_digest);
        if place.exists() {
            return Ok(KeptFork::Known);
        }
        if count_kept(folder) >= MAX_KEPT_FORKS {
            return Ok(KeptFork::Full);
        }
        fs::create_dir_all(folder)?;
        // The rename makes the folder appear as a whole or not at all.
        let unfinished = tempfile::Builder::new().prefix(".case-").tempdir_in(folder)?;
        let write = |name: &str, bytes: &[u8]| fs::write(unfinished.path().join(name), bytes);
        let about = ForkSummary { at: self.at, mirror: self.mirror, path: self.path, refusal: &self.refusal };
        write("about.json", &json::render(&about))?;
        for (name, bytes) in [("refused.json", Some(self.found)), ("other.json", self.other)] {
            if let Some(bytes) = bytes.filter(|bytes| bytes.len() <= MAX_FILE_BYTES) {
                write(name, bytes)?;
            }
        }
        fs::rename(unfinished.keep(), &place)?;
        Ok(KeptFork::New(place))
    }
}

/// The folder below `folder` for a fork of the file `path`. The digest of the refused content names it, because a further
/// signature, which needs no trusted key, changes the bytes alone.
fn place_of(folder: &Path, path: &str, content_digest: Sha256Digest) -> PathBuf {
    let what = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    folder.join(format!("{what}-{}", content_digest.short()))
}

/// How many forks are kept below `folder`.
fn count_kept(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.filter_map(Result::ok).filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::digest;

    fn case<'a>(found: &'a [u8], other: Option<&'a [u8]>) -> ForkCase<'a> {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        ForkCase {
            path: Layout::INDEX,
            mirror: "m",
            refusal: "two".to_owned(),
            content_digest: digest(found),
            found,
            other,
            at,
        }
    }

    #[test]
    fn a_fork_is_kept_once_with_both_contents_and_their_number_is_limited() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("evidence");
        let KeptFork::New(place) = case(b"a", Some(b"b")).keep(&folder).unwrap() else { panic!() };
        assert_eq!(fs::read(place.join("refused.json")).unwrap(), b"a");
        assert_eq!(fs::read(place.join("other.json")).unwrap(), b"b");
        assert!(fs::read_to_string(place.join("about.json")).unwrap().contains("\"refusal\": \"two\""));
        assert_eq!(case(b"a", Some(b"b")).keep(&folder).unwrap(), KeptFork::Known);
        // The content counts, not a further signature.
        let signed_once_more = ForkCase { found: b"a, signed once more", ..case(b"a", None) };
        assert_eq!(signed_once_more.keep(&folder).unwrap(), KeptFork::Known);
        for number in 0..2 * MAX_KEPT_FORKS {
            case(number.to_string().as_bytes(), None).keep(&folder).unwrap();
        }
        assert_eq!(count_kept(&folder), MAX_KEPT_FORKS);
        assert_eq!(case(b"one more", None).keep(&folder).unwrap(), KeptFork::Full);
        assert_eq!(case(b"a", None).keep(&folder).unwrap(), KeptFork::Known);
    }

    #[test]
    fn the_refusal_says_what_the_fork_is() {
        let (seen, found) = (digest(b"a"), digest(b"b"));
        let version = 6.try_into().unwrap();
        let believed = Fork { file: ForkedFile::Index, other: OtherSide::Believed, found };
        assert_eq!(fork_of(&Refusal::IndexFork { version, seen, found }), Some(believed));
        let other = "b".to_owned();
        let mirrors = fork_of(&Refusal::MirrorFork { version, other: other.clone(), seen, found });
        assert_eq!(mirrors.map(|fork| fork.other), Some(OtherSide::Mirror(other)));
        assert_eq!(fork_of(&Refusal::IndexRollback { seen: version, found: version }), None);
    }
}
