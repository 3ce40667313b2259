//! One source at one content: how it is asked, and what is seen while it answers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::lock::{Inputs, Lock, Unobservable};
use super::observe::Observed;
use super::outputs::{NixString, Question, template};
use super::run::EvaluateError;
use super::schedule::Cost;
use crate::model::{LockedSource, Sha256Digest, StorePath};
use crate::nix::{self, Calls, LockedFlake, Nix, NixError, Watch};

/// How a flake is called so that its reads are seen.
const CALL: &str = include_str!("call.nix");

/// Whoever asks questions about one source at one content.
#[derive(Debug)]
pub(super) struct Session<'a> {
    nix: &'a Nix,
    pub(super) source: LockedSource,
    pub(super) tree: StorePath,
    view: View,
    mark: String,
}

/// Where the flake's own tree lies while a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Where every Nix has it. What is read there is watched.
    Own,
    /// Somewhere else in the store, to see whether that makes a difference. Nobody watches.
    Other,
}

/// How much of an evaluation can be seen.
#[derive(Debug)]
enum View {
    /// Clavel calls the flake itself.
    Called {
        inputs: Inputs,
        /// The expression that does, from where the tree is.
        call: String,
        /// The same, from another place.
        moved: String,
        /// Why nobody watches, where nobody does.
        unwatched: Option<String>,
    },
    /// Only Nix can call it.
    Native(String),
}

/// What came of a question.
#[derive(Debug)]
pub(super) struct Asked<T> {
    pub(super) answer: T,
    /// What the answer came from, or why that is not known.
    pub(super) observed: Result<Observed, String>,
    pub(super) cost: Cost,
}

impl<'a> Session<'a> {
    /// Prepares to ask about `flake`; `unwatched` says why its reads cannot be watched on this machine.
    pub(super) async fn open(
        nix: &'a Nix,
        flake: LockedFlake,
        unwatched: Option<String>,
    ) -> Result<Self, EvaluateError> {
        let LockedFlake { source, tree, locked, lock } = flake;
        let mark = mark()?;
        let resolved = serde_json::from_value::<Lock>(lock)
            .map_err(|error| Unobservable::Unknown(error.to_string()))
            .and_then(|lock| Inputs::resolve(lock, &locked));
        let view = match resolved {
            Ok(inputs) => match inputs.own().other_name() {
                Some(other) if inputs.own().store_path == tree => {
                    let missing = fetched(nix, &source, &inputs).await;
                    let data = NixString(&inputs.as_data(&missing).to_string()).to_string();
                    let call = |moved: &str| {
                        let mark = NixString(&mark);
                        format!("(({CALL}) {{ data = builtins.fromJSON {data}; mark = {mark}; moved = {moved}; }})")
                    };
                    let (call, moved) = (call("null"), call(&NixString(&other).to_string()));
                    View::Called { inputs, call, moved, unwatched }
                }
                _ => View::Native("its tree is not where its hash says".to_owned()),
            },
            Err(unobservable) => View::Native(unobservable.to_string()),
        };
        Ok(Self { nix, source, tree, view, mark })
    }

    /// The inputs, where answers about this source can be recorded.
    pub(super) fn observable(&self) -> Option<&Inputs> {
        match &self.view {
            View::Called { inputs, unwatched: None, .. } => Some(inputs),
            View::Called { .. } | View::Native(_) => None,
        }
    }

    /// Why answers about this source cannot be recorded, where that is so.
    pub(super) fn why_unobservable(&self) -> Option<&str> {
        match &self.view {
            View::Called { unwatched, .. } => unwatched.as_deref(),
            View::Native(why) => Some(why),
        }
    }

    /// A digest of all that every answer depends on, beside the source's files and what the flake knows of itself.
    pub(super) fn environment(&self) -> Sha256Digest {
        let (names, own, dir) = match &self.view {
            View::Called { inputs, .. } => {
                (inputs.names().collect(), inputs.own().info.keys().collect(), inputs.own().dir())
            }
            View::Native(_) => (Vec::new(), Vec::new(), ""),
        };
        let all = format!(
            "{} {} {CALL} {} {names:?} {own:?} {dir}",
            env!("CARGO_PKG_VERSION"),
            self.nix.identity(),
            template()
        );
        Sha256Digest::from_bytes(Sha256::digest(all).into())
    }

    /// Asks `question` of the flake at `place`, with at most `memory` bytes for it.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        place: Place,
        question: &Question<'_>,
        memory: u64,
    ) -> Result<Asked<T>, EvaluateError> {
        let (flake, watch) = match (&self.view, place) {
            (View::Called { moved, .. }, Place::Other) => (moved.clone(), Watch::Nothing),
            (View::Called { call, unwatched: None, .. }, Place::Own) => (call.clone(), Watch::Files),
            (View::Called { call, .. }, Place::Own) => (call.clone(), Watch::Nothing),
            (View::Native(_), _) => (self.native(), Watch::Nothing),
        };
        let act = format!("evaluate {}", self.source.locked);
        let expression = question.expression(&flake);
        let largest = question.largest_answer();
        let asked = nix::Question { act: &act, expression: &expression, memory, largest, mark: &self.mark, watch };
        let answer = self.nix.evaluate(&asked).await?;
        let observed = match &answer.calls {
            Calls::Seen(calls) => {
                Observed::of(calls, &answer.told, Path::new(&self.tree.to_string())).map_err(|e| e.to_string())
            }
            Calls::TooMany(bytes) => Err(format!("it looks at so many files that {bytes} bytes tell of them")),
            Calls::Unseen => Err(self.why_unobservable().unwrap_or("nobody watched").to_owned()),
        };
        let cost = Cost { time: answer.time, memory: answer.memory };
        let answer = serde_json::from_slice(&answer.json)
            .map_err(|error| EvaluateError::Answer { flake: self.source.flake.to_string(), why: error.to_string() })?;
        Ok(Asked { answer, observed, cost })
    }

    /// The flake as Nix calls it.
    fn native(&self) -> String {
        format!("(builtins.getFlake {})", NixString(self.source.locked.as_str()))
    }

    /// Where the files of the source are.
    pub(super) fn files(&self) -> PathBuf {
        self.tree.to_string().into()
    }
}

/// Brings the inputs into the store, all at once and by Nix's own ways; gives those that are not there after that. They
/// are fetched only where they are used, and then their own errors are told.
async fn fetched(nix: &Nix, source: &LockedSource, inputs: &Inputs) -> BTreeSet<StorePath> {
    let missing = || -> BTreeSet<StorePath> {
        let paths = inputs.others().map(|tree| &tree.store_path);
        paths.filter(|path| !Path::new(&path.to_string()).exists()).cloned().collect()
    };
    if missing().is_empty() {
        return BTreeSet::new();
    }
    if let Err(error) = nix.fetch_inputs(&source.locked).await {
        tracing::debug!(%error, "not all inputs could be fetched");
    }
    missing()
}

/// What no flake can know, to tell our traces from its own.
fn mark() -> Result<String, EvaluateError> {
    let number = getrandom::u64().map_err(|error| {
        let source = std::io::Error::other(error.to_string());
        NixError::Files { act: "draw a random number".to_owned(), source }
    })?;
    Ok(format!("clavel-{number:016x} "))
}
