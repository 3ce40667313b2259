//! The record of a source: the answers of its last evaluations, and what each depends on. No I/O but its own file.
//!
//! A record is a cache: losing it costs one evaluation of everything. An answer of it is used only where the same
//! question would be asked of the same Nix in the same way, about the same tree, or where it was learnt what the answer depends on and
//! all of that is unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::basis::{Basis, CurrentSource, Dependencies};
use super::fingerprint::Fingerprint;
use super::nix_value::NixValue;
use super::observe::{FileRead, Observation};
use super::outputs::Item;
use super::reason::EvalReason;
use super::survey::Survey;
use super::warnings::{AnswerWarnings, MAX_WARNINGS, WarningExtent, WarningText};
use crate::disk::{self, Access, Durability};
use crate::model::{Sha256Digest, StorePath};

/// The cost of one evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) time: Duration,
    /// The most memory, in bytes; zero where it is not known.
    pub(super) memory: u64,
}

/// The recorded answers about one source, and what they depend on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// A digest of all that every answer follows from. Where it is the same, nothing changed at all.
    question: Option<Sha256Digest>,
    /// A digest of everything that every answer depends on: Nix, its settings, the questions.
    environment: Option<Sha256Digest>,
    /// The store path of the source. All answers hold at this path, whatever they depend on.
    tree: Option<StorePath>,
    /// How many times as much as its own part the shared part of a host's evaluation took.
    shared: Option<f64>,
    /// The reads of all entries, each once, with the fingerprint of what was read.
    reads: Vec<(FileRead, Fingerprint)>,
    /// The warnings of all entries, each once.
    warnings: Vec<WarningText>,
    survey: Option<RecordEntry<Survey>>,
    #[serde(with = "item_list")]
    items: BTreeMap<Item, RecordEntry<NixValue>>,
    /// The items that failed.
    broken: BTreeSet<Item>,
}

/// One recorded answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RecordEntry<A> {
    answer: A,
    /// The seconds, and the most bytes of memory, or zero.
    cost: (f64, u64),
    /// The derivation that Nix wrote for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    derivation: Option<StorePath>,
    #[serde(default, skip_serializing_if = "EntryWarnings::is_default")]
    warnings: EntryWarnings,
    basis: Basis,
}

/// The warnings of an entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct EntryWarnings {
    /// Indices into the record's list of warnings.
    texts: Vec<u32>,
    extent: WarningExtent,
}

impl EntryWarnings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Entries in JSON: a list of pairs, since an item is no text.
mod item_list {
    use super::{BTreeMap, Deserialize, Item, NixValue, RecordEntry, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        entries: &BTreeMap<Item, RecordEntry<NixValue>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        entries.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Item, RecordEntry<NixValue>>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

/// What was learnt about an answer: what it was with the source at another place, and everything that it depends on.
pub(super) type Learnt<A> = Result<(Option<A>, Observation), String>;

impl Record {
    /// The answer for `item`, where it still holds; otherwise why it has to be evaluated.
    pub(super) fn item(&self, item: &Item, current: &mut CurrentSource<'_>) -> Result<&NixValue, EvalReason> {
        match self.items.get(item) {
            Some(entry) => self.held(entry, current),
            None if self.broken.contains(item) => Err(EvalReason::Broken),
            None => Err(EvalReason::New),
        }
    }

    /// The survey, where it still holds; otherwise why it has to be made.
    pub(super) fn survey(&self, current: &mut CurrentSource<'_>) -> Result<&Survey, EvalReason> {
        self.held(self.survey.as_ref().ok_or(EvalReason::New)?, current)
    }

    fn held<'a, A>(&self, entry: &'a RecordEntry<A>, current: &mut CurrentSource<'_>) -> Result<&'a A, EvalReason> {
        if self.environment != Some(current.environment) {
            return Err(EvalReason::Environment);
        }
        if self.tree.as_ref() != Some(&current.tree)
            && let Some(change) = entry.basis.first_change(&self.reads, current)
        {
            return Err(change);
        }
        if entry.derivation.as_ref().is_some_and(|path| !(current.in_store)(path)) {
            return Err(EvalReason::DerivationGone);
        }
        Ok(&entry.answer)
    }

    /// The last survey, whether or not it holds.
    pub(super) fn last_survey(&self) -> Option<&Survey> {
        self.survey.as_ref().map(|entry| &entry.answer)
    }

    /// The warnings of the answer for `item`.
    pub(super) fn warnings(&self, item: &Item) -> AnswerWarnings {
        self.items.get(item).map(|entry| self.warnings_of(entry)).unwrap_or_default()
    }

    /// The warnings of the survey.
    pub(super) fn survey_warnings(&self) -> BTreeSet<WarningText> {
        self.survey.as_ref().map(|entry| self.warnings_of(entry).texts).unwrap_or_default()
    }

    /// The warnings of the last answer for `item`, where nothing that it depends on changed but what changes with each content.
    pub(super) fn unchanged_warnings(
        &self,
        item: &Item,
        reason: &EvalReason,
        current: &CurrentSource<'_>,
    ) -> Option<AnswerWarnings> {
        let entry = self.items.get(item)?;
        (entry.basis.of_next(Some(reason), current) != Basis::Unlearnt).then(|| self.warnings_of(entry))
    }

    fn warnings_of<A>(&self, entry: &RecordEntry<A>) -> AnswerWarnings {
        let text = |index: &u32| self.warnings.get(*index as usize).cloned();
        AnswerWarnings { texts: entry.warnings.texts.iter().filter_map(text).collect(), extent: entry.warnings.extent }
    }

    /// The items that have an answer of their own.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.keys()
    }

    /// The items that failed.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Item> {
        self.broken.iter()
    }

    /// How many times as much as its own part the shared part of a host's evaluation took.
    pub(super) fn shared(&self) -> Option<f64> {
        self.shared
    }

    /// The cost of the last evaluation of `item`.
    pub(super) fn cost(&self, item: &Item) -> Option<Cost> {
        let (seconds, memory) = self.items.get(item)?.cost;
        Duration::try_from_secs_f64(seconds).ok().map(|time| Cost { time, memory })
    }

    /// Whether there is a survey of which it was not learnt what it depends on.
    pub(super) fn has_unlearnt_survey(&self) -> bool {
        self.survey.as_ref().is_some_and(|entry| entry.basis == Basis::Unlearnt)
    }

    /// The items of whose answers it was not learnt what they depend on.
    pub(super) fn unlearnt_items(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|(_, entry)| entry.basis == Basis::Unlearnt).map(|(item, _)| item)
    }

    /// Whether there is any answer of which it was not learnt what it depends on.
    pub(super) fn has_unlearnt(&self) -> bool {
        self.has_unlearnt_survey() || self.unlearnt_items().next().is_some()
    }

    /// The environment and the tree of the source, where all answers are those to this question.
    pub(super) fn answers(&self, question: Sha256Digest) -> Option<(Sha256Digest, &StorePath)> {
        self.environment.zip(self.tree.as_ref()).filter(|_| self.question == Some(question))
    }

    /// Whether it is the record of the source at `tree`, asked in this environment.
    pub(super) fn is_of(&self, tree: &StorePath, environment: Sha256Digest) -> bool {
        self.tree.as_ref() == Some(tree) && self.environment == Some(environment)
    }

    /// The same record, to add to.
    pub(super) fn resume(self) -> RecordBuilder {
        let read = |(at, (read, _)): (usize, &(FileRead, Fingerprint))| Some((read.clone(), u32::try_from(at).ok()?));
        let indices = self.reads.iter().enumerate().filter_map(read).collect();
        RecordBuilder { record: self, indices }
    }

    /// Reads the file at `path`. A file that is missing or damaged gives an empty record, since it is only a cache.
    pub(super) fn read(path: &Path) -> Self {
        let Ok(bytes) = std::fs::read(path) else { return Self::default() };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::debug!(path = %path.display(), %error, "a damaged record of evaluations is ignored");
            Self::default()
        })
    }

    /// Writes it to `path`, completely or not at all.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        disk::replace(path, &serde_json::to_vec(self)?, Access::Owner, Durability::Unsynced)
    }
}

/// A record that is being made.
#[derive(Debug)]
pub(super) struct RecordBuilder {
    record: Record,
    /// The index of each read in the record's list.
    indices: BTreeMap<FileRead, u32>,
}

impl RecordBuilder {
    /// A record of the current source, without any answer.
    pub(super) fn new(current: &CurrentSource<'_>) -> Self {
        let (question, environment) = (Some(current.question), Some(current.environment));
        let record = Record { question, environment, tree: Some(current.tree.clone()), ..Record::default() };
        Self { record, indices: BTreeMap::new() }
    }

    /// `warnings` as those of an entry. One warning more than are kept is recorded, which says that there are more.
    fn noted(&mut self, warnings: &AnswerWarnings) -> EntryWarnings {
        let mut texts = Vec::new();
        for text in &warnings.texts {
            let all = &mut self.record.warnings;
            let index = all.iter().position(|known| known == text).or_else(|| {
                (all.len() <= MAX_WARNINGS).then(|| {
                    all.push(text.clone());
                    all.len() - 1
                })
            });
            texts.extend(index.and_then(|index| u32::try_from(index).ok()));
        }
        EntryWarnings { texts, extent: warnings.extent }
    }

    fn index_of(&mut self, read: &FileRead, fingerprint: Fingerprint) -> u32 {
        if let Some(index) = self.indices.get(read) {
            return *index;
        }
        let index = u32::try_from(self.record.reads.len()).unwrap_or(u32::MAX);
        self.record.reads.push((read.clone(), fingerprint));
        self.indices.insert(read.clone(), index);
        index
    }

    /// Adds the answer that `from` has for `item`, if it has one. It has to hold.
    pub(super) fn keep_item(&mut self, from: &Record, item: &Item) {
        if let Some(entry) = from.items.get(item) {
            let entry = self.carried_over(from, entry.clone());
            self.record.items.insert(item.clone(), entry);
        }
    }

    /// Adds the survey of `from`, which has to hold.
    pub(super) fn keep_survey(&mut self, from: &Record) {
        self.record.survey = from.survey.clone().map(|entry| self.carried_over(from, entry));
    }

    /// `entry`, whose reads are those of `from`, as an entry of this record.
    fn carried_over<A>(&mut self, from: &Record, mut entry: RecordEntry<A>) -> RecordEntry<A> {
        entry.warnings = self.noted(&from.warnings_of(&entry));
        if let Basis::Known(Dependencies { reads, .. }) = &mut entry.basis {
            for index in reads {
                if let Some((read, fingerprint)) = from.reads.get(*index as usize) {
                    *index = self.index_of(read, *fingerprint);
                }
            }
        }
        entry
    }

    /// Adds an answer that Nix gave just now. `before` is the record that had no answer for it, for `reason`.
    pub(super) fn add_item(
        &mut self,
        item: Item,
        (answer, warnings): (NixValue, &AnswerWarnings),
        cost: Cost,
        (before, reason): (&Record, Option<&EvalReason>),
        current: &CurrentSource<'_>,
    ) {
        let entry_before = before.items.get(&item);
        // What it needs alone was measured when it was learnt.
        let memory = if cost.memory > 0 { cost.memory } else { entry_before.map_or(0, |entry| entry.cost.1) };
        let basis = entry_before.map_or(Basis::Unlearnt, |entry| entry.basis.of_next(reason, current));
        let cost = (cost.time.as_secs_f64(), memory);
        let none = EntryWarnings::default();
        let entry = RecordEntry { derivation: answer.derivation(), answer, cost, warnings: none, basis };
        let entry = RecordEntry { warnings: self.noted(warnings), ..self.carried_over(before, entry) };
        self.record.items.insert(item, entry);
    }

    /// Adds a survey that was made just now. `before` is the record that had none, for `reason`.
    pub(super) fn add_survey(
        &mut self,
        (survey, warnings): (Survey, &BTreeSet<WarningText>),
        (before, reason): (&Record, Option<&EvalReason>),
        current: &CurrentSource<'_>,
    ) {
        let entry_before = before.survey.as_ref();
        let basis = entry_before.map_or(Basis::Unlearnt, |entry| entry.basis.of_next(reason, current));
        let none = EntryWarnings::default();
        let entry = RecordEntry { answer: survey, cost: (0.0, 0), derivation: None, warnings: none, basis };
        let warnings = AnswerWarnings { texts: warnings.clone(), extent: WarningExtent::Some };
        let entry = RecordEntry { warnings: self.noted(&warnings), ..self.carried_over(before, entry) };
        self.record.survey = Some(entry);
    }

    /// Notes that `item` failed.
    pub(super) fn add_broken(&mut self, item: Item) {
        self.record.broken.insert(item);
    }

    /// Notes how much all hosts share.
    pub(super) fn set_shared(&mut self, shared: Option<f64>) {
        self.record.shared = shared;
    }

    /// Notes all `warnings` of the answer for `item`, which was evaluated alone.
    pub(super) fn learn_warnings(&mut self, item: &Item, warnings: &AnswerWarnings) {
        let warnings = self.noted(warnings);
        if let Some(entry) = self.record.items.get_mut(item) {
            entry.warnings = warnings;
        }
    }

    /// Notes what was learnt about the answer for `item`, and the memory that it took by itself.
    pub(super) fn learn_item(
        &mut self,
        item: &Item,
        memory: u64,
        learnt: Learnt<NixValue>,
        current: &mut CurrentSource<'_>,
    ) {
        if let Some(entry) = self.record.items.remove(item) {
            let entry = self.learnt(entry, memory, learnt, current);
            self.record.items.insert(item.clone(), entry);
        }
    }

    /// Notes what was learnt about the survey.
    pub(super) fn learn_survey(&mut self, memory: u64, learnt: Learnt<Survey>, current: &mut CurrentSource<'_>) {
        if let Some(entry) = self.record.survey.take() {
            self.record.survey = Some(self.learnt(entry, memory, learnt, current));
        }
    }

    fn learnt<A: PartialEq>(
        &mut self,
        entry: RecordEntry<A>,
        memory: u64,
        learnt: Learnt<A>,
        current: &mut CurrentSource<'_>,
    ) -> RecordEntry<A> {
        let basis = learnt.and_then(|(elsewhere, observed)| {
            self.dependencies(&observed, elsewhere.as_ref() != Some(&entry.answer), current).map(Basis::Known)
        });
        let cost = (entry.cost.0, entry.cost.1.max(memory));
        RecordEntry { basis: basis.unwrap_or_else(Basis::Unknown), cost, ..entry }
    }

    fn dependencies(
        &mut self,
        observed: &Observation,
        differs_elsewhere: bool,
        current: &mut CurrentSource<'_>,
    ) -> Result<Dependencies, String> {
        let mut reads = Vec::new();
        for read in &observed.reads {
            let fingerprint = (current.fingerprint)(read);
            let fingerprint = fingerprint.ok_or_else(|| format!("{} cannot be read again", read.path.display()))?;
            reads.push(self.index_of(read, fingerprint));
        }
        let own = observed.own.iter().map(|name| (name.to_owned(), current.own_value(name))).collect();
        let digest = |name: &String| {
            let digest = current.input(name).ok_or_else(|| format!("its input {name} leads back to the flake"))?;
            Ok((name.clone(), digest))
        };
        let inputs = observed.inputs.iter().map(digest).collect::<Result<_, String>>()?;
        Ok(Dependencies { reads, own, inputs, differs_elsewhere })
    }

    pub(super) fn finish(self) -> Record {
        self.record
    }
}

#[cfg(test)]
mod tests;
