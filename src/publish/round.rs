//! One round: evaluate some sources, and publish what came of it.

use std::time::SystemTime;

use super::changes::Report;
use super::commit::{PublishError, Publisher};
use super::plan::{Evaluated, Strays};
use crate::config::ClaveldConfig;
use crate::evaluate::{EvaluateError, Evaluation, Failure, Progress, evaluate};
use crate::model::{FlakeReference, Source, SourceRevision};
use crate::nix::Nix;

/// A source to evaluate.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The source.
    pub source: &'a Source,
    /// The revision to evaluate; the newest where none is named.
    pub pin: Option<SourceRevision>,
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
    pub report: Report,
}

impl Outcome {
    /// Every attribute that gave no document.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.evaluations.iter().flat_map(|evaluation| &evaluation.found.failures)
    }

    /// Whether everything that was asked for is on the branch now.
    pub fn is_whole(&self) -> bool {
        self.broken_sources.is_empty() && self.report.conflicts.is_empty() && self.failures().next().is_none()
    }
}

/// Who evaluates and publishes, and with what.
#[derive(Debug)]
pub struct Round<'a> {
    config: &'a ClaveldConfig,
    nix: Nix,
    publisher: Publisher<'a>,
}

impl<'a> Round<'a> {
    /// Prepares rounds by `config`: reads the key, so that a bad one is told before anything is evaluated.
    pub fn new(config: &'a ClaveldConfig) -> Result<Self, PublishError> {
        let publisher = Publisher::new(&config.publish)?;
        Ok(Self { config, nix: Nix::new(config.evaluation_deadline), publisher })
    }

    /// Every source of the configuration, at its newest.
    pub fn all(&self) -> Vec<Target<'a>> {
        self.config.sources.iter().map(|source| Target { source, pin: None }).collect()
    }

    /// Evaluates `targets` and publishes. Sources that are not among them keep what they have on the branch; when every
    /// source of the configuration is, documents of sources that it does not name any more are withdrawn.
    pub async fn run(
        &self,
        targets: &[Target<'_>],
        announce: &dyn Fn(Announcement<'_>),
    ) -> Result<Outcome, PublishError> {
        let now = || SystemTime::now().into();
        let (mut evaluations, mut broken_sources) = (Vec::new(), Vec::new());
        for Target { source, pin } in targets {
            let progress = |progress| announce(Announcement::Evaluating { source, progress });
            match evaluate(&self.nix, source, pin.as_ref(), now(), &progress).await {
                Ok(evaluation) => evaluations.push(evaluation),
                Err(error) => broken_sources.push(SourceFailure { source: source.flake.clone(), error }),
            }
        }
        announce(Announcement::Publishing);
        let configured: Vec<FlakeReference> = self.config.sources.iter().map(|source| source.flake.clone()).collect();
        let every_source = configured.iter().all(|flake| targets.iter().any(|target| target.source.flake == *flake));
        let strays = if every_source { Strays::Go } else { Strays::Stay };
        let evaluated = Evaluated { configured: &configured, evaluations: &evaluations, strays };
        let report = self.publisher.publish(&evaluated, &self.nix).await?;
        Ok(Outcome { evaluations, broken_sources, report })
    }

    /// Those sources that have another content than `known` says, or whose content cannot be told.
    pub async fn changed(&self, known: &[Evaluation]) -> Vec<Target<'a>> {
        let mut changed = Vec::new();
        for target in self.all() {
            let flake = &target.source.flake;
            let before = known.iter().find(|evaluation| evaluation.source.flake == *flake);
            let same = match (before, self.nix.lock(flake, None).await) {
                (Some(before), Ok(locked)) => before.source == locked,
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
