//! What is known of the last evaluation of a source, and whether it still holds. No I/O but its file.
//!
//! It is a cache: whoever loses it evaluates everything once more. It is believed only where the same Nix would be asked
//! the same in the same way, and everything that an answer came from is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fingerprint::Fingerprint;
use super::lock::Inputs;
use super::observe::{Observed, Read};
use super::outputs::derivation;
use super::schedule::{Company, Cost};
use crate::disk::{self, Access, Durability};
use crate::model::{Sha256Digest, StorePath};

/// What a flake is told of where it is.
const OUT_PATH: &str = "outPath";
/// What it is told of itself and is another for each content: whoever uses it is evaluated at each change anyway.
const OWN_OF_EACH_CONTENT: [&str; 4] = [OUT_PATH, "narHash", "rev", "shortRev"];

/// What was answered about one source, and what the answers came from.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Everything that every answer depends on: Nix, its settings, the questions.
    environment: Option<Sha256Digest>,
    /// Where the source was; what was not seen to be the same elsewhere holds there alone.
    tree: Option<StorePath>,
    /// Every look of every entry, once, and what it showed.
    reads: Vec<(Read, Fingerprint)>,
    entries: BTreeMap<String, Entry>,
    /// What gave no answer.
    broken: BTreeSet<String>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    answer: Value,
    cost: (f64, u64),
    /// Whether the basis is that of this answer alone, and not of others that shared its process.
    alone: bool,
    basis: Basis,
}

/// What an answer came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Basis {
    /// All of it is known.
    Known {
        /// Places in the record's list of reads.
        reads: Vec<u32>,
        /// What the flake used of what it is told of itself.
        own: BTreeMap<String, Value>,
        /// The inputs it used.
        inputs: BTreeMap<String, Sha256Digest>,
        /// Derivations that it wrote.
        derivation: Option<StorePath>,
        second_look: SecondLook,
    },
    /// It cannot be known, because of this.
    Unknown(String),
}

/// Whether the answer is the same when the source is elsewhere in the store. Every change of the source moves it, and its
/// path as text is nothing that could be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SecondLook {
    /// It was not asked again.
    Pending,
    /// It is.
    Same,
    /// It is not, or there is none.
    Differs,
}

impl SecondLook {
    /// By what was answered at first, and what when the source was elsewhere.
    pub(super) fn of(first: &Value, second: Option<&Value>) -> Self {
        if second == Some(first) { Self::Same } else { Self::Differs }
    }
}

/// Whether the answer cannot hold after a change of the source, by what it used of `own`.
fn follows_each_change(own: &BTreeMap<String, Value>) -> bool {
    OWN_OF_EACH_CONTENT.iter().any(|name| own.contains_key(*name))
}

/// Why something was evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Nothing is known of it yet.
    New,
    /// It was broken the last time, and what would mend it is not known.
    Broken,
    /// Nix, its settings or Clavel are others than before.
    Environment,
    /// Something it reads changed: this path of the source.
    Changed(PathBuf),
    /// It uses this of what a flake is told of itself, and that changed.
    Own(String),
    /// An input that it uses changed.
    Input(String),
    /// What it gives depends on where the source is in the store, which changes with the source.
    Place,
    /// Whether that matters to it was not found out.
    SeenOnce,
    /// Its derivation is not in the store any more.
    DerivationGone,
    /// What it came from cannot be known.
    Unobservable(String),
    /// It shared a process with others, and this holds for one of them.
    Company(Box<Why>),
    /// Everything was asked for.
    Full,
}

impl Why {
    /// Whether what is evaluated for this reason may share a process: where a change costs the evaluation of others too,
    /// it does so once.
    pub(super) fn company(&self) -> Company {
        match self {
            Self::New | Self::Environment | Self::SeenOnce | Self::Full => Company::Welcome,
            Self::Broken
            | Self::Changed(_)
            | Self::Own(_)
            | Self::Input(_)
            | Self::Place
            | Self::DerivationGone
            | Self::Unobservable(_)
            | Self::Company(_) => Company::Unwelcome,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => write!(f, "new"),
            Self::Broken => write!(f, "it was broken the last time"),
            Self::Environment => write!(f, "Nix, its settings or Clavel changed"),
            Self::Changed(path) if path.as_os_str().is_empty() => {
                write!(f, "the names at the top of the source changed")
            }
            Self::Changed(path) => write!(f, "{} changed", path.display()),
            Self::Own(name) => write!(f, "it uses self.{name}"),
            Self::Input(name) => write!(f, "the input {name} changed"),
            Self::Place => write!(f, "it depends on where the source is in the store, and each change moves that"),
            Self::SeenOnce => write!(f, "it was not seen yet whether it depends on where the source is in the store"),
            Self::DerivationGone => write!(f, "its derivation is not in the store any more"),
            Self::Unobservable(why) => write!(f, "each time, since {why}"),
            Self::Company(why) => write!(f, "it was evaluated together with others, and of one of them: {why}"),
            Self::Full => write!(f, "everything was asked for"),
        }
    }
}

/// The source as it is now, to compare a record with.
pub(super) struct Now<'a> {
    environment: Sha256Digest,
    tree: StorePath,
    own: Map<String, Value>,
    inputs: BTreeMap<String, Option<Sha256Digest>>,
    /// What a look shows now; none where it cannot be told.
    look: &'a mut dyn FnMut(&Read) -> Option<Fingerprint>,
    /// Whether a path is in the store.
    in_store: &'a dyn Fn(&StorePath) -> bool,
}

impl<'a> Now<'a> {
    pub(super) fn new(
        environment: Sha256Digest,
        inputs: &Inputs,
        look: &'a mut dyn FnMut(&Read) -> Option<Fingerprint>,
        in_store: &'a dyn Fn(&StorePath) -> bool,
    ) -> Self {
        let mut own = inputs.own().info.clone();
        let tree = inputs.own().store_path.clone();
        own.insert(OUT_PATH.to_owned(), tree.to_string().into());
        let inputs = inputs.names().map(|name| (name.to_owned(), inputs.digest_of(name))).collect();
        Self { environment, tree, own, inputs, look, in_store }
    }

    fn input(&self, name: &str) -> Option<Sha256Digest> {
        self.inputs.get(name).copied().flatten()
    }
}

/// An answer that came of an evaluation just now.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) answer: Value,
    pub(super) cost: Cost,
    pub(super) second_look: SecondLook,
    /// Whether nothing else was evaluated in its process.
    pub(super) alone: bool,
}

impl Record {
    /// The answer about `key`, where it still holds; else why not.
    pub(super) fn holds(&self, key: &str, now: &mut Now<'_>) -> Result<&Value, Why> {
        let absent = || if self.broken.contains(key) { Why::Broken } else { Why::New };
        let entry = self.entries.get(key).ok_or_else(absent)?;
        if self.environment != Some(now.environment) {
            return Err(Why::Environment);
        }
        match self.changed(entry, now) {
            None => Ok(&entry.answer),
            Some(why) if entry.alone => Err(why),
            Some(why) => Err(Why::Company(Box::new(why))),
        }
    }

    /// What of the entry's basis is not as it was.
    fn changed(&self, entry: &Entry, now: &mut Now<'_>) -> Option<Why> {
        let (reads, own, inputs, derivation, second_look) = match &entry.basis {
            Basis::Known { reads, own, inputs, derivation, second_look } => {
                (reads, own, inputs, derivation, *second_look)
            }
            Basis::Unknown(why) => return Some(Why::Unobservable(why.clone())),
        };
        for place in reads {
            let Some((read, before)) = self.reads.get(*place as usize) else { return Some(Why::New) };
            if (now.look)(read) != Some(*before) {
                return Some(Why::Changed(read.path.clone()));
            }
        }
        if let Some((name, _)) = own.iter().find(|(name, before)| now.own.get(*name) != Some(*before)) {
            return Some(Why::Own(name.clone()));
        }
        let changed = |(name, before): &(&String, &Sha256Digest)| now.input(name) != Some(**before);
        if let Some((name, _)) = inputs.iter().find(changed) {
            return Some(Why::Input(name.clone()));
        }
        if self.tree.as_ref() != Some(&now.tree) {
            match second_look {
                SecondLook::Same => {}
                SecondLook::Differs => return Some(Why::Place),
                SecondLook::Pending => return Some(Why::SeenOnce),
            }
        }
        derivation.as_ref().is_some_and(|path| !(now.in_store)(path)).then_some(Why::DerivationGone)
    }

    /// What the evaluation of `key` took the last time.
    pub(super) fn cost(&self, key: &str) -> Option<Cost> {
        let (seconds, memory) = self.entries.get(key)?.cost;
        Duration::try_from_secs_f64(seconds).ok().map(|time| Cost { time, memory })
    }

    /// Whether it is worth while to ask about `key` a second time: not where the last time says that the answer depends
    /// on where the source is, or on what cannot be known.
    pub(super) fn may_hold_elsewhere(&self, key: &str) -> bool {
        self.entries.get(key).is_none_or(|entry| match &entry.basis {
            Basis::Known { own, second_look, .. } => *second_look != SecondLook::Differs && !follows_each_change(own),
            Basis::Unknown(_) => false,
        })
    }

    /// The keys of the answers that hold only where the source was, since nobody asked a second time, and might hold
    /// elsewhere.
    pub(super) fn pending(&self) -> BTreeSet<String> {
        let is_pending = |entry: &Entry| match &entry.basis {
            Basis::Known { own, second_look, .. } => *second_look == SecondLook::Pending && !follows_each_change(own),
            Basis::Unknown(_) => false,
        };
        self.entries.iter().filter(|(_, entry)| is_pending(entry)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether it is of the source at `tree`, asked in this environment.
    pub(super) fn is_of(&self, tree: &StorePath, environment: Sha256Digest) -> bool {
        self.tree.as_ref() == Some(tree) && self.environment == Some(environment)
    }

    /// The answer about `key`, whether or not it holds.
    pub(super) fn answer(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).map(|entry| &entry.answer)
    }

    /// Notes what was answered about `key` with the source elsewhere.
    pub(super) fn look_again(&mut self, key: &str, answer: Option<&Value>) {
        if let Some(Entry { answer: first, basis: Basis::Known { second_look, .. }, .. }) = self.entries.get_mut(key) {
            *second_look = SecondLook::of(first, answer);
        }
    }

    /// A record of what holds now: the entries of `self` under `keys`, all of which hold.
    pub(super) fn kept(&self, keys: impl Iterator<Item = String>, now: &Now<'_>) -> RecordBuilder {
        let mut builder = RecordBuilder::new(now);
        for (key, entry) in keys.filter_map(|key| self.entries.get_key_value(&key)) {
            builder.keep(self, key, entry);
        }
        builder
    }

    /// Reads the file at `path`. One that is not there or not right is none: it is only a cache.
    pub(super) fn read(path: &Path) -> Self {
        let Ok(bytes) = std::fs::read(path) else { return Self::default() };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::debug!(path = %path.display(), %error, "a record of evaluations is not right and is left");
            Self::default()
        })
    }

    /// Puts it at `path`, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        disk::replace(path, &serde_json::to_vec(self)?, Access::Owner, Durability::Unsynced)
    }
}

/// A record in the making.
#[derive(Debug)]
pub(super) struct RecordBuilder {
    record: Record,
    places: BTreeMap<Read, u32>,
}

impl RecordBuilder {
    fn new(now: &Now<'_>) -> Self {
        let record = Record { environment: Some(now.environment), tree: Some(now.tree.clone()), ..Record::default() };
        Self { record, places: BTreeMap::new() }
    }

    fn place(&mut self, read: &Read, shows: Fingerprint) -> u32 {
        if let Some(place) = self.places.get(read) {
            return *place;
        }
        let place = u32::try_from(self.record.reads.len()).unwrap_or(u32::MAX);
        self.record.reads.push((read.clone(), shows));
        self.places.insert(read.clone(), place);
        place
    }

    fn keep(&mut self, from: &Record, key: &str, entry: &Entry) {
        let mut entry = entry.clone();
        if let Basis::Known { reads, .. } = &mut entry.basis {
            for place in reads {
                if let Some((read, shows)) = from.reads.get(*place as usize) {
                    *place = self.place(read, *shows);
                }
            }
        }
        self.record.entries.insert(key.to_owned(), entry);
    }

    /// Adds what was answered just now, with what it came from.
    pub(super) fn add(
        &mut self,
        key: &str,
        answered: &Answered,
        observed: Result<&Observed, String>,
        now: &mut Now<'_>,
    ) {
        let basis = match observed {
            Ok(observed) => self.basis(answered, observed, now).unwrap_or_else(Basis::Unknown),
            Err(why) => Basis::Unknown(why),
        };
        let cost = (answered.cost.time.as_secs_f64(), answered.cost.memory);
        self.record
            .entries
            .insert(key.to_owned(), Entry { answer: answered.answer.clone(), cost, alone: answered.alone, basis });
    }

    /// Adds that there was no answer about `key`.
    pub(super) fn add_broken(&mut self, key: &str) {
        self.record.broken.insert(key.to_owned());
    }

    fn basis(&mut self, answered: &Answered, observed: &Observed, now: &mut Now<'_>) -> Result<Basis, String> {
        let mut reads = Vec::new();
        for read in &observed.reads {
            let shows = (now.look)(read).ok_or_else(|| format!("{} cannot be read again", read.path.display()))?;
            reads.push(self.place(read, shows));
        }
        let own = observed.own.iter();
        let own = own.map(|name| (name.to_owned(), now.own.get(name).cloned().unwrap_or_default())).collect();
        let digest = |name: &String| {
            let digest = now.input(name).ok_or_else(|| format!("its input {name} leads back to the flake"))?;
            Ok((name.clone(), digest))
        };
        let inputs = observed.inputs.iter().map(digest).collect::<Result<_, String>>()?;
        let (derivation, second_look) = (derivation(&answered.answer), answered.second_look);
        Ok(Basis::Known { reads, own, inputs, derivation, second_look })
    }

    pub(super) fn finish(self) -> Record {
        self.record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source";
    const THERE: &str = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-source";

    fn environment() -> Sha256Digest {
        Sha256Digest::from_bytes([7; 32])
    }

    /// What holds of `record`, where the source is at `tree` and nothing else is another than before.
    fn holds(record: &Record, key: &str, tree: &str) -> Result<Value, Why> {
        let mut look = |_: &Read| None;
        let own = Map::from_iter([(OUT_PATH.to_owned(), tree.into())]);
        let (tree, inputs) = (tree.parse().unwrap(), BTreeMap::new());
        let mut now = Now { environment: environment(), tree, own, inputs, look: &mut look, in_store: &|_| true };
        record.holds(key, &mut now).cloned()
    }

    /// A record of a source that was at `HERE`.
    fn record() -> Record {
        let basis = |own: &[&str], second_look| Basis::Known {
            reads: Vec::new(),
            own: own.iter().map(|name| ((*name).to_owned(), HERE.into())).collect(),
            inputs: BTreeMap::new(),
            derivation: None,
            second_look,
        };
        let entry = |basis| Entry { answer: "first".into(), cost: (1.0, 1), alone: true, basis };
        let entries = [
            ("same", basis(&[], SecondLook::Same)),
            ("differs", basis(&[], SecondLook::Differs)),
            ("pending", basis(&[], SecondLook::Pending)),
            ("told", basis(&[OUT_PATH], SecondLook::Pending)),
            ("unseen", Basis::Unknown("nobody saw it".to_owned())),
        ];
        Record {
            environment: Some(environment()),
            tree: Some(HERE.parse().unwrap()),
            entries: entries.map(|(key, basis)| (key.to_owned(), entry(basis))).into(),
            ..Record::default()
        }
    }

    #[test]
    fn what_was_not_seen_to_be_the_same_elsewhere_holds_where_the_source_was() {
        let record = record();
        for key in ["same", "differs", "pending", "told"] {
            assert_eq!(holds(&record, key, HERE), Ok("first".into()), "{key}");
        }
        assert_eq!(holds(&record, "same", THERE), Ok("first".into()));
        assert_eq!(holds(&record, "differs", THERE), Err(Why::Place));
        assert_eq!(holds(&record, "pending", THERE), Err(Why::SeenOnce));
        assert_eq!(holds(&record, "told", THERE), Err(Why::Own(OUT_PATH.to_owned())));
    }

    #[test]
    fn a_second_look_is_made_where_it_may_tell_something_and_tells_one_thing() {
        let mut record = record();
        assert_eq!(record.pending(), BTreeSet::from(["pending".to_owned()]));
        let worth = ["same", "differs", "pending", "told", "unseen", "new"].map(|key| record.may_hold_elsewhere(key));
        assert_eq!(worth, [true, false, true, false, false, true]);
        for (answer, expected) in [
            (Some(Value::from("first")), Ok("first".into())),
            (Some("second".into()), Err(Why::Place)),
            (None, Err(Why::Place)),
        ] {
            record.look_again("pending", answer.as_ref());
            assert_eq!(holds(&record, "pending", THERE), expected);
            assert_eq!(record.pending(), BTreeSet::new());
        }
    }
}
