//! Two contents under one number: both are kept, for whoever has to find out who signed twice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fetch::Shown;
use super::mirrors::Rejection;
use super::verify::Refusal;
use crate::model::{Index, Payload as _, Timestamp, json};
use crate::repository::{CommitId, INDEX_PATH, ROOT_PATH, Repository, RootsError};
use crate::trust::digest;

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
    let (path, other) = match refusal {
        Refusal::IndexFork { .. } => (INDEX_PATH.to_owned(), Other::Believed),
        Refusal::MirrorFork { other, .. } => (INDEX_PATH.to_owned(), Other::Mirror(other.clone())),
        Refusal::MirrorDocumentFork { path, other, .. } => (path.to_string(), Other::Mirror(other.clone())),
        Refusal::Fork { path, .. } => (path.to_string(), Other::Believed),
        Refusal::Roots(RootsError::Fork { .. }) => (ROOT_PATH.to_owned(), Other::Believed),
        _ => return None,
    };
    Some(Contested { path, other })
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
    /// The commit that it was read from.
    pub(super) at: Option<CommitId>,
    /// The file of the root.
    pub(super) root: Option<&'a [u8]>,
}

/// Keeps both sides of whatever there are two of below `folder`; where, of what is new.
pub(super) fn keep_all(
    folder: &Path,
    copies: &[Copy],
    rejected: &[(String, Rejection)],
    remembered: &Remembered<'_>,
    now: Timestamp,
) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for (mirror, rejection) in rejected {
        let Rejection::Refused(refusal) = rejection else { continue };
        let Some(Contested { path, other }) = contested(refusal) else { continue };
        let of = |wanted: &str| copies.iter().find(|copy| copy.mirror == wanted);
        let Some(found) = of(mirror).and_then(|copy| copy.read(copy.tip, &path)) else { continue };
        let other = match &other {
            Other::Mirror(other) => of(other).and_then(|copy| copy.read(copy.tip, &path)),
            Other::Believed if path == ROOT_PATH => remembered.root.map(<[u8]>::to_vec),
            // Whichever mirror it was from: a copy that was made afresh has it no more.
            Other::Believed => remembered.at.and_then(|at| copies.iter().find_map(|copy| copy.read(at, &path))),
        };
        let refusal = refusal.to_string();
        let case = Case { path: &path, mirror, refusal, found: &found, other: other.as_deref(), at: now };
        match case.keep(folder) {
            Ok(place) => places.extend(place),
            Err(error) => tracing::warn!(%error, "cannot keep the evidence of two contents under one number"),
        }
    }
    places
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
    /// Keeps the case below `folder`; where, when it is a new one.
    fn keep(&self, folder: &Path) -> io::Result<Option<PathBuf>> {
        let what = Path::new(self.path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let place = folder.join(format!("{what}-{}", digest(self.found).short()));
        if place.exists() || kept(folder) >= MOST {
            return Ok(None);
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
        Ok(Some(place))
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
        Case { path: INDEX_PATH, mirror: "m", refusal: "two".to_owned(), found, other, at }
    }

    #[test]
    fn a_case_is_kept_once_with_both_sides_and_there_is_an_end_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("evidence");
        let place = case(b"a", Some(b"b")).keep(&folder).unwrap().unwrap();
        assert_eq!(fs::read(place.join("refused.json")).unwrap(), b"a");
        assert_eq!(fs::read(place.join("other.json")).unwrap(), b"b");
        assert!(fs::read_to_string(place.join("about.json")).unwrap().contains("\"refusal\": \"two\""));
        assert_eq!(case(b"a", Some(b"b")).keep(&folder).unwrap(), None);
        for number in 0..2 * MOST {
            case(number.to_string().as_bytes(), None).keep(&folder).unwrap();
        }
        assert_eq!(kept(&folder), MOST);
    }

    #[test]
    fn what_is_contested_follows_from_the_refusal() {
        let (seen, found) = (digest(b"a"), digest(b"b"));
        let version = 6.try_into().unwrap();
        let believed = Contested { path: INDEX_PATH.to_owned(), other: Other::Believed };
        assert_eq!(contested(&Refusal::IndexFork { version, seen, found }), Some(believed));
        let other = "b".to_owned();
        let mirrors = contested(&Refusal::MirrorFork { version, other: other.clone(), seen, found });
        assert_eq!(mirrors.map(|contested| contested.other), Some(Other::Mirror(other)));
        assert_eq!(contested(&Refusal::IndexRollback { seen: version, found: version }), None);
    }
}
