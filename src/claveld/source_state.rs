//! What claveld remembers of reading each source: the content that it read last, and since when it cannot. And until when the root is
//! valid that it published by.
//!
//! The memory is `sources.json` in the state folder. `claveld status` shows it, and a message can say since when a source is out of
//! reach. Nothing is decided by it, so a lost file costs these times alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{self, Access, Durability};
use crate::evaluate::{Drafts, EvaluateError, Evaluation};
use crate::model::json::{self, StateVersion};
use crate::model::{
    BrokenPart, FlakeReference, IndexSource, MAX_BROKEN_PARTS, MetadataValue, Name, RootValidity, SourceRevision,
    Timestamp, excerpt, headline,
};
use crate::publish::{IndexTimes, PublishReport};

/// The newest version of the file that this Clavel knows.
const NEWEST: u64 = 1;
/// The most bytes that the file may have.
const MAX_BYTES: u64 = 4 << 20;
/// The most broken attributes of one source.
const MAX_BROKEN: usize = 1000;
/// The most broken parts that an index names, of all sources together: some 30 KiB.
pub(super) const MAX_BROKEN_IN_INDEX: usize = 64;
/// The most bytes of an error in it.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// How a source was at its last round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SourceState {
    /// When it was read last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Timestamp>,
    /// The revision that was read then; none where it has no revisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<SourceRevision>,
    /// The attributes that were broken then; at most 1,000 of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub broken: BTreeMap<MetadataValue, BrokenSince>,
    /// The documents that it gave then.
    #[serde(default)]
    pub documents: DocumentCounts,
    /// How many of its deployments wait for a cache.
    #[serde(default)]
    pub waiting: usize,
    /// The reason why it could not be read since; none where it was read at its last round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<SourceTrouble>,
}

/// How many documents a source gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DocumentCounts {
    /// The Agents.
    pub agents: usize,
    /// The Deployments.
    pub deployments: usize,
    /// The Units.
    pub units: usize,
}

impl DocumentCounts {
    /// Those of an evaluation.
    pub(super) fn of(drafts: &Drafts) -> Self {
        let Drafts { agents, deployments, units, .. } = drafts;
        Self { agents: agents.len(), deployments: deployments.len(), units: units.len() }
    }
}

/// The last round of any sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoundState {
    /// When it ended.
    pub at: Timestamp,
    /// Whether the branch has what the sources gave, as far as they could be read.
    pub ok: bool,
}

/// The branch after the last publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BranchTimes {
    /// The times of its index.
    pub index: IndexTimes,
    /// Until when the root is valid.
    pub root: RootValidity,
    /// How many deployments operators hold.
    pub held: usize,
}

/// Since when a part of a source is broken, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BrokenSince {
    /// The first line of the error of the last round.
    pub error: MetadataValue,
    /// The first round that found it broken.
    pub since: Timestamp,
}

/// The reason why a source cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleKind {
    /// Its server does not answer, so nobody knows what it has now.
    Unreachable,
    /// It was reached, and nothing of it can be evaluated.
    Broken,
}

impl SourceState {
    /// The state after a round that read it, and found these attributes broken, each by its error.
    #[must_use]
    pub fn read(
        self,
        revision: Option<SourceRevision>,
        broken: impl Iterator<Item = (String, String)>,
        now: Timestamp,
    ) -> Self {
        let state = |(attribute, error): (String, String)| {
            let attribute = MetadataValue::of_line(&attribute);
            let since = self.broken.get(&attribute).map_or(now, |before| before.since);
            (attribute, BrokenSince { error: MetadataValue::of_line(&headline(&error)), since })
        };
        // The order of attributes is the same in each round, whichever of them were evaluated.
        let mut broken: BTreeMap<_, _> = broken.map(state).collect();
        while broken.len() > MAX_BROKEN {
            broken.pop_last();
        }
        Self { read_at: Some(now), revision, broken, trouble: None, ..self }
    }

    /// The source as an index describes it, where the index has room for so many more broken parts.
    pub(super) fn index_source(self, source: FlakeReference, room: &mut usize) -> IndexSource {
        let Self { revision, trouble, broken, .. } = self;
        let (all, named) = (broken.len(), broken.len().min(MAX_BROKEN_PARTS).min(*room));
        *room -= named;
        let part = |(attribute, BrokenSince { error, since })| BrokenPart { attribute, error, since };
        let broken: Vec<BrokenPart> = broken.into_iter().take(named).map(part).collect();
        IndexSource {
            // It is as long as the type allows at most.
            broken: broken.try_into().unwrap_or_default(),
            more_broken: (all - named) as u64,
            revision,
            source,
            unread_since: trouble.map(|trouble| trouble.since),
        }
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

/// All that is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceStatesFile {
    /// The branch after the last publication; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) branch: Option<BranchTimes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) round: Option<RoundState>,
    pub(super) sources: BTreeMap<String, SourceState>,
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
        self.file().branch.map(|branch| branch.root)
    }

    /// Remembers a round that published these evaluations, or failed to. Returns all that is remembered.
    pub(super) fn remember_round(
        &self,
        evaluations: &[Evaluation],
        report: Option<&PublishReport>,
        at: Timestamp,
    ) -> SourceStatesFile {
        let mut file = self.file();
        file.round = Some(RoundState { at, ok: report.is_some() });
        if let Some(report) = report {
            let PublishReport { index, root, held, unready, .. } = report;
            file.branch = Some(BranchTimes { index: *index, root: *root, held: held.len() });
            let waiting: BTreeSet<&Name> = unready.waiting.iter().map(|waiting| &waiting.name).collect();
            for Evaluation { source, drafts, .. } in evaluations {
                if let Some(state) = file.sources.get_mut(source.flake.as_str()) {
                    // The names of a source's deployments differ.
                    state.waiting = drafts.deployments.iter().filter(|draft| waiting.contains(&draft.name)).count();
                }
            }
        }
        self.write(&file);
        file
    }

    /// All that is remembered.
    pub(super) fn file(&self) -> SourceStatesFile {
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
        let attributes = |names: &[&str]| {
            names
                .iter()
                .map(|name| (name.to_string(), format!("error: {name}\n  more")))
                .collect::<Vec<_>>()
                .into_iter()
        };
        let read = SourceState::default().read(None, attributes(&["a", "b"]), at(1));
        let state = read.failed(&broken(), at(2)).failed(&broken(), at(3));
        let trouble = state.trouble.as_ref().unwrap();
        assert_eq!((trouble.kind, trouble.since, state.read_at), (TroubleKind::Broken, at(2), Some(at(1))));
        let state = state.read(None, attributes(&["b", "c"]), at(4));
        assert_eq!(state.trouble, None);
        let line = MetadataValue::of_line;
        let broken =
            |name: &str, since| (line(name), BrokenSince { error: line(&format!("error: {name}")), since: at(since) });
        assert_eq!(state.broken, BTreeMap::from([broken("b", 1), broken("c", 4)]));
    }

    #[test]
    fn an_index_names_some_broken_parts_of_each_source_and_counts_the_others() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let longest = |n: usize| (format!("{n:04}{}", "😀".repeat(900)), "\u{1}😀".repeat(900));
        let state = SourceState::default().read(None, (0..2000).rev().map(longest), now);
        assert_eq!(state.broken.len(), MAX_BROKEN);
        assert!(state.broken.iter().all(|(attribute, broken)| {
            attribute.as_str().starts_with('0') && broken.error.as_str().starts_with("\u{fffd}😀")
        }));
        let mut room = MAX_BROKEN_PARTS + 1;
        let mut named = |state: SourceState| {
            let source = state.index_source("git+https://git.example.org/a".parse().unwrap(), &mut room);
            (source.broken.len(), source.more_broken)
        };
        assert_eq!(named(state.clone()), (MAX_BROKEN_PARTS, 976));
        assert_eq!(named(state), (1, 999));
        assert_eq!(named(SourceState::default()), (0, 0));
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
