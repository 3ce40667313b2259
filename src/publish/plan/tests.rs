use super::*;
use crate::evaluate::Found;
use crate::model::{LockedSource, Metadata, Source, UnitType};
use crate::trust::fixture::Fleet;

const DAY: Duration = Duration::from_hours(24);

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn flake(name: &str) -> FlakeReference {
    format!("git+https://git.example.org/{name}").parse().unwrap()
}

fn unit(source: &str, name: &str, arch: &str) -> Draft<UnitSpecification> {
    let provenance = Provenance {
        attribute: format!("clavel.units.{name}").parse().unwrap(),
        drv_path: None,
        evaluated_at: now(),
        source: flake(source),
        source_hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        source_revision: None,
    };
    let metadata = provenance.add_to(Metadata::default()).unwrap();
    let specification = UnitSpecification { arch: arch.parse().unwrap(), unit_type: UnitType::Nixos };
    Draft::new(name.parse().unwrap(), metadata, specification)
}

fn evaluation(source: &str, units: Vec<Draft<UnitSpecification>>, failing: &[&str]) -> Evaluation {
    let failure = |name: &&str| Failure {
        name: (*name).to_owned(),
        attribute: format!("clavel.units.{name}"),
        error: "error: no".to_owned(),
    };
    let failures = failing.iter().map(failure).collect();
    let locked = Source::bare(flake(source)).flake;
    Evaluation {
        source: LockedSource {
            flake: locked.clone(),
            locked,
            hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
            revision: None,
        },
        found: Found { units, failures, ..Found::default() },
        work: crate::evaluate::Work::default(),
    }
}

/// The fleet of all tests here.
fn fleet() -> &'static Fleet {
    static FLEET: std::sync::LazyLock<Fleet> = std::sync::LazyLock::new(Fleet::new);
    &FLEET
}

fn verified<P: crate::model::Payload>(payload: P) -> Verified<P> {
    fleet().verified(payload)
}

/// A branch with these units at these revisions, and tombstones.
fn branch(units: &[(Draft<UnitSpecification>, u64)], tombstones: &[(&str, u64)]) -> BranchState {
    use crate::model::{Kind, Map, Schema};
    let revision = |n: u64| Revision::try_from(n).unwrap();
    let mut stones = Map::default();
    for (name, last) in tombstones {
        let path = format!("units/{name}.json").parse().unwrap();
        stones.insert(path, Tombstone { revision: revision(*last) }).unwrap();
    }
    let index = Index {
        branch: "deployments".parse().unwrap(),
        documents: Map::default(),
        epoch: crate::model::Epoch::FIRST,
        expires: now().plus(7 * DAY),
        fleet: fleet().id(),
        held: Map::default(),
        issued: now(),
        kind: Kind::THIS,
        previous: None,
        schema: Schema::V1,
        tombstones: stones,
        version: IndexVersion::FIRST,
    };
    let documents = units.iter().map(|(draft, n)| {
        (draft.name.clone(), ExistingDocument::Intact(verified(draft.clone().at(revision(*n), fleet().id()))))
    });
    BranchState {
        index: Some((verified(index), crate::trust::digest(b"index"))),
        units: documents.collect(),
        ..BranchState::empty(fleet().id())
    }
}

fn planned(branch: &BranchState, configured: &[&str], evaluations: &[Evaluation], strays: Strays) -> Plan {
    let configured: Vec<FlakeReference> = configured.iter().map(|name| flake(name)).collect();
    plan(branch, &Evaluated { configured: &configured, evaluations, strays }, &Held::default(), now(), 7 * DAY).unwrap()
}

fn told(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|change| format!("{} {change}", change.path)).collect()
}

#[test]
fn a_first_publication_starts_counting() {
    let plan = planned(
        &BranchState::empty(fleet().id()),
        &["a"],
        &[evaluation("a", vec![unit("a", "x", "x86_64-linux")], &[])],
        Strays::Go,
    );
    assert_eq!(told(&plan), ["units/x.json new, revision 1"]);
    assert_eq!(plan.index, IndexPlan::Write(IndexVersion::FIRST));
}

#[test]
fn the_same_again_writes_nothing() {
    let x = unit("a", "x", "x86_64-linux");
    let plan = planned(&branch(&[(x.clone(), 3)], &[]), &["a"], &[evaluation("a", vec![x], &[])], Strays::Go);
    assert!(plan.changes.is_empty() && plan.units.is_empty());
    assert_eq!(plan.index, IndexPlan::Keep(IndexVersion::FIRST));
}

#[test]
fn a_changed_specification_counts_up_by_one() {
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3), (unit("a", "y", "x86_64-linux"), 1)], &[]);
    let after = vec![unit("a", "x", "aarch64-linux"), unit("a", "y", "x86_64-linux")];
    let plan = planned(&before, &["a"], &[evaluation("a", after, &[])], Strays::Go);
    assert_eq!(told(&plan), ["units/x.json revision 3 → 4"]);
    assert_eq!(plan.units[0].revision.get(), 4);
}

#[test]
fn what_left_its_source_goes_and_comes_back_counting_on() {
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3)], &[]);
    let plan = planned(&before, &["a"], &[evaluation("a", vec![], &[])], Strays::Stay);
    assert_eq!(told(&plan), ["units/x.json withdrawn after revision 3"]);
    let back = evaluation("a", vec![unit("a", "x", "x86_64-linux")], &[]);
    let plan = planned(&branch(&[], &[("x", 3)]), &["a"], &[back], Strays::Stay);
    assert_eq!(plan.units[0].revision.get(), 4);
}

#[test]
fn what_is_broken_stays_as_it_is() {
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3)], &[]);
    assert!(told(&planned(&before, &["a"], &[evaluation("a", vec![], &["x"])], Strays::Go)).is_empty());
    // A source that could not be evaluated at all has no say.
    assert!(told(&planned(&before, &["a"], &[], Strays::Go)).is_empty());
}

#[test]
fn documents_of_a_source_that_is_gone_go_with_a_full_round_alone() {
    let before = branch(&[(unit("old", "x", "x86_64-linux"), 3)], &[]);
    let a = [evaluation("a", vec![], &[])];
    assert!(told(&planned(&before, &["a"], &a, Strays::Stay)).is_empty());
    assert_eq!(told(&planned(&before, &["a"], &a, Strays::Go)), ["units/x.json withdrawn after revision 3"]);
    // Another source may take the name over, and the revisions go on.
    let taken = [evaluation("a", vec![unit("a", "x", "aarch64-linux")], &[])];
    assert_eq!(told(&planned(&before, &["a"], &taken, Strays::Stay)), ["units/x.json revision 3 → 4"]);
}

#[test]
fn a_name_that_two_sources_claim_is_told_and_left_alone() {
    let both = [
        evaluation("a", vec![unit("a", "x", "aarch64-linux"), unit("a", "free", "x86_64-linux")], &[]),
        evaluation("b", vec![unit("b", "X", "x86_64-linux")], &[]),
    ];
    let before = branch(&[(unit("a", "x", "x86_64-linux"), 3)], &[]);
    let plan = planned(&before, &["a", "b"], &both, Strays::Go);
    assert_eq!(told(&plan), ["units/free.json new, revision 1"]);
    let [conflict] = &plan.conflicts[..] else { panic!("{:?}", plan.conflicts) };
    assert_eq!(conflict.sources, ["git+https://git.example.org/a", "git+https://git.example.org/b"]);
    // Also where the owner was not asked this time.
    let plan = planned(&before, &["a", "b"], &both[1..], Strays::Stay);
    assert_eq!(plan.conflicts.len(), 1);
}

#[test]
fn what_was_altered_on_the_branch_is_published_anew() {
    let mut before = branch(&[], &[]);
    before.units.insert("x".parse().unwrap(), ExistingDocument::Altered(Revision::try_from(3).unwrap()));
    let claimed = [evaluation("a", vec![unit("a", "x", "x86_64-linux")], &[])];
    let plan = planned(&before, &["a"], &claimed, Strays::Go);
    assert_eq!(told(&plan), ["units/x.json revision 3 → 4 (what was there was not to be believed)"]);
}

#[test]
fn what_was_altered_and_is_found_again_is_published_anew_though_nobody_claims_it() {
    let document = verified(unit("a", "x", "x86_64-linux").at(Revision::try_from(3).unwrap(), fleet().id()));
    let mut before = branch(&[], &[]);
    before.units.insert("x".parse().unwrap(), ExistingDocument::Restored(document, Revision::try_from(3).unwrap()));
    let plan = planned(&before, &["a"], &[evaluation("a", vec![], &["x"])], Strays::Stay);
    assert_eq!(told(&plan), ["units/x.json revision 3 → 4 (what was there was not to be believed)"]);
    // Whose it is is known, and so it goes with its source.
    let plan = planned(&before, &["a"], &[evaluation("a", vec![], &[])], Strays::Stay);
    assert_eq!(told(&plan), ["units/x.json withdrawn after revision 3"]);
}

#[test]
fn an_index_is_signed_anew_when_half_of_its_time_is_gone() {
    let before = branch(&[], &[]);
    let at = |days: u32| plan_index(&before, &[], now().plus(days * DAY), 7 * DAY).unwrap();
    assert_eq!(at(3), IndexPlan::Keep(IndexVersion::FIRST));
    assert_eq!(at(4), IndexPlan::Write(IndexVersion::try_from(2).unwrap()));
}

#[test]
fn what_an_outgoing_key_signed_goes_on_under_the_next_revision() {
    let outgoing = |draft: Draft<UnitSpecification>| {
        let document = verified(draft.at(Revision::try_from(3).unwrap(), fleet().id()));
        let mut before = branch(&[], &[]);
        before.units.insert("x".parse().unwrap(), ExistingDocument::Outgoing(document, Revision::try_from(4).unwrap()));
        before
    };
    let before = outgoing(unit("a", "x", "x86_64-linux"));
    // With its source, which gives the same or another thing.
    for arch in ["x86_64-linux", "aarch64-linux"] {
        let plan = planned(&before, &["a"], &[evaluation("a", vec![unit("a", "x", arch)], &[])], Strays::Go);
        assert_eq!(told(&plan), ["units/x.json revision 4 → 5"]);
        assert_eq!(plan.units[0].specification.arch.to_string(), arch);
    }
    // Without: the source is broken just now, or was not asked.
    for evaluations in [vec![evaluation("a", vec![], &["x"])], vec![]] {
        let plan = planned(&before, &["a"], &evaluations, Strays::Stay);
        assert_eq!(told(&plan), ["units/x.json revision 4 → 5"]);
        assert_eq!(plan.units[0].specification.arch.to_string(), "x86_64-linux");
    }
    // Its source does not give it any more.
    let plan = planned(&before, &["a"], &[evaluation("a", vec![], &[])], Strays::Go);
    assert_eq!(told(&plan), ["units/x.json withdrawn after revision 4"]);
}
