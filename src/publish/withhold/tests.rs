use super::super::fixture::{self, branch_with, evaluation, fleet, intact, list, now};
use super::super::plan::OrphanPolicy;
use super::super::survey::{CacheAnswer, CacheAnswers, CacheScope};
use super::*;
use crate::evaluate::Drafts;
use crate::model::{DeploymentSpecification, Draft, Revision, TemplateMetadata, UnitSpecification, UnitType};

const CACHE: &str = "https://cache.example.org";
/// A path, its key, and the output of Nix 2.8 about it in a cache that was signed with this key.
const SIGNED: &str = "/nix/store/pxzcmw8rvay770ashv53bv5765sv0hfb-t";
const KEY: &str = "c-1:zUKaRQdOh2MbC3fCvP0xWwVxdeVkF/0L1WQg6VNMcT0=";
const ENTRY: &str = r#"{"narHash":"sha256-77dlDcqTnlOIvhVcgRCg77MIUBXSOhzwYrzh+budw6g=","narSize":456,"references":[],
    "signatures":["c-1:CFBcSNfkQy9R8cvBewykipAUJ6FlNCVL3kuoC8Amn8eiNJ5kR8JPRP6WveaCYTkA7BlnA1DzMdwP/ao7Nf/EAQ=="]}"#;
/// Another path, which no cache has.
const ABSENT: &str = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x";

fn template(path: &str, caches: &[&str], keys: &[&str]) -> NarTemplateSpecification {
    NarTemplateSpecification {
        metadata: TemplateMetadata::default(),
        nar_id: path.parse().unwrap(),
        substituters: list(caches),
        substituters_public_keys: list(keys),
    }
}

fn draft<S: Specification>(name: &str, specification: S) -> Draft<S> {
    fixture::draft("fleet", name, specification)
}

/// Deployments as `NAME UNIT PATH`, units as `NAME TYPE`, agents as `NAME DEPLOYMENT…`.
fn found(deployments: &[&str], units: &[&str], agents: &[&str]) -> Drafts {
    fn words(line: &str) -> Vec<&str> {
        line.split(' ').collect()
    }
    let deployment = |line: &&str| {
        let [name, unit, path] = words(line)[..] else { panic!("{line}") };
        let template = template(path, &[CACHE], &[KEY]);
        draft(name, DeploymentSpecification::new(unit.parse().unwrap(), template))
    };
    let unit = |line: &&str| {
        let unit_type = if line.ends_with(" nixos") { UnitType::Nixos } else { UnitType::Command };
        draft(words(line)[0], UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type })
    };
    let agent = |line: &&str| draft(words(line)[0], AgentSpecification { deployments: list(&words(line)[1..]) });
    Drafts {
        deployments: deployments.iter().map(deployment).collect(),
        units: units.iter().map(unit).collect(),
        agents: agents.iter().map(agent).collect(),
        ..Drafts::default()
    }
}

fn existing<S: Specification>(drafts: Vec<Draft<S>>) -> Existing<S> {
    intact(drafts.into_iter().map(|draft| (draft, 1)))
}

fn branch(drafts: Drafts) -> BranchState {
    BranchState {
        deployments: existing(drafts.deployments),
        units: existing(drafts.units),
        agents: existing(drafts.agents),
        ..branch_with(&[])
    }
}

fn answers() -> CacheAnswers {
    CacheAnswers::from([
        ((CACHE.parse().unwrap(), SIGNED.parse().unwrap()), CacheAnswer::Has(serde_json::from_str(ENTRY).unwrap())),
        ((CACHE.parse().unwrap(), ABSENT.parse().unwrap()), CacheAnswer::HasNot),
    ])
}

/// Publishes `after` on a branch with `before`: the written documents, and the deployments that wait.
fn published(before: Drafts, after: Drafts) -> (Vec<String>, Vec<String>) {
    let (written, waiting, _) = published_on(&branch(before), after);
    (written, waiting)
}

/// The same, where `a` is held; also the documents that the hold keeps back.
fn published_around_a(before: Drafts, after: Drafts) -> (Vec<String>, Vec<String>, Vec<String>) {
    let hold = crate::model::Hold { revision: Revision::FIRST, since: now(), until: None, why: "so".parse().unwrap() };
    published_on(&BranchState { holds: [("a".parse().unwrap(), hold)].into(), ..branch(before) }, after)
}

fn published_on(branch: &BranchState, after: Drafts) -> (Vec<String>, Vec<String>, Vec<String>) {
    let evaluations = [evaluation("fleet", after)];
    let planned =
        |withheld: &Withheld| fixture::planned(branch, &["fleet"], &evaluations, OrphanPolicy::Withdraw, withheld);
    let (whole, answers) = (planned(&Withheld::default()), answers());
    let fixed = branch.holds.keys().cloned().collect();
    let asked = deployments_to_look_up(&whole, &fixed);
    let survey = CacheSurvey::of(&asked, CacheScope::Path, &answers);
    let (withheld, unready) =
        withhold(branch, &whole, &Withheld { deployments: fixed, ..Withheld::default() }, &asked, Some(&survey));
    let kept = kept_back(branch, &whole, &withheld).into_iter().flat_map(|kept| kept.changes);
    let kept = kept.map(|change| change.path.to_string()).collect();
    let plan = planned(&withheld);
    assert_eq!(plan.holds, branch.holds);
    let written = plan.changes.iter().map(|change| change.path.to_string()).collect();
    (written, unready.waiting.iter().map(|waiting| waiting.name.to_string()).collect(), kept)
}

/// Whether a deployment of this template may be published.
fn readiness_of(template: &NarTemplateSpecification, answers: &CacheAnswers) -> Readiness {
    let specification = DeploymentSpecification::new("u".parse().unwrap(), template.clone());
    let deployments = [draft("d", specification).at(Revision::FIRST, fleet().id())];
    readiness(template, &CacheSurvey::of(&deployments, CacheScope::Path, answers))
}

#[test]
fn one_cache_with_a_good_signature_is_enough() {
    let other = "https://other.example.org";
    let mut answers = answers();
    answers.insert((other.parse().unwrap(), SIGNED.parse().unwrap()), CacheAnswer::HasNot);
    let of = |path: &str, caches: &[&str]| readiness_of(&template(path, caches, &[KEY]), &answers);
    assert_eq!(of(SIGNED, &[CACHE]), Readiness::Ready);
    assert_eq!(of(SIGNED, &[other, CACHE]), Readiness::Ready);
    assert!(matches!(of(SIGNED, &[other]), Readiness::Waits(_)));
    assert!(matches!(of(ABSENT, &[CACHE]), Readiness::Waits(_)));
}

#[test]
fn a_waiting_deployment_is_described_with_the_answer_of_each_cache() {
    let other = KEY.replace("c-1:z", "c-1:y");
    let caches = [CACHE, "https://down.example.org", "ssh://builder"];
    let mut answers = answers();
    let down = ("https://down.example.org".parse().unwrap(), SIGNED.parse().unwrap());
    answers.insert(down, CacheAnswer::OutOfReach("no route".to_owned()));
    let Readiness::Waits(awaited) = readiness_of(&template(SIGNED, &caches, &[&other]), &answers) else { panic!() };
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
fn a_deployment_without_a_usable_cache_is_unpublishable() {
    let with = |caches: &[&str], keys: &[&str]| readiness_of(&template(ABSENT, caches, keys), &answers());
    assert_eq!(with(&[], &[KEY]), Readiness::Never(MissingSetting::Cache));
    assert_eq!(with(&[CACHE], &[]), Readiness::Never(MissingSetting::Key));
    assert_eq!(with(&["ssh://builder", "/srv/store"], &[KEY]), Readiness::Never(MissingSetting::CacheToAsk));
}

#[test]
fn caches_are_asked_in_their_order_until_one_is_enough() {
    let second = "https://second.example.org";
    let deployments: Vec<Deployment> = [SIGNED, ABSENT]
        .iter()
        .map(|path| {
            let template = template(path, &["ssh://builder", CACHE, second], &[KEY]);
            draft("d", DeploymentSpecification::new("u".parse().unwrap(), template)).at(Revision::FIRST, fleet().id())
        })
        .collect();
    let asked = |answers: &CacheAnswers| -> Vec<String> {
        let questions = CacheSurvey::of(&deployments, CacheScope::Path, answers).questions().into_iter();
        questions.flat_map(|(cache, paths)| paths.into_iter().map(move |path| format!("{cache} {path}"))).collect()
    };
    assert_eq!(asked(&CacheAnswers::new()), [format!("{CACHE} {ABSENT}"), format!("{CACHE} {SIGNED}")]);
    assert_eq!(asked(&answers()), [format!("{second} {ABSENT}")]);
    let mut all = answers();
    all.insert((second.parse().unwrap(), ABSENT.parse().unwrap()), CacheAnswer::OutOfReach(String::new()));
    assert_eq!(asked(&all), [""; 0]);
}

#[test]
fn a_new_deployment_waits_with_the_agent_that_names_it() {
    let after =
        || found(&[&format!("a a {ABSENT}"), &format!("b b {SIGNED}")], &["a nixos", "b nixos"], &["a a", "b b"]);
    let (written, waiting) = published(Drafts::default(), after());
    assert_eq!(waiting, ["a"]);
    // A unit without a deployment does no harm.
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
fn the_unit_of_a_waiting_deployment_stays_and_so_do_the_others_on_it() {
    let before = found(&[&format!("a u {SIGNED}"), &format!("b u {ABSENT}")], &["u nixos"], &["u a b"]);
    let after = found(&[&format!("a u {ABSENT}"), &format!("b u {SIGNED}")], &["u command"], &["u a b"]);
    let (written, waiting) = published(before, after);
    assert_eq!(waiting, ["a", "b"]);
    assert_eq!(written, [""; 0]);
}

#[test]
fn a_waiting_deployment_keeps_its_unit_and_its_agent() {
    let before = found(&[&format!("a old {SIGNED}")], &["old nixos"], &["old a"]);
    let after = found(&[&format!("a new {ABSENT}")], &["new nixos"], &["new a"]);
    let (written, waiting) = published(before, after);
    assert_eq!(waiting, ["a"]);
    // Its agent does not change before it does.
    assert_eq!(written, ["units/new.json"]);
}

#[test]
fn a_deployment_that_left_its_source_is_withdrawn_while_others_wait() {
    let before = found(&[&format!("a a {SIGNED}"), &format!("b b {SIGNED}")], &["a nixos", "b nixos"], &["a a", "b b"]);
    let after = found(&[&format!("a a {ABSENT}")], &["a nixos"], &["a a"]);
    let (written, waiting) = published(before, after);
    assert_eq!(waiting, ["a"]);
    assert_eq!(written, ["agents/b.json", "deployments/b.json", "units/b.json"]);
}

#[test]
fn a_held_deployment_stays_with_its_unit_and_its_agent() {
    let before =
        || found(&[&format!("a u {SIGNED}"), &format!("b b {SIGNED}")], &["u nixos", "b nixos"], &["u a", "b b"]);
    let all = ["agents/u.json", "deployments/a.json", "units/u.json"];
    // Another system for another type of unit: nothing waits, and claveld asks no cache.
    let after =
        found(&[&format!("a u {ABSENT}"), &format!("b b {SIGNED}")], &["u command", "b nixos"], &["u a", "b b"]);
    let (written, waiting, kept) = published_around_a(before(), after);
    assert_eq!((written, waiting), (vec![], vec![]));
    assert_eq!(kept, all[1..]);
    // The source drops it with its unit and agent, while another deployment changes.
    let after = found(&[&format!("b b {SIGNED}")], &["b command"], &["b b"]);
    let (written, waiting, kept) = published_around_a(before(), after);
    assert_eq!((written, waiting), (vec!["units/b.json".to_owned()], vec![]));
    assert_eq!(kept, all);
    // Only the unit changes: it stays, because the held deployment was made for it as it is.
    let after =
        found(&[&format!("a u {SIGNED}"), &format!("b b {SIGNED}")], &["u command", "b nixos"], &["u a", "b b"]);
    let (written, _, kept) = published_around_a(before(), after);
    assert_eq!(written, [""; 0]);
    assert_eq!(kept, ["units/u.json"]);
    // Nothing changes: nothing is kept back.
    assert_eq!(published_around_a(before(), before()), (vec![], vec![], vec![]));
}

#[test]
fn another_deployment_on_the_unit_of_a_held_one_waits_if_the_unit_changes() {
    let before = || found(&[&format!("a u {SIGNED}"), &format!("b u {ABSENT}")], &["u nixos"], &["u a b"]);
    let changed = |unit: &str| found(&[&format!("a u {ABSENT}"), &format!("b u {SIGNED}")], &[unit], &["u a b"]);
    let (written, waiting, _) = published_around_a(before(), changed("u command"));
    assert_eq!((written, waiting), (vec![], vec!["b".to_owned()]));
    let (written, waiting, _) = published_around_a(before(), changed("u nixos"));
    assert_eq!((written, waiting), (vec!["deployments/b.json".to_owned()], vec![]));
}

#[test]
fn a_lost_deployment_stays_where_it_was_held_or_may_have_been_pinned() {
    let name = |text: &str| -> Name { text.parse().unwrap() };
    let mut branch = branch(Drafts::default());
    branch.deployments.insert(name("held"), ExistingDocument::Altered(Revision::FIRST));
    branch.deployments.insert(name("other"), ExistingDocument::Altered(Revision::FIRST));
    branch.deployments.insert(name("unvouched"), ExistingDocument::Unvouched(Revision::FIRST));
    let by_operator =
        crate::model::Hold { revision: Revision::FIRST, since: now(), until: None, why: "so".parse().unwrap() };
    branch.holds.insert(name("held"), by_operator);
    let protections = |policy| -> Vec<(String, Protection)> {
        lost_deployments(&branch, policy).into_iter().map(|lost| (lost.name.to_string(), lost.protection)).collect()
    };
    let held = ("held".to_owned(), Protection::Hold);
    assert_eq!(protections(PublishPolicy::WhenEvaluated), std::slice::from_ref(&held));
    assert_eq!(protections(PublishPolicy::WhenCached), std::slice::from_ref(&held));
    assert_eq!(protections(PublishPolicy::WhenPinned), [held, ("other".to_owned(), Protection::Pin)]);
}
