//! Looks at an agent's set-up: what a pass needs, before a pass needs it. It fetches nothing into the store, activates nothing and
//! records nothing.
//!
//! It calls what a pass calls, so that it finds the errors that a pass would meet. The programs and folders of the machine
//! belong to `host`, and printing to `cli`.

use std::time::SystemTime;

use futures_util::future::join_all;

use super::fetch::{BranchFetchError, FetchedMirror, fetch};
use super::lifecycle::UnitReference;
use super::mirrors::{Believed, MirrorChoice, NoneBelieved, Rejection};
use super::pass::Pass;
use super::pass::outcome::PassError;
use super::realise::error::{NotInCache, RealiseError};
use super::state::StateDirectory;
use super::unused::{units_of, unused};
use super::verify::{Order, Refusal, Verdict};
use crate::config::{AgentConfig, HookStep};
use crate::git::BundleSearchError;
use crate::host::{check_folder, find_executable};
use crate::model::{
    CheckFinding, CheckOutcome, Name, NarTemplateSpecification, RootValidity, Substituter, UnitType, describe_error,
};
use crate::store::{CacheEntry, CacheKeys, Store, StoreError};
use crate::trust::Anchor;

/// Looks at everything that `config` names.
pub async fn check(config: &AgentConfig) -> Vec<CheckFinding> {
    let mut findings = vec![check_state(config), check_anchor(config)];
    findings.extend(check_hooks(config));
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            findings.push(CheckFinding::problem("temporary folder", error).advise("make space, or set TMPDIR"));
            return findings;
        }
    };
    // Each fetch has its deadline of the configuration.
    let fetched = fetch(config, folder.path(), &|_| ()).await;
    let mirrors: Vec<CheckFinding> = fetched.iter().map(check_mirror).collect();
    let mut pass = match Pass::for_reading(config) {
        Ok(pass) => pass,
        Err(error) => {
            findings.extend(mirrors);
            match error {
                // They are told already.
                PassError::State(_) | PassError::Anchor(_) => {}
                error => findings.push(CheckFinding::problem("state", describe_error(&error))),
            }
            findings
                .push(CheckFinding::skipped("branch", "without its state and its root, the agent can verify nothing"));
            return findings;
        }
    };
    let choice = pass.look(fetched);
    let is_believed = choice.is_ok();
    findings.extend(mirrors.into_iter().map(|mirror| softened(mirror, is_believed)));
    let rejected = choice.as_ref().map_or_else(NoneBelieved::rejected, |choice| &choice.rejected);
    findings.extend(rejected.iter().filter_map(|(mirror, rejection)| {
        check_rejection(config, mirror, rejection).map(|finding| softened(finding, is_believed))
    }));
    let now = SystemTime::now().into();
    findings.extend(pass.root().map(|root| CheckFinding::about_root(RootValidity::of(root.root()), now)));
    if let Ok(MirrorChoice { taken, .. }) = choice {
        findings.extend(check_believed(config, &pass, taken).await);
    } else {
        findings.push(CheckFinding::skipped("units and caches", "no mirror shows a branch that can be believed"));
    }
    findings
}

/// One of several mirrors does not matter much while another one is good.
fn softened(finding: CheckFinding, another_is_believed: bool) -> CheckFinding {
    if another_is_believed { finding.at_most_a_warning() } else { finding }
}

fn check_hooks(config: &AgentConfig) -> impl Iterator<Item = CheckFinding> {
    let commands = HookStep::ALL.into_iter().filter_map(|step| Some((step.word(), config.hooks.command(step)?)));
    commands.map(|(step, command)| match find_executable(command.program()) {
        Ok(file) => CheckFinding::ok(format!("hook {step}"), file.display()),
        Err(why) => CheckFinding::problem(format!("hook {step}"), why)
            .advise(format!("install it for the PATH of the service, or correct `{step}` in [hooks]")),
    })
}

fn check_state(config: &AgentConfig) -> CheckFinding {
    let finding = check_folder("state folder", &config.state_directory);
    if finding.outcome == CheckOutcome::Problem {
        return finding;
    }
    let directory = StateDirectory::for_reading(&config.state_directory);
    match (directory.load(), directory.root()) {
        (Ok(_), Ok(_)) => finding,
        (Err(error), _) => CheckFinding::problem("state folder", describe_error(&error)),
        (_, Err(error)) => CheckFinding::problem("state folder", describe_error(&error)),
    }
}

fn check_anchor(config: &AgentConfig) -> CheckFinding {
    match Anchor::read(&config.root) {
        Ok(anchor) => CheckFinding::ok("trusted root", format!("of the fleet {}…", anchor.fleet().short())),
        Err(error) => CheckFinding::problem("trusted root", describe_error(&error))
            .advise("copy the fleet's root to this machine, or name its digest as `root`; `clavel root show` shows it"),
    }
}

fn check_mirror(FetchedMirror { mirror, tip }: &FetchedMirror) -> CheckFinding {
    let subject = format!("mirror {mirror}");
    match tip {
        Ok((_, tip)) => CheckFinding::ok(subject, format!("the branch is at {}", &tip.to_string()[..10])),
        Err(error @ BranchFetchError::NoBundle(BundleSearchError::NoMatch(_))) => {
            CheckFinding::warning(subject, describe_error(error))
                .advise("plug in a stick with a bundle, to look at it as well")
        }
        Err(error) => CheckFinding::problem(subject, describe_error(error))
            .advise("correct the URL or the [[credentials]] for it, and see whether its server is up"),
    }
}

/// The finding about a mirror whose branch is refused; none for one that is out of reach, which is told already.
fn check_rejection(config: &AgentConfig, mirror: &str, rejection: &Rejection) -> Option<CheckFinding> {
    match rejection {
        Rejection::Unreachable(_) => None,
        Rejection::Refused(refusal @ Refusal::UnknownAgent { .. }) => {
            Some(CheckFinding::problem(format!("agent {}", config.name), describe_error(refusal)))
        }
        Rejection::Refused(refusal) => Some(
            CheckFinding::problem(format!("branch at {mirror}"), describe_error(refusal))
                .advise("see what `clavel verify` says about it; the machine keeps what it runs"),
        ),
    }
}

/// Looks at what a pass would do with the branch that it believes.
async fn check_believed(config: &AgentConfig, pass: &Pass<'_>, taken: Believed) -> Vec<CheckFinding> {
    let mut findings = Vec::new();
    findings.extend(taken.clock.map(|trouble| CheckFinding::warning("clock", trouble)));
    let Some(verdict) = taken.verdict else { return findings };
    let Verdict { orders, withdrawn, unfit, .. } = *verdict;
    let agent = format!("agent {}", config.name);
    findings.push(match orders.len() + unfit.len() {
        0 => CheckFinding::warning(agent, "the branch has nothing for it to run")
            .advise("name its deployments in the flake's `clavel.agents`, and publish"),
        _ => CheckFinding::ok(agent, "the branch knows it"),
    });
    let gone = |name| {
        let message = "was withdrawn; what runs goes on running";
        CheckFinding::warning(format!("deployment {name}"), message)
            .advise("remove it from the configuration, or set its new name there")
    };
    findings.extend(withdrawn.iter().map(gone));
    findings.extend(
        unfit.iter().map(|(name, why)| CheckFinding::problem(format!("deployment {name}"), describe_error(why))),
    );
    if let Some(units) = units_of(&orders, &unfit) {
        let unused = unused(config.units.keys(), &units);
        findings.extend(unused.iter().map(|unit| CheckFinding::warning(format!("unit {}", unit.unit), unit)));
    }
    for order in &orders {
        findings.extend(check_unit(pass, order));
        findings.extend(check_caches(pass.store(), order).await);
    }
    findings
}

fn check_unit(pass: &Pass<'_>, order: &Order) -> Vec<CheckFinding> {
    let (unit, deployment) = (UnitReference::from(order), &order.deployment.name);
    let subject = format!("unit {}", unit.name);
    let activation = match pass.activation_of(&unit) {
        Ok(activation) => activation,
        Err(error) => return vec![CheckFinding::problem(subject, describe_error(&error))],
    };
    let needs_root = matches!(unit.unit_type, UnitType::Nixos | UnitType::SystemManager | UnitType::Container);
    let waits = order.approvals.as_ref().filter(|approvals| !approvals.suffice());
    let serves = match waits {
        Some(approvals) => format!("{deployment} revision {} waits: {approvals}", order.deployment.revision),
        None => format!("{deployment} revision {} is for it", order.deployment.revision),
    };
    let mut findings = vec![if needs_root && !rustix::process::geteuid().is_root() {
        CheckFinding::warning(subject, format!("it is of type {}, and this check does not run as root", unit.unit_type))
            .advise("run the agent as root, which such an activation needs")
    } else {
        CheckFinding::ok(subject, serves)
    }];
    let profile = activation.profile_folder();
    findings.extend(profile.map(|folder| check_folder(&format!("profile of {}", unit.name), folder)));
    findings
}

/// Asks each cache of a deployment for its store path. Each query has a deadline.
async fn check_caches(store: &dyn Store, order: &Order) -> Vec<CheckFinding> {
    let template = &order.deployment.specification.template;
    let path = &template.nar_id;
    let answers = template.substituters.iter().map(async |cache| {
        let found = store.look_up(cache, std::slice::from_ref(path)).await;
        (cache.clone(), found.map(|mut found| found.remove(path)))
    });
    let answers = join_all(answers).await;
    let is_here = std::fs::symlink_metadata(store.files_of(path)).is_ok();
    describe_caches(&order.deployment.name, template, &answers, is_here)
}

/// What a cache answers about a store path.
type CacheAnswer = Result<Option<CacheEntry>, StoreError>;

/// What follows from the answers of the caches. With the path on this machine, or in one good cache, a pass does without the others.
fn describe_caches(
    deployment: &Name,
    template: &NarTemplateSpecification,
    answers: &[(Substituter, CacheAnswer)],
    is_here: bool,
) -> Vec<CheckFinding> {
    let (path, keys) = (&template.nar_id, CacheKeys::of(&template.substituters_public_keys));
    let has_it = |answer: &CacheAnswer| matches!(answer, Ok(Some(entry)) if entry.is_signed_by(path, &keys));
    let is_available = is_here || answers.iter().any(|(_, answer)| has_it(answer));
    let mut findings: Vec<CheckFinding> = Vec::new();
    for (cache, answer) in answers {
        let subject = format!("cache {cache} for {deployment}");
        let finding = match answer {
            Ok(None) => CheckFinding::ok(subject, "it answers, and does not have the store path"),
            Ok(Some(_)) if has_it(answer) => {
                CheckFinding::ok(subject, "it has the store path, signed by a key that the deployment names")
            }
            Ok(Some(entry)) => CheckFinding::problem(subject, RealiseError::untrusted(template, cache.clone(), entry)),
            Err(error) => CheckFinding::problem(subject, format!("it does not answer: {}", error.message())).advise(
                "correct `substituters` in the flake, and see whether the cache is up and this machine reaches it",
            ),
        };
        findings.push(softened(finding, is_available));
    }
    let subject = format!("caches of {deployment}");
    if answers.is_empty() && !is_here {
        findings.push(CheckFinding::problem(subject, RealiseError::NoCache(path.clone())));
    } else if !is_available && answers.iter().all(|(_, answer)| matches!(answer, Ok(None))) {
        let caches = answers.iter().map(|(cache, _)| cache.clone()).collect();
        findings.push(
            CheckFinding::warning(subject, NotInCache { path: path.clone(), caches })
                .advise("copy it to one of them; the agent waits until then"),
        );
    }
    findings
}
