use super::super::fixture::{self, DAY, draft, evaluation, intact, name, now, published, revision};
use super::*;
use crate::evaluate::{Drafts, FailedPart, Failure, Item};
use crate::model::UnitType;

fn unit(source: &str, of: &str, arch: &str) -> Draft<UnitSpecification> {
    draft(source, of, UnitSpecification { arch: arch.parse().unwrap(), unit_type: UnitType::Nixos })
}

/// The evaluation of `source` that gave these units, and failed at others.
fn units(source: &str, units: Vec<Draft<UnitSpecification>>, failing: &[&str]) -> Evaluation {
    let failure = |name: &&str| Failure {
        part: FailedPart::Item(Item::try_from(vec!["units".to_owned(), (*name).to_owned()]).unwrap()),
        error: "error: no".to_owned(),
    };
    let failures = failing.iter().map(failure).collect();
    evaluation(source, Drafts { units, failures, ..Drafts::default() })
}

fn empty() -> BranchState {
    BranchState::empty(fixture::fleet().id())
}

/// A branch with these units at these revisions, and tombstones of others.
fn branch(units: &[(Draft<UnitSpecification>, u64)], tombstones: &[(&str, u64)]) -> BranchState {
    let tombstones: Vec<(String, u64)> =
        tombstones.iter().map(|(name, last)| (format!("units/{name}.json"), *last)).collect();
    let tombstones: Vec<(&str, u64)> = tombstones.iter().map(|(path, last)| (path.as_str(), *last)).collect();
    BranchState { units: intact(units.iter().cloned()), ..fixture::branch_with(&tombstones) }
}

fn planned(branch: &BranchState, configured: &[&str], evaluations: &[Evaluation], orphans: OrphanPolicy) -> Plan {
    fixture::planned(branch, configured, evaluations, orphans, &Withheld::default())
}

fn describe(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|change| format!("{} {change}", change.path)).collect()
}

#[test]
fn a_first_publication_starts_counting() {
    let plan =
        planned(&empty(), &["a"], &[units("a", vec![unit("a", "x", "x86_64-linux")], &[])], OrphanPolicy::Withdraw);
    assert_eq!(describe(&plan), ["units/x.json new, revision 1"]);
    assert_eq!(plan.index, IndexPlan::Write(IndexVersion::FIRST));
}

#[test]
fn the_same_again_writes_nothing() {
    let x = unit("a", "x", "x86_64-linux");
    let plan = planned(&branch(&[(x.clone(), 3)], &[]), &["a"], &[units("a", vec![x], &[])], OrphanPolicy::Withdraw);
    assert!(plan.changes.is_empty() && plan.units.is_empty());
    assert_eq!(plan.index, IndexPlan::Keep(IndexVersion::FIRST));
}

#[test]
fn a_failure_protects_the_document_of_its_own_name_alone() {
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3)], &[]);
    let changes = |failing: &str| {
        describe(&planned(&before, &["a"], &[units("a", vec![], &[failing])], OrphanPolicy::Keep)).len()
    };
    assert_eq!(changes("x"), 0);
    for other in ["X", "xx", "x\0", &"x".repeat(300), &"x".repeat(2000)] {
        assert_eq!(changes(other), 1, "{other:?}");
    }
}

#[test]
fn a_changed_specification_counts_up_by_one() {
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3), (unit("a", "y", "x86_64-linux"), 1)], &[]);
    let after = vec![unit("a", "x", "aarch64-linux"), unit("a", "y", "x86_64-linux")];
    let plan = planned(&before, &["a"], &[units("a", after, &[])], OrphanPolicy::Withdraw);
    assert_eq!(describe(&plan), ["units/x.json revision 3 → 4"]);
    assert_eq!(plan.units[0].revision.get(), 4);
}

#[test]
fn a_document_that_left_its_source_is_withdrawn_and_comes_back_under_the_next_revision() {
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3)], &[]);
    let plan = planned(&before, &["a"], &[units("a", vec![], &[])], OrphanPolicy::Keep);
    assert_eq!(describe(&plan), ["units/x.json withdrawn after revision 3"]);
    let back = units("a", vec![unit("a", "x", "x86_64-linux")], &[]);
    let plan = planned(&branch(&[], &[("x", 3)]), &["a"], &[back], OrphanPolicy::Keep);
    assert_eq!(plan.units[0].revision.get(), 4);
}

#[test]
fn a_broken_document_stays_as_it_is() {
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3)], &[]);
    assert!(describe(&planned(&before, &["a"], &[units("a", vec![], &["x"])], OrphanPolicy::Withdraw)).is_empty());
    // The same holds where the source could not be evaluated at all.
    assert!(describe(&planned(&before, &["a"], &[], OrphanPolicy::Withdraw)).is_empty());
}

#[test]
fn only_a_full_round_withdraws_the_documents_of_a_removed_source() {
    let before = branch(&[(unit("old", "x", "x86_64-linux"), 3)], &[]);
    let a = [units("a", vec![], &[])];
    assert!(describe(&planned(&before, &["a"], &a, OrphanPolicy::Keep)).is_empty());
    assert_eq!(
        describe(&planned(&before, &["a"], &a, OrphanPolicy::Withdraw)),
        ["units/x.json withdrawn after revision 3"]
    );
    // Another source may take the name over, and the revisions go on.
    let taken = [units("a", vec![unit("a", "x", "aarch64-linux")], &[])];
    assert_eq!(describe(&planned(&before, &["a"], &taken, OrphanPolicy::Keep)), ["units/x.json revision 3 → 4"]);
}

#[test]
fn a_name_belongs_to_the_source_that_published_it_first() {
    let owner = |failing: &[&str]| {
        let own = if failing.is_empty() { vec![unit("a", "x", "aarch64-linux")] } else { vec![] };
        units("a", [own, vec![unit("a", "free", "x86_64-linux")]].concat(), failing)
    };
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3)], &[]);
    for claimed in ["x", "X"] {
        let other = units("b", vec![unit("b", claimed, "x86_64-linux"), unit("b", "y", "x86_64-linux")], &[]);
        // The owner goes on with its updates, and the other one with its other names.
        let plan = planned(&before, &["a", "b"], &[owner(&[]), other.clone()], OrphanPolicy::Withdraw);
        let own = ["units/free.json new, revision 1", "units/x.json revision 3 → 4", "units/y.json new, revision 1"];
        assert_eq!(describe(&plan), own);
        assert_eq!(
            plan.units.iter().find(|unit| unit.name == name("x")).unwrap().specification.arch.as_str(),
            "aarch64-linux"
        );
        let [conflict] = &plan.conflicts[..] else { panic!("{:?}", plan.conflicts) };
        assert_eq!(conflict.owner.as_deref(), Some("git+https://git.example.org/a"));
        assert_eq!(conflict.sources, ["git+https://git.example.org/a", "git+https://git.example.org/b"]);
        // It stays where the owner is broken, or was not evaluated.
        for evaluations in [vec![owner(&["x"]), other.clone()], vec![other.clone()]] {
            let plan = planned(&before, &["a", "b"], &evaluations, OrphanPolicy::Keep);
            assert_eq!(plan.conflicts.len(), 1);
            assert!(!describe(&plan).iter().any(|change| change.starts_with("units/x.json")), "{:?}", describe(&plan));
        }
        // Another source may have it when its owner has dropped it.
        let dropped = units("a", vec![], &[]);
        let plan = planned(&before, &["a", "b"], &[dropped, other], OrphanPolicy::Withdraw);
        assert!(plan.conflicts.is_empty());
    }
}

#[test]
fn a_new_name_that_two_sources_claim_is_published_for_neither() {
    let both = ["a", "b"].map(|source| units(source, vec![unit(source, "x", "x86_64-linux")], &[]));
    let plan = planned(&empty(), &["a", "b"], &both, OrphanPolicy::Withdraw);
    assert!(describe(&plan).is_empty());
    assert_eq!((plan.conflicts.len(), &plan.conflicts[0].owner), (1, &None));
}

#[test]
fn an_altered_document_is_published_again() {
    let mut before = branch(&[], &[]);
    before.units.insert(name("x"), ExistingDocument::Altered(revision(3)));
    let claimed = [units("a", vec![unit("a", "x", "x86_64-linux")], &[])];
    let plan = planned(&before, &["a"], &claimed, OrphanPolicy::Withdraw);
    assert_eq!(describe(&plan), ["units/x.json revision 3 → 4 (repaired: the file there was altered or not trusted)"]);
}

#[test]
fn a_restored_document_is_published_again_even_if_no_source_claims_it() {
    let document = published(unit("a", "x", "x86_64-linux"), 3);
    let mut before = branch(&[], &[]);
    before.units.insert(name("x"), ExistingDocument::Restored(document, revision(3)));
    let plan = planned(&before, &["a"], &[units("a", vec![], &["x"])], OrphanPolicy::Keep);
    assert_eq!(describe(&plan), ["units/x.json revision 3 → 4 (repaired: the file there was altered or not trusted)"]);
    // Its source is known, so it is withdrawn when that source drops it.
    let plan = planned(&before, &["a"], &[units("a", vec![], &[])], OrphanPolicy::Keep);
    assert_eq!(describe(&plan), ["units/x.json withdrawn after revision 3"]);
}

#[test]
fn an_index_is_signed_again_when_half_of_its_validity_is_over() {
    let before = branch(&[], &[]);
    let input = PublishInput {
        configured: &[],
        evaluations: &[],
        orphans: OrphanPolicy::Keep,
        allowed_withdrawals: 0,
        sources: &[],
    };
    let at = |days: u32| plan_index(&before, &input, &[], now().plus(days * DAY), 7 * DAY).unwrap();
    assert_eq!(at(3), IndexPlan::Keep(IndexVersion::FIRST));
    assert_eq!(at(4), IndexPlan::Write(IndexVersion::try_from(2).unwrap()));
}

#[test]
fn a_document_of_an_outgoing_key_is_signed_again_under_the_next_revision() {
    let outgoing = |draft: Draft<UnitSpecification>| {
        let document = published(draft, 3);
        let mut before = branch(&[], &[]);
        before.units.insert(name("x"), ExistingDocument::Outgoing(document, revision(4)));
        before
    };
    let before = outgoing(unit("a", "x", "x86_64-linux"));
    // Its source gives the same or another specification.
    for arch in ["x86_64-linux", "aarch64-linux"] {
        let plan = planned(&before, &["a"], &[units("a", vec![unit("a", "x", arch)], &[])], OrphanPolicy::Withdraw);
        assert_eq!(describe(&plan), ["units/x.json revision 4 → 5"]);
        assert_eq!(plan.units[0].specification.arch.to_string(), arch);
    }
    // Its source is broken at the moment, or was not evaluated.
    for evaluations in [vec![units("a", vec![], &["x"])], vec![]] {
        let plan = planned(&before, &["a"], &evaluations, OrphanPolicy::Keep);
        assert_eq!(describe(&plan), ["units/x.json revision 4 → 5"]);
        assert_eq!(plan.units[0].specification.arch.to_string(), "x86_64-linux");
    }
    // Its source dropped it.
    let plan = planned(&before, &["a"], &[units("a", vec![], &[])], OrphanPolicy::Withdraw);
    assert_eq!(describe(&plan), ["units/x.json withdrawn after revision 4"]);
}

#[test]
fn another_set_of_broken_parts_signs_the_index_anew_and_another_error_does_not() {
    let flake = fixture::flake("a").to_string();
    let source = |broken: &[&str]| fixture::index_source(&flake, broken);
    let more = IndexSource { more_broken: 1, ..source(&["x"]) };
    let mut other_error = source(&["x"]);
    let mut part = other_error.broken[0].clone();
    part.error = "error: other".parse().unwrap();
    other_error.broken = vec![part].try_into().unwrap();
    let round = [units("a", vec![], &["x"])];
    let (keep, write) = (IndexPlan::Keep(IndexVersion::FIRST), IndexPlan::Write(IndexVersion::FIRST.next().unwrap()));
    for (before, sources, evaluations, expected) in [
        (vec![], vec![source(&[])], &round[..], keep),
        (vec![], vec![source(&["x"])], &round, write),
        (vec![source(&["x"])], vec![source(&["x"])], &round, keep),
        (vec![source(&["x"])], vec![other_error], &round, keep),
        (vec![source(&["x"])], vec![source(&["y"])], &round, write),
        (vec![source(&["x"])], vec![source(&[])], &round, write),
        (vec![source(&["x"])], vec![more.clone()], &round, write),
        // A round that did not read the source says nothing new about it.
        (vec![source(&["x"])], vec![more], &[], keep),
    ] {
        let branch = fixture::branch_of_sources(before);
        let configured = [fixture::flake("a")];
        let input = PublishInput {
            configured: &configured,
            evaluations,
            orphans: OrphanPolicy::Keep,
            allowed_withdrawals: 0,
            sources: &sources,
        };
        let plan = plan(&branch, &input, &Withheld::default(), now(), 7 * DAY).unwrap();
        assert_eq!(plan.index, expected, "{sources:?}");
    }
}
