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
    document("web-1", at, DeploymentSpecification { template, unit: name(unit) })
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
    let hold = Hold { revision: revision(at), since: now(), why: "no reason".parse().unwrap() };
    BranchState { holds: [(name("web-1"), hold)].into(), ..branch() }
}

fn past(unit_name: &str, runs: &str, arch: &str) -> RevisionLookup {
    RevisionLookup::Found(Box::new(PastDeployment {
        deployment: deployment(6, unit_name, runs),
        unit: Some(unit(arch)),
    }))
}

fn request(of: &str, operation: Operation) -> OperatorRequest {
    OperatorRequest { name: name(of), operation, why: "a test".parse().unwrap() }
}

fn refused(branch: &BranchState, request: &OperatorRequest, past: &RevisionLookup) -> String {
    operate(branch, request, past, PublishPolicy::WhenEvaluated, now()).unwrap_err().to_string()
}

#[test]
fn going_back_is_the_next_revision_and_a_hold() {
    let to_6 = request("web-1", Operation::RollBack(revision(6)));
    for branch in [branch(), held(7)] {
        let plan = operate(&branch, &to_6, &past("web-1", "old", "x86_64-linux"), PublishPolicy::WhenEvaluated, now())
            .unwrap();
        let [document] = &plan.deployments[..] else { panic!("{plan:?}") };
        assert_eq!(document.revision, revision(8));
        assert_eq!(document.specification, deployment(6, "web-1", "old").specification);
        assert_eq!(plan.changes[0].to_string(), "revision 7 → 8");
        assert_eq!(plan.holds[&name("web-1")].revision, revision(8));
        assert_eq!(plan.index, IndexPlan::Write(IndexVersion::try_from(2).unwrap()));
        assert_eq!(to_6.subject(&plan, &branch), "rollback: web-1 to revision 6, as revision 8, and held");
    }
}

#[test]
fn a_hold_and_a_release_change_the_index_alone() {
    let hold = request("web-1", Operation::Hold);
    let plan = operate(&branch(), &hold, &RevisionLookup::NotFound, PublishPolicy::WhenEvaluated, now()).unwrap();
    assert!(plan.changes.is_empty() && plan.deployments.is_empty());
    assert_eq!(plan.holds[&name("web-1")], Hold { revision: revision(7), since: now(), why: hold.why.clone() });
    assert_eq!(hold.subject(&plan, &branch()), "hold: web-1 at revision 7");
    let release = request("web-1", Operation::Release);
    let plan = operate(&held(7), &release, &RevisionLookup::NotFound, PublishPolicy::WhenEvaluated, now()).unwrap();
    assert!(plan.changes.is_empty() && plan.holds.is_empty());
    assert_eq!(
        release.subject(&plan, &held(7)),
        "release: web-1, held at revision 7 since 2026-01-01T00:00:00Z (no reason)"
    );
}

#[test]
fn impossible_requests_are_refused() {
    let back = |number| request("web-1", Operation::RollBack(revision(number)));
    let old = |unit: &str, runs: &str, arch: &str| refused(&branch(), &back(6), &past(unit, runs, arch));
    for (said, expected) in [
        (
            refused(&branch(), &request("x", Operation::Hold), &RevisionLookup::NotFound),
            "the branch has no deployment `x`",
        ),
        (
            refused(&branch(), &request("old-1", Operation::Hold), &RevisionLookup::NotFound),
            "was withdrawn after its revision 3",
        ),
        (refused(&branch(), &request("web-1", Operation::Release), &RevisionLookup::NotFound), "`web-1` is not held"),
        (
            refused(&held(7), &request("web-1", Operation::Hold), &RevisionLookup::NotFound),
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
    let hold = request("web-1", Operation::Hold);
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
        let release = request("web-1", Operation::Release);
        let plan = operate(&lost, &release, &RevisionLookup::NotFound, PublishPolicy::WhenPinned, now()).unwrap();
        assert!(plan.holds.is_empty() && plan.deployments.is_empty());
        assert_eq!(plan.changes[0].to_string(), "withdrawn after revision 7");
    }
    let mut lost = held(7);
    lost.deployments.insert(name("web-1"), ExistingDocument::Altered(revision(7)));
    let said =
        refused(&lost, &request("web-1", Operation::RollBack(revision(6))), &past("web-1", "old", "x86_64-linux"));
    assert!(
        said.contains("revision 7 is neither on the branch nor in its history any more")
            && said.contains("`clavel release web-1`"),
        "{said}"
    );
}

#[test]
fn where_everything_is_pinned_going_back_needs_a_pin() {
    let (to_6, past) = (request("web-1", Operation::RollBack(revision(6))), past("web-1", "old", "x86_64-linux"));
    let refused = operate(&branch(), &to_6, &past, PublishPolicy::WhenPinned, now()).unwrap_err().to_string();
    assert!(refused.contains("revision 6 of `web-1` has no pin"), "{refused}");
    operate(&branch(), &to_6, &past, PublishPolicy::WhenCached, now()).unwrap();
}
