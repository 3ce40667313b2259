//! One round: evaluate some sources, and publish what came of it.

use std::time::SystemTime;

use super::setup;
use crate::config::{ClaveldConfig, EvaluateConfig};
use crate::evaluate::{Budget, EvalMode, EvaluateError, Evaluation, Evaluator, Failure, Progress};
use crate::model::{FlakeReference, Source, SourceRevision};
use crate::nix::Nix;
use crate::publish::{OrphanPolicy, PublishError, PublishInput, PublishReport, Publisher};

/// A source to evaluate.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The source.
    pub source: &'a Source,
    /// The revision to evaluate; the newest where none is named.
    pub pin: Option<SourceRevision>,
    /// The source as its owner names it, under which it is remembered what was evaluated.
    pub remembered_as: &'a FlakeReference,
}

/// Something that a round tells while it runs.
#[derive(Debug, Clone)]
pub enum Announcement<'a> {
    /// A source is being evaluated.
    Evaluating {
        /// The source.
        source: &'a Source,
        /// What it is at.
        progress: Progress,
    },
    /// The evaluations are done.
    Publishing,
}

/// A source that could not be evaluated at all. All its documents stay as they are.
#[derive(Debug)]
pub struct SourceFailure {
    /// The source.
    pub source: FlakeReference,
    /// Why.
    pub error: EvaluateError,
}

/// What came of a round.
#[derive(Debug)]
pub struct Outcome {
    /// What the sources gave.
    pub evaluations: Vec<Evaluation>,
    /// Sources that could not be evaluated at all.
    pub broken_sources: Vec<SourceFailure>,
    /// What was published.
    pub report: PublishReport,
}

impl Outcome {
    /// Every attribute that gave no document.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.evaluations.iter().flat_map(|evaluation| &evaluation.drafts.failures)
    }

    /// Every attribute that came out differently than was remembered: errors of Clavel.
    pub fn differences(&self) -> impl Iterator<Item = &str> {
        self.evaluations.iter().flat_map(|evaluation| evaluation.work.differences.iter().map(String::as_str))
    }

    /// Whether everything that was asked for is on the branch now, or will be when a cache has it.
    pub fn is_whole(&self) -> bool {
        let PublishReport { conflicts, unready, lost, .. } = &self.report;
        let all_evaluated = self.broken_sources.is_empty() && self.failures().next().is_none();
        let as_remembered = self.differences().next().is_none();
        // What waits is on its way, and is no failure.
        all_evaluated && as_remembered && conflicts.is_empty() && unready.unpublishable.is_empty() && lost.is_empty()
    }
}

/// Who evaluates by `config`.
pub(super) fn evaluator(config: &EvaluateConfig, mode: EvalMode) -> Evaluator {
    let EvaluateConfig { deadline, processes, memory, records } = config;
    let budget = Budget::of_this_machine(*processes, *memory);
    Evaluator { nix: Nix::new(*deadline), budget, records: Some(records.clone()), mode }
}

/// Evaluates `targets`: what they gave, and which of them could not be evaluated at all.
pub(super) async fn evaluated(
    evaluator: &Evaluator,
    targets: &[Target<'_>],
    announce: &dyn Fn(Announcement<'_>),
) -> (Vec<Evaluation>, Vec<SourceFailure>) {
    let now = || SystemTime::now().into();
    let (mut evaluations, mut broken_sources) = (Vec::new(), Vec::new());
    for Target { source, pin, remembered_as } in targets {
        let progress = |progress| announce(Announcement::Evaluating { source, progress });
        match evaluator.evaluate(source, pin.as_ref(), remembered_as, now(), &progress).await {
            Ok(evaluation) => evaluations.push(evaluation),
            Err(error) => broken_sources.push(SourceFailure { source: source.flake.clone(), error }),
        }
    }
    (evaluations, broken_sources)
}

/// Finds out, for what is remembered of `targets`, whether it depends on where its source is.
pub(super) async fn looked_again(evaluator: &Evaluator, targets: &[Target<'_>], announce: &dyn Fn(Announcement<'_>)) {
    for Target { source, pin, remembered_as } in targets {
        let progress = |progress| announce(Announcement::Evaluating { source, progress });
        if let Err(error) = evaluator.check_relocation(source, pin.as_ref(), remembered_as, &progress).await {
            // It costs time at the next change.
            tracing::debug!(source = %remembered_as, %error, "cannot look again");
        }
    }
}

/// Who evaluates and publishes, and with what.
#[derive(Debug)]
pub struct Round<'a> {
    config: &'a ClaveldConfig,
    evaluator: Evaluator,
    publisher: Publisher,
}

impl<'a> Round<'a> {
    /// Prepares rounds by `config`: reads the key, so that a bad one is told before anything is evaluated.
    pub fn new(config: &'a ClaveldConfig, mode: EvalMode) -> Result<Self, PublishError> {
        let publisher = setup::publisher(&config.publish)?;
        Ok(Self { config, evaluator: evaluator(&config.evaluate, mode), publisher })
    }

    /// Every source of the configuration, at its newest.
    pub fn all(&self) -> Vec<Target<'a>> {
        self.config.sources.iter().map(|source| Target { source, pin: None, remembered_as: &source.flake }).collect()
    }

    /// Evaluates `targets` and publishes. Sources that are not among them keep what they have on the branch; when every
    /// source of the configuration is, documents of sources that it does not name any more are withdrawn.
    pub async fn run(
        &self,
        targets: &[Target<'_>],
        announce: &dyn Fn(Announcement<'_>),
    ) -> Result<Outcome, PublishError> {
        let (evaluations, broken_sources) = evaluated(&self.evaluator, targets, announce).await;
        announce(Announcement::Publishing);
        let configured = self.configured();
        let every_source = configured.iter().all(|flake| targets.iter().any(|target| target.source.flake == *flake));
        let orphans = if every_source { OrphanPolicy::Withdraw } else { OrphanPolicy::Keep };
        let evaluated = PublishInput { configured: &configured, evaluations: &evaluations, orphans };
        let report = self.publisher.publish(&evaluated).await?;
        Ok(Outcome { evaluations, broken_sources, report })
    }

    /// Finds out, for what a round of `targets` remembered, whether it depends on where its source is. Nothing waits for
    /// that, and it may be interrupted: what is not known is evaluated once more at the next change.
    pub async fn look_again(&self, targets: &[Target<'_>], announce: &dyn Fn(Announcement<'_>)) {
        looked_again(&self.evaluator, targets, announce).await;
    }

    /// Publishes what of `known` waited for a cache that has it now. Nothing is evaluated.
    pub async fn publish_again(&self, known: &[Evaluation]) -> Result<PublishReport, PublishError> {
        let configured = self.configured();
        let evaluated = PublishInput { configured: &configured, evaluations: known, orphans: OrphanPolicy::Keep };
        self.publisher.publish(&evaluated).await
    }

    fn configured(&self) -> Vec<FlakeReference> {
        self.config.sources.iter().map(|source| source.flake.clone()).collect()
    }

    /// Those sources that have another content than `known` says, or whose content cannot be told.
    pub async fn changed(&self, known: &[Evaluation]) -> Vec<Target<'a>> {
        let mut changed = Vec::new();
        for target in self.all() {
            let flake = &target.source.flake;
            let before = known.iter().find(|evaluation| evaluation.source.flake == *flake);
            let same = match (before, self.evaluator.nix.lock(flake, None).await) {
                (Some(before), Ok(locked)) => before.source == locked.source,
                // The round itself will say what is wrong.
                (None, _) | (_, Err(_)) => false,
            };
            if !same {
                changed.push(target);
            }
        }
        changed
    }
}
