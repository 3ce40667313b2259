use super::super::fixture::{self, cache_entry, cached_draft, fleet, hash, intact, list, path};
use super::super::plan::{OrphanPolicy, Plan};
use super::super::survey::{CacheAnswer, CacheAnswers, CacheScope};
use super::super::withheld::Withheld;
use super::*;
use crate::evaluate::Drafts;
use crate::model::{List, NarHash, Revision};

const ONE: &str = "https://one.example.org";
const TWO: &str = "https://two.example.org";

/// The answer of a cache that has `name` with this content and these references, validly signed.
fn has(name: &str, content: u8, references: &[&str]) -> CacheAnswer {
    CacheAnswer::Has(cache_entry(name, content, references))
}

fn answers(said: &[(&str, &str, CacheAnswer)]) -> CacheAnswers {
    said.iter()
        .map(|(cache, name, said)| ((cache.parse().unwrap(), path(name).parse().unwrap()), said.clone()))
        .collect()
}

fn draft(name: &str, nar_id: &str) -> Draft<DeploymentSpecification> {
    cached_draft(name, nar_id, &[ONE, TWO])
}

fn evaluation(deployments: Vec<Draft<DeploymentSpecification>>) -> Evaluation {
    fixture::evaluation("fleet", Drafts { deployments, ..Drafts::default() })
}

fn pinned_to(content: u8, mut draft: Draft<DeploymentSpecification>) -> Draft<DeploymentSpecification> {
    let pin = Pin { closure: "0".repeat(64).parse().unwrap(), nar_hash: hash(content) };
    let metadata = &mut draft.specification.template.metadata;
    *metadata = metadata.with_pin(&pin).unwrap();
    draft
}

fn branch(drafts: Vec<Draft<DeploymentSpecification>>) -> BranchState {
    let deployments = intact(drafts.into_iter().map(|draft| (draft, 1)));
    BranchState { deployments, ..BranchState::empty(fleet().id()) }
}

/// The plan on `branch` for the evaluations in `pinning`.
fn planned(branch: &BranchState, pinning: &Pinning, unpinned: BTreeSet<Name>) -> Plan {
    let withheld = Withheld { unpinned, ..Withheld::default() };
    fixture::planned(branch, &["fleet"], &pinning.evaluations, OrphanPolicy::Withdraw, &withheld)
}

fn written(plan: &Plan) -> Vec<String> {
    plan.deployments.iter().map(|d| format!("{} {}", d.name, d.revision)).collect()
}

#[test]
fn an_existing_pin_is_kept() {
    let branch = branch(vec![pinned_to(1, draft("a", "top"))]);
    let pinning = Pinning::from_branch(&branch, &[evaluation(vec![draft("a", "top")])]).unwrap();
    assert_eq!(pinning.unpinned, BTreeSet::new());
    assert_eq!(written(&planned(&branch, &pinning, pinning.unpinned.clone())), [""; 0]);
}

#[test]
fn a_pin_belongs_to_its_store_path_alone() {
    let branch = branch(vec![pinned_to(1, draft("a", "top"))]);
    let pinning = Pinning::from_branch(&branch, &[evaluation(vec![draft("a", "other")])]).unwrap();
    assert_eq!(pinning.unpinned.iter().map(Name::as_str).collect::<Vec<_>>(), ["a"]);
    assert_eq!(written(&planned(&branch, &pinning, pinning.unpinned.clone())), ["a 2"]);
}

#[test]
fn a_pin_outlives_the_caches_and_keys_that_it_was_made_with() {
    let branch = branch(vec![pinned_to(1, draft("a", "top"))]);
    let mut other_caches = draft("a", "top");
    other_caches.specification.template.substituters = list(&[TWO]);
    let mut other_keys = draft("a", "top");
    other_keys.specification.template.substituters_public_keys = List::default();
    for changed in [other_caches, other_keys] {
        let pinning = Pinning::from_branch(&branch, &[evaluation(vec![changed])]).unwrap();
        assert_eq!(pinning.unpinned, BTreeSet::new());
        let plan = planned(&branch, &pinning, BTreeSet::new());
        assert_eq!(written(&plan), ["a 2"]);
        let pin = *plan.deployments[0].specification.template.metadata.pin().unwrap().unwrap();
        assert_eq!(pin.nar_hash, hash(1));
    }
}

#[test]
fn a_deployment_without_a_pin_gets_a_revision_with_one() {
    let branch = branch(vec![draft("a", "top")]);
    let mut pinning = Pinning::from_branch(&branch, &[evaluation(vec![draft("a", "top"), draft("b", "top")])]).unwrap();
    let whole = planned(&branch, &pinning, pinning.unpinned.clone());
    assert_eq!(written(&whole), ["a 2", "b 1"]);
    let said = answers(&[(ONE, "top", has("top", 1, &[]))]);
    let asked: Vec<Deployment> = whole.deployments.clone();
    let survey = CacheSurvey::of(&asked, CacheScope::Closure, &said);
    pinning.add_pins(&pins(&asked, &survey)).unwrap();
    let plan = planned(&branch, &pinning, BTreeSet::new());
    assert_eq!(written(&plan), ["a 2", "b 1"]);
    let pin = *plan.deployments[0].specification.template.metadata.pin().unwrap().unwrap();
    assert_eq!(pin.nar_hash, hash(1));
    // Without `publish.pin` there are no questions, and nothing is new.
    let off = Pinning { evaluations: vec![evaluation(vec![draft("a", "top")])], unpinned: BTreeSet::new() };
    assert_eq!(written(&planned(&branch, &off, BTreeSet::new())), [""; 0]);
}

/// Whether the caches have the closure of the path `top`.
fn availability(said: &[(&str, &str, CacheAnswer)]) -> Availability {
    let deployments = [draft("a", "top").at(Revision::FIRST, fleet().id())];
    CacheSurvey::of(&deployments, CacheScope::Closure, &answers(said))
        .availability(&deployments[0].specification.template)
}

#[test]
fn the_first_cache_with_a_valid_signature_determines_the_content() {
    let whole = [
        (ONE, "top", has("top", 1, &["dep", "top"])),
        (ONE, "dep", CacheAnswer::HasNot),
        (TWO, "top", has("top", 9, &[])),
        (TWO, "dep", has("dep", 2, &[])),
    ];
    let Availability::Complete(closure) = availability(&whole) else { panic!() };
    let found: Vec<(String, NarHash)> = closure.iter().map(|(path, c)| (path.to_string(), c.nar_hash)).collect();
    assert_eq!(found.len(), 2);
    assert!(found.contains(&(path("top"), hash(1))) && found.contains(&(path("dep"), hash(2))));
}

#[test]
fn a_missing_path_or_one_signed_by_others_is_named() {
    let top = (ONE, "top", has("top", 1, &["dep"]));
    let CacheAnswer::Has(entry) = has("other", 2, &[]) else { panic!() };
    for lacking in [CacheAnswer::HasNot, CacheAnswer::OutOfReach("no route".to_owned()), CacheAnswer::Has(entry)] {
        let said = [top.clone(), (ONE, "dep", lacking.clone()), (TWO, "dep", lacking)];
        let Availability::Incomplete { path: lacks, caches } = availability(&said) else { panic!() };
        assert_eq!((lacks.to_string(), caches.len()), (path("dep"), 2));
    }
}

#[test]
fn references_are_asked_for_in_the_order_of_the_caches() {
    let deployments = ["a", "b"].map(|name| draft(name, "top").at(Revision::FIRST, fleet().id()));
    let asked = |scope, said: &[(&str, &str, CacheAnswer)]| -> Vec<String> {
        let answers = answers(said);
        let questions = CacheSurvey::of(&deployments, scope, &answers).questions();
        let told = |(cache, paths): (crate::model::Substituter, BTreeSet<crate::model::StorePath>)| {
            paths.into_iter().map(move |path| format!("{cache} {}", path.name()))
        };
        questions.into_iter().flat_map(told).collect()
    };
    let top = (ONE, "top", has("top", 1, &["dep"]));
    assert_eq!(asked(CacheScope::Closure, &[]), [format!("{ONE} top")]);
    assert_eq!(asked(CacheScope::Closure, std::slice::from_ref(&top)), [format!("{ONE} dep")]);
    assert_eq!(asked(CacheScope::Closure, &[top.clone(), (ONE, "dep", CacheAnswer::HasNot)]), [format!("{TWO} dep")]);
    assert_eq!(asked(CacheScope::Path, &[top]), [""; 0]);
}
