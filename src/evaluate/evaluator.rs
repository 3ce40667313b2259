//! The order of an evaluation: lock the source, list its names, plan, evaluate, record, assemble.
//!
//! Every decision is made in another file; this one passes the results from one to the next.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::assemble::{ItemAnswers, assemble};
use super::budget::Budget;
use super::error::EvaluateError;
use super::evaluation::{Evaluation, EvaluationWork};
use super::fingerprint::SourceFiles;
use super::flake_caller::{FlakeCaller, TreeLocation};
use super::lock::ResolvedLock;
use super::observe::Observation;
use super::outputs::{Item, Names, Question};
use super::plan::{EvalMode, EvaluationPlan};
use super::pool::{self, ItemResult, PoolResults};
use super::progress::Progress;
use super::reason::EvalReason;
use super::record::{CurrentSource, FreshAnswer, Record, RecordKey, RelocationCheck};
use super::schedule::{Cost, Precision, Schedule, Task};
use super::select::{Selection, select};
use crate::model::{FlakeReference, InputPolicy, Sha256Digest, Source, SourceRevision, StorePath, Timestamp};
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
        let Answered { excluded, answers, work } = match caller.observable() {
            Ok(lock) => {
                let path = self.records.as_deref().map(|folder| record_path(folder, recorded_as));
                self.evaluate_changed(source, path.as_deref(), &caller, lock, progress).await?
            }
            Err(why) => self.evaluate_all(source, &caller, why, progress).await?,
        };
        let drafts = assemble(source, &caller.source, now, &excluded, answers);
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
        let names = caller.ask::<Names>(TreeLocation::Original, &Question::Names, self.budget.memory).await?;
        let (items, excluded) = selected(source, names.value)?;
        let reason = match self.records {
            Some(_) => EvalReason::Unobservable(why.to_owned()),
            None => EvalReason::New,
        };
        let plan = EvaluationPlan::for_all(items, &reason);
        let record = Record::default();
        let results = self.run(caller, &plan, &record, names.cost, Precision::NotNeeded, progress).await;
        let (answers, work) = plan.finish(results.items);
        Ok(Answered { excluded, answers, work })
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

        let names = self.names(caller, &record, &mut current).await?;
        let (items, excluded) = selected(source, names.names)?;
        let plan = EvaluationPlan::new(&record, items, &mut current, self.mode);
        let results = self.run(caller, &plan, &record, names.cost, Precision::PerHost, progress).await;

        let names_key = names.fresh.is_none().then_some(RecordKey::Names);
        let mut next = record.keep(plan.valid_keys().chain(names_key), &current);
        if let Some((answer, observed)) = names.fresh {
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
        Ok(Answered { excluded, answers, work })
    }

    /// The names of everything that the flake has: the recorded ones where they hold.
    async fn names(
        &self,
        caller: &FlakeCaller<'_>,
        record: &Record,
        current: &mut CurrentSource<'_>,
    ) -> Result<KnownNames, EvaluateError> {
        if self.mode == EvalMode::Changed
            && let Ok(known) = record.valid_answer(&RecordKey::Names, current)
            && let Ok(names) = serde_json::from_value(known.clone())
        {
            let cost = record.cost(&RecordKey::Names).unwrap_or_default();
            return Ok(KnownNames { names, cost, fresh: None });
        }
        let answer = caller.ask::<Value>(TreeLocation::Original, &Question::Names, self.budget.memory).await?;
        let cost = answer.cost;
        let relocation = RelocationCheck::Pending;
        let fresh = FreshAnswer { value: answer.value.clone(), cost, relocation, alone: true };
        let names = serde_json::from_value(answer.value).map_err(|error| caller.misunderstood(&error))?;
        Ok(KnownNames { names, cost, fresh: Some((fresh, answer.observed)) })
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
}

/// The names, and the cost of asking for them.
struct KnownNames {
    names: Names,
    cost: Cost,
    /// The answer to record, where Nix was asked just now.
    fresh: Option<(FreshAnswer, Result<Observation, String>)>,
}

/// The items that `source` takes of `names`, and the names of the deployments that it leaves out.
fn selected(source: &Source, names: Names) -> Result<(Vec<Item>, Excluded), EvaluateError> {
    let Selection { items, excluded, unmatched } = select(source, names.items(&source.flake)?);
    for pattern in unmatched {
        tracing::warn!(flake = %source.flake, %pattern, "nothing in this flake matches this pattern");
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
