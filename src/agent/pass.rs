//! One pass: fetch, verify, decide, and for each deployment realise, activate, record. The only place that knows the
//! order of the steps, and that writes each one down before it is begun.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::activate::{ActivateError, Activation, Target};
use super::decide::{Decision, HoldReason, Retry, decide};
use super::freshness::{ClockTrouble, Clocks, Evidence, measure};
use super::mirrors::{Believed, MirrorReport};
use super::pin::check::Pins;
use super::realise::error::RealiseError;
use super::realise::gc_roots::GcRoots;
use super::realise::{Realised, adopt, realise};
use super::state::{Applied, FailedActivation, SettledAt, State, StateDirectory, StateError, Step};
use super::verify::{Order, Verdict};
use crate::config::AgentConfig;
use crate::model::{Name, StorePath, System};
use crate::store::{self, Output, Store};
use crate::trust::{Anchor, TrustedRoot};

mod look;
mod outcome;

pub use outcome::{Event, Failure, PassError, Settled};

/// An agent at work: its settings, and what it knows.
#[derive(Debug)]
pub struct Pass<'a> {
    config: &'a AgentConfig,
    directory: StateDirectory,
    state: State,
    anchor: Anchor,
    /// What the clocks say at this pass.
    clocks: Clocks,
    /// What they are measured by.
    measure: Option<Clocks>,
    clock_trouble: Option<ClockTrouble>,
    evidence_is_full: bool,
    store: Arc<dyn Store>,
    system: System,
    switching: Arc<AtomicBool>,
    mirrors: Vec<MirrorReport>,
}

impl<'a> Pass<'a> {
    /// Takes the agent's lock and reads what it knows.
    pub fn open(config: &'a AgentConfig, output: Output) -> Result<Self, PassError> {
        let directory = StateDirectory::open(&config.state_directory)?;
        let state = directory.load()?;
        let anchor = newest(Anchor::read(&config.root)?, directory.root()?, &config.state_directory)?;
        let measure = directory.last_pass().ok().flatten().and_then(|last| last.clocks);
        let store = store::open(config.store.clone(), config.realise_deadline, output);
        let system = System::this()?;
        Ok(Self {
            config,
            directory,
            state,
            anchor,
            clocks: Clocks::read(),
            measure,
            clock_trouble: None,
            evidence_is_full: false,
            store,
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
        self.clocks = Clocks::read();
        self.clock_trouble = None;
        let seen = self.look(retry, tell).await;
        self.measure = measure(self.measure.take(), &self.clocks, self.evidence(&seen));
        let Believed { tip, verdict, clock, .. } = seen?;
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

    /// What the clocks are to be measured by at the next pass.
    pub fn clocks(&self) -> Option<&Clocks> {
        self.measure.as_ref()
    }

    fn evidence(&self, seen: &Result<Believed, PassError>) -> Evidence {
        let Ok(Believed { verdict, clock, .. }) = seen else { return Evidence::Nothing };
        let is_new = verdict.as_ref().is_some_and(|verdict| verdict.trusted.index != self.state.trusted.index);
        match clock {
            Some(ClockTrouble::Behind { .. }) => Evidence::Behind,
            Some(ClockTrouble::Set { .. }) | None if is_new => Evidence::New,
            Some(ClockTrouble::Set { .. }) | None => Evidence::Known,
        }
    }

    /// What was wrong with this machine's clock at the last pass.
    pub fn clock_trouble(&self) -> Option<&ClockTrouble> {
        self.clock_trouble.as_ref()
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
            Decision::Adopt => match adopt(&*self.store, &order.deployment, pins).await {
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
        let roots = GcRoots { kept: folder.join(name.as_str()), unchecked };
        match realise(&*self.store, deployment, pins, &roots).await {
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
        let _switching = Switching::begun(&self.switching);
        let switched = activation.run(&*self.store, target).await;
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
        if let Err(error) = activation.run(&*self.store, back).await {
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

/// While it lives, a unit is being switched: it ends with the activation, however that ended.
struct Switching(Arc<AtomicBool>);

impl Switching {
    fn begun(switching: &Arc<AtomicBool>) -> Self {
        switching.store(true, Ordering::SeqCst);
        Self(Arc::clone(switching))
    }
}

impl Drop for Switching {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
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
