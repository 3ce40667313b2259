//! Asks Nix questions about one flake at one content, and says what each answer depends on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::error::EvaluateError;
use super::lock::{AbsentInputs, CallObstacle, Lock, ResolvedLock, as_fetched, store_path_of};
use super::observe::Observation;
use super::outputs::{Question, template};
use super::schedule::Cost;
use crate::model::{InputPolicy, LockedSource, Sha256Digest, StorePath};
use crate::nix::{EvalRequest, FetchedFlake, LockedInput, Nix, NixError, NixString, SystemCalls, Watch};

/// The function that calls a flake so that its reads are seen.
const CALL: &str = include_str!("call.nix");

/// A flake at one content, ready to be asked.
#[derive(Debug)]
pub(super) struct FlakeCaller<'a> {
    nix: &'a Nix,
    pub(super) source: LockedSource,
    /// The store path of the source's tree.
    pub(super) tree: StorePath,
    method: CallMethod,
    /// The beginning of Clavel's own traces. It is random, so that no flake can write one.
    mark: String,
}

/// The store path from which the flake's own tree is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TreeLocation {
    /// The path that every Nix gives it. The reads there are watched.
    Original,
    /// Another path, to check whether the answer depends on the path. The reads there are not watched.
    Relocated,
}

/// How the flake is called.
#[derive(Debug)]
enum CallMethod {
    /// By Clavel's own expression, which shows what the flake uses.
    ByClavel {
        lock: ResolvedLock,
        /// The expression that calls the flake at its original path.
        original: String,
        /// The expression that calls it at another path.
        relocated: String,
        /// Why the reads cannot be watched, where that is so.
        unwatched: Option<String>,
    },
    /// By `builtins.getFlake`, for this reason. The reads of the flake are not seen.
    ByNix(String),
}

/// Nix's answer to a question.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// Everything that the answer depends on, or why that is not known.
    pub(super) observed: Result<Observation, String>,
    pub(super) cost: Cost,
}

impl<'a> FlakeCaller<'a> {
    /// Prepares questions about `flake`. `unwatched` says why its reads cannot be watched on this machine.
    pub(super) async fn open(
        nix: &'a Nix,
        inputs: &InputPolicy,
        flake: FetchedFlake,
        unwatched: Option<String>,
    ) -> Result<Self, EvaluateError> {
        let lock = nix.read_lock(&flake).await?;
        let FetchedFlake { source, tree, locked } = flake;
        let mark = random_mark()?;
        let lock = serde_json::from_value::<Lock>(lock).map_err(|error| CallObstacle::UnknownLock(error.to_string()));
        let absent = match &lock {
            Ok(lock) => fetch_inputs(nix, inputs, lock).await,
            Err(_) => BTreeMap::new(),
        };
        let resolved = lock.and_then(|lock| ResolvedLock::new(lock, &locked));
        let method = match resolved {
            Ok(lock) => match lock.own().other_name() {
                Some(other_name) if lock.own().store_path == tree => {
                    let original = call_expression(&lock, &absent, &mark, None);
                    let relocated = call_expression(&lock, &absent, &mark, Some(&other_name));
                    CallMethod::ByClavel { lock, original, relocated, unwatched }
                }
                _ => CallMethod::ByNix("the store path of its tree does not follow from its hash".to_owned()),
            },
            Err(obstacle) => CallMethod::ByNix(obstacle.to_string()),
        };
        if let (CallMethod::ByNix(_), Some((input, why))) = (&method, absent.into_iter().next()) {
            // Nix would try to fetch it in the cage, and say that there is no network.
            return Err(EvaluateError::Input { flake: source.flake.to_string(), input, why });
        }
        Ok(Self { nix, source, tree, method, mark })
    }

    /// The lock, where it can be seen what answers depend on; otherwise why it cannot.
    pub(super) fn observable(&self) -> Result<&ResolvedLock, &str> {
        match &self.method {
            CallMethod::ByClavel { lock, unwatched: None, .. } => Ok(lock),
            CallMethod::ByClavel { unwatched: Some(why), .. } | CallMethod::ByNix(why) => Err(why),
        }
    }

    /// A digest of everything that every answer depends on, besides the source's files and the attributes of `self`.
    pub(super) fn environment(&self) -> Sha256Digest {
        let (names, own, dir) = match &self.method {
            CallMethod::ByClavel { lock, .. } => {
                (lock.names().collect(), lock.own().info.keys().collect(), lock.own().dir())
            }
            CallMethod::ByNix(_) => (Vec::new(), Vec::new(), ""),
        };
        let all = format!(
            "{} {} {CALL} {} {names:?} {own:?} {dir}",
            env!("CARGO_PKG_VERSION"),
            self.nix.identity(),
            template()
        );
        Sha256Digest::of(all)
    }

    /// Asks `question` about the flake at `location`, with at most `memory` bytes for the process.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        location: TreeLocation,
        question: &Question<'_>,
        memory: u64,
    ) -> Result<Answer<T>, EvaluateError> {
        let (flake, watch) = match (&self.method, location) {
            (CallMethod::ByClavel { relocated, .. }, TreeLocation::Relocated) => (relocated.clone(), Watch::Nothing),
            (CallMethod::ByClavel { original, unwatched: None, .. }, TreeLocation::Original) => {
                (original.clone(), Watch::Files)
            }
            (CallMethod::ByClavel { original, .. }, TreeLocation::Original) => (original.clone(), Watch::Nothing),
            (CallMethod::ByNix(_), _) => {
                (format!("(builtins.getFlake {})", NixString(self.source.locked.as_str())), Watch::Nothing)
            }
        };
        let action = format!("evaluate {}", self.source.locked);
        let expression = question.expression(&flake);
        let largest = question.largest_answer();
        let request =
            EvalRequest { action: &action, expression: &expression, memory, largest, mark: &self.mark, watch };
        let output = self.nix.evaluate(&request).await?;
        let observed = match &output.calls {
            SystemCalls::Logged(calls) => {
                let observed = Observation::new(calls, &output.traces, Path::new(&self.tree.to_string()));
                observed.map_err(|error| error.to_string())
            }
            SystemCalls::TooMany(bytes) => {
                Err(format!("it reads so many files that the list of them has {bytes} bytes"))
            }
            SystemCalls::NotWatched => Err(self.observable().err().unwrap_or("its reads were not watched").to_owned()),
        };
        let cost = Cost { time: output.time, memory: output.memory };
        let value = serde_json::from_slice(&output.json).map_err(|error| self.misunderstood(&error))?;
        Ok(Answer { value, observed, cost })
    }

    /// The error for an answer that does not have the expected form.
    pub(super) fn misunderstood(&self, error: &serde_json::Error) -> EvaluateError {
        EvaluateError::Answer { flake: self.source.flake.to_string(), why: error.to_string() }
    }

    /// The folder of the source's files.
    pub(super) fn files(&self) -> PathBuf {
        self.tree.to_string().into()
    }
}

/// The expression that calls the flake of `lock`, with its own tree under the name `other_name` where one is given.
fn call_expression(lock: &ResolvedLock, absent: &AbsentInputs, mark: &str, other_name: Option<&str>) -> String {
    let data = NixString(&lock.as_data(absent).to_string()).to_string();
    let moved = other_name.map_or_else(|| "null".to_owned(), |name| NixString(name).to_string());
    format!("(({CALL})\n\n{{ data = builtins.fromJSON {data}; mark = {}; moved = {moved}; }})", NixString(mark))
}

/// Brings the inputs of `lock` into the store. Returns the keys of those that are not there, with the reason. An input that is
/// never used may be absent.
async fn fetch_inputs(nix: &Nix, policy: &InputPolicy, lock: &Lock) -> AbsentInputs {
    let is_absent = |path: &StorePath| !Path::new(&path.to_string()).exists();
    // What the policy refuses is refused even where it is in the store.
    let wanted: Vec<(&String, LockedInput)> = lock
        .inputs()
        .filter(|(_, locked)| {
            policy.check(locked).is_err() || store_path_of(locked).is_none_or(|path| is_absent(&path))
        })
        .map(|(key, locked)| (key, as_fetched(locked)))
        .collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let inputs: Vec<&LockedInput> = wanted.iter().map(|(_, locked)| locked).collect();
    let results = nix.fetch_inputs(&inputs, policy).await;
    wanted.iter().zip(results).filter_map(|((key, _), result)| Some(((*key).clone(), result.err()?))).collect()
}

/// A word that no flake can guess, so that Clavel's traces are told apart from a flake's own.
fn random_mark() -> Result<String, EvaluateError> {
    let number = getrandom::u64().map_err(|error| {
        let source = std::io::Error::other(error.to_string());
        NixError::Files { action: "draw a random number".to_owned(), source }
    })?;
    Ok(format!("clavel-{number:016x} "))
}
