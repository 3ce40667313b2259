//! The record of a source: the answers of its last evaluations, and what each depends on. No I/O but its own file.
//!
//! A record is a cache: losing it costs one evaluation of everything. An answer of it is used only where the same
//! question would be asked of the same Nix in the same way, and everything that the answer depends on is unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fingerprint::Fingerprint;
use super::lock::ResolvedLock;
use super::observe::{FileRead, Observation};
use super::outputs::{Item, derivation};
use super::reason::EvalReason;
use super::schedule::Cost;
use crate::disk::{self, Access, Durability};
use crate::model::{Sha256Digest, StorePath};

/// The attribute of `self` that is the store path of the source.
const OUT_PATH: &str = "outPath";
/// The attributes of `self` that differ with each content. An answer that depends on one never holds after a change.
const OWN_OF_EACH_CONTENT: [&str; 4] = [OUT_PATH, "narHash", "rev", "shortRev"];

/// The key of a recorded answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RecordKey {
    /// The names of everything that the flake has.
    Names,
    /// One item.
    Item(Item),
}

/// The recorded answers about one source, and what they depend on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// A digest of everything that every answer depends on: Nix, its settings, the questions.
    environment: Option<Sha256Digest>,
    /// The store path of the source. An answer without a successful relocation check holds at this path only.
    tree: Option<StorePath>,
    /// The reads of all entries, each once, with the fingerprint of what was read.
    reads: Vec<(FileRead, Fingerprint)>,
    #[serde(with = "entry_list")]
    entries: BTreeMap<RecordKey, RecordEntry>,
    /// The items that failed.
    broken: BTreeSet<Item>,
}

/// One recorded answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RecordEntry {
    answer: Value,
    /// The seconds, and the most bytes of memory.
    cost: (f64, u64),
    /// Whether the answer had a process of its own. Otherwise the basis is the sum over all answers of its process.
    alone: bool,
    basis: Basis,
}

impl RecordEntry {
    /// The state of its relocation check. It is `Differs` where no check can succeed.
    fn relocation(&self) -> RelocationCheck {
        match &self.basis {
            Basis::Known { own, relocation, .. } if !changes_with_each_content(own) => *relocation,
            Basis::Known { .. } | Basis::Unknown(_) => RelocationCheck::Differs,
        }
    }
}

/// The dependencies of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Basis {
    /// All of it is known.
    Known {
        /// Indices into the record's list of reads.
        reads: Vec<u32>,
        /// The attributes of `self` that the flake used, with their values.
        own: BTreeMap<String, Value>,
        /// The inputs that the flake used.
        inputs: BTreeMap<String, Sha256Digest>,
        /// The derivation that Nix wrote for the answer.
        derivation: Option<StorePath>,
        relocation: RelocationCheck,
    },
    /// It is not known, because of this.
    Unknown(String),
}

/// The state of an answer's relocation check: whether it stays the same when the source is at another store path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RelocationCheck {
    /// The check was not made.
    Pending,
    /// The answer stays the same.
    Same,
    /// The answer differs, or there is none.
    Differs,
}

impl RelocationCheck {
    /// Compares the answer at the original path with the answer at another path.
    pub(super) fn of(original: &Value, relocated: Option<&Value>) -> Self {
        if relocated == Some(original) { Self::Same } else { Self::Differs }
    }
}

/// Entries in JSON: a list of pairs, since a key is no text.
mod entry_list {
    use super::{BTreeMap, Deserialize, RecordEntry, RecordKey, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        entries: &BTreeMap<RecordKey, RecordEntry>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        entries.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<RecordKey, RecordEntry>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Whether an answer that used these attributes of `self` differs with every change of the source.
fn changes_with_each_content(own: &BTreeMap<String, Value>) -> bool {
    OWN_OF_EACH_CONTENT.iter().any(|name| own.contains_key(*name))
}

/// The source and its surroundings as they are now. Recorded answers are compared with them.
pub(super) struct CurrentSource<'a> {
    environment: Sha256Digest,
    tree: StorePath,
    /// The attributes of `self`.
    own: Map<String, Value>,
    inputs: BTreeMap<String, Option<Sha256Digest>>,
    /// The fingerprint of what a read gives now; none where it cannot be read.
    fingerprint: &'a mut dyn FnMut(&FileRead) -> Option<Fingerprint>,
    /// Whether a path is in the store.
    in_store: &'a dyn Fn(&StorePath) -> bool,
}

impl<'a> CurrentSource<'a> {
    pub(super) fn new(
        environment: Sha256Digest,
        lock: &ResolvedLock,
        fingerprint: &'a mut dyn FnMut(&FileRead) -> Option<Fingerprint>,
        in_store: &'a dyn Fn(&StorePath) -> bool,
    ) -> Self {
        let mut own = lock.own().info.clone();
        let tree = lock.own().store_path.clone();
        own.insert(OUT_PATH.to_owned(), tree.to_string().into());
        let inputs = lock.names().map(|name| (name.to_owned(), lock.digest_of(name))).collect();
        Self { environment, tree, own, inputs, fingerprint, in_store }
    }

    fn input(&self, name: &str) -> Option<Sha256Digest> {
        self.inputs.get(name).copied().flatten()
    }
}

/// An answer that Nix gave just now.
#[derive(Debug)]
pub(super) struct FreshAnswer {
    pub(super) value: Value,
    pub(super) cost: Cost,
    pub(super) relocation: RelocationCheck,
    /// Whether it had a process of its own.
    pub(super) alone: bool,
}

impl Record {
    /// The answer for `key`, where it still holds; otherwise why it has to be evaluated.
    pub(super) fn valid_answer(&self, key: &RecordKey, current: &mut CurrentSource<'_>) -> Result<&Value, EvalReason> {
        let Some(entry) = self.entries.get(key) else {
            let is_broken = matches!(key, RecordKey::Item(item) if self.broken.contains(item));
            return Err(if is_broken { EvalReason::Broken } else { EvalReason::New });
        };
        if self.environment != Some(current.environment) {
            return Err(EvalReason::Environment);
        }
        match self.first_change(entry, current) {
            None => Ok(&entry.answer),
            Some(reason) if entry.alone => Err(reason),
            Some(reason) => Err(EvalReason::Batch(Box::new(reason))),
        }
    }

    /// The first difference between the entry's basis and the source as it is now.
    fn first_change(&self, entry: &RecordEntry, current: &mut CurrentSource<'_>) -> Option<EvalReason> {
        let (reads, own, inputs, derivation, relocation) = match &entry.basis {
            Basis::Known { reads, own, inputs, derivation, relocation } => {
                (reads, own, inputs, derivation, *relocation)
            }
            Basis::Unknown(why) => return Some(EvalReason::Unobservable(why.clone())),
        };
        for index in reads {
            let Some((read, before)) = self.reads.get(*index as usize) else { return Some(EvalReason::New) };
            if (current.fingerprint)(read) != Some(*before) {
                return Some(EvalReason::Changed(read.path.clone()));
            }
        }
        if let Some((name, _)) = own.iter().find(|(name, before)| current.own.get(*name) != Some(*before)) {
            return Some(EvalReason::Own(name.clone()));
        }
        let is_changed = |(name, before): &(&String, &Sha256Digest)| current.input(name) != Some(**before);
        if let Some((name, _)) = inputs.iter().find(is_changed) {
            return Some(EvalReason::Input(name.clone()));
        }
        if self.tree.as_ref() != Some(&current.tree) {
            match relocation {
                RelocationCheck::Same => {}
                RelocationCheck::Differs => return Some(EvalReason::Location),
                RelocationCheck::Pending => return Some(EvalReason::RelocationUnchecked),
            }
        }
        derivation.as_ref().is_some_and(|path| !(current.in_store)(path)).then_some(EvalReason::DerivationGone)
    }

    /// The cost of the last evaluation of `key`.
    pub(super) fn cost(&self, key: &RecordKey) -> Option<Cost> {
        let (seconds, memory) = self.entries.get(key)?.cost;
        Duration::try_from_secs_f64(seconds).ok().map(|time| Cost { time, memory })
    }

    /// Whether a relocation check of `key` may succeed. It cannot where the last answer depends on the store path of the
    /// source, or on something that is not known.
    pub(super) fn may_hold_after_relocation(&self, key: &RecordKey) -> bool {
        self.entries.get(key).is_none_or(|entry| entry.relocation() != RelocationCheck::Differs)
    }

    /// The keys of the answers whose relocation check was not made and may succeed.
    pub(super) fn pending(&self) -> BTreeSet<RecordKey> {
        let pending = self.entries.iter().filter(|(_, entry)| entry.relocation() == RelocationCheck::Pending);
        pending.map(|(key, _)| key.clone()).collect()
    }

    /// Whether it is the record of the source at `tree`, asked in this environment.
    pub(super) fn is_of(&self, tree: &StorePath, environment: Sha256Digest) -> bool {
        self.tree.as_ref() == Some(tree) && self.environment == Some(environment)
    }

    /// The answer for `key`, whether or not it holds.
    pub(super) fn answer(&self, key: &RecordKey) -> Option<&Value> {
        self.entries.get(key).map(|entry| &entry.answer)
    }

    /// Notes the result of a relocation check: the answer for `key` with the source at another path.
    pub(super) fn note_relocated(&mut self, key: &RecordKey, relocated: Option<&Value>) {
        if let Some(RecordEntry { answer, basis: Basis::Known { relocation, .. }, .. }) = self.entries.get_mut(key) {
            *relocation = RelocationCheck::of(answer, relocated);
        }
    }

    /// Begins the next record with the entries under `keys`, all of which hold.
    pub(super) fn keep(&self, keys: impl Iterator<Item = RecordKey>, current: &CurrentSource<'_>) -> RecordBuilder {
        let mut builder = RecordBuilder::new(current);
        for (key, entry) in keys.filter_map(|key| self.entries.get_key_value(&key)) {
            builder.keep(self, key, entry);
        }
        builder
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
    fn new(current: &CurrentSource<'_>) -> Self {
        let (environment, tree) = (Some(current.environment), Some(current.tree.clone()));
        Self { record: Record { environment, tree, ..Record::default() }, indices: BTreeMap::new() }
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

    fn keep(&mut self, from: &Record, key: &RecordKey, entry: &RecordEntry) {
        let mut entry = entry.clone();
        if let Basis::Known { reads, .. } = &mut entry.basis {
            for index in reads {
                if let Some((read, fingerprint)) = from.reads.get(*index as usize) {
                    *index = self.index_of(read, *fingerprint);
                }
            }
        }
        self.record.entries.insert(key.clone(), entry);
    }

    /// Adds a fresh answer with what it depends on.
    pub(super) fn add(
        &mut self,
        key: RecordKey,
        fresh: FreshAnswer,
        observed: Result<&Observation, String>,
        current: &mut CurrentSource<'_>,
    ) {
        let basis = match observed {
            Ok(observed) => self.basis(&fresh, observed, current).unwrap_or_else(Basis::Unknown),
            Err(why) => Basis::Unknown(why),
        };
        let cost = (fresh.cost.time.as_secs_f64(), fresh.cost.memory);
        self.record.entries.insert(key, RecordEntry { answer: fresh.value, cost, alone: fresh.alone, basis });
    }

    /// Notes that `item` failed.
    pub(super) fn add_broken(&mut self, item: Item) {
        self.record.broken.insert(item);
    }

    fn basis(
        &mut self,
        fresh: &FreshAnswer,
        observed: &Observation,
        current: &mut CurrentSource<'_>,
    ) -> Result<Basis, String> {
        let mut reads = Vec::new();
        for read in &observed.reads {
            let fingerprint = (current.fingerprint)(read);
            let fingerprint = fingerprint.ok_or_else(|| format!("{} cannot be read again", read.path.display()))?;
            reads.push(self.index_of(read, fingerprint));
        }
        let own = observed.own.iter();
        let own = own.map(|name| (name.to_owned(), current.own.get(name).cloned().unwrap_or_default())).collect();
        let digest = |name: &String| {
            let digest = current.input(name).ok_or_else(|| format!("its input {name} leads back to the flake"))?;
            Ok((name.clone(), digest))
        };
        let inputs = observed.inputs.iter().map(digest).collect::<Result<_, String>>()?;
        Ok(Basis::Known { reads, own, inputs, derivation: derivation(&fresh.value), relocation: fresh.relocation })
    }

    pub(super) fn finish(self) -> Record {
        self.record
    }
}

#[cfg(test)]
mod tests;
