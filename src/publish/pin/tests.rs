use base64::Engine as _;
use ed25519_dalek::{Signer as _, SigningKey};
use nix_derivation::nixbase32;

use super::super::plan::{Evaluated, Existing, Plan, Strays, plan};
use super::super::ready::Held;
use super::super::survey::{Answers, Need, Said};
use super::*;
use crate::evaluate::{Found, Work};
use crate::model::{
    FlakeReference, List, LockedSource, Metadata, NarHash, NarTemplateSpecification, Provenance, Revision, Timestamp,
};
use crate::trust::fixture::Fleet;

const ONE: &str = "https://one.example.org";
const TWO: &str = "https://two.example.org";

fn fleet() -> &'static Fleet {
    static FLEET: std::sync::LazyLock<Fleet> = std::sync::LazyLock::new(Fleet::new);
    &FLEET
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn path(name: &str) -> String {
    format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}")
}

fn hash(content: u8) -> NarHash {
    let encoded = base64::engine::general_purpose::STANDARD.encode([content; 32]);
    format!("sha256-{encoded}").parse().unwrap()
}

/// What a cache has under `name`: this content, which needs these, well signed.
fn has(name: &str, content: u8, references: &[&str]) -> Said {
    let references: Vec<String> = references.iter().map(|name| path(name)).collect();
    let fingerprint =
        format!("1;{};sha256:{};120;{}", path(name), nixbase32::encode(&[content; 32]), references.join(","));
    let signature = key().sign(fingerprint.as_bytes()).to_bytes();
    let signature = format!("c-1:{}", base64::engine::general_purpose::STANDARD.encode(signature));
    let entry = serde_json::json!({
        "narHash": hash(content), "narSize": 120, "references": references, "signatures": [signature],
    });
    Said::Has(serde_json::from_value(entry).unwrap())
}

fn answers(said: &[(&str, &str, Said)]) -> Answers {
    said.iter()
        .map(|(cache, name, said)| ((cache.parse().unwrap(), path(name).parse().unwrap()), said.clone()))
        .collect()
}

fn list<T: std::str::FromStr<Err: std::fmt::Debug>, const MOST: usize>(items: &[&str]) -> List<T, MOST> {
    items.iter().map(|item| item.parse().unwrap()).collect::<Vec<T>>().try_into().unwrap()
}

fn draft(name: &str, nar_id: &str) -> Draft<DeploymentSpecification> {
    let public = base64::engine::general_purpose::STANDARD.encode(key().verifying_key().to_bytes());
    let template = NarTemplateSpecification {
        metadata: Metadata::default(),
        nar_id: path(nar_id).parse().unwrap(),
        substituters: list(&[ONE, TWO]),
        substituters_public_keys: list(&[&format!("c-1:{public}")]),
    };
    let provenance = Provenance {
        attribute: format!("x.{name}").parse().unwrap(),
        drv_path: None,
        evaluated_at: now(),
        source: flake(),
        source_hash: hash(0),
        source_revision: None,
    };
    let metadata = provenance.add_to(Metadata::default()).unwrap();
    Draft::new(name.parse().unwrap(), metadata, DeploymentSpecification { template, unit: "u".parse().unwrap() })
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn flake() -> FlakeReference {
    "git+https://git.example.org/fleet".parse().unwrap()
}

fn evaluation(deployments: Vec<Draft<DeploymentSpecification>>) -> Evaluation {
    let source = LockedSource { flake: flake(), locked: flake(), hash: hash(0), revision: None };
    Evaluation { source, found: Found { deployments, ..Found::default() }, work: Work::default() }
}

fn pinned_to(content: u8, mut draft: Draft<DeploymentSpecification>) -> Draft<DeploymentSpecification> {
    let pin = Pin { closure: "0".repeat(64).parse().unwrap(), nar_hash: hash(content) };
    let metadata = &mut draft.specification.template.metadata;
    *metadata = pin.add_to(metadata.clone()).unwrap();
    draft
}

fn branch(drafts: Vec<Draft<DeploymentSpecification>>) -> BranchState {
    let intact = |draft: Draft<DeploymentSpecification>| {
        let document = fleet().verified(draft.clone().at(Revision::FIRST, fleet().id()));
        (draft.name, ExistingDocument::Intact(document))
    };
    let deployments: Existing<DeploymentSpecification> = drafts.into_iter().map(intact).collect();
    BranchState { deployments, ..BranchState::empty(fleet().id()) }
}

/// What is planned on `branch` where everything in `pinning` is the evaluation.
fn planned(branch: &BranchState, pinning: &Pinning, unpinned: BTreeSet<Name>) -> Plan {
    let configured = [flake()];
    let evaluated = Evaluated { configured: &configured, evaluations: &pinning.evaluations, strays: Strays::Go };
    let held = Held { unpinned, ..Held::default() };
    plan(branch, &evaluated, &held, now(), std::time::Duration::from_hours(1)).unwrap()
}

fn written(plan: &Plan) -> Vec<String> {
    plan.deployments.iter().map(|d| format!("{} {}", d.name, d.revision)).collect()
}

#[test]
fn what_is_pinned_is_kept_whatever_else_is_said() {
    let branch = branch(vec![pinned_to(1, draft("a", "top"))]);
    let pinning = Pinning::on(&branch, &[evaluation(vec![draft("a", "top")])]).unwrap();
    assert_eq!(pinning.unpinned, BTreeSet::new());
    assert_eq!(written(&planned(&branch, &pinning, pinning.unpinned.clone())), [""; 0]);
}

#[test]
fn a_pin_belongs_to_its_store_path_alone() {
    let branch = branch(vec![pinned_to(1, draft("a", "top"))]);
    let pinning = Pinning::on(&branch, &[evaluation(vec![draft("a", "other")])]).unwrap();
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
        let pinning = Pinning::on(&branch, &[evaluation(vec![changed])]).unwrap();
        assert_eq!(pinning.unpinned, BTreeSet::new());
        let plan = planned(&branch, &pinning, BTreeSet::new());
        assert_eq!(written(&plan), ["a 2"]);
        let pin = Pin::of(&plan.deployments[0].specification.template.metadata).unwrap().unwrap();
        assert_eq!(pin.nar_hash, hash(1));
    }
}

#[test]
fn what_was_published_without_a_pin_gets_a_revision_with_one() {
    let branch = branch(vec![draft("a", "top")]);
    let mut pinning = Pinning::on(&branch, &[evaluation(vec![draft("a", "top"), draft("b", "top")])]).unwrap();
    let whole = planned(&branch, &pinning, pinning.unpinned.clone());
    assert_eq!(written(&whole), ["a 2", "b 1"]);
    let said = answers(&[(ONE, "top", has("top", 1, &[]))]);
    let survey = Survey::of(&whole.deployments, Need::Closure, &said);
    pinning.pin(&pins(&whole.deployments, &survey)).unwrap();
    let plan = planned(&branch, &pinning, BTreeSet::new());
    assert_eq!(written(&plan), ["a 2", "b 1"]);
    let pin = Pin::of(&plan.deployments[0].specification.template.metadata).unwrap().unwrap();
    assert_eq!(pin.nar_hash, hash(1));
    // Without `publish.pin` nothing of this is asked, and nothing is new.
    let off = Pinning { evaluations: vec![evaluation(vec![draft("a", "top")])], unpinned: BTreeSet::new() };
    assert_eq!(written(&planned(&branch, &off, BTreeSet::new())), [""; 0]);
}

/// What the caches have of the path `top`.
fn supply(said: &[(&str, &str, Said)]) -> Supply {
    let deployments = [draft("a", "top").at(Revision::FIRST, fleet().id())];
    Survey::of(&deployments, Need::Closure, &answers(said)).supply(&deployments[0].specification.template)
}

#[test]
fn the_first_cache_that_has_a_path_well_signed_says_what_is_in_it() {
    let whole = [
        (ONE, "top", has("top", 1, &["dep", "top"])),
        (ONE, "dep", Said::HasNot),
        (TWO, "top", has("top", 9, &[])),
        (TWO, "dep", has("dep", 2, &[])),
    ];
    let Supply::There(closure) = supply(&whole) else { panic!() };
    let found: Vec<(String, NarHash)> = closure.iter().map(|(path, c)| (path.to_string(), c.nar_hash)).collect();
    assert_eq!(found.len(), 2);
    assert!(found.contains(&(path("top"), hash(1))) && found.contains(&(path("dep"), hash(2))));
}

#[test]
fn what_is_there_in_part_or_signed_by_others_is_named() {
    let top = (ONE, "top", has("top", 1, &["dep"]));
    let Said::Has(entry) = has("other", 2, &[]) else { panic!() };
    for lacking in [Said::HasNot, Said::OutOfReach("no route".to_owned()), Said::Has(entry)] {
        let said = [top.clone(), (ONE, "dep", lacking.clone()), (TWO, "dep", lacking)];
        let Supply::Lacks { path: lacks, caches } = supply(&said) else { panic!() };
        assert_eq!((lacks.to_string(), caches.len()), (path("dep"), 2));
    }
}

#[test]
fn what_is_below_is_asked_for_in_the_order_of_the_caches() {
    let deployments = ["a", "b"].map(|name| draft(name, "top").at(Revision::FIRST, fleet().id()));
    let asked = |need, said: &[(&str, &str, Said)]| -> Vec<String> {
        let answers = answers(said);
        let questions = Survey::of(&deployments, need, &answers).questions();
        let told = |(cache, paths): (crate::model::Substituter, BTreeSet<crate::model::StorePath>)| {
            paths.into_iter().map(move |path| format!("{cache} {}", path.name()))
        };
        questions.into_iter().flat_map(told).collect()
    };
    let top = (ONE, "top", has("top", 1, &["dep"]));
    assert_eq!(asked(Need::Closure, &[]), [format!("{ONE} top")]);
    assert_eq!(asked(Need::Closure, std::slice::from_ref(&top)), [format!("{ONE} dep")]);
    assert_eq!(asked(Need::Closure, &[top.clone(), (ONE, "dep", Said::HasNot)]), [format!("{TWO} dep")]);
    assert_eq!(asked(Need::Path, &[top]), [""; 0]);
}
