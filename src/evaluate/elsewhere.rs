//! The deed: asking once more what was answered, with the source at another place in the store.
//!
//! A flake may take the path of its source for text, hash it or cut it, and no system call and no attribute tells of
//! that. Every change of the source moves that path. So an answer holds after a change only where it was seen to be the
//! same at two places. Where few are evaluated, both looks are made at once; these are the others, and no answer waits
//! for them: what has no second look is evaluated anew, at worst.

use std::path::Path;

use serde_json::Value;

use super::Progress;
use super::outputs::{Item, Names, Question};
use super::pool::{self, Outcome};
use super::record::Record;
use super::run::{EvaluateError, Evaluator, NAMES, record_path};
use super::schedule::{Company, Precision, Schedule, Task};
use super::session::{Place, Session};
use crate::model::{FlakeReference, Source, SourceRevision};

/// So many are asked before it is written down what was answered, for each evaluator that runs at once: whoever is
/// interrupted loses no more than these.
const AT_ONCE: usize = 16;

impl Evaluator {
    /// Finds out whether what was recorded of `source`, remembered as `remembered_as`, depends on where the source is.
    /// The arguments are those of the [`Evaluator::evaluate`] that it follows on. It may be interrupted at any time.
    pub async fn look_again(
        &self,
        source: &Source,
        pin: Option<&SourceRevision>,
        remembered_as: &FlakeReference,
        progress: &dyn Fn(Progress),
    ) -> Result<(), EvaluateError> {
        let Some(path) = self.records.as_deref().map(|folder| record_path(folder, remembered_as)) else {
            return Ok(());
        };
        let mut record = Record::read(&path);
        if record.pending().is_empty() {
            return Ok(());
        }
        let flake = self.nix.lock(&source.flake, pin).await?;
        let session = Session::open(&self.nix, flake, None).await?;
        if session.observable().is_none() || !record.is_of(&session.tree, session.environment()) {
            // The source moved on, and what still holds will be asked about with the next content.
            return Ok(());
        }
        if record.pending().contains(NAMES) {
            let asked = session.ask::<Value>(Place::Other, &Question::Names, self.budget.memory).await;
            record.look_again(NAMES, asked.ok().map(|asked| asked.answer).as_ref());
            write(&record, &path);
        }
        let tasks = tasks(source, &record)?;
        let of = tasks.len();
        for (at, tasks) in tasks.chunks(AT_ONCE * self.budget.processes.max(1)).enumerate() {
            let before = at * AT_ONCE * self.budget.processes.max(1);
            let done = |step| {
                if let Progress::Done { done, .. } = step {
                    progress(Progress::LookingAgain { done: before + done, of });
                }
            };
            progress(Progress::LookingAgain { done: before, of });
            let start = record.cost(NAMES).unwrap_or_default();
            let schedule = Schedule::new(self.budget, Precision::None, start.time, tasks.to_vec());
            let outcomes = pool::run(&session, Place::Other, self.budget, schedule, of, &done).await;
            for (item, outcome) in outcomes.of_all {
                let answer = match &outcome {
                    Outcome::Answered { value, .. } => Some(value),
                    Outcome::Failed(_) => None,
                };
                record.look_again(&item.to_string(), answer);
            }
            write(&record, &path);
        }
        Ok(())
    }
}

/// The items of the record that nobody asked about a second time.
fn tasks(source: &Source, record: &Record) -> Result<Vec<Task<Item>>, EvaluateError> {
    let pending = record.pending();
    let names = record.answer(NAMES).cloned().unwrap_or_default();
    let names: Names = serde_json::from_value(names)
        .map_err(|error| EvaluateError::Answer { flake: source.flake.to_string(), why: error.to_string() })?;
    let task = |item: Item| Task { before: record.cost(&item.to_string()), item, company: Company::Welcome };
    let is_pending = |item: &Item| pending.contains(&item.to_string());
    Ok(names.items(&source.flake)?.into_iter().filter(is_pending).map(task).collect())
}

fn write(record: &Record, path: &Path) {
    if let Err(error) = record.write(path) {
        // What is not remembered costs time alone.
        tracing::warn!(path = %path.display(), %error, "cannot record what was evaluated");
    }
}
