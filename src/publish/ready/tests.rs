use std::time::Duration;

use super::super::plan::{Evaluated, Existing, Strays, plan};
use super::super::survey::{Answers, Need, Said};
use super::*;
use crate::evaluate::{Evaluation, Found};
use crate::model::{
    DeploymentSpecification, Draft, FlakeReference, Index, IndexVersion, Kind, List, LockedSource, Map, Metadata,
    Provenance, Revision, Schema, Specification, Timestamp, UnitSpecification, UnitType,
};
use crate::trust::Verified;
use crate::trust::fixture::Fleet;

const CACHE: &str = "https://cache.example.org";
/// A path, its key, and what Nix 2.8 printed of it in a cache that was signed with this key.
const SIGNED: &str = "/nix/store/pxzcmw8rvay770ashv53bv5765sv0hfb-t";
const KEY: &str = "c-1:zUKaRQdOh2MbC3fCvP0xWwVxdeVkF/0L1WQg6VNMcT0=";
const ENTRY: &str = r#"{"narHash":"sha256-77dlDcqTnlOIvhVcgRCg77MIUBXSOhzwYrzh+budw6g=","narSize":456,"references":[],
    "signatures":["c-1:CFBcSNfkQy9R8cvBewykipAUJ6FlNCVL3kuoC8Amn8eiNJ5kR8JPRP6WveaCYTkA7BlnA1DzMdwP/ao7Nf/EAQ=="]}"#;
/// Another path, that no cache has.
const ABSENT: &str = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x";

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn flake() -> FlakeReference {
    "git+https://git.example.org/fleet".parse().unwrap()
}

fn list<T: std::str::FromStr<Err: fmt::Debug>, const MOST: usize>(items: &[&str]) -> List<T, MOST> {
    items.iter().map(|item| item.parse().unwrap()).collect::<Vec<T>>().try_into().unwrap()
}

fn template(path: &str, caches: &[&str], keys: &[&str]) -> NarTemplateSpecification {
    NarTemplateSpecification {
        metadata: Metadata::default(),
        nar_id: path.parse().unwrap(),
        substituters: list(caches),
        substituters_public_keys: list(keys),
    }
}

fn draft<S: Specification>(name: &str, specification: S) -> Draft<S> {
    let provenance = Provenance {
        attribute: format!("x.{name}").parse().unwrap(),
        drv_path: None,
        evaluated_at: now(),
        source: flake(),
        source_hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        source_revision: None,
    };
    Draft::new(name.parse().unwrap(), provenance.add_to(Metadata::default()).unwrap(), specification)
}

/// Deployments as `NAME UNIT PATH`, units as `NAME TYPE`, agents as `NAME DEPLOYMENT…`.
fn found(deployments: &[&str], units: &[&str], agents: &[&str]) -> Found {
    fn words(line: &str) -> Vec<&str> {
        line.split(' ').collect()
    }
    let deployment = |line: &&str| {
        let [name, unit, path] = words(line)[..] else { panic!("{line}") };
        let template = template(path, &[CACHE], &[KEY]);
        draft(name, DeploymentSpecification { template, unit: unit.parse().unwrap() })
    };
    let unit = |line: &&str| {
        let unit_type = if line.ends_with(" nixos") { UnitType::Nixos } else { UnitType::Command };
        draft(words(line)[0], UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type })
    };
    let agent = |line: &&str| draft(words(line)[0], AgentSpecification { deployments: list(&words(line)[1..]) });
    Found {
        deployments: deployments.iter().map(deployment).collect(),
        units: units.iter().map(unit).collect(),
        agents: agents.iter().map(agent).collect(),
        failures: Vec::new(),
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

fn existing<S: Specification>(drafts: Vec<Draft<S>>) -> Existing<S> {
    let intact = |draft: Draft<S>| {
        (draft.name.clone(), ExistingDocument::Intact(verified(draft.at(Revision::FIRST, fleet().id()))))
    };
    drafts.into_iter().map(intact).collect()
}

fn branch(found: Found) -> BranchState {
    let index = Index {
        branch: "deployments".parse().unwrap(),
        documents: Map::default(),
        epoch: crate::model::Epoch::FIRST,
        expires: now().plus(Duration::from_hours(1)),
        fleet: fleet().id(),
        held: Map::default(),
        issued: now(),
        kind: Kind::THIS,
        previous: None,
        schema: Schema::V1,
        tombstones: Map::default(),
        version: IndexVersion::FIRST,
    };
    BranchState {
        index: Some((verified(index), crate::trust::digest(b"index"))),
        deployments: existing(found.deployments),
        units: existing(found.units),
        agents: existing(found.agents),
        ..BranchState::empty(fleet().id())
    }
}

fn answers() -> Answers {
    Answers::from([
        ((CACHE.parse().unwrap(), SIGNED.parse().unwrap()), Said::Has(serde_json::from_str(ENTRY).unwrap())),
        ((CACHE.parse().unwrap(), ABSENT.parse().unwrap()), Said::HasNot),
    ])
}

/// What is written where the branch is as `before` and the evaluation found `after`, and who is said to wait.
fn published(before: Found, after: Found) -> (Vec<String>, Vec<String>) {
    let (written, waiting, _) = published_on(&branch(before), after);
    (written, waiting)
}

/// The same, where `a` is frozen; and what that keeps back.
fn published_around_a(before: Found, after: Found) -> (Vec<String>, Vec<String>, Vec<String>) {
    let hold = crate::model::Hold { revision: Revision::FIRST, since: now(), why: "so".parse().unwrap() };
    published_on(&BranchState { holds: [("a".parse().unwrap(), hold)].into(), ..branch(before) }, after)
}

fn published_on(branch: &BranchState, after: Found) -> (Vec<String>, Vec<String>, Vec<String>) {
    let hash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap();
    let source = LockedSource { flake: flake(), locked: flake(), hash, revision: None };
    let evaluations = [Evaluation { source, found: after, work: crate::evaluate::Work::default() }];
    let configured = [flake()];
    let evaluated = Evaluated { configured: &configured, evaluations: &evaluations, strays: Strays::Go };
    let planned = |held: &Held| plan(branch, &evaluated, held, now(), Duration::from_hours(1)).unwrap();
    let (whole, answers) = (planned(&Held::default()), answers());
    let frozen = branch.holds.keys().cloned().collect();
    let asked = followers(&whole, &frozen);
    let survey = Survey::of(&asked, Need::Path, &answers);
    let (held, unready) = hold_back(branch, &whole, &frozen, Some(&survey));
    let kept = kept_back(branch, &whole, &held).into_iter().flat_map(|kept| kept.changes);
    let kept = kept.map(|change| change.path.to_string()).collect();
    let plan = planned(&held);
    assert_eq!(plan.holds, branch.holds);
    let written = plan.changes.iter().map(|change| change.path.to_string()).collect();
    (written, unready.waiting.iter().map(|waiting| waiting.name.to_string()).collect(), kept)
}

/// Whether a deployment of this template may be published.
fn judged(template: &NarTemplateSpecification, answers: &Answers) -> Readiness {
    let specification = DeploymentSpecification { template: template.clone(), unit: "u".parse().unwrap() };
    let deployments = [draft("d", specification).at(Revision::FIRST, fleet().id())];
    readiness(template, &Survey::of(&deployments, Need::Path, answers))
}

#[test]
fn one_cache_with_a_good_signature_is_enough() {
    let other = "https://other.example.org";
    let mut answers = answers();
    answers.insert((other.parse().unwrap(), SIGNED.parse().unwrap()), Said::HasNot);
    let of = |path: &str, caches: &[&str]| judged(&template(path, caches, &[KEY]), &answers);
    assert_eq!(of(SIGNED, &[CACHE]), Readiness::Ready);
    assert_eq!(of(SIGNED, &[other, CACHE]), Readiness::Ready);
    assert!(matches!(of(SIGNED, &[other]), Readiness::Waits(_)));
    assert!(matches!(of(ABSENT, &[CACHE]), Readiness::Waits(_)));
}

#[test]
fn what_is_waited_for_is_told_with_what_each_cache_said() {
    let other = KEY.replace("c-1:z", "c-1:y");
    let caches = [CACHE, "https://down.example.org", "ssh://builder"];
    let mut answers = answers();
    let down = ("https://down.example.org".parse().unwrap(), SIGNED.parse().unwrap());
    answers.insert(down, Said::OutOfReach("no route".to_owned()));
    let Readiness::Waits(awaited) = judged(&template(SIGNED, &caches, &[&other]), &answers) else { panic!() };
    let waiting = Waiting { name: "web-1".parse().unwrap(), awaited };
    assert_eq!(
        waiting.to_string(),
        format!(
            "web-1: waits for {SIGNED} in {CACHE} (there, but signed by none of its keys; it is signed by c-1), or in \
             https://down.example.org (cannot be asked: no route), or in ssh://builder (not asked)"
        )
    );
}

#[test]
fn what_could_never_be_there_is_not_waited_for() {
    let judged = |caches: &[&str], keys: &[&str]| judged(&template(ABSENT, caches, keys), &answers());
    assert_eq!(judged(&[], &[KEY]), Readiness::Hopeless(Missing::Cache));
    assert_eq!(judged(&[CACHE], &[]), Readiness::Hopeless(Missing::Key));
    assert_eq!(judged(&["ssh://builder", "/srv/store"], &[KEY]), Readiness::Hopeless(Missing::CacheToAsk));
}

#[test]
fn caches_are_asked_in_their_order_until_one_is_enough() {
    let second = "https://second.example.org";
    let deployments: Vec<Deployment> = [SIGNED, ABSENT]
        .iter()
        .map(|path| {
            let template = template(path, &["ssh://builder", CACHE, second], &[KEY]);
            draft("d", DeploymentSpecification { template, unit: "u".parse().unwrap() })
                .at(Revision::FIRST, fleet().id())
        })
        .collect();
    let asked = |answers: &Answers| -> Vec<String> {
        let questions = Survey::of(&deployments, Need::Path, answers).questions().into_iter();
        questions.flat_map(|(cache, paths)| paths.into_iter().map(move |path| format!("{cache} {path}"))).collect()
    };
    assert_eq!(asked(&Answers::new()), [format!("{CACHE} {ABSENT}"), format!("{CACHE} {SIGNED}")]);
    assert_eq!(asked(&answers()), [format!("{second} {ABSENT}")]);
    let mut all = answers();
    all.insert((second.parse().unwrap(), ABSENT.parse().unwrap()), Said::OutOfReach(String::new()));
    assert_eq!(asked(&all), [""; 0]);
}

#[test]
fn a_new_deployment_waits_with_the_agent_that_names_it() {
    let after =
        || found(&[&format!("a a {ABSENT}"), &format!("b b {SIGNED}")], &["a nixos", "b nixos"], &["a a", "b b"]);
    let (written, waiting) = published(Found::default(), after());
    assert_eq!(waiting, ["a"]);
    // A unit that nothing is deployed to harms nobody.
    assert_eq!(written, ["agents/b.json", "deployments/b.json", "units/a.json", "units/b.json"]);
}

#[test]
fn an_agent_that_names_what_is_there_does_not_wait() {
    let before = found(&[&format!("a a {SIGNED}")], &["a nixos"], &["a a"]);
    let after = found(&[&format!("a a {ABSENT}"), &format!("b b {SIGNED}")], &["a nixos", "b nixos"], &["a a b"]);
    let (written, waiting) = published(before, after);
    assert_eq!(waiting, ["a"]);
    assert_eq!(written, ["agents/a.json", "deployments/b.json", "units/b.json"]);
}

#[test]
fn the_unit_of_what_waits_stays_as_it_is_and_so_does_what_else_is_on_it() {
    let before = found(&[&format!("a u {SIGNED}"), &format!("b u {ABSENT}")], &["u nixos"], &["u a b"]);
    let after = found(&[&format!("a u {ABSENT}"), &format!("b u {SIGNED}")], &["u command"], &["u a b"]);
    let (written, waiting) = published(before, after);
    assert_eq!(waiting, ["a", "b"]);
    assert_eq!(written, [""; 0]);
}

#[test]
fn what_waits_keeps_its_unit_and_its_agent() {
    let before = found(&[&format!("a old {SIGNED}")], &["old nixos"], &["old a"]);
    let after = found(&[&format!("a new {ABSENT}")], &["new nixos"], &["new a"]);
    let (written, waiting) = published(before, after);
    assert_eq!(waiting, ["a"]);
    // Nor does its agent change before it does.
    assert_eq!(written, ["units/new.json"]);
}

#[test]
fn a_deployment_that_left_goes_whatever_else_waits() {
    let before = found(&[&format!("a a {SIGNED}"), &format!("b b {SIGNED}")], &["a nixos", "b nixos"], &["a a", "b b"]);
    let after = found(&[&format!("a a {ABSENT}")], &["a nixos"], &["a a"]);
    let (written, waiting) = published(before, after);
    assert_eq!(waiting, ["a"]);
    assert_eq!(written, ["agents/b.json", "deployments/b.json", "units/b.json"]);
}

#[test]
fn what_is_frozen_stays_with_its_unit_and_its_agent_whatever_its_source_gives() {
    let before =
        || found(&[&format!("a u {SIGNED}"), &format!("b b {SIGNED}")], &["u nixos", "b nixos"], &["u a", "b b"]);
    let all = ["agents/u.json", "deployments/a.json", "units/u.json"];
    // Another content for another kind of unit: nobody waits, and no cache is asked for it.
    let after =
        found(&[&format!("a u {ABSENT}"), &format!("b b {SIGNED}")], &["u command", "b nixos"], &["u a", "b b"]);
    let (written, waiting, kept) = published_around_a(before(), after);
    assert_eq!((written, waiting), (vec![], vec![]));
    assert_eq!(kept, all[1..]);
    // Gone, with all that belongs to it, while another changes.
    let after = found(&[&format!("b b {SIGNED}")], &["b command"], &["b b"]);
    let (written, waiting, kept) = published_around_a(before(), after);
    assert_eq!((written, waiting), (vec!["units/b.json".to_owned()], vec![]));
    assert_eq!(kept, all);
    // The unit alone changes: it stays, since what runs there was made for it as it is.
    let after =
        found(&[&format!("a u {SIGNED}"), &format!("b b {SIGNED}")], &["u command", "b nixos"], &["u a", "b b"]);
    let (written, _, kept) = published_around_a(before(), after);
    assert_eq!(written, [""; 0]);
    assert_eq!(kept, ["units/u.json"]);
    // The same again: nothing is kept back.
    assert_eq!(published_around_a(before(), before()), (vec![], vec![], vec![]));
}

#[test]
fn what_else_is_on_the_unit_of_what_is_frozen_waits_where_the_unit_changes() {
    let before = || found(&[&format!("a u {SIGNED}"), &format!("b u {ABSENT}")], &["u nixos"], &["u a b"]);
    let changed = |unit: &str| found(&[&format!("a u {ABSENT}"), &format!("b u {SIGNED}")], &[unit], &["u a b"]);
    let (written, waiting, _) = published_around_a(before(), changed("u command"));
    assert_eq!((written, waiting), (vec![], vec!["b".to_owned()]));
    let (written, waiting, _) = published_around_a(before(), changed("u nixos"));
    assert_eq!((written, waiting), (vec!["deployments/b.json".to_owned()], vec![]));
}

#[test]
fn what_is_lost_is_frozen_where_it_was_held_or_may_have_been_pinned() {
    let name = |text: &str| -> Name { text.parse().unwrap() };
    let mut branch = branch(Found::default());
    branch.deployments.insert(name("held"), ExistingDocument::Altered(Revision::FIRST));
    branch.deployments.insert(name("other"), ExistingDocument::Altered(Revision::FIRST));
    branch.deployments.insert(name("unvouched"), ExistingDocument::Unvouched(Revision::FIRST));
    let hold = crate::model::Hold { revision: Revision::FIRST, since: now(), why: "so".parse().unwrap() };
    branch.holds.insert(name("held"), hold);
    let told = |policy| -> Vec<(String, Kept)> {
        gone(&branch, policy).into_iter().map(|gone| (gone.name.to_string(), gone.kept)).collect()
    };
    let frozen = ("held".to_owned(), Kept::Hold);
    assert_eq!(told(PublishPolicy::WhenEvaluated), std::slice::from_ref(&frozen));
    assert_eq!(told(PublishPolicy::WhenCached), std::slice::from_ref(&frozen));
    assert_eq!(told(PublishPolicy::WhenPinned), [frozen, ("other".to_owned(), Kept::Pin)]);
}
