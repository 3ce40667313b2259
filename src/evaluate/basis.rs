//! What a recorded answer depends on, and whether all of it is still as it was. No I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fingerprint::Fingerprint;
use super::lock::ResolvedLock;
use super::observe::FileRead;
use super::reason::EvalReason;
use crate::model::{Sha256Digest, StorePath};

/// The attribute of `self` that is the store path of the source.
pub(super) const OUT_PATH: &str = "outPath";
/// The attributes of `self` that differ with each content. An answer that depends on one never holds after a change.
const OWN_OF_EACH_CONTENT: [&str; 4] = [OUT_PATH, "narHash", "rev", "shortRev"];

/// The dependencies of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Basis {
    /// They were not learnt yet.
    Unlearnt,
    /// All of them are known.
    Known(Dependencies),
    /// They cannot be known, because of this.
    Unknown(String),
}

/// Everything that an answer depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Dependencies {
    /// Indices into the record's list of reads.
    pub(super) reads: Vec<u32>,
    /// The attributes of `self` that the flake used, with their values.
    pub(super) own: BTreeMap<String, Value>,
    /// The inputs that the flake used.
    pub(super) inputs: BTreeMap<String, Sha256Digest>,
    /// Whether the answer was another one with the source at another store path.
    pub(super) differs_elsewhere: bool,
}

/// The source and its surroundings as they are now. Recorded answers are compared with them.
pub(super) struct CurrentSource<'a> {
    /// A digest of all that every answer follows from.
    pub(super) question: Sha256Digest,
    pub(super) environment: Sha256Digest,
    pub(super) tree: StorePath,
    /// The attributes of `self`.
    pub(super) own: Map<String, Value>,
    pub(super) inputs: BTreeMap<String, Option<Sha256Digest>>,
    /// The fingerprint of what a read gives now; none where it cannot be read.
    pub(super) fingerprint: &'a mut dyn FnMut(&FileRead) -> Option<Fingerprint>,
    /// Whether a path is in the store.
    pub(super) in_store: &'a dyn Fn(&StorePath) -> bool,
}

impl<'a> CurrentSource<'a> {
    /// The source at `tree`. `lock` is its lock, where it can be seen what answers depend on.
    pub(super) fn new(
        (question, environment): (Sha256Digest, Sha256Digest),
        tree: StorePath,
        lock: Option<&ResolvedLock>,
        fingerprint: &'a mut dyn FnMut(&FileRead) -> Option<Fingerprint>,
        in_store: &'a dyn Fn(&StorePath) -> bool,
    ) -> Self {
        let mut own = lock.map(|lock| lock.own().info.clone()).unwrap_or_default();
        own.insert(OUT_PATH.to_owned(), tree.to_string().into());
        let names = lock.into_iter().flat_map(|lock| lock.names().map(|name| (name.to_owned(), lock.digest_of(name))));
        Self { question, environment, tree, own, inputs: names.collect(), fingerprint, in_store }
    }

    pub(super) fn input(&self, name: &str) -> Option<Sha256Digest> {
        self.inputs.get(name).copied().flatten()
    }

    /// The value of an attribute of `self`; null where it has none.
    pub(super) fn own_value(&self, name: &str) -> Value {
        self.own.get(name).cloned().unwrap_or_default()
    }
}

impl Basis {
    /// Why an answer with this basis does not hold at the current source, which is another one than that of the record. `reads` are
    /// those of the record.
    pub(super) fn first_change(
        &self,
        reads: &[(FileRead, Fingerprint)],
        current: &mut CurrentSource<'_>,
    ) -> Option<EvalReason> {
        let known = match self {
            Self::Known(known) => known,
            Self::Unlearnt => return Some(EvalReason::Unlearnt),
            Self::Unknown(why) => return Some(EvalReason::Unobservable(why.clone())),
        };
        for index in &known.reads {
            let Some((read, before)) = reads.get(*index as usize) else { return Some(EvalReason::New) };
            if (current.fingerprint)(read) != Some(*before) {
                return Some(EvalReason::Changed(read.path.clone()));
            }
        }
        if let Some((name, _)) = known.own.iter().find(|(name, before)| current.own.get(*name) != Some(*before)) {
            return Some(EvalReason::Own(name.clone()));
        }
        let is_changed = |(name, before): &(&String, &Sha256Digest)| current.input(name) != Some(**before);
        if let Some((name, _)) = known.inputs.iter().find(is_changed) {
            return Some(EvalReason::Input(name.clone()));
        }
        known.differs_elsewhere.then_some(EvalReason::Location)
    }

    /// The basis of a new answer, where this was that of the last one and it did not hold for `reason`. None of the reads of an answer
    /// that changes with each content changed, so it is most likely still such a one, and nothing more has to be learnt about it.
    pub(super) fn of_next(&self, reason: Option<&EvalReason>, current: &CurrentSource<'_>) -> Self {
        match (self, reason) {
            (Self::Known(known), Some(EvalReason::Own(_) | EvalReason::Location))
                if known.change_with_each_content(current) =>
            {
                let own = known.own.keys().map(|name| (name.clone(), current.own_value(name))).collect();
                Self::Known(Dependencies { own, ..known.clone() })
            }
            _ => Self::Unlearnt,
        }
    }
}

impl Dependencies {
    /// Whether an answer never holds after a change of the source, and its inputs are the current ones.
    fn change_with_each_content(&self, current: &CurrentSource<'_>) -> bool {
        let is_unchanged = |(name, before): (&String, &Sha256Digest)| current.input(name) == Some(*before);
        let uses_what_changes = OWN_OF_EACH_CONTENT.iter().any(|name| self.own.contains_key(*name));
        (self.differs_elsewhere || uses_what_changes) && self.inputs.iter().all(is_unchanged)
    }
}
