//! The relocation check: Nix is asked once more, with the source at another path in the store.
//!
//! A flake may use the path of its source as text: hash it, cut it, write it into a file. No system call and no attribute
//! shows that, and every change of the source changes the path. So an answer holds after a change only where it was the
//! same at two paths. Where few items are evaluated, the pool makes the check at the same time; this file makes all other
//! checks. No answer waits for it: an answer that was not checked is evaluated anew after the next change.

use std::collections::BTreeSet;

use serde_json::Value;

use super::error::EvaluateError;
use super::evaluator::{Evaluator, record_path, write_record};
use super::flake_caller::{FlakeCaller, TreeLocation};
use super::outputs::{Item, Names, Question};
use super::pool::{self, ItemResult};
use super::progress::Progress;
use super::record::{Record, RecordKey};
use super::schedule::{Batching, Precision, Schedule, Task};
use crate::model::{FlakeReference, Source, SourceRevision};

/// How many items each process checks before the record is written: an interruption loses no more than these.
const CHUNK: usize = 16;

impl Evaluator {
    /// Checks for each recorded answer of `source` whether it depends on the store path of the source. The arguments are
    /// those of the call of [`Evaluator::evaluate`] before it. It may be interrupted at any time.
    pub async fn check_relocation(
        &self,
        source: &Source,
        revision: Option<&SourceRevision>,
        recorded_as: &FlakeReference,
        progress: &dyn Fn(Progress),
    ) -> Result<(), EvaluateError> {
        let Some(path) = self.records.as_deref().map(|folder| record_path(folder, recorded_as)) else {
            return Ok(());
        };
        let mut record = Record::read(&path);
        let pending = record.pending();
        if pending.is_empty() {
            return Ok(());
        }
        let flake = self.nix.fetch(&source.flake, revision).await?;
        let caller = FlakeCaller::open(&self.nix, &self.inputs, flake, None).await?;
        if caller.observable().is_err() || !record.is_of(&caller.tree, caller.environment()) {
            // The source changed since. The answers that still hold are checked at its next content.
            return Ok(());
        }
        if pending.contains(&RecordKey::Names) {
            let outputs = recorded_names(&caller, &record)?.outputs();
            let question = Question::Names(&outputs);
            let answer = caller.ask::<Value>(TreeLocation::Relocated, &question, self.budget.memory).await;
            record.note_relocated(&RecordKey::Names, answer.ok().map(|answer| answer.value).as_ref());
            write_record(&record, &path);
        }
        let tasks = pending_tasks(source, &caller, &record, &pending)?;
        let of = tasks.len();
        let size = CHUNK * self.budget.processes.max(1);
        for (at, tasks) in tasks.chunks(size).enumerate() {
            let before = at * size;
            let report = |step| {
                if let Progress::Done { done, .. } = step {
                    progress(Progress::CheckingRelocation { done: before + done, of });
                }
            };
            progress(Progress::CheckingRelocation { done: before, of });
            let start = record.cost(&RecordKey::Names).unwrap_or_default();
            let schedule = Schedule::new(self.budget, Precision::NotNeeded, start.time, tasks.to_vec());
            let results = pool::run(&caller, TreeLocation::Relocated, self.budget, schedule, of, &report).await;
            for (item, result) in results.items {
                let value = match &result {
                    ItemResult::Answered { value, .. } => Some(value),
                    ItemResult::Failed(_) => None,
                };
                record.note_relocated(&RecordKey::Item(item), value);
            }
            write_record(&record, &path);
        }
        Ok(())
    }
}

fn recorded_names(caller: &FlakeCaller<'_>, record: &Record) -> Result<Names, EvaluateError> {
    let names = record.answer(&RecordKey::Names).cloned().unwrap_or_default();
    serde_json::from_value(names).map_err(|error| caller.misunderstood(&error))
}

/// The recorded items that were not checked.
fn pending_tasks(
    source: &Source,
    caller: &FlakeCaller<'_>,
    record: &Record,
    pending: &BTreeSet<RecordKey>,
) -> Result<Vec<Task<Item>>, EvaluateError> {
    let names = recorded_names(caller, record)?;
    let task = |item: Item| {
        let key = RecordKey::Item(item.clone());
        pending.contains(&key).then(|| Task { item, before: record.cost(&key), batching: Batching::Allowed })
    };
    Ok(names.items(&source.flake)?.into_iter().filter_map(task).collect())
}
