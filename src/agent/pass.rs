//! A pass: fetch, verify, decide, and for each deployment realise, activate and record.
//!
//! This is the only place that knows the order of the steps. `pass/read.rs` has the first half, up to the branch that is
//! believed, `pass/apply.rs` the second, `pass/boot.rs` what is about the next boot, `pass/secure.rs` the way back, `pass/prove.rs` the probation, `pass/plan.rs` what a pass would do, `pass/hooks.rs` the calls of hooks, and `pass/outcome.rs` the results. The checks themselves, the decisions and the
//! states stand in files of their own, without I/O.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::carried::Carried;
use super::freshness::{ClockSample, ClockTrouble, Clocks, next_baseline};
use super::hooks::HookWarning;
use super::leave_status::{self, FoundBundle, Identity};
use super::lifecycle::Lifecycle;
use super::loopback::LoopbackAddress;
use super::metrics::metrics;
use super::mirrors::{Believed, MirrorReport};
use super::pin::check::Pins;
use super::realise::gc_roots;
use super::retries::Held;
use super::state::{
    CompletedAs, Completion, LastPass, LeftStatus, ROOTS, ROOTS_OF_WAYS_BACK, State, StateDirectory, StateError,
    WAYS_BACK,
};
use super::unused::{UnusedUnit, units_of, unused};
use super::verify::Verdict;
use super::way_back::arming::ARMED;
use crate::config::AgentConfig;
use crate::disk::{self, Access, Durability};
use crate::model::{Name, RootValidity, RootWarning, System, Timestamp, describe_error};
use crate::store::{self, Output, Store};
use crate::trust::{Anchor, TrustedRoot};
use outcome::{DeploymentFailure, DeploymentOutcome, DeploymentReport, Event, PassError, PassReport};

mod apply;
mod boot;
mod hooks;
pub(super) mod outcome;
pub(super) mod plan;
mod prove;
mod read;
mod secure;

/// The deployment whose activation is under way.
pub type ActivationUnderWay = Rc<RefCell<Option<Name>>>;

/// An agent at work: its settings and its state.
#[derive(Debug)]
pub struct Pass<'a> {
    config: &'a AgentConfig,
    directory: StateDirectory,
    state: State,
    anchor: Anchor,
    /// The clocks at the beginning of this pass.
    clocks: Clocks,
    /// The readings that they are measured by.
    clock_baseline: Option<Clocks>,
    clock_trouble: Option<ClockTrouble>,
    fork_folder_is_full: bool,
    store: Arc<dyn Store>,
    system: System,
    under_way: ActivationUnderWay,
    /// Whether each unit still has what the state says that it runs. A hand may have deleted it.
    units_are_as_recorded: bool,
    /// The tables of the configuration about units that no deployment is for.
    unused_units: Vec<UnusedUnit>,
    /// The deployments whose rollback was tried in this pass.
    rollbacks_tried: BTreeSet<Name>,
    /// The deployment whose activation waits for the hook before it.
    announced: Option<Name>,
    /// The hooks that failed in this pass, or cannot be called.
    hook_warnings: Vec<HookWarning>,
    mirrors: Vec<MirrorReport>,
    /// The closures that bundles carry, once this pass has something to realise.
    carried: Option<Carried>,
    /// Where they were served last.
    loopback: Option<LoopbackAddress>,
    /// The bundles that this pass found.
    bundles: Vec<FoundBundle>,
    /// The statuses that were left beside bundles last.
    left: Vec<LeftStatus>,
}

impl<'a> Pass<'a> {
    /// Takes the agent's lock and reads its state.
    pub fn open(config: &'a AgentConfig, output: Output) -> Result<Self, PassError> {
        let pass = Self::with(config, StateDirectory::open(&config.state_directory)?, output)?;
        if let Some(path) = &config.metrics_file
            && let Err(error) = disk::remove_unfinished(path)
        {
            tracing::warn!(%error, file = %path.display(), "cannot remove the metrics that a killed agent has not finished");
        }
        Ok(pass)
    }

    /// Removes the GC roots that no record needs: of deployments that are forgotten, and those that a killed agent or Nix has not finished.
    fn remove_unused_roots(&self) -> std::io::Result<()> {
        let known = &self.state.deployments;
        // What is under way may go back to a path that another deployment realised. A state that was moved away says nothing.
        if known.is_empty() || !known.values().all(Lifecycle::is_settled) {
            return Ok(());
        }
        gc_roots::remove_others(&self.directory.join(ROOTS), |name| known.keys().any(|known| known.as_str() == name))?;
        let ways_back = self.directory.join(WAYS_BACK);
        gc_roots::remove_others(&self.directory.join(ROOTS_OF_WAYS_BACK), |unit| {
            ways_back.join(unit).join(ARMED).exists()
        })
    }

    /// An agent that only looks: without the lock. What would record something must not be called on it.
    pub(super) fn for_reading(config: &'a AgentConfig) -> Result<Self, PassError> {
        Self::with(config, StateDirectory::for_reading(&config.state_directory), Output::Capture)
    }

    fn with(config: &'a AgentConfig, directory: StateDirectory, output: Output) -> Result<Self, PassError> {
        let state = directory.load()?;
        let anchor = newest_anchor(Anchor::read(&config.root)?, directory.root()?, &config.state_directory)?;
        let last = directory.last_pass().ok().flatten();
        let (clock_baseline, left) = last.map(|last| (last.clock_baseline, last.left)).unwrap_or_default();
        let store = store::open(config.store.clone(), config.realise_deadline, output);
        let system = config.system.clone().map_or_else(System::this, Ok)?;
        Ok(Self {
            config,
            directory,
            state,
            anchor,
            clocks: Clocks::read(),
            clock_baseline,
            clock_trouble: None,
            fork_folder_is_full: false,
            store,
            system,
            under_way: ActivationUnderWay::default(),
            units_are_as_recorded: true,
            unused_units: Vec::new(),
            rollbacks_tried: BTreeSet::new(),
            announced: None,
            hook_warnings: Vec::new(),
            mirrors: Vec::new(),
            carried: None,
            loopback: None,
            bundles: Vec::new(),
            left,
        })
    }

    /// The deployment whose activation is under way at this moment, and goes on if this process ends.
    pub fn activation_under_way(&self) -> ActivationUnderWay {
        Rc::clone(&self.under_way)
    }

    /// Notes that this process ends in order, after a pass that was stopped: a probation that it ends is no failed attempt, and neither
    /// is an activation that had not begun because a hook was called before it.
    pub fn pause(&mut self) -> Result<(), StateError> {
        let announced = self.announced.take();
        let paused = |(name, known): (&Name, &Lifecycle)| match known.clone().postpone() {
            Ok(postponed) if announced.as_ref() == Some(name) => (name.clone(), postponed),
            _ => (name.clone(), known.clone().pause()),
        };
        let deployments: BTreeMap<Name, Lifecycle> = self.state.deployments.iter().map(paused).collect();
        if deployments == self.state.deployments {
            Ok(())
        } else {
            self.save(State { deployments, ..self.state.clone() })
        }
    }

    /// The root that it trusts; none before it has seen one.
    pub(super) fn root(&self) -> Option<&TrustedRoot> {
        match &self.anchor {
            Anchor::Root(root) => Some(root),
            Anchor::Digest(_) => None,
        }
    }

    /// The store that it fetches to.
    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Runs one pass to its end and saves its report. A deployment that fails does not hold up another.
    pub async fn run(&mut self, tell: &dyn Fn(Event<'_>)) -> PassReport {
        self.clocks = Clocks::read();
        self.clock_trouble = None;
        self.rollbacks_tried.clear();
        self.unused_units.clear();
        self.hook_warnings.clear();
        self.bundles.clear();
        self.directory.keep_reserve();
        let result = self.run_steps(tell).await;
        self.note_unusable_hooks();
        // The stick may be pulled out from now on.
        self.carried = None;
        let report = PassReport {
            result,
            root_warning: self.root_warning(),
            clock_trouble: self.clock_trouble.clone(),
            clock_baseline: self.clock_baseline.clone(),
            mirrors: self.mirrors.clone(),
            unused_units: self.unused_units.clone(),
            hook_warnings: self.hook_warnings.clone(),
        };
        let mut last = report.last_pass(SystemTime::now().into());
        self.leave_status(&last).await;
        last.left.clone_from(&self.left);
        if let Err(error) = self.directory.save_last_pass(&last) {
            tell(Event::ReportNotSaved(&error));
        }
        if let Some(path) = &self.config.metrics_file
            && let Err(error) = self.write_metrics(path, &last)
        {
            tell(Event::MetricsNotWritten(path, &error));
        }
        report
    }

    /// Leaves the status of this machine beside the bundles that the pass found, if it may.
    async fn leave_status(&mut self, last: &LastPass) {
        // Where a stick is not plugged in, its folder is none of its own.
        let is_there = |bundle: &FoundBundle| bundle.path.symlink_metadata().is_ok_and(|found| found.is_file());
        let found: Vec<FoundBundle> = self.bundles.iter().filter(|bundle| is_there(bundle)).cloned().collect();
        let media = leave_status::media(&found, &self.mirrors);
        if media.is_empty() || !self.config.leaves_status {
            return;
        }
        let key = match leave_status::own_key(&self.directory.join("status-key"), &self.config.name) {
            Ok(key) => key,
            Err(error) => {
                let failed = |medium: PathBuf| LeftStatus {
                    medium: medium.display().to_string(),
                    at: None,
                    error: Some(describe_error(&error)),
                };
                self.left = media.into_keys().map(failed).collect();
                return;
            }
        };
        let of = Identity { agent: &self.config.name, fleet: self.anchor.fleet(), key: key.public() };
        let status = |(medium, commit)| (medium, leave_status::status(&of, &self.state, last, commit));
        let statuses = media.into_iter().map(status).collect();
        self.left = leave_status::leave_all(statuses, key, self.config.fetch_deadline).await;
    }

    fn write_metrics(&self, path: &Path, last: &LastPass) -> std::io::Result<()> {
        let root = match &self.anchor {
            Anchor::Root(root) => Some(RootValidity::of(root.root())),
            Anchor::Digest(_) => None,
        };
        let text = metrics(&self.state, last, root);
        disk::replace(path, text.as_bytes(), Access::Everyone, Durability::Unsynced)
    }

    /// The warning before the end of the root. Once it has ended, the branch is refused, and the error says so.
    fn root_warning(&self) -> Option<RootWarning> {
        let Anchor::Root(root) = &self.anchor else { return None };
        RootValidity::of(root.root()).warning(self.clocks.now).filter(|warning| !warning.is_expired())
    }

    async fn run_steps(&mut self, tell: &dyn Fn(Event<'_>)) -> Result<Vec<DeploymentReport>, PassError> {
        self.resume(tell).await?;
        self.units_are_as_recorded = self.units_are_as_recorded();
        let read = self.read_branch(tell).await;
        self.clock_baseline = next_baseline(self.clock_baseline.take(), &self.clocks, self.clock_sample(&read));
        let Believed { tip, verdict, clock, .. } = match read {
            Ok(read) => read,
            Err(error) => {
                self.try_rollbacks(tell).await?;
                return Err(error);
            }
        };
        if self.state.completed.as_ref().is_none_or(|completed| completed.commit != tip) {
            tell(Event::Fetched(tip));
        }
        self.clock_trouble = clock;
        let Some(Verdict { trusted, orders, withdrawn, unfit, .. }) = verdict.map(|verdict| *verdict) else {
            let units = self.state.completed.as_ref().and_then(|completed| completed.units.clone());
            self.note_unused_units(units.as_ref());
            return Ok(self.with_moved_profiles(self.up_to_date()));
        };
        let mut units = units_of(&orders, &unfit);
        if let Some(units) = &mut units {
            // A document that is withdrawn does not say any more which unit it is for.
            units.extend(withdrawn.iter().filter_map(|name| Some(self.state.deployments.get(name)?.unit().clone())));
        }
        self.note_unused_units(units.as_ref());
        let is_asked_for = |name: &Name| {
            orders.iter().any(|order| order.deployment.name == *name) || unfit.iter().any(|(unfit, _)| unfit == name)
        };
        let mut deployments = self.state.deployments.clone();
        deployments.retain(|name, known| !known.is_obsolete() || is_asked_for(name));
        if self.state.trusted != trusted || self.state.deployments.len() != deployments.len() {
            // Another commit was complete for what was trusted before.
            self.save(State { trusted, believed_at: Some(tip), completed: None, deployments, ..self.state.clone() })?;
        }
        let mut reports = Vec::new();
        let pins = Pins::of(&orders);
        // They are taken before anything is tried: a try that ends this process is not asked for a second time.
        let asked = if orders.is_empty() { Held::default() } else { self.directory.take_retries()? };
        for order in &orders {
            let retry = asked.retry_of(&order.deployment.name, order.deployment.revision);
            let outcome = self.apply_decision(order, &pins, retry, tell).await?;
            let (unit, revision) = (Some(order.unit.name.clone()), Some(order.deployment.revision));
            reports.push(DeploymentReport { name: order.deployment.name.clone(), unit, revision, outcome });
        }
        reports.extend(withdrawn.into_iter().map(|name| self.report_about(name, DeploymentOutcome::Withdrawn)));
        let failed = |why| DeploymentOutcome::Failed(DeploymentFailure::Unfit(Box::new(why)));
        reports.extend(unfit.into_iter().map(|(name, why)| self.report_about(name, failed(why))));
        self.try_rollbacks(tell).await?;
        if let Err(error) = self.remove_unused_roots() {
            tracing::warn!(%error, "cannot remove GC roots that nothing needs; what they lead to stays in the store");
        }
        let reports = self.with_moved_profiles(self.with_dropped(self.with_pending_rollbacks(reports)));
        let found = |report: &DeploymentReport| Some((report.name.clone(), report.outcome.completed_as()?));
        let found: Option<BTreeMap<Name, CompletedAs>> = reports.iter().map(found).collect();
        let request = self.request_digest();
        let completed = found.map(|found| Completion { commit: tip, request, deployments: Some(found), units });
        if self.state.completed != completed {
            self.save(State { completed, ..self.state.clone() })?;
        }
        Ok(reports)
    }

    fn note_unused_units(&mut self, units: Option<&BTreeSet<Name>>) {
        self.unused_units = units.map(|units| unused(self.config.units.keys(), units)).unwrap_or_default();
    }

    /// The reports, where each deployment whose rollback does not hold yet has failed, whatever the branch says about it.
    fn with_pending_rollbacks(&self, reports: Vec<DeploymentReport>) -> Vec<DeploymentReport> {
        let is_reported = |name: &Name| reports.iter().any(|report| report.name == *name);
        let others: Vec<Name> = self.state.deployments.keys().filter(|name| !is_reported(name)).cloned().collect();
        let others =
            others.into_iter().filter_map(|name| self.not_back(&name, None).map(|why| self.report_about(name, why)));
        let reported = |report: DeploymentReport| match self.not_back(&report.name, Some(&report.outcome)) {
            Some(outcome) => self.report_about(report.name, outcome),
            None => report,
        };
        reports.into_iter().map(reported).chain(others).collect()
    }

    /// The reports, with one for each deployment that runs here and that the agent does not ask for any more.
    fn with_dropped(&self, mut reports: Vec<DeploymentReport>) -> Vec<DeploymentReport> {
        let is_reported = |name: &Name| reports.iter().any(|report| report.name == *name);
        let runs = self.state.deployments.iter().filter(|(_, known)| known.last_confirmed().is_some());
        let dropped: Vec<Name> = runs.map(|(name, _)| name).filter(|name| !is_reported(name)).cloned().collect();
        reports.extend(dropped.into_iter().map(|name| self.report_about(name, DeploymentOutcome::Dropped)));
        reports
    }

    /// The report about a deployment that no order is for, or not alone: its unit is that of the record.
    fn report_about(&self, name: Name, outcome: DeploymentOutcome) -> DeploymentReport {
        let unit = self.state.deployments.get(&name).map(|known| known.unit().clone());
        DeploymentReport { name, unit, revision: outcome.revision(), outcome }
    }

    /// The report of a pass that finds the commit at which everything was done: what was found there holds still.
    fn up_to_date(&self) -> Vec<DeploymentReport> {
        let known = &self.state.deployments;
        let found = self.state.completed.as_ref().and_then(|completed| completed.deployments.clone());
        let found = found.unwrap_or_else(|| known.keys().map(|name| (name.clone(), CompletedAs::Runs)).collect());
        let report = |(name, found): (Name, CompletedAs)| {
            let outcome = match found {
                CompletedAs::Runs => DeploymentOutcome::UpToDate(known.get(&name)?.certainly_running()?.revision),
                CompletedAs::Withdrawn => DeploymentOutcome::Withdrawn,
                CompletedAs::Dropped => DeploymentOutcome::Dropped,
            };
            Some(self.report_about(name, outcome))
        };
        found.into_iter().filter_map(report).collect()
    }

    fn clock_sample(&self, read: &Result<Believed, PassError>) -> ClockSample {
        let Ok(Believed { verdict, clock, .. }) = read else { return ClockSample::NothingBelieved };
        let is_new = verdict.as_ref().is_some_and(|verdict| verdict.trusted.index != self.state.trusted.index);
        match clock {
            Some(ClockTrouble::Behind { .. }) => ClockSample::Behind,
            Some(ClockTrouble::Set { .. }) | None if is_new => ClockSample::NewIndex,
            Some(ClockTrouble::Set { .. }) | None => ClockSample::KnownIndex,
        }
    }

    /// Replaces the state on the disk, and then in memory.
    fn save(&mut self, state: State) -> Result<(), StateError> {
        self.directory.save(&state)?;
        self.state = state;
        Ok(())
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The newer of the configuration's root and the one in the state.
fn newest_anchor(configured: Anchor, kept: Option<TrustedRoot>, directory: &Path) -> Result<Anchor, PassError> {
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
