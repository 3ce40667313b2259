//! The plan of an evaluation: which recorded answers still hold, and which items have to be evaluated. No I/O.

use std::collections::BTreeMap;

use serde_json::Value;

use super::assemble::ItemAnswers;
use super::evaluation::{EvaluatedAttribute, EvaluationWork};
use super::outputs::Item;
use super::pool::ItemResult;
use super::reason::EvalReason;
use super::record::{CurrentSource, Record, RecordKey};

/// Which attributes to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalMode {
    /// Those whose recorded answer does not hold.
    Changed,
    /// All of them. The answers that the record expects are compared with the new ones.
    Everything,
}

/// The items of a source, divided by what has to be done for each.
#[derive(Debug, Default)]
pub(super) struct EvaluationPlan {
    /// The items whose recorded answer holds.
    pub(super) valid: BTreeMap<Item, Value>,
    /// The items that have to be evaluated, and why.
    pub(super) stale: Vec<(Item, EvalReason)>,
    /// The recorded answers that hold, where everything is evaluated nevertheless: the new answers must be the same.
    expected: BTreeMap<Item, Value>,
}

impl EvaluationPlan {
    /// A plan that evaluates all of `items` for one reason.
    pub(super) fn for_all(items: Vec<Item>, reason: &EvalReason) -> Self {
        Self { stale: items.into_iter().map(|item| (item, reason.clone())).collect(), ..Self::default() }
    }

    /// A plan that evaluates those of `items` for which `record` has no answer that holds.
    pub(super) fn new(record: &Record, items: Vec<Item>, current: &mut CurrentSource<'_>, mode: EvalMode) -> Self {
        let mut plan = Self::default();
        for item in items {
            match (record.valid_answer(&RecordKey::Item(item.clone()), current), mode) {
                (Ok(value), EvalMode::Changed) => drop(plan.valid.insert(item, value.clone())),
                (Ok(value), EvalMode::Everything) => {
                    plan.expected.insert(item.clone(), value.clone());
                    plan.stale.push((item, EvalReason::Full));
                }
                (Err(reason), _) => plan.stale.push((item, reason)),
            }
        }
        plan
    }

    /// The keys of the record whose answers hold, besides the names.
    pub(super) fn valid_keys(&self) -> impl Iterator<Item = RecordKey> {
        self.valid.keys().cloned().map(RecordKey::Item)
    }

    /// Joins the recorded answers with the new `results`, and lists the work that was done.
    pub(super) fn finish(self, results: BTreeMap<Item, ItemResult>) -> (ItemAnswers, EvaluationWork) {
        let mut work = EvaluationWork { unchanged: self.valid.len(), ..EvaluationWork::default() };
        let mut reasons: BTreeMap<Item, EvalReason> = self.stale.into_iter().collect();
        let mut answers: ItemAnswers = self.valid.into_iter().map(|(item, value)| (item, Ok(value))).collect();
        for (item, result) in results {
            let expected = self.expected.get(&item);
            let (cost, is_expected) = match &result {
                ItemResult::Answered { value, cost, .. } => {
                    (Some(*cost), expected.is_none_or(|expected| expected == value))
                }
                ItemResult::Failed(_) => (None, expected.is_none()),
            };
            if !is_expected {
                work.differences.push(item.clone());
            }
            let reason = reasons.remove(&item).unwrap_or(EvalReason::New);
            let seconds = cost.map(|cost| cost.time.as_secs_f64());
            let memory = cost.map(|cost| cost.memory).filter(|memory| *memory > 0);
            work.evaluated.push(EvaluatedAttribute { attribute: item.clone(), reason, seconds, memory });
            answers.insert(item, result.into_answer());
        }
        (answers, work)
    }
}
