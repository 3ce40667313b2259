//! What claveld remembers of reading each source: the content that it read last, and since when it cannot. And until when the root is
//! valid that it published by.
//!
//! The memory is `sources.json` in the state folder. `claveld status` shows it, and a message can say since when a source is out of
//! reach. Nothing is decided by it, so a lost file costs these times alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{self, Access, Durability};
use crate::evaluate::EvaluateError;
use crate::model::json::{self, StateVersion};
use crate::model::{FlakeReference, RootValidity, SourceRevision, Timestamp, excerpt};

/// The newest version of the file that this Clavel knows.
const NEWEST: u64 = 1;
/// The most bytes that the file may have.
const MAX_BYTES: u64 = 4 << 20;
/// The most broken attributes of one source.
const MAX_BROKEN: usize = 1000;
/// The most bytes of an error in it.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// How a source was at its last round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SourceState {
    /// When it was read last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Timestamp>,
    /// The revision that was read then; none where it has no revisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<SourceRevision>,
    /// The attributes that were broken then, each with the first round that found it broken; at most 1,000 of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub broken: BTreeMap<String, Timestamp>,
    /// The reason why it could not be read since; none where it was read at its last round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<SourceTrouble>,
}

/// The reason why a source cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SourceTrouble {
    /// Whether the server does not answer, or what it has cannot be evaluated.
    pub kind: TroubleKind,
    /// The first round that met trouble of this kind.
    pub since: Timestamp,
    /// The error of the last round.
    pub error: String,
}

/// A kind of trouble with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleKind {
    /// Its server does not answer, so nobody knows what it has now.
    Unreachable,
    /// It was reached, and nothing of it can be evaluated.
    Broken,
}

impl SourceState {
    /// The state after a round that read it, and found these attributes broken.
    #[must_use]
    pub fn read(self, revision: Option<SourceRevision>, broken: impl Iterator<Item = String>, now: Timestamp) -> Self {
        let since = |attribute: &String| self.broken.get(attribute).copied().unwrap_or(now);
        let broken = broken.take(MAX_BROKEN).map(|attribute| (attribute.clone(), since(&attribute))).collect();
        Self { read_at: Some(now), revision, broken, trouble: None }
    }

    /// The first round that could not reach its server; none where the server answered last.
    pub fn unreachable_since(&self) -> Option<Timestamp> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.kind == TroubleKind::Unreachable);
        trouble.map(|trouble| trouble.since)
    }

    /// The state after a round that could not read it.
    #[must_use]
    pub fn failed(self, error: &EvaluateError, now: Timestamp) -> Self {
        let kind = if error.is_unreachable() { TroubleKind::Unreachable } else { TroubleKind::Broken };
        let before = self.trouble.as_ref().filter(|trouble| trouble.kind == kind);
        let since = before.map_or(now, |trouble| trouble.since);
        let error = excerpt(&error.message(), MAX_ERROR_BYTES);
        Self { trouble: Some(SourceTrouble { kind, since, error }), ..self }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceStatesFile {
    /// The root of the last publication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<RootValidity>,
    sources: BTreeMap<String, SourceState>,
    version: StateVersion<NEWEST>,
}

/// The file with the state of each source.
#[derive(Debug)]
pub struct SourceStates {
    path: PathBuf,
}

impl SourceStates {
    /// The file in the state folder.
    pub fn of(state_directory: &Path) -> Self {
        Self { path: state_directory.join("sources.json") }
    }

    /// The state of each source that is known, by its reference.
    pub fn read(&self) -> BTreeMap<String, SourceState> {
        self.file().sources
    }

    /// Until when the root of the last publication is valid; none before the first.
    pub fn root(&self) -> Option<RootValidity> {
        self.file().root
    }

    /// Remembers the root of a publication.
    pub(super) fn remember_root(&self, root: RootValidity) {
        let file = self.file();
        if file.root != Some(root) {
            self.write(&SourceStatesFile { root: Some(root), ..file });
        }
    }

    fn file(&self) -> SourceStatesFile {
        let bytes = disk::read(&self.path, MAX_BYTES).unwrap_or_default();
        json::parse_state(&bytes, MAX_BYTES, NEWEST).unwrap_or_default()
    }

    /// Changes the states after a round, and returns them. Those of sources that are not in `configured` any more are forgotten.
    pub(super) fn update(
        &self,
        configured: &[FlakeReference],
        change: impl FnOnce(&mut BTreeMap<String, SourceState>),
    ) -> BTreeMap<String, SourceState> {
        let mut file = self.file();
        change(&mut file.sources);
        file.sources.retain(|source, _| configured.iter().any(|flake| flake.as_str() == source));
        self.write(&file);
        file.sources
    }

    fn write(&self, file: &SourceStatesFile) {
        let bytes = json::render(file);
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let written = disk::check_length(&bytes, MAX_BYTES)
            .and_then(|()| std::fs::create_dir_all(folder))
            .and_then(|()| disk::replace(&self.path, &bytes, Access::Everyone, Durability::Unsynced));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "claveld cannot remember how its sources and its root were");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_begins_with_its_first_round_and_ends_with_the_source_being_read() {
        let at = |day: u32| -> Timestamp { format!("2026-01-0{day}T00:00:00Z").parse().unwrap() };
        let broken = || EvaluateError::Answer { flake: "x".to_owned(), why: "no".to_owned() };
        let attributes = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter();
        let read = SourceState::default().read(None, attributes(&["a", "b"]), at(1));
        let state = read.failed(&broken(), at(2)).failed(&broken(), at(3));
        let trouble = state.trouble.as_ref().unwrap();
        assert_eq!((trouble.kind, trouble.since, state.read_at), (TroubleKind::Broken, at(2), Some(at(1))));
        let state = state.read(None, attributes(&["b", "c"]), at(4));
        assert_eq!(state.trouble, None);
        assert_eq!(state.broken, BTreeMap::from([("b".to_owned(), at(1)), ("c".to_owned(), at(4))]));
    }

    #[test]
    fn the_file_keeps_the_configured_sources_alone() {
        let folder = tempfile::tempdir().unwrap();
        let states = SourceStates::of(&folder.path().join("not/yet/there"));
        let [a, b]: [FlakeReference; 2] =
            ["git+https://git.example.org/a", "git+https://git.example.org/b"].map(|text| text.parse().unwrap());
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let state = SourceState::default().read(None, std::iter::empty(), now);
        let round = |flake: &FlakeReference| BTreeMap::from([(flake.to_string(), state.clone())]);
        for flake in [&a, &b] {
            states.update(&[a.clone(), b.clone()], |known| known.extend(round(flake)));
        }
        assert_eq!(states.read().len(), 2);
        states.update(std::slice::from_ref(&b), |_| ());
        assert_eq!(states.read(), round(&b));
        std::fs::write(folder.path().join("not/yet/there/sources.json"), "{").unwrap();
        assert!(states.read().is_empty());
    }
}
