//! Two contents under one number: both are kept, for whoever has to find out who signed twice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fetch::Shown;
use super::mirrors::Rejection;
use super::verify::Refusal;
use crate::branch::{INDEX_PATH, ROOT_PATH, RootsError};
use crate::git::{CommitId, Repository};
use crate::model::{Index, Payload as _, Sha256Digest, Timestamp, json};

/// How many cases are kept. What else an attacker makes up tells nothing new.
const MOST: usize = 32;
/// The largest file that is kept of a case: 16 MiB. Of a larger one its digest is in the error.
const LARGEST: usize = 16 << 20;

/// What there are two of, and where the other one is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contested {
    /// The file on the branch.
    path: String,
    /// Who shows the other one.
    other: Other,
    /// The digest of what the refused one says.
    found: Sha256Digest,
}

/// Where the other one of two is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Other {
    /// It was believed before.
    Believed,
    /// Another mirror shows it.
    Mirror(String),
}

/// What `refusal` says that there are two of.
fn contested(refusal: &Refusal) -> Option<Contested> {
    let (path, other, found) = match refusal {
        Refusal::IndexFork { found, .. } => (INDEX_PATH.to_owned(), Other::Believed, found),
        Refusal::MirrorFork { other, found, .. } => (INDEX_PATH.to_owned(), Other::Mirror(other.clone()), found),
        Refusal::MirrorDocumentFork { path, other, found, .. } => {
            (path.to_string(), Other::Mirror(other.clone()), found)
        }
        Refusal::Fork { path, found, .. } => (path.to_string(), Other::Believed, found),
        Refusal::Roots(RootsError::Fork { found, .. }) => (ROOT_PATH.to_owned(), Other::Believed, found),
        Refusal::Roots(_)
        | Refusal::Branch(_)
        | Refusal::Stale(_)
        | Refusal::EpochRollback { .. }
        | Refusal::TooManyDocuments { .. }
        | Refusal::IndexRollback { .. }
        | Refusal::Rollback { .. }
        | Refusal::NotAllowed { .. }
        | Refusal::SharedUnit { .. }
        | Refusal::OtherArch { .. }
        | Refusal::OtherType { .. } => return None,
    };
    Some(Contested { path, other, found: *found })
}

/// What one mirror showed, for whoever has to look at it again.
#[derive(Debug)]
pub(super) struct Copy {
    mirror: String,
    repository: Repository,
    tip: CommitId,
}

impl Copy {
    pub(super) fn of(shown: &Shown) -> Option<Self> {
        let (repository, tip) = shown.tip.as_ref().ok()?;
        Some(Self { mirror: shown.mirror.clone(), repository: repository.clone(), tip: *tip })
    }

    /// A file of a commit, where it can be read at all.
    fn read(&self, commit: CommitId, path: &str) -> Option<Vec<u8>> {
        self.repository.snapshot(commit).ok()?.read(path, Index::LARGEST).ok().flatten()
    }
}

/// What was believed before.
#[derive(Debug)]
pub(super) struct Remembered<'a> {
    /// The files of the branch.
    pub(super) files: &'a BelievedFiles,
    /// The file of the root.
    pub(super) root: Option<&'a [u8]>,
}

/// The files of the branch that were believed last: the index, and what concerns this agent.
#[derive(Debug)]
pub(super) struct BelievedFiles {
    /// Where they are kept when the copy of a mirror that has them goes.
    pub(super) folder: PathBuf,
    /// The commit that they were read from.
    pub(super) at: Option<CommitId>,
    /// Their paths.
    pub(super) paths: Vec<String>,
}

impl BelievedFiles {
    /// Takes them out of a copy that is to be thrown away. What it does not have, another one may.
    pub(super) fn rescue(&self, copy: &Path) {
        let Some(commit) = self.at else { return };
        let place = self.folder.join(commit.to_string());
        if place.exists() {
            return;
        }
        let Ok(files) = Repository::open(copy).map_err(drop).and_then(|copy| copy.snapshot(commit).map_err(drop))
        else {
            return;
        };
        let write = || -> io::Result<()> {
            // Of what was believed earlier there is no question any more.
            if self.folder.exists() {
                fs::remove_dir_all(&self.folder)?;
            }
            fs::create_dir_all(&self.folder)?;
            let unfinished = tempfile::Builder::new().prefix(".files-").tempdir_in(&self.folder)?;
            for path in &self.paths {
                let Ok(Some(bytes)) = files.read(path, Index::LARGEST) else { continue };
                let file = unfinished.path().join(path);
                file.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::write(file, bytes)?;
            }
            fs::rename(unfinished.keep(), &place)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot keep what was believed from a copy that goes");
        }
    }

    /// A file, from whichever mirror's copy has it, or from what was kept of one.
    fn read(&self, copies: &[Copy], path: &str) -> Option<Vec<u8>> {
        let at = self.at?;
        let in_a_copy = copies.iter().find_map(|copy| copy.read(at, path));
        in_a_copy.or_else(|| fs::read(self.folder.join(at.to_string()).join(path)).ok())
    }
}

/// What became of the evidence in a pass.
#[derive(Debug, Default)]
pub(super) struct KeptEvidence {
    /// Where each new case is.
    pub(super) places: Vec<PathBuf>,
    /// Whether there was one more for which there is no room.
    pub(super) is_full: bool,
}

/// Keeps both sides of whatever there are two of below `folder`.
pub(super) fn keep_all(
    folder: &Path,
    copies: &[Copy],
    rejected: &[(String, Rejection)],
    remembered: &Remembered<'_>,
    now: Timestamp,
) -> KeptEvidence {
    let mut evidence = KeptEvidence::default();
    for (mirror, rejection) in rejected {
        let Rejection::Refused(refusal) = rejection else { continue };
        let Some(Contested { path, other, found: content }) = contested(refusal) else { continue };
        let of = |wanted: &str| copies.iter().find(|copy| copy.mirror == wanted);
        let Some(found) = of(mirror).and_then(|copy| copy.read(copy.tip, &path)) else { continue };
        let other = match &other {
            Other::Mirror(other) => of(other).and_then(|copy| copy.read(copy.tip, &path)),
            Other::Believed if path == ROOT_PATH => remembered.root.map(<[u8]>::to_vec),
            Other::Believed => remembered.files.read(copies, &path),
        };
        let refusal = refusal.to_string();
        let case = Case { path: &path, mirror, refusal, content, found: &found, other: other.as_deref(), at: now };
        match case.keep(folder) {
            Ok(Place::New(place)) => evidence.places.push(place),
            Ok(Place::Known) => {}
            Ok(Place::Full) => evidence.is_full = true,
            Err(error) => tracing::warn!(%error, "cannot keep the evidence of two contents under one number"),
        }
    }
    evidence
}

/// Where a case is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    New(PathBuf),
    Known,
    Full,
}

/// One case, with the bytes of both.
#[derive(Debug)]
struct Case<'a> {
    /// The file on the branch.
    path: &'a str,
    /// Who showed what was refused.
    mirror: &'a str,
    /// Why it was refused.
    refusal: String,
    /// The digest of what the refused one says. Its file may be signed by more and more keys that nobody trusts.
    content: Sha256Digest,
    /// What was refused.
    found: &'a [u8],
    /// The other one; none where this machine does not have it any more.
    other: Option<&'a [u8]>,
    /// When.
    at: Timestamp,
}

#[derive(Serialize)]
struct About<'a> {
    at: Timestamp,
    mirror: &'a str,
    path: &'a str,
    refusal: &'a str,
}

impl Case<'_> {
    /// Keeps the case below `folder`.
    fn keep(&self, folder: &Path) -> io::Result<Place> {
        let what = Path::new(self.path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let place = folder.join(format!("{what}-{}", self.content.short()));
        if place.exists() {
            return Ok(Place::Known);
        }
        if kept(folder) >= MOST {
            return Ok(Place::Full);
        }
        fs::create_dir_all(folder)?;
        // A case is there as a whole or not at all.
        let unfinished = tempfile::Builder::new().prefix(".case-").tempdir_in(folder)?;
        let write = |name: &str, bytes: &[u8]| fs::write(unfinished.path().join(name), bytes);
        let about = About { at: self.at, mirror: self.mirror, path: self.path, refusal: &self.refusal };
        write("about.json", &json::render(&about))?;
        for (name, bytes) in [("refused.json", Some(self.found)), ("other.json", self.other)] {
            if let Some(bytes) = bytes.filter(|bytes| bytes.len() <= LARGEST) {
                write(name, bytes)?;
            }
        }
        fs::rename(unfinished.keep(), &place)?;
        Ok(Place::New(place))
    }
}

/// How many cases are kept below `folder`.
fn kept(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.filter_map(Result::ok).filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::digest;

    fn case<'a>(found: &'a [u8], other: Option<&'a [u8]>) -> Case<'a> {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        Case { path: INDEX_PATH, mirror: "m", refusal: "two".to_owned(), content: digest(found), found, other, at }
    }

    #[test]
    fn a_case_is_kept_once_with_both_sides_and_there_is_an_end_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("evidence");
        let Place::New(place) = case(b"a", Some(b"b")).keep(&folder).unwrap() else { panic!() };
        assert_eq!(fs::read(place.join("refused.json")).unwrap(), b"a");
        assert_eq!(fs::read(place.join("other.json")).unwrap(), b"b");
        assert!(fs::read_to_string(place.join("about.json")).unwrap().contains("\"refusal\": \"two\""));
        assert_eq!(case(b"a", Some(b"b")).keep(&folder).unwrap(), Place::Known);
        // What is said counts, not who signed it as well.
        let signed_once_more = Case { found: b"a, signed once more", ..case(b"a", None) };
        assert_eq!(signed_once_more.keep(&folder).unwrap(), Place::Known);
        for number in 0..2 * MOST {
            case(number.to_string().as_bytes(), None).keep(&folder).unwrap();
        }
        assert_eq!(kept(&folder), MOST);
        assert_eq!(case(b"one more", None).keep(&folder).unwrap(), Place::Full);
        assert_eq!(case(b"a", None).keep(&folder).unwrap(), Place::Known);
    }

    #[test]
    fn what_is_contested_follows_from_the_refusal() {
        let (seen, found) = (digest(b"a"), digest(b"b"));
        let version = 6.try_into().unwrap();
        let believed = Contested { path: INDEX_PATH.to_owned(), other: Other::Believed, found };
        assert_eq!(contested(&Refusal::IndexFork { version, seen, found }), Some(believed));
        let other = "b".to_owned();
        let mirrors = contested(&Refusal::MirrorFork { version, other: other.clone(), seen, found });
        assert_eq!(mirrors.map(|contested| contested.other), Some(Other::Mirror(other)));
        assert_eq!(contested(&Refusal::IndexRollback { seen: version, found: version }), None);
    }
}
