//! One pass: fetch, verify, decide, and for each deployment realise, activate, record. The only place that knows the
//! order of the steps, and that writes each one down before it is begun.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::activate::{ActivateError, Activation, Target};
use super::decide::{Decision, HoldReason, Retry, decide};
use super::fetch::{BranchFetchError, Shown, fetch};
use super::mirrors::{Believed, Finding, MirrorReport, NoneBelieved, choose};
use super::realise::{RealiseError, Realised, realise};
use super::state::{Applied, FailedActivation, SettledAt, State, StateDirectory, StateError, Step};
use super::verify::{Asker, Order, Refusal, SeenIndex, Verdict, check_expiry, verify};
use crate::config::AgentConfig;
use crate::model::{Invalid, Name, Revision, Sha256Digest, StorePath, System, Timestamp};
use crate::nix::{Nix, Voice};
use crate::repository::{BranchError, CommitId, Repository};
use crate::trust::digest;

/// Why a pass ended before anything was decided. What runs goes on running.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// What the agent knows cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// No mirror shows a branch that is believed.
    #[error(transparent)]
    Branch(#[from] NoneBelieved),
    /// Nobody knows what this machine is.
    #[error("cannot tell what system this machine is: {0}")]
    System(#[from] Invalid),
}

/// What became of one deployment.
#[derive(Debug)]
pub enum Settled {
    /// It ran already.
    UpToDate(Revision),
    /// Its revision changed, and what it names ran already.
    Adopted(Revision),
    /// The unit switched to it.
    Switched(Revision),
    /// It was not to be had yet, or this revision failed before; what ran before goes on.
    Waiting(String),
    /// It failed; what ran before goes on, or runs again.
    Failed(Failure),
    /// It was withdrawn; what runs goes on running.
    Withdrawn,
}

/// How a deployment failed.
#[derive(Debug)]
pub enum Failure {
    /// It could not be fetched.
    Realise(RealiseError),
    /// The unit did not switch to it.
    Activate(ActivateError),
    /// This very revision failed before, and is not tried again by itself.
    Before(FailedActivation),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Realise(error) => error.fmt(f),
            Self::Activate(error) => error.fmt(f),
            Self::Before(failed) => write!(
                f,
                "revision {} failed to activate at {} ({}); waiting for another revision, or for `clavel-agent once --retry`",
                failed.revision,
                failed.at,
                failed.error.lines().next().unwrap_or_default()
            ),
        }
    }
}

/// What a pass tells while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A mirror was not taken, and not for the same reason as in the pass before.
    Mirror(&'a MirrorReport),
    /// The branch has moved, and is believed.
    Fetched(CommitId),
    /// A deployment is being fetched from its caches.
    Realising(&'a Order),
    /// The unit is being switched.
    Activating(&'a Order),
    /// The unit is being switched back to this.
    RollingBack(&'a StorePath),
    /// Going back failed too.
    RollBackFailed(&'a ActivateError),
}

/// An agent at work: its settings, and what it knows.
#[derive(Debug)]
pub struct Pass<'a> {
    config: &'a AgentConfig,
    directory: StateDirectory,
    state: State,
    nix: Nix,
    system: System,
    switching: Arc<AtomicBool>,
    mirrors: Vec<MirrorReport>,
}

impl<'a> Pass<'a> {
    /// Takes the agent's lock and reads what it knows.
    pub fn open(config: &'a AgentConfig, voice: Voice) -> Result<Self, PassError> {
        let directory = StateDirectory::open(&config.state_directory)?;
        let state = directory.load()?;
        let nix = Nix::new(config.realise_deadline).with_store(config.store.clone()).with_voice(voice);
        let system = System::this()?;
        Ok(Self { config, directory, state, nix, system, switching: Arc::default(), mirrors: Vec::new() })
    }

    /// Whether a unit is just being switched, so that this must not be ended.
    pub fn switching(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.switching)
    }

    /// What became of each mirror in the last pass.
    pub fn mirrors(&self) -> &[MirrorReport] {
        &self.mirrors
    }

    /// Where the agent keeps its state.
    pub fn directory(&self) -> &StateDirectory {
        &self.directory
    }

    /// Runs one pass to its end. Each deployment is settled by itself: one that fails does not hold up another.
    pub async fn run(&mut self, retry: Retry, tell: &dyn Fn(Event<'_>)) -> Result<Vec<(Name, Settled)>, PassError> {
        let shown = fetch(self.config, &self.directory.join("mirrors")).await;
        let now = Timestamp::from(SystemTime::now());
        let judged = |Shown { mirror, tip }| (mirror, self.judge(tip, retry, now));
        let choice = choose(shown.into_iter().map(judged).collect());
        self.report(choice.as_ref().map_or_else(NoneBelieved::reports, |choice| choice.reports.clone()), tell);
        let Believed { tip, verdict, .. } = choice?.taken;
        if self.state.settled.as_ref().is_none_or(|settled| settled.commit != tip) {
            tell(Event::Fetched(tip));
        }
        let Some(Verdict { trusted, orders, withdrawn }) = verdict else {
            let applied = self.state.applied.iter();
            return Ok(applied.map(|(name, a)| (name.clone(), Settled::UpToDate(a.revision))).collect());
        };
        if self.state.trusted != trusted {
            self.state.trusted = trusted;
            self.directory.save(&self.state)?;
        }
        let mut settled = Vec::new();
        for order in &orders {
            let outcome = self.settle(order, retry, tell).await?;
            settled.push((order.deployment.name.clone(), outcome));
        }
        settled.extend(withdrawn.into_iter().map(|name| (name, Settled::Withdrawn)));
        let done = |(_, s): &(Name, Settled)| !matches!(s, Settled::Waiting(_) | Settled::Failed(_));
        let at = settled.iter().all(done).then(|| SettledAt { commit: tip, asker: self.asker_digest() });
        if self.state.settled != at {
            self.state.settled = at;
            self.directory.save(&self.state)?;
        }
        Ok(settled)
    }

    /// What is made of what one mirror shows.
    fn judge(&self, tip: Result<(Repository, CommitId), BranchFetchError>, retry: Retry, now: Timestamp) -> Finding {
        let (repository, tip) = match tip {
            Ok(shown) => shown,
            Err(error) => return Finding::Unreachable(error),
        };
        let settled = self.already_settled(tip).filter(|_| retry == Retry::NewRevisions);
        let believed = match settled {
            Some(index) => check_expiry(index.version, index.expires, now).map(|()| (Some(index.version), None)),
            None => self.verify(&repository, tip, now).map(|verdict| {
                let version = verdict.trusted.index.as_ref().map(|index| index.version);
                (version, Some(verdict))
            }),
        };
        match believed {
            Ok((version, verdict)) => Finding::Believed(Believed { tip, version, verdict }),
            Err(refusal) => Finding::Refused(refusal),
        }
    }

    /// Where everything was done at this very commit, only the time can change anything. The index that was believed.
    fn already_settled(&self, tip: CommitId) -> Option<&SeenIndex> {
        let settled = self.state.settled.as_ref()?;
        let index = self.state.trusted.index.as_ref()?;
        (settled.commit == tip && settled.asker == self.asker_digest()).then_some(index)
    }

    fn verify(&self, repository: &Repository, tip: CommitId, now: Timestamp) -> Result<Verdict, Refusal> {
        let asker = Asker {
            agent: &self.config.name,
            wanted: self.config.deployments.as_deref(),
            system: &self.system,
            authority: &self.config.authority,
        };
        // First of all: the rest reads what it names, and must not be led elsewhere by what stands beside it.
        repository.check_layout(tip).map_err(BranchError::from)?;
        let snapshot = repository.snapshot(tip).map_err(BranchError::from)?;
        verify(&snapshot, &asker, &self.state.trusted, now)
    }

    /// Notes what became of each mirror, and tells what was not told in the pass before.
    fn report(&mut self, reports: Vec<MirrorReport>, tell: &dyn Fn(Event<'_>)) {
        // Of a single mirror the outcome of the pass says it all.
        let news = |report: &&MirrorReport| !report.is_good() && reports.len() > 1 && !self.mirrors.contains(report);
        reports.iter().filter(news).for_each(|report| tell(Event::Mirror(report)));
        self.mirrors = reports;
    }

    /// Who asks for what, and believes whom: what was settled for another one is not settled for this one.
    fn asker_digest(&self) -> Sha256Digest {
        let AgentConfig { name, deployments, authority, units, store, .. } = self.config;
        digest(format!("{name:?} {deployments:?} {authority:?} {units:?} {store:?}").as_bytes())
    }

    async fn settle(&mut self, order: &Order, retry: Retry, tell: &dyn Fn(Event<'_>)) -> Result<Settled, PassError> {
        let name = &order.deployment.name;
        let revision = order.deployment.revision;
        let applied = self.state.applied.get(name);
        match decide(order, applied, self.state.failed.get(name), retry) {
            Decision::UpToDate => Ok(Settled::UpToDate(revision)),
            Decision::Hold(HoldReason::FailedBefore(failed)) => Ok(Settled::Failed(Failure::Before(failed))),
            Decision::Adopt => {
                self.record(order);
                self.directory.save(&self.state)?;
                Ok(Settled::Adopted(revision))
            }
            Decision::Apply => self.apply(order, tell).await,
        }
    }

    async fn apply(&mut self, order: &Order, tell: &dyn Fn(Event<'_>)) -> Result<Settled, PassError> {
        let (deployment, unit) = (&order.deployment, &order.unit);
        let units = self.directory.join("units");
        let config = self.config.units.get(&unit.name);
        let activation = match Activation::settle(unit, config, &units, self.config.activation_deadline) {
            Ok(activation) => activation,
            Err(error) => return Ok(Settled::Failed(Failure::Activate(error))),
        };
        let (name, revision) = (deployment.name.clone(), deployment.revision);
        self.begin(Step::Realising { deployment: name.clone(), revision })?;
        tell(Event::Realising(order));
        let folder = self.directory.join("roots");
        let io = |source| StateError::Io { act: "make", path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(io)?;
        match realise(&self.nix, deployment, &folder.join(name.as_str())).await {
            Ok(realised) => self.activate(order, &activation, &realised, tell).await,
            Err(error) => {
                self.begin(Step::Idle)?;
                Ok(match error {
                    not_yet @ RealiseError::NotYet { .. } => Settled::Waiting(not_yet.to_string()),
                    error => Settled::Failed(Failure::Realise(error)),
                })
            }
        }
    }

    async fn activate(
        &mut self,
        order: &Order,
        activation: &Activation,
        realised: &Realised,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<Settled, PassError> {
        let deployment = &order.deployment;
        let previous = self.state.applied.get(&deployment.name).map(|applied| applied.nar_id.clone());
        let previous = previous.or_else(|| activation.current());
        let (name, revision) = (&deployment.name, deployment.revision);
        let target = Target { deployment: name, revision, realised, previous: previous.as_ref() };
        self.begin(Step::Activating { deployment: name.clone(), revision })?;
        tell(Event::Activating(order));
        self.switching.store(true, Ordering::SeqCst);
        let switched = activation.run(&self.nix, target).await;
        let settled = match switched {
            Ok(()) => {
                self.record(order);
                Settled::Switched(deployment.revision)
            }
            Err(error) => {
                if error.is_of_the_deployment() {
                    self.roll_back(order, activation, previous.as_ref(), tell).await?;
                    self.record_failure(order, &error);
                }
                Settled::Failed(Failure::Activate(error))
            }
        };
        self.begin(Step::Idle)?;
        self.switching.store(false, Ordering::SeqCst);
        Ok(settled)
    }

    /// Back to the path that ran before, not to "the previous generation", which another tool may have moved.
    async fn roll_back(
        &mut self,
        order: &Order,
        activation: &Activation,
        previous: Option<&StorePath>,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<(), PassError> {
        let Some(previous) = previous.filter(|path| **path != order.deployment.specification.template.nar_id) else {
            return Ok(());
        };
        let name = &order.deployment.name;
        self.begin(Step::RollingBack { deployment: name.clone(), to: previous.clone() })?;
        tell(Event::RollingBack(previous));
        let revision = self.state.applied.get(name).map_or(order.deployment.revision, |applied| applied.revision);
        let realised = Realised::that_ran_before(previous.clone());
        let back = Target { deployment: name, revision, realised: &realised, previous: None };
        if let Err(error) = activation.run(&self.nix, back).await {
            tell(Event::RollBackFailed(&error));
        }
        Ok(())
    }

    fn begin(&mut self, step: Step) -> Result<(), StateError> {
        self.state.step = step;
        self.directory.save(&self.state)
    }

    fn record_failure(&mut self, order: &Order, error: &ActivateError) {
        let Order { deployment, sha256, .. } = order;
        let (at, error) = (SystemTime::now().into(), error.to_string());
        let failed = FailedActivation { revision: deployment.revision, sha256: *sha256, at, error };
        self.state.failed.insert(deployment.name.clone(), failed);
    }

    fn record(&mut self, order: &Order) {
        let deployment = &order.deployment;
        let applied = Applied {
            revision: deployment.revision,
            sha256: order.sha256,
            nar_id: deployment.specification.template.nar_id.clone(),
            since: SystemTime::now().into(),
        };
        self.state.failed.remove(&deployment.name);
        self.state.applied.insert(deployment.name.clone(), applied);
    }
}
