//! The deed: as many evaluators at once as the schedule has them, and each answer as it comes.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;

use super::observe::Observed;
use super::outputs::{Guarded, Item, Question};
use super::run::{EvaluateError, Progress};
use super::schedule::{Budget, Cost, Ended, Job, Schedule, Task, Terms};
use super::session::{Asked, Place, Session};

/// What became of one item.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has this value.
    Answered {
        value: Value,
        /// What the value came from, or why that is not known.
        observed: Result<Observed, String>,
        cost: Cost,
        /// Whether nothing else was evaluated in its process.
        alone: bool,
    },
    /// It has none, and this is Nix's own message.
    Failed(String),
}

impl Outcome {
    /// The value, or why there is none.
    pub(super) fn into_answer(self) -> Result<Value, String> {
        match self {
            Self::Answered { value, .. } => Ok(value),
            Self::Failed(message) => Err(message),
        }
    }
}

/// What came of a schedule.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) of_all: BTreeMap<Item, Outcome>,
    /// What was answered where a place was free, with the source at its other place.
    pub(super) moved: BTreeMap<Item, Value>,
}

/// Runs the schedule to its end, with the source at `place`, but for what is spare.
pub(super) async fn run(
    session: &Session<'_>,
    place: Place,
    budget: Budget,
    mut schedule: Schedule<Item>,
    of: usize,
    progress: &dyn Fn(Progress),
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut running = FuturesUnordered::new();
    loop {
        while let Some(job) = schedule.next() {
            let place = if job.terms == Terms::Spare { Place::Other } else { place };
            for task in job.tasks.iter().filter(|_| job.terms != Terms::Spare) {
                progress(Progress::Started {
                    attribute: task.item.to_string(),
                    before: task.before.map(|cost| cost.time),
                });
            }
            running.push(evaluated(session, place, budget, job));
        }
        let Some((job, started, answers)) = running.next().await else { return outcomes };
        if job.terms == Terms::Spare {
            outcomes.moved.extend(spare(&mut schedule, job, answers));
            continue;
        }
        let settled = settle(&mut schedule, job, answers);
        let done = outcomes.of_all.len() + settled.len();
        for (at, (item, _)) in settled.iter().enumerate() {
            let done = done - settled.len() + at + 1;
            progress(Progress::Done { attribute: item.to_string(), time: started.elapsed(), done, of });
        }
        outcomes.of_all.extend(settled);
    }
}

type Answers = Result<Asked<Vec<Guarded>>, EvaluateError>;

/// Evaluates a job's items in one process. One by itself is not guarded, so that Nix says what is wrong with it.
async fn evaluated(
    session: &Session<'_>,
    place: Place,
    budget: Budget,
    job: Job<Item>,
) -> (Job<Item>, Instant, Answers) {
    let started = Instant::now();
    let memory = match job.terms {
        Terms::Share | Terms::Spare => budget.share(),
        Terms::Alone => budget.memory,
    };
    let answers = if let [task] = &job.tasks[..] {
        let asked = session.ask::<Value>(place, &Question::One(&task.item), memory).await;
        asked.map(|asked| Asked { answer: vec![Guarded::Ok(asked.answer)], observed: asked.observed, cost: asked.cost })
    } else {
        let items: Vec<&Item> = job.tasks.iter().map(|task| &task.item).collect();
        session.ask(place, &Question::Some(&items), memory).await
    };
    (job, started, answers)
}

/// What a spare job answered. Why one did not will be seen when it is waited for.
fn spare(schedule: &mut Schedule<Item>, job: Job<Item>, answers: Answers) -> Option<(Item, Value)> {
    let task = schedule.ended(job, Ended::Failed).pop()?;
    match answers.ok()?.answer.pop()? {
        Guarded::Ok(value) => Some((task.item, value)),
        Guarded::Failed(_) => None,
    }
}

/// What the answers to a job settle; the schedule keeps what has to be asked once more.
fn settle(schedule: &mut Schedule<Item>, job: Job<Item>, answers: Answers) -> Vec<(Item, Outcome)> {
    match answers {
        Ok(Asked { answer, observed, cost }) if answer.len() == job.tasks.len() => {
            let alone = job.tasks.len() == 1;
            let tasks = schedule.ended(job, Ended::Answered(cost));
            #[expect(clippy::cast_possible_truncation, reason = "a job has at most tens of tasks")]
            let each = Cost { time: cost.time / tasks.len().max(1) as u32, memory: cost.memory };
            let (mut settled, mut again): (Vec<_>, Vec<Task<Item>>) = (Vec::new(), Vec::new());
            for (task, answer) in tasks.into_iter().zip(answer) {
                match answer {
                    Guarded::Ok(value) => {
                        let observed = observed.clone();
                        settled.push((task.item, Outcome::Answered { value, observed, cost: each, alone }));
                    }
                    // It threw, and is asked for by itself, so that Nix says why.
                    Guarded::Failed(_) => again.push(task),
                }
            }
            schedule.again(again);
            settled
        }
        Ok(_) => failed(schedule.ended(job, Ended::Failed), "nix answered for more or fewer than were asked"),
        Err(error) => {
            let limit = matches!(&error, EvaluateError::Source(error) if error.is_limit());
            failed(schedule.ended(job, if limit { Ended::AtALimit } else { Ended::Failed }), &error.message())
        }
    }
}

fn failed(tasks: Vec<Task<Item>>, message: &str) -> Vec<(Item, Outcome)> {
    tasks.into_iter().map(|task| (task.item, Outcome::Failed(message.to_owned()))).collect()
}
