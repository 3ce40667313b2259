//! Runs the jobs of a schedule: as many processes at once as it allows, and each answer as it comes.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;

use super::budget::Budget;
use super::error::EvaluateError;
use super::flake_caller::{Answer, FlakeCaller, TreeLocation};
use super::observe::Observation;
use super::outputs::{Item, ItemAnswer, Question};
use super::progress::Progress;
use super::schedule::{Cost, Job, JobEnd, MemoryGrant, Purpose, Schedule, Task};

/// The result of one item.
#[derive(Debug)]
pub(super) enum ItemResult {
    /// The item has this value.
    Answered {
        value: Value,
        /// Everything that the value depends on, or why that is not known.
        observed: Result<Observation, String>,
        cost: Cost,
        /// Whether it had a process of its own.
        alone: bool,
    },
    /// The item has no value; this is the message of Nix.
    Failed(String),
}

impl ItemResult {
    /// The value, or the message of the failure.
    pub(super) fn into_answer(self) -> Result<Value, String> {
        match self {
            Self::Answered { value, .. } => Ok(value),
            Self::Failed(message) => Err(message),
        }
    }
}

/// The results of all jobs of a schedule.
#[derive(Debug, Default)]
pub(super) struct PoolResults {
    pub(super) items: BTreeMap<Item, ItemResult>,
    /// The values that the relocation check gave, where it ran in free processes.
    pub(super) relocated: BTreeMap<Item, Value>,
}

/// Runs `schedule` to its end with the source at `location`. Its relocation checks run with the source elsewhere.
pub(super) async fn run(
    caller: &FlakeCaller<'_>,
    location: TreeLocation,
    budget: Budget,
    mut schedule: Schedule<Item>,
    of: usize,
    progress: &dyn Fn(Progress),
) -> PoolResults {
    let mut results = PoolResults::default();
    let mut running = FuturesUnordered::new();
    loop {
        while let Some(job) = schedule.next() {
            let location = match job.purpose {
                Purpose::Answer => location,
                Purpose::RelocationCheck => TreeLocation::Relocated,
            };
            for task in job.tasks.iter().filter(|_| job.purpose == Purpose::Answer) {
                let before = task.before.map(|cost| cost.time);
                progress(Progress::Started { attribute: task.item.clone(), before });
            }
            running.push(evaluate_job(caller, location, budget, job));
        }
        let Some((job, started, answer)) = running.next().await else { return results };
        if job.purpose == Purpose::RelocationCheck {
            results.relocated.extend(finish_check(&mut schedule, job, answer));
            continue;
        }
        let finished = finish_job(&mut schedule, job, answer);
        for (at, (item, _)) in finished.iter().enumerate() {
            let done = results.items.len() + at + 1;
            progress(Progress::Done { attribute: item.clone(), time: started.elapsed(), done, of });
        }
        results.items.extend(finished);
    }
}

/// The answer of one process: a value for each item of its job, in order.
type JobAnswer = Result<Answer<Vec<ItemAnswer>>, EvaluateError>;

/// Evaluates the items of a job in one process. A single item is not guarded, so that Nix says what is wrong with it.
async fn evaluate_job(
    caller: &FlakeCaller<'_>,
    location: TreeLocation,
    budget: Budget,
    job: Job<Item>,
) -> (Job<Item>, Instant, JobAnswer) {
    let started = Instant::now();
    let memory = match job.memory {
        MemoryGrant::Share => budget.share(),
        MemoryGrant::All => budget.memory,
    };
    let answer = if let [task] = &job.tasks[..] {
        let answer = caller.ask::<Value>(location, &Question::One(&task.item), memory).await;
        answer.map(|Answer { value, observed, cost }| Answer { value: vec![ItemAnswer::Ok(value)], observed, cost })
    } else {
        let items: Vec<&Item> = job.tasks.iter().map(|task| &task.item).collect();
        caller.ask(location, &Question::Some(&items), memory).await
    };
    (job, started, answer)
}

/// The value of a relocation check that ran in a free process. A check that failed is made once more by `relocation`.
fn finish_check(schedule: &mut Schedule<Item>, job: Job<Item>, answer: JobAnswer) -> Option<(Item, Value)> {
    let task = schedule.finish(job, JobEnd::Failed).pop()?;
    match answer.ok()?.value.pop()? {
        ItemAnswer::Ok(value) => Some((task.item, value)),
        ItemAnswer::Failed(_) => None,
    }
}

/// The results of a job that ended. Items that have to be tried once more go back to the schedule.
fn finish_job(schedule: &mut Schedule<Item>, job: Job<Item>, answer: JobAnswer) -> Vec<(Item, ItemResult)> {
    match answer {
        Ok(Answer { value: values, observed, cost }) if values.len() == job.tasks.len() => {
            let alone = job.tasks.len() == 1;
            let tasks = schedule.finish(job, JobEnd::Answered(cost));
            #[expect(clippy::cast_possible_truncation, reason = "a job has at most tens of tasks")]
            let each = Cost { time: cost.time / tasks.len().max(1) as u32, memory: cost.memory };
            let (mut finished, mut again): (Vec<_>, Vec<Task<Item>>) = (Vec::new(), Vec::new());
            for (task, value) in tasks.into_iter().zip(values) {
                match value {
                    ItemAnswer::Ok(value) => {
                        let observed = observed.clone();
                        finished.push((task.item, ItemResult::Answered { value, observed, cost: each, alone }));
                    }
                    // It threw. Nix says why only when it is asked for this item alone.
                    ItemAnswer::Failed(_) => again.push(task),
                }
            }
            schedule.retry_singly(again);
            finished
        }
        Ok(_) => {
            let message = "nix gave more or fewer answers than it was asked for";
            fail_all(schedule.finish(job, JobEnd::Failed), message)
        }
        Err(error) => {
            let end = if error.is_limit() { JobEnd::AtLimit } else { JobEnd::Failed };
            fail_all(schedule.finish(job, end), &error.message())
        }
    }
}

fn fail_all(tasks: Vec<Task<Item>>, message: &str) -> Vec<(Item, ItemResult)> {
    tasks.into_iter().map(|task| (task.item, ItemResult::Failed(message.to_owned()))).collect()
}
