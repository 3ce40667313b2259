//! Runs the jobs of a schedule: as many processes at once as it allows, and each answer as it comes.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::timeout;

use super::budget::Budget;
use super::error::EvaluateError;
use super::flake_caller::{FlakeCaller, Look, ProcessLimits};
use super::nix_value::NixValue;
use super::observe::Observation;
use super::outputs::{self, Grain, Item, ItemAnswer, ItemRun, Question};
use super::progress::Progress;
use super::record::Cost;
use super::schedule::{Job, JobEnd, JobKind, MemoryGrant, Schedule, Task, Times};
use super::teller::{Teller, TellerEnd, Told};
use super::told::Telling;
use super::warnings::{AnswerWarnings, WarningExtent, WarningText};
use crate::nix::ReachedLimit;

/// The result of one item.
#[derive(Debug)]
pub(super) enum ItemResult {
    /// The item has this value.
    Answered {
        value: NixValue,
        /// Everything that the value depends on, or why that is not known.
        observed: Result<Observation, String>,
        warnings: AnswerWarnings,
        /// Its cost. The memory is not known where it shared a process.
        cost: Cost,
    },
    /// The item has no value.
    Failed {
        /// The message of Nix, or why Nix was not asked.
        message: String,
        /// Whether Nix was asked, this time or the last.
        was_tried: bool,
    },
}

impl ItemResult {
    /// The value, or the message of the failure.
    pub(super) fn into_answer(self) -> Result<NixValue, String> {
        match self {
            Self::Answered { value, .. } => Ok(value),
            Self::Failed { message, .. } => Err(message),
        }
    }
}

/// The results of all jobs of a schedule.
#[derive(Debug, Default)]
pub(super) struct PoolResults {
    pub(super) items: BTreeMap<Item, ItemResult>,
    /// Every warning that was printed, by items that failed too.
    pub(super) printed: BTreeSet<WarningText>,
    /// How many times as much as its own part the shared part of a host's evaluation took, where that was measured.
    pub(super) shared: Option<f64>,
}

/// What all jobs of a pool have in common.
pub(super) struct Pool<'a> {
    pub(super) caller: &'a FlakeCaller<'a>,
    pub(super) look: Look,
    pub(super) budget: Budget,
    pub(super) times: Times,
    /// How many items there are besides plain data.
    pub(super) of: usize,
    pub(super) progress: &'a dyn Fn(Progress),
}

/// The answer about one item of a job.
struct JobAnswer {
    task: Task<Item>,
    answer: ItemAnswer,
    warnings: AnswerWarnings,
    cost: Cost,
}

/// What a job gave.
struct JobOutcome {
    answers: Vec<JobAnswer>,
    observed: Result<Observation, String>,
    end: JobEnd,
    error: Option<EvaluateError>,
    /// An item that threw, and why, where Nix said it in the end.
    last_word: Option<(Item, String)>,
}

impl JobOutcome {
    fn without_answers(end: JobEnd, error: Option<EvaluateError>) -> Self {
        Self { answers: Vec::new(), observed: Err(String::new()), end, error, last_word: None }
    }
}

/// A process that tells already.
struct Running<'a> {
    teller: Teller<'a>,
    /// Whether the job has all that it tells.
    is_whole: bool,
}

impl Pool<'_> {
    /// Runs `schedule` to its end. `running` is a process that tells already, if there is one; its first items are those of the first job.
    pub(super) async fn run(&self, mut schedule: Schedule<Item>, mut running: Option<Teller<'_>>) -> PoolResults {
        let done = Cell::new(0);
        let mut results = PoolResults::default();
        let mut jobs = FuturesUnordered::new();
        loop {
            while let Some(job) = schedule.next() {
                let is_whole = !schedule.has_more_together();
                let running = running.take().map(|teller| Running { teller, is_whole });
                jobs.push(self.run_job(job, running, &done));
            }
            // Nothing is left for it.
            running = None;
            let Some((job, outcome)) = jobs.next().await else { return results };
            finish(&mut schedule, job, outcome, &mut results);
        }
    }

    async fn run_job(
        &self,
        mut job: Job<Item>,
        running: Option<Running<'_>>,
        done: &Cell<usize>,
    ) -> (Job<Item>, JobOutcome) {
        let memory = match job.memory {
            MemoryGrant::Share => self.budget.share(),
            MemoryGrant::All => self.budget.memory,
        };
        let times: Vec<Duration> = job.tasks.iter().map(|task| self.times.of(task)).collect();
        let outcome = match job.kind {
            JobKind::Alone => self.ask_alone(&mut job, memory, times.first().copied().unwrap_or_default(), done).await,
            JobKind::Together => {
                let runs = runs(&job.tasks);
                // Each of its items has a time of its own.
                let limits = ProcessLimits { memory, time: Duration::MAX };
                let running = running.unwrap_or_else(|| {
                    let teller = self.caller.tell(self.look, &[], outputs::Told::Only(&runs), limits);
                    Running { teller, is_whole: true }
                });
                self.listen(running, &mut job, &times, done).await
            }
        };
        (job, outcome)
    }

    async fn ask_alone(&self, job: &mut Job<Item>, memory: u64, time: Duration, done: &Cell<usize>) -> JobOutcome {
        let Some(task) = job.tasks.first() else {
            return JobOutcome::without_answers(JobEnd::Answered, None);
        };
        self.tell_started(task);
        let started = Instant::now();
        let question = Question::One(&task.item);
        let answer = self.caller.ask::<NixValue>(self.look, &question, ProcessLimits { memory, time }).await;
        match answer {
            Ok(answer) => {
                let task = job.tasks.remove(0);
                self.tell_done(&task, started.elapsed(), done);
                let warnings = AnswerWarnings { texts: answer.warnings, extent: WarningExtent::All };
                let answers =
                    vec![JobAnswer { task, answer: ItemAnswer::Ok(answer.value), warnings, cost: answer.cost }];
                JobOutcome { answers, observed: answer.observed, end: JobEnd::Answered, error: None, last_word: None }
            }
            Err(error) => JobOutcome::without_answers(end_of(&error), Some(error)),
        }
    }

    /// Listens to a process that tells the items of `job`, until it has told them or ends. It may tell more, which are others' by now.
    async fn listen(
        &self,
        Running { mut teller, is_whole }: Running<'_>,
        job: &mut Job<Item>,
        times: &[Duration],
        done: &Cell<usize>,
    ) -> JobOutcome {
        let mut answers: Vec<JobAnswer> = Vec::new();
        let mut tasks = std::mem::take(&mut job.tasks).into_iter().peekable();
        let mut begun: Option<Instant> = None;
        // Whether it is known which item is evaluated now.
        let mut is_single = false;
        let (end, error) = loop {
            let Some(task) = tasks.peek() else { break (JobEnd::Answered, None) };
            let left = match (begun, times.get(answers.len())) {
                (Some(begun), Some(time)) => time.saturating_sub(begun.elapsed()),
                _ => Duration::MAX,
            };
            match timeout(left, teller.next()).await {
                // It is tried again, alone.
                Err(_) => break (JobEnd::AtLimit(ReachedLimit::Time), None),
                Ok(Told::Telling(Telling::Names(_), _)) => {}
                Ok(Told::Telling(Telling::Begun(item), at)) if item == task.item => {
                    self.tell_started(task);
                    (begun, is_single) = (Some(at), true);
                }
                Ok(Told::Telling(Telling::BegunRun(item), at)) if item == task.item => begun = Some(at),
                Ok(Told::Telling(Telling::Answers(values), at)) if begun.is_some() => {
                    is_single = false;
                    // The next one of a run begins at once.
                    let time = begun.replace(at).map(|begun| at.saturating_duration_since(begun)).unwrap_or_default();
                    let mut texts = teller.take_warnings();
                    // Nobody knows which of a group printed them. Those of an item that failed are not shown.
                    let printed_by = values.iter().position(|answer| matches!(answer, ItemAnswer::Ok(_))).unwrap_or(0);
                    for ((at, answer), task) in values.into_iter().enumerate().zip(tasks.by_ref()) {
                        if matches!(answer, ItemAnswer::Ok(_)) {
                            self.tell_done(&task, time, done);
                        }
                        let time = if task.is_plain { Duration::ZERO } else { time };
                        let texts = if at == printed_by { std::mem::take(&mut texts) } else { BTreeSet::new() };
                        let warnings = AnswerWarnings { texts, extent: WarningExtent::Some };
                        answers.push(JobAnswer { task, answer, warnings, cost: Cost { time, memory: 0 } });
                    }
                }
                Ok(Told::Telling(Telling::Begun(_) | Telling::BegunRun(_) | Telling::Answers(_), _)) => {
                    let message = "nix gave other answers than it was asked for";
                    break (JobEnd::Failed, Some(self.caller.misunderstood(message)));
                }
                Ok(Told::Ended(TellerEnd { error, .. })) => {
                    let error = error
                        .unwrap_or_else(|| self.caller.misunderstood("nix gave fewer answers than it was asked for"));
                    let is_broken = is_single && error.is_said_by_nix();
                    break (if is_broken { JobEnd::Broken } else { end_of(&error) }, Some(error));
                }
            }
        };
        job.tasks = tasks.collect();
        let is_thrown =
            |answer: &JobAnswer| matches!(answer.answer, ItemAnswer::Failed(_)) && !answer.task.is_grouped();
        let time = answers
            .iter()
            .position(is_thrown)
            .and_then(|at| times.get(at))
            .filter(|_| is_whole && end == JobEnd::Answered);
        let last_word = match time {
            Some(time) => timeout(*time, last_word(&mut teller)).await.unwrap_or_default(),
            None => None,
        };
        JobOutcome { answers, observed: Err("its reads were not watched".to_owned()), end, error, last_word }
    }

    fn tell_started(&self, task: &Task<Item>) {
        if !task.is_plain {
            let before = task.before.map(|cost| cost.time);
            (self.progress)(Progress::Started { attribute: task.item.clone(), before });
        }
    }

    fn tell_done(&self, task: &Task<Item>, time: Duration, done: &Cell<usize>) {
        if !task.is_plain {
            done.set(done.get() + 1);
            let (attribute, done, of) = (task.item.clone(), done.get(), self.of);
            (self.progress)(Progress::Done { attribute, time, done, of });
        }
    }
}

/// One of the items that threw, and why: when a process has told everything, it ends with the error of that item.
async fn last_word(teller: &mut Teller<'_>) -> Option<(Item, String)> {
    let mut begun = None;
    loop {
        match teller.next().await {
            Told::Telling(Telling::Begun(item), _) => begun = Some(item),
            Told::Telling(..) => {}
            Told::Ended(TellerEnd { error, .. }) => {
                return Some((begun?, error.filter(EvaluateError::is_said_by_nix)?.message()));
            }
        }
    }
}

/// The items of `tasks`, by how they are told.
fn runs(tasks: &[Task<Item>]) -> Vec<ItemRun> {
    let run = |tasks: &[Task<Item>]| ItemRun {
        items: tasks.iter().map(|task| task.item.clone()).collect(),
        grain: if tasks[0].is_grouped() { Grain::Group } else { Grain::Single },
    };
    tasks.chunk_by(|one, next| one.is_grouped() == next.is_grouped()).map(run).collect()
}

/// Notes how a job ended.
fn finish(schedule: &mut Schedule<Item>, job: Job<Item>, outcome: JobOutcome, results: &mut PoolResults) {
    let JobOutcome { answers, observed, end, error, last_word } = outcome;
    let times = answers.iter().filter(|answer| !answer.task.is_plain).map(|answer| answer.cost.time);
    if let Some(shared) = shared_part(times) {
        results.shared = Some(results.shared.map_or(shared, |other| shared.min(other)));
    }
    let given_up = schedule.finish(job, answers.len(), end);
    let mut again = Vec::new();
    for JobAnswer { task, answer, warnings, cost } in answers {
        results.printed.extend(warnings.texts.iter().cloned());
        match answer {
            ItemAnswer::Ok(value) => {
                let observed = observed.clone();
                results.items.insert(task.item, ItemResult::Answered { value, observed, warnings, cost });
            }
            ItemAnswer::Failed(_) => match &last_word {
                Some((item, message)) if *item == task.item => {
                    let message = message.clone();
                    results.items.insert(task.item, ItemResult::Failed { message, was_tried: true });
                }
                // Nix says why only when it is asked for this item alone.
                Some(_) | None => again.push(task),
            },
        }
    }
    schedule.retry_singly(again);
    let message = error.as_ref().map_or_else(|| "nix gave no answer".to_owned(), EvaluateError::message);
    let is_of_nix = error.is_none_or(|error| error.is_of_nix());
    for task in given_up {
        let was_tried = is_of_nix || task.failed_before;
        results.items.insert(task.item, ItemResult::Failed { message: message.clone(), was_tried });
    }
}

fn end_of(error: &EvaluateError) -> JobEnd {
    match error.limit() {
        Some(limit) => JobEnd::AtLimit(limit),
        None if error.is_of_nix() => JobEnd::Failed,
        None => JobEnd::NotBegun,
    }
}

/// How many times as much as the mean of the others the first of these times is more: the first host of a process also takes the time
/// of what all share. None of fewer than three.
fn shared_part(mut times: impl Iterator<Item = Duration>) -> Option<f64> {
    let first = times.next()?.as_secs_f64();
    let others: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
    #[expect(clippy::cast_precision_loss, reason = "there are at most thousands of hosts")]
    let mean = others.iter().sum::<f64>() / others.len() as f64;
    (others.len() >= 2 && mean > 0.0).then(|| ((first - mean) / mean).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_of_a_process_tells_what_all_share() {
        let of = |times: &[u64]| shared_part(times.iter().map(|time| Duration::from_secs(*time)));
        assert_eq!(of(&[9, 3, 3]), Some(2.0));
        assert_eq!(of(&[3, 3, 3, 9]), Some(0.0));
        assert_eq!(of(&[9, 3]), None);
        assert_eq!(of(&[]), None);
    }
}
