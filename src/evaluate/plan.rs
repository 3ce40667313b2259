//! The plan of an evaluation: which recorded answers still hold, and which items have to be evaluated. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::assemble::ItemAnswers;
use super::basis::CurrentSource;
use super::evaluation::{EvaluatedAttribute, EvaluationWork};
use super::nix_value::NixValue;
use super::outputs::{Item, Names};
use super::pool::{ItemResult, PoolResults};
use super::reason::EvalReason;
use super::record::RecordBuilder;
use super::recorded::RecordedAnswers;
use super::survey::{Survey, is_plain};
use super::warnings::{EvalWarnings, WarningText};

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
    pub(super) valid: BTreeMap<Item, NixValue>,
    /// The items that have to be evaluated, and why.
    pub(super) stale: BTreeMap<Item, EvalReason>,
    /// The recorded answers that hold, where everything is evaluated nevertheless: the new answers must be the same.
    expected: BTreeMap<Item, NixValue>,
    /// The recorded values of stale items that are plain data. One that stays the same does not count as evaluated.
    plain_before: BTreeMap<Item, NixValue>,
}

impl EvaluationPlan {
    /// A plan that evaluates those of `items` for which the record has no answer that holds.
    pub(super) fn new(
        recorded: &RecordedAnswers<'_>,
        items: Vec<Item>,
        current: &mut CurrentSource<'_>,
        mode: EvalMode,
    ) -> Self {
        let mut plan = Self::default();
        for item in items {
            match (recorded.find(&item, current), mode) {
                (Ok(value), EvalMode::Changed) => drop(plan.valid.insert(item, value.clone())),
                (Ok(value), EvalMode::Everything) => {
                    plan.expected.insert(item.clone(), value.clone());
                    plan.stale.insert(item, EvalReason::Full);
                }
                (Err(reason), _) => {
                    if let Some(value) = recorded.plain(&item) {
                        plan.plain_before.insert(item.clone(), value.clone());
                    }
                    plan.stale.insert(item, reason);
                }
            }
        }
        plan
    }

    /// The survey that follows from the names, the recorded answers that hold and the new ones.
    pub(super) fn survey(&self, names: Names, results: &BTreeMap<Item, ItemResult>) -> Survey {
        let fresh = results.iter().filter_map(|(item, result)| match result {
            ItemResult::Answered { value, .. } => Some((item, value)),
            ItemResult::Failed { .. } => None,
        });
        let plain = self.valid.iter().chain(fresh).filter(|(item, value)| is_plain(item, value));
        let told: BTreeMap<Item, NixValue> = plain.map(|(item, value)| (item.clone(), value.clone())).collect();
        Survey { names, told: told.into_iter().collect() }
    }

    /// Adds the recorded answers that hold and the new `results` to the next record, but for plain data.
    pub(super) fn record(
        &self,
        results: &BTreeMap<Item, ItemResult>,
        recorded: &RecordedAnswers<'_>,
        next: &mut RecordBuilder,
        current: &CurrentSource<'_>,
    ) {
        for item in self.valid.keys() {
            next.keep_item(recorded.record, item);
        }
        for (item, result) in results {
            match result {
                // What was learnt about it stays true.
                ItemResult::Answered { value, .. } if self.expected.get(item) == Some(value) => {
                    next.keep_item(recorded.record, item);
                }
                ItemResult::Answered { value, warnings, cost, .. } if !is_plain(item, value) => {
                    let why = (recorded.record, self.stale.get(item));
                    next.add_item(item.clone(), (value.clone(), warnings), *cost, why, current);
                }
                ItemResult::Failed { was_tried: true, .. } => next.add_broken(item.clone()),
                // What was not tried is as new the next time, and comes before those that were.
                ItemResult::Answered { .. } | ItemResult::Failed { was_tried: false, .. } => {}
            }
        }
    }

    /// Adds to the `results` the warnings that their answers have although another one printed them: nothing that these depend on changed.
    pub(super) fn add_unchanged_warnings(
        &self,
        results: &mut PoolResults,
        recorded: &RecordedAnswers<'_>,
        current: &CurrentSource<'_>,
    ) {
        let PoolResults { items, printed, .. } = results;
        for (item, reason) in &self.stale {
            let Some(ItemResult::Answered { value, warnings, .. }) = items.get_mut(item) else { continue };
            let before = if self.expected.get(item) == Some(value) {
                Some(recorded.record.warnings(item))
            } else {
                recorded.record.unchanged_warnings(item, reason, current)
            };
            if let Some(before) = before {
                warnings.add_unchanged(before, printed);
            }
        }
    }

    /// The warnings of all answers. `of_names` are those of finding out the names.
    pub(super) fn warnings(
        &self,
        results: &BTreeMap<Item, ItemResult>,
        recorded: &RecordedAnswers<'_>,
        of_names: BTreeSet<WarningText>,
    ) -> (BTreeSet<WarningText>, EvalWarnings) {
        let (mut of_flake, mut of_hosts) = (of_names, Vec::new());
        for (item, value) in &self.valid {
            if !is_plain(item, value) {
                of_hosts.push((item.name(), recorded.record.warnings(item)));
            }
        }
        for (item, result) in results {
            match result {
                ItemResult::Answered { value, warnings, .. } if is_plain(item, value) => {
                    of_flake.extend(warnings.texts.iter().cloned());
                }
                ItemResult::Answered { warnings, .. } => of_hosts.push((item.name(), warnings.clone())),
                ItemResult::Failed { .. } => {}
            }
        }
        let all = EvalWarnings::new(&of_flake, of_hosts);
        (of_flake, all)
    }

    /// Joins the recorded answers with the new `results`, and lists the work that was done.
    pub(super) fn finish(self, results: BTreeMap<Item, ItemResult>) -> (ItemAnswers, EvaluationWork) {
        let mut work = EvaluationWork { unchanged: self.valid.len(), ..EvaluationWork::default() };
        let mut reasons = self.stale;
        let mut answers: ItemAnswers = self.valid.into_iter().map(|(item, value)| (item, Ok(value))).collect();
        for (item, result) in results {
            let expected = self.expected.get(&item);
            let (value, cost) = match &result {
                ItemResult::Answered { value, cost, .. } => (Some(value), Some(*cost)),
                ItemResult::Failed { .. } => (None, None),
            };
            if expected.is_some_and(|expected| Some(expected) != value) {
                work.differences.push(item.clone());
            }
            if value.is_some() && self.plain_before.get(&item) == value {
                work.unchanged += 1;
            } else {
                let reason = reasons.remove(&item).unwrap_or(EvalReason::New);
                let seconds = cost.map(|cost| cost.time.as_secs_f64()).filter(|seconds| *seconds > 0.0);
                let memory = cost.map(|cost| cost.memory).filter(|memory| *memory > 0);
                work.evaluated.push(EvaluatedAttribute { attribute: item.clone(), reason, seconds, memory });
            }
            answers.insert(item, result.into_answer());
        }
        (answers, work)
    }
}
