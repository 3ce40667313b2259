//! The withdrawals that wait for an operator. No I/O: the branch, the plan and the evaluations go in.
//!
//! A typo in the configuration or in a flake can make a whole fleet disappear from what its source gives. Claveld withdraws a few
//! documents by itself. More of them stay as they are until somebody says that it is meant: an operator with `--allow-withdrawals`,
//! or the flake with its `clavel.withdraw`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::branch_state::{BranchState, ExistingDocument};
use super::plan::Plan;
use crate::evaluate::{Drafts, Evaluation};
use crate::model::{DocumentPath, FlakeReference, Folder, Provenance, Specification};

/// How many documents of one source claveld withdraws at once by itself, however small the source is.
const MAX_BY_ITSELF: usize = 3;
/// The part of a source's documents that claveld withdraws at once by itself: a fifth.
const SHARE_BY_ITSELF: usize = 5;
/// How many names a message says.
const MAX_NAMED: usize = 5;

/// The withdrawals from one source that wait for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct HeldWithdrawals {
    /// The source.
    pub source: String,
    /// The documents. They stay as they are.
    pub documents: Vec<DocumentPath>,
    /// How many documents the source has with these.
    pub of: usize,
}

impl HeldWithdrawals {
    /// The withdrawals of `documents` from a source that gives `drafts` now; none where they need not wait.
    pub fn of(source: &FlakeReference, mut documents: Vec<DocumentPath>, drafts: Option<&Drafts>) -> Option<Self> {
        let withdraw = drafts.map_or(&[][..], |drafts| &drafts.withdraw);
        let of = documents.len() + drafts.map_or(0, count);
        documents.retain(|path| !withdraw.iter().any(|pattern| pattern.matches_folded(path.name())));
        let is_large = documents.len() > MAX_BY_ITSELF && documents.len() * SHARE_BY_ITSELF > of;
        is_large.then(|| Self { source: source.to_string(), documents, of })
    }
}

fn count(drafts: &Drafts) -> usize {
    drafts.deployments.len() + drafts.units.len() + drafts.agents.len()
}

impl fmt::Display for HeldWithdrawals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, documents, of } = self;
        let named: Vec<String> = documents.iter().take(MAX_NAMED).map(ToString::to_string).collect();
        let more = match documents.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        write!(
            f,
            "{source} gives {} of its {of} documents no longer: {}{more}. They stay as they are. If they are to go, run `claveld \
             once --allow-withdrawals {}`, or name them in the flake's `clavel.withdraw`",
            documents.len(),
            named.join(", "),
            documents.len()
        )
    }
}

/// The withdrawals of `plan` that wait, where an operator allowed `allowed` withdrawn documents in all. `evaluations` are whole.
pub(super) fn held_withdrawals(
    branch: &BranchState,
    plan: &Plan,
    evaluations: &[Evaluation],
    allowed: usize,
) -> Vec<HeldWithdrawals> {
    let mut by_source: BTreeMap<&FlakeReference, Vec<DocumentPath>> = BTreeMap::new();
    for change in plan.changes.iter().filter(|change| change.tombstone().is_some()) {
        if let Some(provenance) = provenance(branch, &change.path) {
            by_source.entry(&provenance.source).or_default().push(change.path.clone());
        }
    }
    let drafts = |source: &FlakeReference| {
        evaluations.iter().find(|evaluation| evaluation.source.flake == *source).map(|evaluation| &evaluation.drafts)
    };
    let held = by_source.into_iter().filter_map(|(source, paths)| HeldWithdrawals::of(source, paths, drafts(source)));
    let held: Vec<HeldWithdrawals> = held.collect();
    let documents: usize = held.iter().map(|held| held.documents.len()).sum();
    if documents <= allowed { Vec::new() } else { held }
}

/// The provenance of a document on the branch.
fn provenance<'a>(branch: &'a BranchState, path: &DocumentPath) -> Option<&'a Provenance> {
    fn of<S: Specification>(document: Option<&ExistingDocument<S>>) -> Option<&Provenance> {
        document?.known()?.provenance()
    }
    match path.folder() {
        Folder::Agents => of(branch.agents.get(path.name())),
        Folder::Deployments => of(branch.deployments.get(path.name())),
        Folder::Units => of(branch.units.get(path.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, branch_with, draft, evaluation, flake, intact};
    use super::super::plan::OrphanPolicy;
    use super::super::withheld::Withheld;
    use super::*;
    use crate::model::{Draft, UnitSpecification, UnitType};

    fn units(source: &str, count: usize) -> Vec<Draft<UnitSpecification>> {
        let specification = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type: UnitType::Nixos };
        (0..count).map(|at| draft(source, &format!("{source}-{at:02}"), specification.clone())).collect()
    }

    /// The withdrawals that wait where `a` had so many units and gives so many now, and the flake gives up `withdraw`.
    fn held(had: usize, gives: usize, withdraw: &[&str], allowed: usize) -> Vec<HeldWithdrawals> {
        let branch =
            BranchState { units: intact(units("a", had).into_iter().map(|unit| (unit, 1))), ..branch_with(&[]) };
        let withdraw = withdraw.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let found = [evaluation("a", Drafts { units: units("a", gives), withdraw, ..Drafts::default() })];
        let plan = fixture::planned(&branch, &["a"], &found, OrphanPolicy::Keep, &Withheld::default());
        held_withdrawals(&branch, &plan, &found, allowed)
    }

    #[test]
    fn a_few_withdrawals_are_made_and_many_wait() {
        for (had, gives, waiting) in
            [(3, 0, 0), (4, 0, 4), (20, 16, 0), (20, 15, 5), (100, 80, 0), (100, 79, 21), (5, 5, 0)]
        {
            let held = held(had, gives, &[], 0);
            assert_eq!(held.iter().map(|held| held.documents.len()).sum::<usize>(), waiting, "{had} {gives}");
            assert!(held.iter().all(|held| held.of == had && held.source == flake("a").to_string()), "{held:?}");
        }
    }

    #[test]
    fn an_operator_allows_a_number_and_the_flake_names() {
        assert_eq!(held(20, 10, &[], 9).len(), 1);
        assert_eq!(held(20, 10, &[], 10), []);
        // The flake gives up all ten, or all but three of them, or too few.
        assert_eq!(held(20, 10, &["A-1*"], 0), []);
        assert_eq!(held(20, 10, &["a-1[!9]", "a-1?"], 0), []);
        let some = held(20, 10, &["a-11", "a-12"], 0);
        assert_eq!((some[0].documents.len(), some[0].of), (8, 20));
    }

    #[test]
    fn a_source_that_is_not_configured_any_more_gives_nothing() {
        let units = units("a", 4).into_iter().chain(units("b", 2));
        let branch = BranchState { units: intact(units.map(|unit| (unit, 1))), ..branch_with(&[]) };
        let plan = fixture::planned(&branch, &["c"], &[], OrphanPolicy::Withdraw, &Withheld::default());
        let held = held_withdrawals(&branch, &plan, &[], 0);
        // Those of the smaller source may go.
        assert_eq!(held.iter().map(|held| (held.documents.len(), held.of)).collect::<Vec<_>>(), [(4, 4)]);
        let text = held[0].to_string();
        assert!(text.contains("--allow-withdrawals 4") && text.contains("units/a-00.json"), "{text}");
    }
}
