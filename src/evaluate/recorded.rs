//! What the record of a source says about each item. No I/O.
//!
//! A host has an answer of its own; what is plain data has one in the survey, which holds or does not hold as a whole.

use std::collections::BTreeSet;

use super::basis::CurrentSource;
use super::nix_value::NixValue;
use super::outputs::{Item, Names};
use super::reason::EvalReason;
use super::record::{Cost, Record, RecordBuilder};
use super::survey::Survey;
use super::warnings::WarningText;

/// The record of a source, compared with the source as it is now.
#[derive(Debug)]
pub(super) struct RecordedAnswers<'a> {
    pub(super) record: &'a Record,
    /// Whether the survey holds; otherwise why not.
    survey: Result<&'a Survey, EvalReason>,
}

impl<'a> RecordedAnswers<'a> {
    pub(super) fn new(record: &'a Record, current: &mut CurrentSource<'_>) -> Self {
        Self { record, survey: record.survey(current) }
    }

    /// The names, where they still hold.
    pub(super) fn names(&self) -> Option<&'a Names> {
        self.survey.as_ref().ok().map(|survey| &survey.names)
    }

    /// The answer for `item`, where it still holds; otherwise why it has to be evaluated.
    pub(super) fn find(&self, item: &Item, current: &mut CurrentSource<'_>) -> Result<&'a NixValue, EvalReason> {
        match (self.plain(item), &self.survey) {
            (Some(value), Ok(_)) => Ok(value),
            (Some(_), Err(reason)) => Err(reason.clone()),
            (None, _) => self.record.item(item, current),
        }
    }

    /// The value of `item`, where it was plain data the last time.
    pub(super) fn plain(&self, item: &Item) -> Option<&'a NixValue> {
        self.record.last_survey().and_then(|survey| survey.value(item))
    }

    /// The cost of the last evaluation of `item`.
    pub(super) fn cost(&self, item: &Item) -> Option<Cost> {
        self.record.cost(item)
    }

    /// All items that have an answer.
    pub(super) fn items(&self) -> impl Iterator<Item = &'a Item> {
        let plain = self.record.last_survey().into_iter().flat_map(|survey| survey.told.iter().map(|(item, _)| item));
        self.record.items().chain(plain)
    }

    /// Adds `survey` to the next record. What was learnt about the last one stays true of the same one.
    pub(super) fn record_survey(
        &self,
        (survey, warnings): (Survey, &BTreeSet<WarningText>),
        next: &mut RecordBuilder,
        current: &CurrentSource<'_>,
    ) {
        match &self.survey {
            Ok(before) if **before == survey => next.keep_survey(self.record),
            before => next.add_survey((survey, warnings), (self.record, before.as_ref().err()), current),
        }
    }
}
