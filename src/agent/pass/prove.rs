//! The probation of a revision that was activated: looks at what it has to prove, until that is decided.
//!
//! What is decided stands in `probation/trial.rs`.

use std::time::{Duration, Instant, SystemTime};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::super::fetch::fetch_from;
use super::super::lifecycle::{Proof, Rollout};
use super::super::mirrors::{MirrorReport, MirrorStatus};
use super::super::probation::files::{ProbationFiles, ProbationReport};
use super::super::probation::look::{Surroundings, failed_before, look};
use super::super::probation::trial::{Decision, Mirror, Trial};
use super::super::verify::Order;
use super::Pass;
use super::outcome::Event;
use crate::config::AgentConfig;
use crate::git::Remote;
use crate::model::json::StateVersion;
use crate::model::{Check, Name, Probation, Timestamp, describe_error};

/// How often the agent looks whether a person has confirmed.
const LOOK: Duration = Duration::from_millis(500);
/// The time between two attempts to read a mirror.
const MIRROR_INTERVAL: Duration = Duration::from_secs(5);

/// Something that was seen.
enum Seen<'a> {
    Check(usize, Result<(), String>),
    Mirror(&'a Remote, Result<(), String>),
}

impl Pass<'_> {
    /// What the revision of `order` has to prove after its switch, as this machine is before it.
    pub(super) async fn proof_of(&self, order: &Order) -> Proof {
        let specification = &order.deployment.specification;
        let checks = specification.checks.clone();
        let all = checks.iter().chain(self.config.checks.iter()).map(|(_, check)| check);
        let failed_units = failed_before(all).await;
        // Where all that can be reached lags behind the bundle on a stick, none of it will show a branch that is believed.
        let is_good = |mirror: &MirrorReport| mirror.is_good() && !is_bundle(&mirror.repository);
        let asks = self.mirrors.iter().any(is_good);
        let answered = self.mirrors.iter().filter(|mirror| asks && mirror.status != MirrorStatus::Unreachable);
        Proof {
            probation: specification.probation.unwrap_or_default(),
            mirrors: answered.map(|mirror| mirror.repository.clone()).collect(),
            failed_units,
            is_paused: false,
            pauses: 0,
            checks,
        }
    }

    /// Waits until it is decided whether the revision stays. The error says why it does not.
    pub(super) async fn prove(&self, name: &Name, rollout: &Rollout, tell: &dyn Fn(Event<'_>)) -> Result<(), String> {
        // This agent may have begun with the file from before the switch. The next one could not begin.
        AgentConfig::read(&self.config.file)
            .map_err(|error| format!("the agent could not start anew: {}", describe_error(&error)))?;
        let Proof { checks, probation, mirrors, failed_units, .. } = &rollout.proof;
        let terms: Probation = probation.or(&self.config.probation);
        let asked = mirrors_to_read(self.config, mirrors);
        let mut trial = Trial::begin(checks, &self.config.checks, &terms, !asked.is_empty());
        let surroundings = match self.activation_of(&rollout.unit) {
            Ok(activation) => Surroundings {
                programs: Ok((activation.run_as(), activation.check_environment(&*self.store, name, rollout))),
                failed_before: failed_units.clone(),
            },
            // The configuration has changed since the switch, and does not fit the unit any more. Only programs need it.
            Err(error) => Surroundings { programs: Err(describe_error(&error)), failed_before: failed_units.clone() },
        };
        let files = self.directory.probation();
        let (begun, wall) = (Instant::now(), SystemTime::now());
        let mut looks: FuturesUnordered<LocalBoxFuture<'_, Seen<'_>>> = FuturesUnordered::new();
        let look_at = |place: usize, check: Check, after: Duration| -> LocalBoxFuture<'_, Seen<'_>> {
            let surroundings = &surroundings;
            Box::pin(async move {
                tokio::time::sleep(after).await;
                Seen::Check(place, look(&check, surroundings).await)
            })
        };
        looks.extend(trial.checks().cloned().enumerate().map(|(place, check)| look_at(place, check, Duration::ZERO)));
        looks.extend(asked.iter().map(|mirror| read_soon(self.config, mirror, Duration::ZERO)));
        if trial.checks().len() > 0 {
            tell(Event::OnProbation { deployment: name, rollout, checks: trial.checks().len() });
        }
        // Timers of their own: looks may end more often than they do.
        let mut confirmations = tokio::time::interval(LOOK);
        confirmations.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deadline = std::pin::pin!(tokio::time::sleep(trial.deadline()));
        let (mut is_asked, mut reported, mut is_news) = (false, None, true);
        let decided = loop {
            let decision = match trial.decide(begun.elapsed()) {
                // It may have come since the last look.
                Decision::GiveUp(_) if files.is_confirmed(name, rollout.candidate.revision) => {
                    trial.note_confirmation();
                    trial.decide(begun.elapsed())
                }
                other => other,
            };
            let awaits_person = decision == Decision::AskPerson;
            match decision {
                Decision::Confirm => break Ok(()),
                Decision::GiveUp(why) => break Err(why),
                Decision::AskPerson | Decision::Wait => {}
            }
            if awaits_person && !std::mem::replace(&mut is_asked, true) {
                tell(Event::AwaitingPerson { deployment: name, rollout, deadline: trial.deadline() });
            }
            // What held may not hold any more.
            if is_news || reported != Some(awaits_person) {
                report_probation(&files, &trial, (name, rollout), wall, awaits_person);
                reported = Some(awaits_person);
            }
            let seen = tokio::select! {
                Some(seen) = looks.next() => Some(seen),
                _ = confirmations.tick() => None,
                () = &mut deadline, if !deadline.is_elapsed() => None,
            };
            is_news = match seen {
                Some(Seen::Check(place, found)) => {
                    let check = trial.checks().nth(place).cloned();
                    let is_news = trial.note(place, found, begun.elapsed());
                    if let Some(check) = check {
                        let interval = check.interval.unwrap_or(Check::INTERVAL).get();
                        looks.push(look_at(place, check, interval));
                    }
                    is_news
                }
                Some(Seen::Mirror(mirror, found)) => {
                    if let Err(error) = &found
                        && *trial.mirror() == Mirror::Unread(None)
                    {
                        tell(Event::MirrorUnread { deployment: name, rollout, error });
                    }
                    let is_news = trial.note_mirror(found);
                    if trial.asks_mirror() {
                        looks.push(read_soon(self.config, mirror, MIRROR_INTERVAL));
                    }
                    is_news
                }
                None => {
                    if files.is_confirmed(name, rollout.candidate.revision) {
                        trial.note_confirmation();
                    }
                    false
                }
            };
        };
        if decided.is_ok() {
            trial.told().iter().for_each(|complaint| tell(Event::OnlyTold { deployment: name, rollout, complaint }));
        }
        if let Err(error) = files.clear() {
            tracing::warn!(%error, "cannot remove the files of the probation that is over");
        }
        decided
    }
}

/// Notes how the probation stands, for `clavel-agent status`.
fn report_probation(
    files: &ProbationFiles,
    trial: &Trial,
    (name, rollout): (&Name, &Rollout),
    begun: SystemTime,
    awaits_person: bool,
) {
    let (mirror_is_read, mirror_error) = match trial.mirror() {
        Mirror::NotAsked => (None, None),
        Mirror::Unread(why) => (Some(false), why.clone()),
        Mirror::Read => (Some(true), None),
    };
    let report = ProbationReport {
        deployment: name.clone(),
        revision: rollout.candidate.revision,
        attempt: rollout.attempts,
        deadline: Timestamp::from(begun).plus(trial.deadline()),
        way_back: rollout.way_back.path().cloned(),
        confirm: trial.confirmation(),
        awaits_person,
        mirror_is_read,
        mirror_error,
        checks: trial.reports(),
        version: StateVersion,
    };
    if let Err(error) = files.write_report(&report) {
        tracing::warn!(%error, "cannot write how the probation stands; `clavel-agent status` does not show it");
    }
}

/// The mirrors of which one has to be readable after the switch. A configuration that came with the switch may name others; a bundle is on
/// a stick, which may be gone.
fn mirrors_to_read(config: &AgentConfig, answered: &[String]) -> Vec<Remote> {
    if answered.is_empty() {
        return Vec::new();
    }
    let repositories: Vec<&Remote> = config.mirrors.iter().filter(|mirror| mirror.bundle().is_none()).collect();
    let has_answered = |mirror: &&&Remote| answered.contains(&mirror.to_string());
    let known: Vec<Remote> = repositories.iter().filter(has_answered).map(|mirror| (*mirror).clone()).collect();
    match known[..] {
        [] if answered.iter().all(|mirror| is_bundle(mirror)) => Vec::new(),
        [] => repositories.into_iter().cloned().collect(),
        [..] => known,
    }
}

/// Whether the mirror of this name is a bundle.
fn is_bundle(mirror: &str) -> bool {
    mirror.parse().is_ok_and(|mirror: Remote| mirror.bundle().is_some())
}

/// Reads the branch of a mirror after this time, and looks whether it is believed. Nothing of it is recorded.
fn read_soon<'a>(config: &'a AgentConfig, mirror: &'a Remote, after: Duration) -> LocalBoxFuture<'a, Seen<'a>> {
    Box::pin(async move {
        tokio::time::sleep(after).await;
        Seen::Mirror(mirror, read(config, mirror).await)
    })
}

async fn read(config: &AgentConfig, mirror: &Remote) -> Result<(), String> {
    // The record and the clocks of this moment count.
    let mut pass = Pass::for_reading(config).map_err(|error| describe_error(&error))?;
    let folder = pass.directory.join("mirrors");
    let believed = pass.believed_files();
    let fetched = fetch_from(config, mirror, &folder, &|copy| believed.rescue(copy)).await;
    pass.look(fetched).map(drop).map_err(|error| error.to_string())
}
