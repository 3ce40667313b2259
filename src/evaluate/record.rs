//! What is known of the last evaluation of a source, and whether it still holds. No I/O but its file.
//!
//! It is a cache: whoever loses it evaluates everything once more. It is believed only where the same Nix would be asked
//! the same in the same way, and everything that an answer came from is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fingerprint::Fingerprint;
use super::lock::Inputs;
use super::observe::{Observed, Read};
use super::schedule::{Company, Cost};
use crate::model::{Sha256Digest, StorePath};

/// What was answered about one source, and what the answers came from.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Everything that every answer depends on: Nix, its settings, the questions.
    environment: Option<Sha256Digest>,
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
        /// Whether the path of the source, which every change moves, is in what it gave.
        names_its_source: bool,
    },
    /// It cannot be known, because of this.
    Unknown(String),
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
    /// What it gave has the path of the source in it, which changes with the source.
    NamesItsSource,
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
            Self::New | Self::Environment | Self::Full => Company::Welcome,
            Self::Broken
            | Self::Changed(_)
            | Self::Own(_)
            | Self::Input(_)
            | Self::NamesItsSource
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
            Self::NamesItsSource => write!(f, "the path of the source is in it"),
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
        own.insert("outPath".to_owned(), inputs.own().store_path.to_string().into());
        let inputs = inputs.names().map(|name| (name.to_owned(), inputs.digest_of(name))).collect();
        Self { environment, own, inputs, look, in_store }
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
    pub(super) derivation: Option<StorePath>,
    /// Whether the path of the source is in what it gave, or why that is not known.
    pub(super) names_its_source: Result<bool, String>,
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
        let (reads, own, inputs, derivation, names_its_source) = match &entry.basis {
            Basis::Known { reads, own, inputs, derivation, names_its_source } => {
                (reads, own, inputs, derivation, *names_its_source)
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
            return Some(if name == "outPath" && names_its_source {
                Why::NamesItsSource
            } else {
                Why::Own(name.clone())
            });
        }
        let changed = |(name, before): &(&String, &Sha256Digest)| now.input(name) != Some(**before);
        if let Some((name, _)) = inputs.iter().find(changed) {
            return Some(Why::Input(name.clone()));
        }
        derivation.as_ref().is_some_and(|path| !(now.in_store)(path)).then_some(Why::DerivationGone)
    }

    /// What the evaluation of `key` took the last time.
    pub(super) fn cost(&self, key: &str) -> Option<Cost> {
        let (seconds, memory) = self.entries.get(key)?.cost;
        Duration::try_from_secs_f64(seconds).ok().map(|time| Cost { time, memory })
    }

    /// A record of what holds now: the entries of `self` under `keys`, all of which hold.
    pub(super) fn kept(&self, keys: impl Iterator<Item = String>, now: &Now<'_>) -> RecordBuilder {
        let mut builder = RecordBuilder::new(now.environment);
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
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.persist(path)?;
        Ok(())
    }
}

/// A record in the making.
#[derive(Debug)]
pub(super) struct RecordBuilder {
    record: Record,
    places: BTreeMap<Read, u32>,
}

impl RecordBuilder {
    pub(super) fn new(environment: Sha256Digest) -> Self {
        let record = Record { environment: Some(environment), ..Record::default() };
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
        let names_its_source = answered.names_its_source.clone()?;
        let named = names_its_source.then_some("outPath");
        let used = observed.own.iter().map(String::as_str).chain(named);
        let own = used.map(|name| (name.to_owned(), now.own.get(name).cloned().unwrap_or_default())).collect();
        let digest = |name: &String| {
            let digest = now.input(name).ok_or_else(|| format!("its input {name} leads back to the flake"))?;
            Ok((name.clone(), digest))
        };
        let inputs = observed.inputs.iter().map(digest).collect::<Result<_, String>>()?;
        let derivation = answered.derivation.clone();
        Ok(Basis::Known { reads, own, inputs, derivation, names_its_source })
    }

    pub(super) fn finish(self) -> Record {
        self.record
    }
}
