//! One pass: fetch, verify, decide, and for each deployment realise, activate, record. The only place that knows the
//! order of the steps, and that writes each one down before it is begun.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::activate::{ActivateError, Activation, Target};
use super::decide::{Decision, HoldReason, Retry, decide};
use super::evidence::{Copy, Remembered, keep_all};
use super::fetch::{BranchFetchError, Shown, fetch};
use super::freshness::{ClockTrouble, Clocks, Stale};
use super::mirrors::{Believed, Finding, MirrorReport, NoneBelieved, choose};
use super::pin::Pins;
use super::pinned;
use super::realise::{RealiseError, Realised, adopt, realise};
use super::state::{Applied, FailedActivation, SettledAt, State, StateDirectory, StateError, Step};
use super::verify::{Asker, Order, Refusal, SeenIndex, Time, Verdict, verify};
use crate::config::AgentConfig;
use crate::model::{FleetId, Invalid, Name, Revision, Sha256Digest, StorePath, System};
use crate::nix::{Nix, Voice};
use crate::repository::{BranchError, CommitId, Repository, Roots, Snapshot};
use crate::trust::{Anchor, AnchorError, TrustedRoot, digest};

/// Why a pass ended before anything was decided. What runs goes on running.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// What the agent knows cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The root that it begins with, or the one that it kept, cannot be read.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// What it knows is about another fleet than the one it is told to believe.
    #[error(
        "the state in {} is of the fleet {kept}, and the configuration's `root` is of the fleet {configured}; if this \
         machine changes fleets, move the state away",
        directory.display()
    )]
    OtherFleet {
        /// The state folder.
        directory: PathBuf,
        /// The fleet of the root that was kept.
        kept: FleetId,
        /// The fleet of the configuration.
        configured: FleetId,
    },
    /// No mirror shows a branch that is believed.
    #[error(transparent)]
    Branch(#[from] NoneBelieved),
    /// Nobody knows what this machine is.
    #[error("cannot tell what system this machine is: {0}")]
    System(#[from] Invalid),
}

impl PassError {
    /// What is past its time, where that is why.
    pub fn stale(&self) -> Option<&Stale> {
        match self {
            Self::Branch(none) => none.stale(),
            _ => None,
        }
    }
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
    /// It was not to be had yet, or too few have approved it; what ran before goes on.
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
    /// There are two contents under one number, and both were kept there.
    Evidence(&'a Path),
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
    anchor: Anchor,
    /// What the clocks said at this pass, and at the one before.
    clocks: (Clocks, Option<Clocks>),
    has_passed: bool,
    clock_trouble: Option<ClockTrouble>,
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
        let anchor = newest(Anchor::read(&config.root)?, directory.root()?, &config.state_directory)?;
        let clocks = (Clocks::read(), directory.last_pass().ok().flatten().map(|last| last.clocks));
        let nix = Nix::new(config.realise_deadline).with_store(config.store.clone()).with_voice(voice);
        let system = System::this()?;
        Ok(Self {
            config,
            directory,
            state,
            anchor,
            clocks,
            has_passed: false,
            clock_trouble: None,
            nix,
            system,
            switching: Arc::default(),
            mirrors: Vec::new(),
        })
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
        let before = std::mem::replace(&mut self.clocks.0, Clocks::read());
        // The first pass of a process compares with the last one of the process before it.
        if self.has_passed {
            self.clocks.1 = Some(before);
        }
        self.has_passed = true;
        self.clock_trouble = None;
        let shown = fetch(self.config, &self.directory.join("mirrors")).await;
        for (repository, tip) in shown.iter().filter_map(|shown| shown.tip.as_ref().ok()) {
            self.learn_root(repository, *tip)?;
        }
        let copies: Vec<Copy> = shown.iter().filter_map(Copy::of).collect();
        let judged = |Shown { mirror, tip }| (mirror, self.judge(tip, retry));
        let choice = choose(shown.into_iter().map(judged).collect());
        let rejected = choice.as_ref().map_or_else(NoneBelieved::rejected, |choice| &choice.rejected);
        let root = match &self.anchor {
            Anchor::Root(root) => Some(root.file()),
            Anchor::Digest(_) => None,
        };
        let believed = Remembered { at: self.state.believed_at, root };
        for place in keep_all(&self.directory.join("evidence"), &copies, rejected, &believed, self.clocks.0.now) {
            tell(Event::Evidence(&place));
        }
        self.report(choice.as_ref().map_or_else(NoneBelieved::reports, |choice| choice.reports.clone()), tell);
        let Believed { tip, verdict, clock, .. } = choice?.taken;
        if self.state.settled.as_ref().is_none_or(|settled| settled.commit != tip) {
            tell(Event::Fetched(tip));
        }
        self.clock_trouble = clock;
        let Some(Verdict { trusted, orders, withdrawn, .. }) = verdict else {
            let applied = self.state.applied.iter();
            return Ok(applied.map(|(name, a)| (name.clone(), Settled::UpToDate(a.revision))).collect());
        };
        if self.state.trusted != trusted {
            self.state.trusted = trusted;
            self.state.believed_at = Some(tip);
            self.directory.save(&self.state)?;
        }
        let mut settled = Vec::new();
        let pins = Pins::of(&orders);
        for order in &orders {
            let outcome = self.settle(order, &pins, retry, tell).await?;
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

    /// Keeps the newest root that a mirror has. The mirrors are judged once all of them were asked for it: one that holds
    /// it back is judged by it all the same.
    fn learn_root(&mut self, repository: &Repository, tip: CommitId) -> Result<(), StateError> {
        if self.already_settled(tip).is_some() {
            return Ok(());
        }
        // What is wrong with it is told when it is judged.
        let Ok(snapshot) = read(repository, tip) else { return Ok(()) };
        match Roots::from_anchor(&snapshot, &self.anchor) {
            Ok(roots) => self.keep(roots.newest),
            Err(_) => Ok(()),
        }
    }

    /// What is made of what one mirror shows.
    fn judge(&self, tip: Result<(Repository, CommitId), BranchFetchError>, retry: Retry) -> Finding {
        let (repository, tip) = match tip {
            Ok(shown) => shown,
            Err(error) => return Finding::Unreachable(error),
        };
        let believed = match self.already_settled(tip).filter(|_| retry == Retry::NewRevisions) {
            // Only the time can change anything.
            Some((root, index)) => {
                let fresh = self.time().check_root(root).and_then(|()| self.time().check_index(index));
                fresh.map(|clock| Believed {
                    tip,
                    version: Some(index.version),
                    index: Some(index.sha256),
                    verdict: None,
                    clock,
                })
            }
            None => self.verify(&repository, tip).map(|verdict| {
                let index = verdict.trusted.index.as_ref();
                let (version, index) = (index.map(|index| index.version), index.map(|index| index.sha256));
                Believed { tip, version, index, clock: verdict.clock.clone(), verdict: Some(verdict) }
            }),
        };
        believed.map_or_else(Finding::Refused, Finding::Believed)
    }

    /// The root and the index that were believed, where everything was done at this very commit.
    fn already_settled(&self, tip: CommitId) -> Option<(&TrustedRoot, &SeenIndex)> {
        let settled = self.state.settled.as_ref()?;
        let index = self.state.trusted.index.as_ref()?;
        let Anchor::Root(root) = &self.anchor else { return None };
        (settled.commit == tip && settled.asker == self.asker_digest()).then_some((&**root, index))
    }

    /// Notes what became of each mirror, and tells what was not told in the pass before.
    fn report(&mut self, reports: Vec<MirrorReport>, tell: &dyn Fn(Event<'_>)) {
        // Of a single mirror the outcome of the pass says it all.
        let news = |report: &&MirrorReport| !report.is_good() && reports.len() > 1 && !self.mirrors.contains(report);
        reports.iter().filter(news).for_each(|report| tell(Event::Mirror(report)));
        self.mirrors = reports;
    }

    fn time(&self) -> Time<'_> {
        Time { clocks: &self.clocks.0, before: self.clocks.1.as_ref() }
    }

    /// What the clocks said at the last pass.
    pub fn clocks(&self) -> &Clocks {
        &self.clocks.0
    }

    /// What was wrong with this machine's clock at the last pass.
    pub fn clock_trouble(&self) -> Option<&ClockTrouble> {
        self.clock_trouble.as_ref()
    }

    fn verify(&self, repository: &Repository, tip: CommitId) -> Result<Verdict, Refusal> {
        let snapshot = read(repository, tip)?;
        let roots = Roots::from_anchor(&snapshot, &self.anchor)?;
        let asker = Asker {
            agent: &self.config.name,
            wanted: self.config.deployments.as_deref(),
            system: &self.system,
            branch: &self.config.branch,
            root: &roots.newest,
        };
        verify(&snapshot, &asker, &self.state.trusted, self.time())
    }

    /// Believes a newer root from now on. It proves itself: whatever else is wrong with the branch, a key that it takes
    /// out counts no more.
    fn keep(&mut self, newest: TrustedRoot) -> Result<(), StateError> {
        let is_kept = matches!(&self.anchor, Anchor::Root(root) if root.root().version == newest.root().version);
        if !is_kept || self.directory.root().ok().flatten().is_none() {
            self.directory.save_root(&newest)?;
        }
        self.anchor = Anchor::Root(Box::new(newest));
        Ok(())
    }

    /// Who asks for what, and believes whom: what was settled for another one is not settled for this one.
    fn asker_digest(&self) -> Sha256Digest {
        let AgentConfig { name, deployments, branch, units, store, .. } = self.config;
        let fleet = self.anchor.fleet();
        // A new root may take out the key that signed what was settled.
        let root = match &self.anchor {
            Anchor::Root(root) => Some(root.root().version),
            Anchor::Digest(_) => None,
        };
        digest(format!("{name:?} {deployments:?} {branch:?} {fleet:?} {root:?} {units:?} {store:?}").as_bytes())
    }

    async fn settle(
        &mut self,
        order: &Order,
        pins: &Pins,
        retry: Retry,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<Settled, PassError> {
        let name = &order.deployment.name;
        let revision = order.deployment.revision;
        let applied = self.state.applied.get(name);
        match decide(order, applied, self.state.failed.get(name), retry) {
            Decision::UpToDate => Ok(Settled::UpToDate(revision)),
            Decision::Hold(HoldReason::FailedBefore(failed)) => Ok(Settled::Failed(Failure::Before(failed))),
            Decision::Hold(HoldReason::Unapproved(approvals)) => Ok(Settled::Waiting(approvals.to_string())),
            Decision::Adopt => match adopt(&self.nix, &order.deployment, pins).await {
                Ok(Some(())) => {
                    self.record(order);
                    self.directory.save(&self.state)?;
                    Ok(Settled::Adopted(revision))
                }
                Ok(None) => self.apply(order, pins, tell).await,
                Err(error) => Ok(Settled::Failed(Failure::Realise(error))),
            },
            Decision::Apply => self.apply(order, pins, tell).await,
        }
    }

    async fn apply(&mut self, order: &Order, pins: &Pins, tell: &dyn Fn(Event<'_>)) -> Result<Settled, PassError> {
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
        let unchecked = self.directory.join("unchecked").join(name.as_str());
        let roots = pinned::Roots { kept: folder.join(name.as_str()), unchecked };
        match realise(&self.nix, deployment, pins, &roots).await {
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
        let Order { deployment, content, .. } = order;
        let (at, error) = (SystemTime::now().into(), error.to_string());
        let failed = FailedActivation { revision: deployment.revision, content: *content, at, error };
        self.state.failed.insert(deployment.name.clone(), failed);
    }

    fn record(&mut self, order: &Order) {
        let deployment = &order.deployment;
        let applied = Applied {
            revision: deployment.revision,
            content: order.content,
            nar_id: deployment.specification.template.nar_id.clone(),
            since: SystemTime::now().into(),
        };
        self.state.failed.remove(&deployment.name);
        self.state.applied.insert(deployment.name.clone(), applied);
    }
}

/// The files of a commit that holds the layout of a branch and nothing else. That comes first of all: whoever reads what the
/// index names must not be led elsewhere by what stands beside it.
fn read(repository: &Repository, tip: CommitId) -> Result<Snapshot, Refusal> {
    repository.check_layout(tip).map_err(BranchError::from)?;
    Ok(repository.snapshot(tip).map_err(BranchError::from)?)
}

/// The newer of what the configuration says and what was kept.
fn newest(configured: Anchor, kept: Option<TrustedRoot>, directory: &Path) -> Result<Anchor, PassError> {
    let Some(kept) = kept else { return Ok(configured) };
    if kept.fleet() != configured.fleet() {
        let (kept, configured) = (kept.fleet(), configured.fleet());
        return Err(PassError::OtherFleet { directory: directory.to_owned(), kept, configured });
    }
    Ok(match configured {
        Anchor::Root(root) if root.root().version > kept.root().version => Anchor::Root(root),
        Anchor::Root(_) | Anchor::Digest(_) => Anchor::Root(Box::new(kept)),
    })
}
