//! Asks Nix questions about one flake at one content, and says what each answer depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::allowance::SourceAllowance;
use super::error::EvaluateError;
use super::fingerprint::is_in_store;
use super::lock::{AbsentInputs, CallObstacle, Lock, ResolvedLock, as_fetched, store_path_of};
use super::observe::Observation;
use super::outputs::{FlakeOutput, Question, Told, template};
use super::record::Cost;
use super::teller::{RunOutput, Teller};
use super::told::ProcessWord;
use super::warning_reader::WarningReader;
use super::warnings::WarningText;
use crate::disk;
use crate::model::{InputPolicy, LockedSource, Sha256Digest, StorePath};
use crate::nix::{EvalOutput, EvalRequest, FetchedFlake, LockedInput, Nix, NixError, NixString, SystemCalls, Watch};
use crate::process::StderrLine;

/// The most bytes of a lock that is read without Nix. That of a flake with a hundred inputs has some 60 KB.
const MAX_WRITTEN_LOCK: u64 = 4 << 20;
/// The function that calls a flake so that its reads are seen.
const CALL: &str = include_str!("call.nix");

/// A flake at one content, ready to be asked.
#[derive(Debug)]
pub(super) struct FlakeCaller<'a> {
    nix: &'a Nix,
    pub(super) source: LockedSource,
    /// The store path of the source's tree.
    pub(super) tree: StorePath,
    /// See [`question_about`].
    pub(super) question: Sha256Digest,
    method: CallMethod,
    /// The beginning of Clavel's own traces. It is random, so that no flake can write one.
    mark: String,
    pub(super) allowance: SourceAllowance,
}

/// What one process may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessLimits {
    /// Memory, in bytes.
    pub(super) memory: u64,
    pub(super) time: Duration,
}

/// How the flake is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// For an answer: with its own tree at the path that every Nix gives it. The reads are not watched.
    Answer,
    /// To learn what an answer depends on: with its own tree at another path, where the reads are watched, at a low priority.
    Learn,
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
        /// That path.
        relocated_tree: PathBuf,
    },
    /// By `builtins.getFlake`, for this reason. The reads of the flake are not seen.
    ByNix(String),
}

/// A question as Nix gets it.
struct PreparedQuestion {
    expression: String,
    /// The most bytes of the answer.
    largest: usize,
    watch: Watch,
}

/// Nix's answer to a question.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// Everything that the answer depends on, or why that is not known.
    pub(super) observed: Result<Observation, String>,
    /// All warnings of its evaluation.
    pub(super) warnings: BTreeSet<WarningText>,
    pub(super) cost: Cost,
}

impl<'a> FlakeCaller<'a> {
    /// Prepares questions about `flake`, whose lock is `lock`. They may use `allowance` in all.
    pub(super) async fn open(
        nix: &'a Nix,
        inputs: &InputPolicy,
        flake: FetchedFlake,
        lock: Result<Lock, CallObstacle>,
        allowance: SourceAllowance,
    ) -> Result<Self, EvaluateError> {
        let question = question_about(&flake, nix, inputs);
        let FetchedFlake { source, tree, locked } = flake;
        let mark = random_mark()?;
        let absent = match &lock {
            Ok(lock) => fetch_inputs(nix, inputs, lock, &allowance).await,
            Err(_) => BTreeMap::new(),
        };
        let resolved = lock.and_then(|lock| ResolvedLock::new(lock, &locked));
        let method = match resolved {
            Ok(lock) => match lock.own().other_path() {
                Some(other) if lock.own().store_path == tree => {
                    let original = call_expression(&lock, &absent, &mark, None);
                    let relocated = call_expression(&lock, &absent, &mark, Some(other.name()));
                    let relocated_tree = other.to_string().into();
                    CallMethod::ByClavel { lock, original, relocated, relocated_tree }
                }
                _ => CallMethod::ByNix("the store path of its tree does not follow from its hash".to_owned()),
            },
            Err(obstacle) => CallMethod::ByNix(obstacle.to_string()),
        };
        if let (CallMethod::ByNix(_), Some((input, why))) = (&method, absent.into_iter().next()) {
            // Nix would try to fetch it in the cage, and say that there is no network.
            return Err(EvaluateError::Input { flake: source.flake.to_string(), input, why });
        }
        Ok(Self { nix, source, tree, question, method, mark, allowance })
    }

    /// The lock, where it can be seen what answers depend on; otherwise why it cannot.
    pub(super) fn observable(&self) -> Result<&ResolvedLock, &str> {
        match &self.method {
            CallMethod::ByClavel { lock, .. } => Ok(lock),
            CallMethod::ByNix(why) => Err(why),
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
        Sha256Digest::of(format!("{} {names:?} {own:?} {dir}", asker(self.nix)))
    }

    /// Asks `question` about the flake, in a process with these limits.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        look: Look,
        question: &Question<'_>,
        limits: ProcessLimits,
    ) -> Result<Answer<T>, EvaluateError> {
        let (sender, mut receiver) = unbounded_channel();
        let output = self.run(self.prepared(look, question), limits, &sender).await?;
        let (mut traces, mut warnings) = (Vec::new(), BTreeSet::new());
        while let Ok(word) = receiver.try_recv() {
            match word {
                ProcessWord::Trace(trace) => traces.push(trace),
                ProcessWord::Warning(text) => drop(warnings.insert(text)),
            }
        }
        let observed = self.observe(&output.calls, &traces);
        let value = serde_json::from_slice(&output.json?).map_err(|error| self.misunderstood(&error.to_string()))?;
        Ok(Answer { value, observed, warnings, cost: output.cost })
    }

    /// Starts a process that tells the names of `outputs`, and the values of `told`.
    pub(super) fn tell(
        &self,
        look: Look,
        outputs: &[FlakeOutput],
        told: Told<'_>,
        limits: ProcessLimits,
    ) -> Teller<'_> {
        let (sender, receiver) = unbounded_channel();
        let prepared = self.prepared(look, &Question::Tell { outputs, told, mark: &self.mark });
        let run = async move { self.run(prepared, limits, &sender).await };
        let observe = |calls: &SystemCalls, used: &[String]| self.observe(calls, used);
        Teller::new(self.source.flake.to_string(), Box::pin(run), Box::new(observe), receiver)
    }

    /// What Nix gets to read for `question`.
    fn prepared(&self, look: Look, question: &Question<'_>) -> PreparedQuestion {
        let (flake, watch) = match (&self.method, look) {
            (CallMethod::ByClavel { relocated, .. }, Look::Learn) => (relocated.clone(), Watch::Files),
            (CallMethod::ByClavel { original, .. }, Look::Answer) => (original.clone(), Watch::Nothing),
            (CallMethod::ByNix(_), _) => {
                (format!("(builtins.getFlake {})", NixString(self.source.locked.as_str())), Watch::Nothing)
            }
        };
        PreparedQuestion { expression: question.expression(&flake), largest: question.largest_answer(), watch }
    }

    async fn run(
        &self,
        PreparedQuestion { expression, largest, watch }: PreparedQuestion,
        limits: ProcessLimits,
        words: &UnboundedSender<ProcessWord>,
    ) -> Result<RunOutput, EvaluateError> {
        let spent = |begun, source| EvaluateError::Spent { flake: self.source.flake.to_string(), begun, source };
        let left = self.allowance.remaining().map_err(|used_up| spent(false, used_up))?;
        let action = format!("evaluate {}", self.source.locked);
        let reader = Mutex::new(WarningReader::new(self.trees()));
        let on_line = |line: StderrLine<'_>| hear(line, &reader, words);
        let request = EvalRequest {
            action: &action,
            expression: &expression,
            memory: limits.memory,
            time: left.min(limits.time),
            writes: &self.allowance.writes,
            largest,
            mark: &self.mark,
            on_line: &on_line,
            watch,
        };
        let EvalOutput { json, calls, time, memory } = self.nix.evaluate(&request).await?;
        let last = reader.into_inner().unwrap_or_else(PoisonError::into_inner).marked();
        say(words, last.map(ProcessWord::Warning));
        let json = json.map_err(|error| match self.allowance.remaining() {
            // That it was ended is not its own fault.
            Err(used_up) if error.is_ended_by_clavel() => spent(true, used_up),
            Ok(_) | Err(_) => EvaluateError::from(error),
        });
        Ok(RunOutput { json, calls, cost: Cost { time, memory } })
    }

    /// Everything that a run which was watched depends on, or why that is not known.
    fn observe(&self, calls: &SystemCalls, traces: &[String]) -> Result<Observation, String> {
        match (calls, &self.method) {
            (SystemCalls::Logged(calls), CallMethod::ByClavel { relocated_tree, .. }) => {
                Observation::new(calls, traces, relocated_tree).map_err(|error| error.to_string())
            }
            (SystemCalls::TooMany(bytes), _) => {
                Err(format!("it reads so many files that the list of them has {bytes} bytes"))
            }
            (SystemCalls::NotWatched | SystemCalls::Logged(_), _) => Err("its reads were not watched".to_owned()),
        }
    }

    /// The error for an answer that is not the expected one.
    pub(super) fn misunderstood(&self, why: &str) -> EvaluateError {
        EvaluateError::Answer { flake: self.source.flake.to_string(), why: why.to_owned() }
    }

    /// The limits of a process that may use `memory` bytes, and as long as any command of Nix.
    pub(super) fn limits(&self, memory: u64) -> ProcessLimits {
        ProcessLimits { memory, time: self.nix.deadline() }
    }

    /// The paths at which the flake may see its own tree.
    fn trees(&self) -> Vec<String> {
        let other = match &self.method {
            CallMethod::ByClavel { relocated_tree, .. } => Some(relocated_tree.display().to_string()),
            CallMethod::ByNix(_) => None,
        };
        [self.tree.to_string()].into_iter().chain(other).collect()
    }

    /// The folder of the source's files.
    pub(super) fn files(&self) -> PathBuf {
        self.tree.to_string().into()
    }
}

/// The lock of `flake` as Nix reads it.
pub(super) async fn read_lock(nix: &Nix, flake: &FetchedFlake) -> Result<Result<Lock, CallObstacle>, NixError> {
    let lock = nix.read_lock(flake).await?;
    Ok(serde_json::from_value(lock).map_err(|error| CallObstacle::UnknownLock(error.to_string())))
}

/// The lock that is written in the tree of `flake`, where it is most likely the one that Nix reads, and nothing has to be fetched for it.
pub(super) fn written_lock(policy: &InputPolicy, flake: &FetchedFlake) -> Option<Lock> {
    let lock = disk::read(&flake.written_lock()?, MAX_WRITTEN_LOCK).ok()?;
    let lock = serde_json::from_slice(&lock).ok()?;
    wanted_inputs(policy, &lock).is_empty().then_some(lock)
}

/// A digest of all that every answer about `flake` follows from. The same question has the same answers, whatever they depend on.
pub(super) fn question_about(flake: &FetchedFlake, nix: &Nix, inputs: &InputPolicy) -> Sha256Digest {
    let FetchedFlake { source: _, tree, locked } = flake;
    Sha256Digest::of(format!("{} {inputs:?} {tree} {locked:?}", asker(nix)))
}

/// What asks, and how.
fn asker(nix: &Nix) -> String {
    format!("{} {} {CALL} {}", env!("CARGO_PKG_VERSION"), nix.identity(), template())
}

/// Passes on to `words` what follows from a line of a process.
fn hear(line: StderrLine<'_>, reader: &Mutex<WarningReader>, words: &UnboundedSender<ProcessWord>) {
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    match line {
        StderrLine::Marked(trace) => {
            say(words, reader.marked().map(ProcessWord::Warning));
            say(words, Some(ProcessWord::Trace(trace)));
        }
        StderrLine::Other(line) => say(words, reader.line(line).map(ProcessWord::Warning)),
    }
}

fn say(words: &UnboundedSender<ProcessWord>, word: Option<ProcessWord>) {
    if let Some(word) = word {
        // Nobody may listen any more.
        let _ = words.send(word);
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
async fn fetch_inputs(nix: &Nix, policy: &InputPolicy, lock: &Lock, allowance: &SourceAllowance) -> AbsentInputs {
    let wanted = wanted_inputs(policy, lock);
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let inputs: Vec<&LockedInput> = wanted.iter().map(|(_, locked)| locked).collect();
    let left = allowance.remaining().unwrap_or_default();
    if let Ok(results) = timeout(left, nix.fetch_inputs(&inputs, policy)).await {
        let absent = wanted.iter().zip(results).filter_map(|((key, _), result)| Some(((*key).clone(), result.err()?)));
        return absent.collect();
    }
    // Those that came in time are in the store, and are not fetched the next time.
    let missing = wanted.iter().filter(|(_, locked)| is_absent(locked));
    missing.map(|(key, _)| ((*key).clone(), "the time of its source is over".to_owned())).collect()
}

/// The inputs of `lock` that are not in the store, or that the policy refuses: it does so even where they are there.
fn wanted_inputs<'a>(policy: &InputPolicy, lock: &'a Lock) -> Vec<(&'a String, LockedInput)> {
    let wanted = lock.inputs().filter(|(_, locked)| policy.check(locked).is_err() || is_absent(locked));
    wanted.map(|(key, locked)| (key, as_fetched(locked))).collect()
}

fn is_absent(locked: &LockedInput) -> bool {
    store_path_of(locked).is_none_or(|path| !is_in_store(&path))
}

/// A word that no flake can guess, so that Clavel's traces are told apart from a flake's own.
fn random_mark() -> Result<String, EvaluateError> {
    let number = getrandom::u64().map_err(|error| {
        let source = std::io::Error::other(error.to_string());
        NixError::Files { action: "draw a random number".to_owned(), source }
    })?;
    Ok(format!("clavel-{number:016x} "))
}
