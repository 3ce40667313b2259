//! The deed: as many evaluators at once as the schedule has them, and each answer as it comes.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;

use super::observe::Observed;
use super::outputs::{Guarded, Item, Question};
use super::run::{EvaluateError, Progress};
use super::schedule::{Budget, Cost, Ended, Job, Schedule, Task, Terms};
use super::session::{Asked, Session};

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

/// Runs the schedule to its end.
pub(super) async fn run(
    session: &Session<'_>,
    budget: Budget,
    mut schedule: Schedule<Item>,
    of: usize,
    progress: &dyn Fn(Progress),
) -> BTreeMap<Item, Outcome> {
    let mut outcomes = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        while let Some(job) = schedule.next() {
            for task in &job.tasks {
                progress(Progress::Started {
                    attribute: task.item.to_string(),
                    before: task.before.map(|cost| cost.time),
                });
            }
            running.push(evaluated(session, budget, job));
        }
        let Some((job, started, answers)) = running.next().await else { return outcomes };
        let settled = settle(&mut schedule, job, answers);
        let done = outcomes.len() + settled.len();
        for (at, (item, _)) in settled.iter().enumerate() {
            let done = done - settled.len() + at + 1;
            progress(Progress::Done { attribute: item.to_string(), time: started.elapsed(), done, of });
        }
        outcomes.extend(settled);
    }
}

type Answers = Result<Asked<Vec<Guarded>>, EvaluateError>;

/// Evaluates a job's items in one process. One by itself is not guarded, so that Nix says what is wrong with it.
async fn evaluated(session: &Session<'_>, budget: Budget, job: Job<Item>) -> (Job<Item>, Instant, Answers) {
    let started = Instant::now();
    let memory = match job.terms {
        Terms::Share => budget.share(),
        Terms::Alone => budget.memory,
    };
    let answers = if let [task] = &job.tasks[..] {
        let asked = session.ask::<Value>(&Question::One(&task.item), memory).await;
        asked.map(|asked| Asked { answer: vec![Guarded::Ok(asked.answer)], observed: asked.observed, cost: asked.cost })
    } else {
        let items: Vec<&Item> = job.tasks.iter().map(|task| &task.item).collect();
        session.ask(&Question::Some(&items), memory).await
    };
    (job, started, answers)
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
