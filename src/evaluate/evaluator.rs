//! The order of an evaluation: lock the source, list its names, plan, evaluate, record, assemble.
//!
//! Every decision is made in another file; this one passes the results from one to the next.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{self, Either, maybe_done};
use tokio::task::spawn_blocking;

use super::allowance::SourceAllowance;
use super::assemble::{ItemAnswers, assemble};
use super::basis::CurrentSource;
use super::budget::Budget;
use super::error::EvaluateError;
use super::evaluation::{Evaluation, EvaluationWork, Failure};
use super::fingerprint::{SourceFiles, is_in_store};
use super::flake_caller::{FlakeCaller, Look, ProcessLimits, question_about, read_lock, written_lock};
use super::lock::{CallObstacle, Lock};
use super::outputs::{FailedPart, FlakeOutput, Item, Names, Told};
use super::plan::{EvalMode, EvaluationPlan};
use super::pool::{Pool, PoolResults};
use super::progress::Progress;
use super::reason::EvalReason;
use super::record::{Record, RecordBuilder};
use super::recorded::RecordedAnswers;
use super::schedule::{Schedule, Task, Times};
use super::select::{Selection, outputs_of, select};
use super::teller::Teller;
use super::warnings::{EvalWarnings, WarningText};
use crate::model::{
    FlakeReference, InputPolicy, LockedSource, Pattern, Sha256Digest, Source, SourceRevision, Timestamp,
};
use crate::nix::{FetchedFlake, Nix};

/// Evaluates sources, with one Nix and within one budget.
#[derive(Debug, Clone)]
pub struct Evaluator {
    /// The Nix of this machine.
    pub nix: Nix,
    /// The places from which inputs may come.
    pub inputs: InputPolicy,
    /// The limits for all evaluating processes together.
    pub budget: Budget,
    /// The longest time of the evaluation of one source in all.
    pub source_time: Duration,
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
        let allowance = SourceAllowance::new(self.source_time);
        let path = self.records.as_deref().map(|folder| record_path(folder, recorded_as));
        // That of a large inventory takes as long as the fetch.
        let reading = path.clone().map(|path| spawn_blocking(move || Record::read(&path)));
        // Whether there is a cage is tried meanwhile. Where there is none, the next step fails.
        let mut trying_cage = pin!(maybe_done(self.nix.try_cage()));
        let fetching = pin!(self.nix.fetch(&source.flake, revision));
        let flake = match future::select(fetching, trying_cage.as_mut()).await {
            Either::Left((flake, _)) => flake?,
            Either::Right(((), fetching)) => fetching.await?,
        };
        let record = match reading {
            Some(reading) => reading.await.unwrap_or_default(),
            None => Record::default(),
        };
        if let Some(mut answered) = self.unchanged(source, &record, &flake, progress) {
            answered.work.seconds = allowance.elapsed().as_secs_f64();
            return Ok(answered.evaluation(source, flake.source, now));
        }
        trying_cage.await;
        let locked = flake.source.clone();
        let answering = self.answer_by_lock(source, &record, flake, &allowance, progress);
        let (answered, next) = Box::pin(answering).await?;
        // It is written while documents are made of the answers.
        let writing = next.zip(path).map(|(next, path)| spawn_blocking(move || write_record(&next, &path)));
        let evaluation = answered.evaluation(source, locked, now);
        if let Some(writing) = writing {
            let _ = writing.await;
        }
        Ok(evaluation)
    }

    /// The recorded answers, where all of them hold because nothing changed at all. Then the lock does not have to be read.
    fn unchanged(
        &self,
        source: &Source,
        record: &Record,
        flake: &FetchedFlake,
        progress: &dyn Fn(Progress),
    ) -> Option<Answered> {
        let question = question_about(flake, &self.nix, &self.inputs);
        let (environment, tree) = record.answers(question).filter(|_| self.mode == EvalMode::Changed)?;
        let mut fingerprint = |_: &_| None;
        let digests = (question, environment);
        let mut current = CurrentSource::new(digests, tree.clone(), None, &mut fingerprint, &is_in_store);
        let recorded = RecordedAnswers::new(record, &mut current);
        let names = recorded.names().filter(|names| names.outputs() == outputs_of(source))?;
        let (items, excluded) = selected(source, names, &[]).ok()?;
        let plan = EvaluationPlan::new(&recorded, items, &mut current, self.mode);
        if !plan.stale.is_empty() {
            return None;
        }
        let (revision, of) = (flake.source.revision.clone(), plan.valid.len());
        progress(Progress::Planned { revision, changed: 0, of });
        let (_, warnings) = plan.warnings(&BTreeMap::new(), &recorded, record.survey_warnings());
        let (answers, mut work) = plan.finish(BTreeMap::new());
        work.has_unlearnt = record.has_unlearnt();
        let withdraw = names.withdraw.clone();
        Some(Answered { excluded, answers, warnings, work, withdraw, broken_outputs: Vec::new() })
    }

    /// Answers for every item, with the lock that Nix reads. Most often, that is the one which is written in the tree: the evaluation
    /// begins with this one, and counts where Nix read the same.
    async fn answer_by_lock(
        &self,
        source: &Source,
        record: &Record,
        flake: FetchedFlake,
        allowance: &SourceAllowance,
        progress: &dyn Fn(Progress),
    ) -> Result<(Answered, Option<Record>), EvaluateError> {
        let answer = async |lock: Result<Lock, CallObstacle>| {
            let caller = FlakeCaller::open(&self.nix, &self.inputs, flake.clone(), lock, allowance.clone()).await?;
            self.answer(source, record, &caller, progress).await
        };
        let Some(written) = written_lock(&self.inputs, &flake) else {
            return answer(read_lock(&self.nix, &flake).await?).await;
        };
        let read = {
            let reading = pin!(read_lock(&self.nix, &flake));
            let mut answering = pin!(answer(Ok(written.clone())));
            let (read, answered) = match future::select(reading, answering.as_mut()).await {
                Either::Left((read, _)) => (read?, None),
                Either::Right((answered, reading)) => (reading.await?, Some(answered)),
            };
            if read.as_ref() == Ok(&written) {
                return match answered {
                    Some(answered) => answered,
                    None => answering.await,
                };
            }
            read
        };
        answer(read).await
    }

    /// Answers for every item: those whose answer in `record` does not hold are evaluated. Returns the next record too, where it is another
    /// one.
    async fn answer(
        &self,
        source: &Source,
        record: &Record,
        caller: &FlakeCaller<'_>,
        progress: &dyn Fn(Progress),
    ) -> Result<(Answered, Option<Record>), EvaluateError> {
        let mut files = SourceFiles::new(caller.files());
        let mut fingerprint = |read: &_| files.fingerprint(read);
        let (environment, tree) = (caller.environment(), caller.tree.clone());
        let digests = (caller.question, environment);
        let mut current = CurrentSource::new(digests, tree, caller.observable().ok(), &mut fingerprint, &is_in_store);
        let recorded = RecordedAnswers::new(record, &mut current);

        let FoundNames { names, warnings: of_names, teller, broken } = match recorded.names() {
            Some(names) if self.mode == EvalMode::Changed && names.outputs() == outputs_of(source) => {
                let (names, warnings) = (Cow::Borrowed(names), record.survey_warnings());
                FoundNames { names, warnings, teller: None, broken: Vec::new() }
            }
            _ => self.find_names(source, caller, &self.apart(&recorded, &mut current)).await?,
        };
        let withdraw = names.withdraw.clone();
        let (items, excluded) = selected(source, &names, &broken)?;
        let plan = EvaluationPlan::new(&recorded, items, &mut current, self.mode);
        let mut results = self.run(caller, &plan, record, teller, progress).await;
        let seconds = caller.allowance.elapsed().as_secs_f64();
        results.printed.extend(of_names.iter().cloned());
        plan.add_unchanged_warnings(&mut results, &recorded, &current);
        let (of_flake, warnings) = plan.warnings(&results.items, &recorded, of_names);

        // Where nothing was evaluated, the record is as it was.
        let is_as_recorded =
            plan.stale.is_empty() && recorded.names().is_some() && record.is_of(&caller.tree, environment);
        let mut has_unlearnt = record.has_unlearnt();
        let mut changed = None;
        if self.records.is_some() && !is_as_recorded {
            let mut next = RecordBuilder::new(&current);
            next.set_shared(results.shared.or(record.shared()));
            plan.record(&results.items, &recorded, &mut next, &current);
            // Of an output that is broken as a whole, the names are not known.
            if broken.is_empty() {
                let survey = plan.survey(names.into_owned(), &results.items);
                recorded.record_survey((survey, &of_flake), &mut next, &current);
            }
            let next = next.finish();
            has_unlearnt = next.has_unlearnt();
            changed = Some(next);
        }
        let (answers, work) = plan.finish(results.items);
        let work = EvaluationWork { seconds, has_unlearnt, ..work };
        Ok((Answered { excluded, answers, warnings, work, withdraw, broken_outputs: broken }, changed))
    }

    /// The items that a process which tells everything leaves out: those whose recorded answer holds, those that failed, which would end
    /// it again, and those that need more memory than a share.
    fn apart(&self, recorded: &RecordedAnswers<'_>, current: &mut CurrentSource<'_>) -> Vec<Item> {
        let share = self.budget.share();
        let mut is_apart = |item: &Item| {
            recorded.cost(item).is_some_and(|cost| cost.memory > share)
                || self.mode == EvalMode::Changed && recorded.find(item, current).is_ok()
        };
        let apart: Vec<Item> = recorded.items().filter(|item| is_apart(item)).cloned().collect();
        apart.into_iter().chain(recorded.record.broken().cloned()).collect()
    }

    /// Lets a process tell the names of everything that `source` may take of the flake. Where the source takes all of it, the process also
    /// tells the values of all items but those in `apart`: of plain data ahead of further names, and of the others afterwards.
    async fn find_names<'b>(
        &self,
        source: &Source,
        caller: &'b FlakeCaller<'_>,
        apart: &[Item],
    ) -> Result<FoundNames<'b>, EvaluateError> {
        let mut outputs = outputs_of(source);
        outputs.sort_by_key(|output| telling_place(*output));
        let limits = ProcessLimits { memory: self.budget.share(), time: Duration::MAX };
        let within = self.nix.deadline();
        // What a source leaves out is not evaluated, and which items those are follows from the names.
        let mut failed = None;
        if source.selects_all() {
            let mut teller = caller.tell(Look::Answer, &outputs, Told::AllBut(apart), limits);
            match teller.names(&outputs, self.times().first()).await {
                Ok(names) => {
                    let (names, warnings) = (Cow::Owned(names), teller.take_warnings());
                    return Ok(FoundNames { names, warnings, teller: Some(teller), broken: Vec::new() });
                }
                // Without values, Nix would say the same again.
                Err(error) if error.is_said_by_nix() && !teller.has_told_ahead() => failed = Some(error),
                // A value that ends its process, or does not end, must not take the names with it.
                Err(_) => {}
            }
        }
        let alone = match failed {
            Some(error) => Err(error),
            None => names_alone(caller, &outputs, limits, within).await,
        };
        match alone {
            Ok((names, warnings)) => {
                Ok(FoundNames { names: Cow::Owned(names), warnings, teller: None, broken: Vec::new() })
            }
            Err(whole) => names_by_output(caller, &outputs, ProcessLimits { time: within, ..limits }, whole).await,
        }
    }

    /// The times that items may take.
    pub(super) fn times(&self) -> Times {
        Times { longest: self.nix.deadline(), source: self.source_time }
    }

    /// Evaluates the stale items of `plan`. `teller` is a process that tells already, if there is one.
    async fn run(
        &self,
        caller: &FlakeCaller<'_>,
        plan: &EvaluationPlan,
        record: &Record,
        teller: Option<Teller<'_>>,
        progress: &dyn Fn(Progress),
    ) -> PoolResults {
        let task = |(item, reason): (&Item, &EvalReason)| {
            let is_of_clavel = FlakeOutput::OF_CLAVEL.contains(&item.output);
            let before = record.cost(item);
            let failed_before = *reason == EvalReason::Broken;
            Task { failed_before, is_plain: is_of_clavel && before.is_none(), ..Task::new(item.clone(), before) }
        };
        let mut tasks: Vec<_> = plan.stale.iter().map(task).collect();
        tasks.sort_by(|one, other| {
            let place = |item: &Item| telling_place(item.output);
            place(&one.item)
                .cmp(&place(&other.item))
                .then_with(|| one.item.below_output().cmp(other.item.below_output()))
        });
        let changed = tasks.len();
        progress(Progress::Planned {
            revision: caller.source.revision.clone(),
            changed,
            of: changed + plan.valid.len(),
        });
        let of = tasks.iter().filter(|task| !task.is_plain).count();
        let times = self.times();
        let schedule = Schedule::new(self.budget, times, record.shared(), tasks);
        let pool = Pool { caller, look: Look::Answer, budget: self.budget, times, of, progress };
        pool.run(schedule, teller).await
    }
}

/// The names of a flake that were found just now.
struct FoundNames<'a> {
    names: Cow<'a, Names>,
    /// The warnings that were printed meanwhile.
    warnings: BTreeSet<WarningText>,
    /// A process that goes on with the values.
    teller: Option<Teller<'a>>,
    /// The outputs of hosts whose names Nix could not list.
    broken: Vec<Failure>,
}

/// The place of an output in the order in which items are told: what is plain data comes first.
fn telling_place(output: FlakeOutput) -> (bool, FlakeOutput) {
    (matches!(output, FlakeOutput::Hosts(_)), output)
}

/// The names of `outputs`, and the warnings of finding them out. The process tells nothing else.
async fn names_alone(
    caller: &FlakeCaller<'_>,
    outputs: &[FlakeOutput],
    limits: ProcessLimits,
    within: Duration,
) -> Result<(Names, BTreeSet<WarningText>), EvaluateError> {
    let mut teller = caller.tell(Look::Answer, outputs, Told::Only(&[]), limits);
    let names = teller.names(outputs, within).await?;
    Ok((names, teller.take_warnings()))
}

/// The names of each output by itself. Where an output of hosts is broken as a whole, the other outputs go on without it. `whole` is the
/// error for all of them together.
async fn names_by_output<'a>(
    caller: &FlakeCaller<'_>,
    outputs: &[FlakeOutput],
    limits: ProcessLimits,
    whole: EvaluateError,
) -> Result<FoundNames<'a>, EvaluateError> {
    let ask = async |outputs: &[FlakeOutput]| names_alone(caller, outputs, limits, limits.time).await;
    // Each host may be refined below `clavel`: without that output, nothing would be what the flake describes.
    let Ok((mut names, mut warnings)) = ask(&FlakeOutput::OF_CLAVEL).await else { return Err(whole) };
    let mut broken = Vec::new();
    for output in outputs.iter().filter(|output| matches!(output, FlakeOutput::Hosts(_))) {
        match ask(&[*output]).await {
            Ok((more, more_warnings)) => {
                names.add(more);
                warnings.extend(more_warnings);
            }
            Err(error) => broken.push(Failure { part: FailedPart::Output(*output), error: error.message() }),
        }
    }
    if broken.is_empty() {
        Err(whole)
    } else {
        Ok(FoundNames { names: Cow::Owned(names), warnings, teller: None, broken })
    }
}

/// The names of the deployments that a source leaves out.
type Excluded = BTreeSet<String>;

/// The answers about a source, before documents are made of them.
struct Answered {
    excluded: Excluded,
    answers: ItemAnswers,
    warnings: EvalWarnings,
    work: EvaluationWork,
    withdraw: Vec<Pattern>,
    broken_outputs: Vec<Failure>,
}

impl Answered {
    /// The evaluation of `source`, locked as in `locked`, that has these answers.
    fn evaluation(self, source: &Source, locked: LockedSource, now: Timestamp) -> Evaluation {
        let Self { excluded, answers, warnings, work, withdraw, broken_outputs } = self;
        let mut drafts = assemble(source, &locked, now, &excluded, answers);
        drafts.failures.extend(broken_outputs);
        drafts.withdraw = withdraw;
        Evaluation { source: locked, drafts, warnings, work }
    }
}

/// The items that `source` takes of `names`, and the names of the deployments that it leaves out.
fn selected(source: &Source, names: &Names, broken: &[Failure]) -> Result<(Vec<Item>, Excluded), EvaluateError> {
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
