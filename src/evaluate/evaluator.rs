//! The order of an evaluation: lock the source, list its names, plan, evaluate, record, assemble.
//!
//! Every decision is made in another file; this one passes the results from one to the next.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::assemble::{ItemAnswers, assemble};
use super::budget::Budget;
use super::error::EvaluateError;
use super::evaluation::{Evaluation, EvaluationWork, Failure};
use super::fingerprint::SourceFiles;
use super::flake_caller::{FlakeCaller, TreeLocation};
use super::lock::ResolvedLock;
use super::observe::Observation;
use super::outputs::{FailedPart, FlakeOutput, Item, Names, Question};
use super::plan::{EvalMode, EvaluationPlan};
use super::pool::{self, ItemResult, PoolResults};
use super::progress::Progress;
use super::reason::EvalReason;
use super::record::{CurrentSource, FreshAnswer, Record, RecordKey, RelocationCheck};
use super::schedule::{Cost, Precision, Schedule, Task};
use super::select::{Selection, outputs_of, select};
use crate::model::{FlakeReference, InputPolicy, Pattern, Sha256Digest, Source, SourceRevision, StorePath, Timestamp};
use crate::nix::Nix;

/// Evaluates sources, with one Nix and within one budget.
#[derive(Debug)]
pub struct Evaluator {
    /// The Nix of this machine.
    pub nix: Nix,
    /// The places from which inputs may come.
    pub inputs: InputPolicy,
    /// The limits for all evaluating processes together.
    pub budget: Budget,
    /// The folder of the records, which say what answers depend on. Without it, nothing is recorded.
    pub records: Option<PathBuf>,
    /// Which attributes to evaluate.
    pub mode: EvalMode,
}

impl Evaluator {
    /// Evaluates `source` at its newest content, or at `revision`. The record is that of `recorded_as`: the gate evaluates
    /// the same content in another place.
    ///
    /// Every run of Nix has the deadline of `nix`. An attribute that fails is among the failures. The source as a whole
    /// fails only where Nix cannot list its names.
    pub async fn evaluate(
        &self,
        source: &Source,
        revision: Option<&SourceRevision>,
        recorded_as: &FlakeReference,
        now: Timestamp,
        progress: &dyn Fn(Progress),
    ) -> Result<Evaluation, EvaluateError> {
        progress(Progress::Locking);
        let (flake, watched) = tokio::join!(self.nix.fetch(&source.flake, revision), self.can_watch());
        let caller = FlakeCaller::open(&self.nix, &self.inputs, flake?, watched.err()).await?;
        let Answered { excluded, answers, work, withdraw, broken_outputs } = match caller.observable() {
            Ok(lock) => {
                let path = self.records.as_deref().map(|folder| record_path(folder, recorded_as));
                self.evaluate_changed(source, path.as_deref(), &caller, lock, progress).await?
            }
            Err(why) => self.evaluate_all(source, &caller, why, progress).await?,
        };
        let mut drafts = assemble(source, &caller.source, now, &excluded, answers);
        drafts.failures.extend(broken_outputs);
        drafts.withdraw = withdraw;
        Ok(Evaluation { source: caller.source, drafts, work })
    }

    /// Whether the reads of Nix can be watched, where a record needs them; otherwise why not.
    async fn can_watch(&self) -> Result<(), String> {
        match self.records {
            Some(_) => self.nix.can_watch().await,
            None => Err("nothing is recorded".to_owned()),
        }
    }

    /// Evaluates everything and records nothing.
    async fn evaluate_all(
        &self,
        source: &Source,
        caller: &FlakeCaller<'_>,
        why: &str,
        progress: &dyn Fn(Progress),
    ) -> Result<Answered, EvaluateError> {
        let KnownNames { names, cost, origin: _, broken_outputs } = self.ask_for_names(source, caller).await?;
        let withdraw = names.withdraw.clone();
        let (items, excluded) = selected(source, names, &broken_outputs)?;
        let reason = match self.records {
            Some(_) => EvalReason::Unobservable(why.to_owned()),
            None => EvalReason::New,
        };
        let plan = EvaluationPlan::for_all(items, &reason);
        let record = Record::default();
        let results = self.run(caller, &plan, &record, cost, Precision::NotNeeded, progress).await;
        let (answers, work) = plan.finish(results.items);
        Ok(Answered { excluded, answers, work, withdraw, broken_outputs })
    }

    /// Evaluates the items whose recorded answer does not hold, and records what their new answers depend on.
    async fn evaluate_changed(
        &self,
        source: &Source,
        path: Option<&Path>,
        caller: &FlakeCaller<'_>,
        lock: &ResolvedLock,
        progress: &dyn Fn(Progress),
    ) -> Result<Answered, EvaluateError> {
        let record = path.map(Record::read).unwrap_or_default();
        let mut files = SourceFiles::new(caller.files());
        let in_store = |path: &StorePath| Path::new(&path.to_string()).exists();
        let mut fingerprint = |read: &_| files.fingerprint(read);
        let mut current = CurrentSource::new(caller.environment(), lock, &mut fingerprint, &in_store);

        let KnownNames { names, cost, origin, broken_outputs } =
            self.names(source, caller, &record, &mut current).await?;
        let withdraw = names.withdraw.clone();
        let (items, excluded) = selected(source, names, &broken_outputs)?;
        let plan = EvaluationPlan::new(&record, items, &mut current, self.mode);
        let results = self.run(caller, &plan, &record, cost, Precision::PerHost, progress).await;

        let names_key = matches!(origin, NamesOrigin::Record).then_some(RecordKey::Names);
        let mut next = record.keep(plan.valid_keys().chain(names_key), &current);
        if let NamesOrigin::Nix(answer, observed) = origin {
            next.add(RecordKey::Names, answer, observed.as_ref().map_err(Clone::clone), &mut current);
        }
        for (item, result) in &results.items {
            let ItemResult::Answered { value, observed, cost, alone } = result else {
                next.add_broken(item.clone());
                continue;
            };
            let relocated = results.relocated.get(item);
            let relocation =
                relocated.map_or(RelocationCheck::Pending, |other| RelocationCheck::of(value, Some(other)));
            let answer = FreshAnswer { value: value.clone(), cost: *cost, relocation, alone: *alone };
            next.add(RecordKey::Item(item.clone()), answer, observed.as_ref().map_err(Clone::clone), &mut current);
        }
        if let Some(path) = path {
            write_record(&next.finish(), path);
        }
        let (answers, work) = plan.finish(results.items);
        Ok(Answered { excluded, answers, work, withdraw, broken_outputs })
    }

    /// The names of everything that `source` may take of the flake: the recorded ones where they hold.
    async fn names(
        &self,
        source: &Source,
        caller: &FlakeCaller<'_>,
        record: &Record,
        current: &mut CurrentSource<'_>,
    ) -> Result<KnownNames, EvaluateError> {
        if self.mode == EvalMode::Changed
            && let Ok(known) = record.valid_answer(&RecordKey::Names, current)
            && let Ok(names) = serde_json::from_value::<Names>(known.clone())
            && names.outputs() == outputs_of(source)
        {
            let cost = record.cost(&RecordKey::Names).unwrap_or_default();
            return Ok(KnownNames { names, cost, origin: NamesOrigin::Record, broken_outputs: Vec::new() });
        }
        self.ask_for_names(source, caller).await
    }

    /// Asks Nix for the names. Where an output of hosts is broken as a whole, the other outputs go on without it.
    async fn ask_for_names(&self, source: &Source, caller: &FlakeCaller<'_>) -> Result<KnownNames, EvaluateError> {
        let ask = async |outputs: &[FlakeOutput]| {
            caller.ask::<Value>(TreeLocation::Original, &Question::Names(outputs), self.budget.memory).await
        };
        let parse = |value| serde_json::from_value::<Names>(value).map_err(|error| caller.misunderstood(&error));
        let outputs = outputs_of(source);
        let whole = match ask(&outputs).await {
            Ok(answer) => {
                let (names, cost) = (parse(answer.value.clone())?, answer.cost);
                let relocation = RelocationCheck::Pending;
                let fresh = FreshAnswer { value: answer.value, cost, relocation, alone: true };
                let origin = NamesOrigin::Nix(fresh, answer.observed);
                return Ok(KnownNames { names, cost, origin, broken_outputs: Vec::new() });
            }
            Err(error) => error,
        };
        // Each host may be refined below `clavel`: without that output, nothing would be what the flake describes.
        let Ok(of_clavel) = ask(&FlakeOutput::OF_CLAVEL).await else { return Err(whole) };
        let (mut names, mut cost, mut broken_outputs) = (parse(of_clavel.value)?, of_clavel.cost, Vec::new());
        for output in outputs.into_iter().filter(|output| !FlakeOutput::OF_CLAVEL.contains(output)) {
            match ask(&[output]).await {
                Ok(answer) => {
                    names.add(parse(answer.value)?);
                    cost = Cost { time: cost.time.max(answer.cost.time), memory: cost.memory.max(answer.cost.memory) };
                }
                Err(error) => {
                    broken_outputs.push(Failure { part: FailedPart::Output(output), error: error.message() });
                }
            }
        }
        if broken_outputs.is_empty() {
            return Err(whole);
        }
        Ok(KnownNames { names, cost, origin: NamesOrigin::Parts, broken_outputs })
    }

    /// Evaluates the stale items of `plan`. Where processes are free, the relocation check of the same items runs beside.
    async fn run(
        &self,
        caller: &FlakeCaller<'_>,
        plan: &EvaluationPlan,
        record: &Record,
        start: Cost,
        precision: Precision,
        progress: &dyn Fn(Progress),
    ) -> PoolResults {
        let changed = plan.stale.len();
        let of = changed + plan.valid.len();
        progress(Progress::Planned { revision: caller.source.revision.clone(), changed, of });
        let task = |(item, reason): &(Item, EvalReason)| Task {
            item: item.clone(),
            before: record.cost(&RecordKey::Item(item.clone())),
            batching: reason.batching(),
        };
        let tasks: Vec<_> = plan.stale.iter().map(task).collect();
        // With a process for each answer and for each check, the checks take no extra time. Of more items, many share a
        // process when they are checked afterwards.
        let has_room = 2 * tasks.len() <= self.budget.processes && precision == Precision::PerHost;
        let is_checked =
            |task: &&Task<Item>| has_room && record.may_hold_after_relocation(&RecordKey::Item(task.item.clone()));
        let checks = tasks.iter().filter(is_checked).cloned().collect();
        let schedule = Schedule::new(self.budget, precision, start.time, tasks).with_relocation_checks(checks);
        pool::run(caller, TreeLocation::Original, self.budget, schedule, changed, progress).await
    }
}

/// The names of the deployments that a source leaves out.
type Excluded = BTreeSet<String>;

/// The answers about a source, before documents are made of them.
struct Answered {
    excluded: Excluded,
    answers: ItemAnswers,
    work: EvaluationWork,
    withdraw: Vec<Pattern>,
    broken_outputs: Vec<Failure>,
}

/// The names, and the cost of asking for them.
struct KnownNames {
    names: Names,
    cost: Cost,
    origin: NamesOrigin,
    /// The outputs of hosts whose names Nix could not list.
    broken_outputs: Vec<Failure>,
}

/// Where the names come from.
enum NamesOrigin {
    /// The record, which holds.
    Record,
    /// One answer of Nix, which is recorded.
    Nix(FreshAnswer, Result<Observation, String>),
    /// An answer for each output, of which none is recorded.
    Parts,
}

/// The items that `source` takes of `names`, and the names of the deployments that it leaves out.
fn selected(source: &Source, names: Names, broken: &[Failure]) -> Result<(Vec<Item>, Excluded), EvaluateError> {
    let Selection { items, excluded, unmatched } = select(source, names.items(&source.flake)?);
    // What a broken output has is not known, so a pattern may be about it.
    if !unmatched.is_empty() && broken.is_empty() {
        return Err(EvaluateError::Unmatched { flake: source.flake.to_string(), patterns: unmatched });
    }
    Ok((items, excluded))
}

/// The path of the record of `source` below `folder`.
pub(super) fn record_path(folder: &Path, source: &FlakeReference) -> PathBuf {
    let name = Sha256Digest::of(source.as_str());
    folder.join(format!("{name}.json"))
}

/// Writes `record` to `path`. A record that cannot be written costs time at the next evaluation, and nothing else.
pub(super) fn write_record(record: &Record, path: &Path) {
    if let Err(error) = record.write(path) {
        tracing::warn!(path = %path.display(), %error, "cannot record what was evaluated");
    }
}
