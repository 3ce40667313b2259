use super::super::branch_state::Existing;
use super::super::fixture::{self, branch_with, name, now, revision, verified};
use super::*;
use crate::model::{
    DeploymentSpecification, Document, Draft, Metadata, NarTemplateSpecification, Specification, TemplateMetadata,
    UnitType,
};
use crate::trust::Verified;

fn document<S: Specification>(of: &str, at: u64, specification: S) -> Verified<Document<S>> {
    verified(Draft::new(name(of), Metadata::default(), specification).at(revision(at), fixture::fleet().id()))
}

fn deployment(at: u64, unit: &str, runs: &str) -> Verified<Deployment> {
    let template = NarTemplateSpecification {
        metadata: TemplateMetadata::default(),
        nar_id: format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{runs}").parse().unwrap(),
        substituters: crate::model::List::default(),
        substituters_public_keys: crate::model::List::default(),
    };
    document("web-1", at, DeploymentSpecification::new(name(unit), template))
}

fn unit(arch: &str) -> Verified<crate::model::Unit> {
    document("web-1", 1, UnitSpecification { arch: arch.parse().unwrap(), unit_type: UnitType::Nixos })
}

/// A branch with `web-1` at revision 7, where `old-1` was withdrawn after its revision 3.
fn branch() -> BranchState {
    let deployments = [(name("web-1"), ExistingDocument::Intact(deployment(7, "web-1", "new")))];
    let units = [(name("web-1"), ExistingDocument::Intact(unit("x86_64-linux")))];
    BranchState {
        deployments: Existing::from(deployments),
        units: Existing::from(units),
        ..branch_with(&[("deployments/old-1.json", 3)])
    }
}

fn held(at: u64) -> BranchState {
    let hold = Hold { revision: revision(at), since: now(), until: None, why: "no reason".parse().unwrap() };
    BranchState { holds: [(name("web-1"), hold)].into(), ..branch() }
}

fn past(unit_name: &str, runs: &str, arch: &str) -> RevisionLookup {
    RevisionLookup::Found(Box::new(PastDeployment {
        deployment: deployment(6, unit_name, runs),
        unit: Some(unit(arch)),
    }))
}

fn patterns(of: &str) -> Vec<Pattern> {
    of.split(' ').map(|pattern| pattern.parse().unwrap()).collect()
}

fn request(operation: Operation) -> OperatorRequest {
    OperatorRequest { operation, why: "a test".parse().unwrap(), person: None }
}

fn to_hold(of: &str) -> OperatorRequest {
    request(Operation::Hold { deployments: patterns(of), until: None })
}

fn to_release(of: &str) -> OperatorRequest {
    request(Operation::Release { deployments: patterns(of) })
}

fn to_go_back(to: u64) -> OperatorRequest {
    request(Operation::RollBack { name: name("web-1"), to: revision(to), removed_keys: RemovedKeys::NotTrusted })
}

fn refused(branch: &BranchState, request: &OperatorRequest, past: &RevisionLookup) -> String {
    operate(branch, request, past, PublishPolicy::WhenEvaluated, now()).unwrap_err().to_string()
}

#[test]
fn going_back_is_the_next_revision_and_a_hold() {
    let to_6 = to_go_back(6);
    for branch in [branch(), held(7)] {
        let past = past("web-1", "old", "x86_64-linux");
        let OperationPlan { plan, names } =
            operate(&branch, &to_6, &past, PublishPolicy::WhenEvaluated, now()).unwrap();
        let [document] = &plan.deployments[..] else { panic!("{plan:?}") };
        assert_eq!(document.revision, revision(8));
        assert_eq!(document.specification, deployment(6, "web-1", "old").specification);
        assert_eq!(plan.changes[0].to_string(), "revision 7 → 8");
        assert_eq!(plan.holds[&name("web-1")].revision, revision(8));
        assert_eq!(plan.index, IndexPlan::Write(IndexVersion::try_from(2).unwrap()));
        assert_eq!(to_6.subject(&names, &plan, &branch), "rollback: web-1 to revision 6, as revision 8, and held");
    }
}

#[test]
fn a_hold_and_a_release_change_the_index_alone() {
    let hold = to_hold("web-1");
    let OperationPlan { plan, names } =
        operate(&branch(), &hold, &RevisionLookup::NotFound, PublishPolicy::WhenEvaluated, now()).unwrap();
    assert!(plan.changes.is_empty() && plan.deployments.is_empty());
    assert_eq!(
        plan.holds[&name("web-1")],
        Hold { revision: revision(7), since: now(), until: None, why: hold.why.clone() }
    );
    assert_eq!(hold.subject(&names, &plan, &branch()), "hold: web-1 at revision 7");
    let release = to_release("web-1");
    let OperationPlan { plan, names } =
        operate(&held(7), &release, &RevisionLookup::NotFound, PublishPolicy::WhenEvaluated, now()).unwrap();
    assert!(plan.changes.is_empty() && plan.holds.is_empty());
    assert_eq!(
        release.subject(&names, &plan, &held(7)),
        "release: web-1, held at revision 7 since 2026-01-01T00:00:00Z (no reason)"
    );
}

#[test]
fn impossible_requests_are_refused() {
    let back = to_go_back;
    let old = |unit: &str, runs: &str, arch: &str| refused(&branch(), &back(6), &past(unit, runs, arch));
    for (said, expected) in [
        (refused(&branch(), &to_hold("x"), &RevisionLookup::NotFound), "the branch has no deployment `x`"),
        (refused(&branch(), &to_hold("old-1"), &RevisionLookup::NotFound), "was withdrawn after its revision 3"),
        (refused(&branch(), &to_release("web-1"), &RevisionLookup::NotFound), "`web-1` is not held"),
        (
            refused(
                &held(7),
                &OperatorRequest { why: "no reason".parse().unwrap(), ..to_hold("web-1") },
                &RevisionLookup::NotFound,
            ),
            "since 2026-01-01T00:00:00Z (no reason) already",
        ),
        (refused(&branch(), &back(7), &RevisionLookup::NotFound), "`web-1` is at revision 7 now"),
        (
            refused(&branch(), &back(9), &RevisionLookup::NotFound),
            "no revision 9 of `web-1` in its history; it is at revision 7",
        ),
        (
            refused(&branch(), &back(6), &RevisionLookup::Untrusted("so".to_owned())),
            "but no publisher of the newest root vouches for it: so",
        ),
        (old("web-1", "new", "x86_64-linux"), "is at revision 7 now, which has the same specification as revision 6"),
        (old("web-2", "old", "x86_64-linux"), "was for the unit `web-2`, and it is for `web-1` now"),
        (
            old("web-1", "old", "aarch64-linux"),
            "of type nixos and arch aarch64-linux, and `web-1` is type nixos and arch",
        ),
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn operations_on_documents_that_are_not_trusted_are_refused() {
    let hold = to_hold("web-1");
    let empty = BranchState::empty(fixture::fleet().id());
    assert!(refused(&empty, &hold, &RevisionLookup::NotFound).contains("the branch has no deployment `web-1`"));
    let older = BranchState { is_of_an_older_root: true, ..branch() };
    assert!(refused(&older, &hold, &RevisionLookup::NotFound).contains("claveld has not signed the branch again yet"));
    let mut altered = branch();
    altered.deployments.insert(name("web-1"), ExistingDocument::Altered(revision(7)));
    assert!(
        refused(&altered, &hold, &RevisionLookup::NotFound)
            .contains("the document of `web-1` on the branch is altered")
    );
}

#[test]
fn a_lost_document_stays_held_until_a_release_withdraws_it() {
    for mut lost in [branch(), held(7)] {
        lost.deployments.insert(name("web-1"), ExistingDocument::Altered(revision(7)));
        let release = to_release("web-1");
        let plan = operate(&lost, &release, &RevisionLookup::NotFound, PublishPolicy::WhenPinned, now()).unwrap().plan;
        assert!(plan.holds.is_empty() && plan.deployments.is_empty());
        assert_eq!(plan.changes[0].to_string(), "withdrawn after revision 7");
    }
    let mut lost = held(7);
    lost.deployments.insert(name("web-1"), ExistingDocument::Altered(revision(7)));
    let said = refused(&lost, &to_go_back(6), &past("web-1", "old", "x86_64-linux"));
    assert!(
        said.contains("revision 7 is neither on the branch nor in its history any more")
            && said.contains("`clavel release web-1`"),
        "{said}"
    );
}

#[test]
fn where_everything_is_pinned_going_back_needs_a_pin() {
    let (to_6, past) = (to_go_back(6), past("web-1", "old", "x86_64-linux"));
    let refused = operate(&branch(), &to_6, &past, PublishPolicy::WhenPinned, now()).unwrap_err().to_string();
    assert!(refused.contains("revision 6 of `web-1` has no pin"), "{refused}");
    operate(&branch(), &to_6, &past, PublishPolicy::WhenCached, now()).unwrap();
}

#[test]
fn a_pattern_holds_and_releases_what_it_matches() {
    let mut many = held(6);
    for (of, at) in [("web-2", 3), ("db-1", 1)] {
        many.deployments.insert(name(of), ExistingDocument::Intact(deployment(at, of, "new")));
    }
    let until = Some(now().plus(std::time::Duration::from_hours(1)));
    let hold = request(Operation::Hold { deployments: patterns("web-* db-1"), until });
    let plan = |branch: &BranchState, request: &OperatorRequest| {
        operate(branch, request, &RevisionLookup::NotFound, PublishPolicy::WhenEvaluated, now())
    };
    let OperationPlan { plan: all, names } = plan(&many, &hold).unwrap();
    assert_eq!(names, ["db-1", "web-1", "web-2"].map(name));
    // A hold that was there keeps its revision, and gets the new end.
    assert_eq!((all.holds[&name("web-1")].revision, all.holds[&name("web-1")].until), (revision(6), until));
    assert_eq!(all.holds[&name("web-2")].revision, revision(3));
    assert_eq!(hold.subject(&names, &all, &many), "hold: db-1, web-1, web-2 until 2026-01-01T01:00:00Z");
    assert_eq!(
        describe_holds(&operations(&names, &all)),
        "db-1: held at revision 1\nweb-1: held at revision 6\nweb-2: held at revision 3"
    );

    let all_held = BranchState { holds: all.holds, ..many };
    let OperationPlan { plan: released, names } = plan(&all_held, &to_release("web-*")).unwrap();
    assert_eq!((names.len(), released.holds.len()), (2, 1));
    let over = request(Operation::Hold { deployments: patterns("*"), until: Some(now()) });
    for (branch, request, expected) in [
        (&all_held, to_hold("mail-*"), "no deployment that `mail-*` matches;"),
        (&all_held, to_release("mail-*"), "no deployment that `mail-*` matches is held"),
        (&branch(), to_release("*"), "no deployment that `*` matches is held"),
        (&all_held, over, "because that is over"),
    ] {
        let said = plan(branch, &request).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_hold_ends_at_its_time_and_not_before() {
    let mut branch = held(7);
    let end = now().plus(std::time::Duration::from_hours(1));
    branch.holds.get_mut(&name("web-1")).unwrap().until = Some(end);
    branch.end_holds(now());
    assert!(branch.holds.len() == 1 && branch.ended_holds.is_empty());
    branch.end_holds(end);
    assert!(branch.holds.is_empty() && branch.ended_holds.len() == 1);
}
