//! One round: evaluates some sources, and publishes the result.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::SystemTime;

use futures_util::FutureExt as _;

use super::setup;
use super::source_state::{SourceState, SourceStates};
use crate::config::{ClaveldConfig, EvaluateConfig};
use crate::evaluate::{Budget, EvalMode, EvaluateError, Evaluation, Evaluator, Failure, Item, Progress};
use crate::git::ProgramAccess;
use crate::model::{FlakeReference, IndexSource, Source, SourceRevision, Timestamp, describe_error, printable_line};
use crate::nix::{FetchAccess, FetchKeys, Nix};
use crate::publish::{OrphanPolicy, PublishError, PublishInput, PublishReport, Publisher};

/// A source to evaluate.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The source.
    pub source: &'a Source,
    /// The revision to evaluate; the newest where there is none.
    pub revision: Option<SourceRevision>,
    /// The name of the source in its owner's configuration. The records of evaluations are kept under this name.
    pub remembered_as: &'a FlakeReference,
}

impl<'a> Target<'a> {
    /// The newest revision of a source.
    pub(super) fn newest(source: &'a Source) -> Self {
        Self { source, revision: None, remembered_as: &source.flake }
    }
}

/// An event of a round.
#[derive(Debug, Clone)]
pub enum RoundEvent<'a> {
    /// The evaluation of a source makes progress.
    Evaluating {
        /// The source.
        source: &'a Source,
        /// The progress.
        progress: Progress,
    },
    /// The evaluations are done, and claveld begins to publish.
    Publishing,
    /// A source could not be evaluated, and nothing could be published either.
    SourceBroken(&'a SourceFailure),
}

/// A source that could not be evaluated at all. All its documents stay as they are.
#[derive(Debug)]
pub struct SourceFailure {
    /// The source.
    pub source: FlakeReference,
    /// The reason.
    pub error: EvaluateError,
    /// The first round that could not reach its server; none where the server answers.
    pub unreachable_since: Option<Timestamp>,
}

/// The result of a round.
#[derive(Debug)]
pub struct RoundOutcome {
    /// The evaluations of the sources.
    pub evaluations: Vec<Evaluation>,
    /// The sources that could not be evaluated at all.
    pub broken_sources: Vec<SourceFailure>,
    /// The result of the publication.
    pub report: PublishReport,
}

/// Whether a command did all that it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Completeness {
    /// Everything is done, or waits for a cache and needs nobody.
    Complete,
    /// Something is broken or needs an operator. The rest is done.
    Incomplete,
    /// The server of a source does not answer. The rest is done.
    Unreachable,
}

impl Completeness {
    /// The completeness of one evaluation: whether every attribute gave a document, and the same one as its record.
    pub fn of(evaluation: &Evaluation) -> Self {
        let Evaluation { drafts, work, .. } = evaluation;
        Self::complete_if(drafts.failures.is_empty() && work.differences.is_empty())
    }

    fn complete_if(condition: bool) -> Self {
        if condition { Self::Complete } else { Self::Incomplete }
    }
}

impl RoundOutcome {
    /// Every attribute that gave no document.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.evaluations.iter().flat_map(|evaluation| &evaluation.drafts.failures)
    }

    /// Every attribute whose new value differs from the recorded one, though nothing that it depends on changed. Each is an
    /// error of Clavel.
    pub fn differences(&self) -> impl Iterator<Item = &Item> {
        self.evaluations.iter().flat_map(|evaluation| &evaluation.work.differences)
    }

    /// Whether the round did all that it was asked. A deployment that waits for a cache is no failure.
    pub fn completeness(&self) -> Completeness {
        let PublishReport { conflicts, unready, lost, withdrawals, .. } = &self.report;
        let is_evaluated = self.broken_sources.iter().all(|broken| broken.error.is_unreachable())
            && self.evaluations.iter().all(|e| Completeness::of(e) == Completeness::Complete);
        let is_published =
            conflicts.is_empty() && unready.unpublishable.is_empty() && lost.is_empty() && withdrawals.is_empty();
        match Completeness::complete_if(is_evaluated && is_published) {
            Completeness::Complete if !self.broken_sources.is_empty() => Completeness::Unreachable,
            completeness => completeness,
        }
    }
}

/// The evaluator that `config` describes.
pub(super) fn evaluator(config: &EvaluateConfig, mode: EvalMode) -> Evaluator {
    let EvaluateConfig { deadline, processes, memory, records, isolation, inputs, access } = config;
    let budget = Budget::of_this_machine(*processes, *memory);
    let access = access.clone();
    let keys = FetchKeys::new(move |url| {
        let ProgramAccess { environment, netrc, token } = access.for_program(url)?;
        Ok(FetchAccess { environment, netrc, token })
    });
    let nix = Nix::new(*deadline, *isolation).with_keys(keys);
    Evaluator { nix, inputs: inputs.clone(), budget, records: Some(records.clone()), mode }
}

/// Evaluates `targets`. Returns the evaluations, and the sources that could not be evaluated at all.
pub(super) async fn evaluate_targets(
    evaluator: &Evaluator,
    targets: &[Target<'_>],
    on_event: &dyn Fn(RoundEvent<'_>),
) -> (Vec<Evaluation>, Vec<SourceFailure>) {
    let now = || SystemTime::now().into();
    let (mut evaluations, mut broken_sources) = (Vec::new(), Vec::new());
    for Target { source, revision, remembered_as } in targets {
        let progress = |progress| on_event(RoundEvent::Evaluating { source, progress });
        let evaluation = evaluator.evaluate(source, revision.as_ref(), remembered_as, now(), &progress);
        match unless_it_panics(&source.flake, evaluation).await {
            Ok(mut evaluation) => {
                evaluation.drafts.restrict_to_names_of(source);
                evaluations.push(evaluation);
            }
            Err(error) => {
                broken_sources.push(SourceFailure { source: source.flake.clone(), error, unreachable_since: None });
            }
        }
    }
    (evaluations, broken_sources)
}

/// Evaluates `targets` a second time with their source at another place, and records whether the result depends on it.
pub(super) async fn check_relocations(
    evaluator: &Evaluator,
    targets: &[Target<'_>],
    on_event: &dyn Fn(RoundEvent<'_>),
) {
    for Target { source, revision, remembered_as } in targets {
        let progress = |progress| on_event(RoundEvent::Evaluating { source, progress });
        let check = evaluator.check_relocation(source, revision.as_ref(), remembered_as, &progress);
        if let Err(error) = unless_it_panics(&source.flake, check).await {
            // The next change then takes longer, and nothing else is lost.
            tracing::debug!(source = %remembered_as, error = %describe_error(&error), "cannot evaluate a second time");
        }
    }
}

/// The result of work on one source. A panic is a mistake in Clavel, and ends with this source.
async fn unless_it_panics<T>(
    source: &FlakeReference,
    work: impl Future<Output = Result<T, EvaluateError>>,
) -> Result<T, EvaluateError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        let why = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(EvaluateError::Panicked { flake: source.to_string(), why: printable_line(&why, 500) })
    })
}

/// Runs rounds by one configuration.
#[derive(Debug)]
pub struct RoundRunner<'a> {
    config: &'a ClaveldConfig,
    evaluator: Evaluator,
    publisher: Publisher,
    /// How many documents an operator allows to withdraw.
    allowed_withdrawals: usize,
}

impl<'a> RoundRunner<'a> {
    /// Reads the keys that `config` names, so that a bad key is an error before anything is evaluated.
    pub fn new(config: &'a ClaveldConfig, mode: EvalMode) -> Result<Self, PublishError> {
        let publisher = setup::publisher(&config.publish)?;
        Ok(Self { config, evaluator: evaluator(&config.evaluate, mode), publisher, allowed_withdrawals: 0 })
    }

    /// The same, where an operator allows so many documents to be withdrawn beyond the few that go without asking.
    #[must_use]
    pub fn allowing_withdrawals(self, documents: usize) -> Self {
        Self { allowed_withdrawals: documents, ..self }
    }

    /// The newest revision of every source of the configuration.
    pub fn all_targets(&self) -> Vec<Target<'a>> {
        self.config.sources.iter().map(Target::newest).collect()
    }

    /// Evaluates `targets` and publishes the result. The documents of all other sources stay as they are. If every source of the
    /// configuration was read, in this round or as one of `read_before`, the round also withdraws the documents of sources that were
    /// removed from the configuration: a source that cannot be read may be the new place of one of them.
    pub async fn run(
        &self,
        targets: &[Target<'_>],
        read_before: &[Evaluation],
        on_event: &dyn Fn(RoundEvent<'_>),
    ) -> Result<RoundOutcome, PublishError> {
        let (evaluations, mut broken_sources) = evaluate_targets(&self.evaluator, targets, on_event).await;
        let sources = self.remember_sources(&evaluations, &mut broken_sources);
        on_event(RoundEvent::Publishing);
        let configured = self.configured();
        let is_broken = |flake: &FlakeReference| broken_sources.iter().any(|broken| broken.source == *flake);
        let is_read = |flake: &FlakeReference| {
            let read = || evaluations.iter().chain(read_before).any(|evaluation| evaluation.source.flake == *flake);
            !is_broken(flake) && read()
        };
        let orphans = if configured.iter().all(is_read) { OrphanPolicy::Withdraw } else { OrphanPolicy::Keep };
        let report = self.publish(&evaluations, orphans, &sources).await.inspect_err(|_| {
            // The error of the publication does not say them.
            for broken in &broken_sources {
                on_event(RoundEvent::SourceBroken(broken));
            }
        })?;
        Ok(RoundOutcome { evaluations, broken_sources, report })
    }

    /// Remembers how the sources of a round were, and adds since when a source is out of reach. Returns how every source was last.
    fn remember_sources(&self, evaluations: &[Evaluation], broken: &mut [SourceFailure]) -> Vec<IndexSource> {
        let now = Timestamp::from(SystemTime::now());
        let states = self.source_states().update(&self.configured(), |states| {
            for Evaluation { source, drafts, .. } in evaluations {
                let broken = drafts.failures.iter().map(|failure| failure.part.to_string());
                let before = states.remove(source.flake.as_str()).unwrap_or_default();
                states.insert(source.flake.to_string(), before.read(source.revision.clone(), broken, now));
            }
            for failure in broken {
                let source = failure.source.to_string();
                let state = states.remove(&source).unwrap_or_default().failed(&failure.error, now);
                failure.unreachable_since = state.unreachable_since();
                states.insert(source, state);
            }
        });
        self.index_sources(states)
    }

    async fn publish(
        &self,
        evaluations: &[Evaluation],
        orphans: OrphanPolicy,
        sources: &[IndexSource],
    ) -> Result<PublishReport, PublishError> {
        let (configured, allowed_withdrawals) = (self.configured(), self.allowed_withdrawals);
        let input = PublishInput { configured: &configured, evaluations, orphans, allowed_withdrawals, sources };
        let report = self.publisher.publish(&input).await?;
        self.source_states().remember_root(report.root);
        Ok(report)
    }

    /// Evaluates `targets` a second time with their source at another place, and records whether the result depends on it.
    /// No answer waits for this, and it may be interrupted: the next change then evaluates more.
    pub async fn check_relocations(&self, targets: &[Target<'_>], on_event: &dyn Fn(RoundEvent<'_>)) {
        check_relocations(&self.evaluator, targets, on_event).await;
    }

    /// Publishes the evaluations in `known` again, without evaluating anything: a cache may have a deployment by now, or an
    /// operator may have released one.
    pub(super) async fn publish_known(&self, known: &[Evaluation]) -> Result<PublishReport, PublishError> {
        let sources = self.index_sources(self.source_states().read());
        self.publish(known, OrphanPolicy::Keep, &sources).await
    }

    /// How every source was last, for the index.
    fn index_sources(&self, mut states: BTreeMap<String, SourceState>) -> Vec<IndexSource> {
        let sources = self.config.sources.iter().map(|source| &source.flake);
        let index_source = |flake: &FlakeReference| {
            let SourceState { revision, trouble, .. } = states.remove(flake.as_str()).unwrap_or_default();
            IndexSource { revision, source: flake.clone(), unread_since: trouble.map(|trouble| trouble.since) }
        };
        sources.map(index_source).collect()
    }

    fn source_states(&self) -> SourceStates {
        SourceStates::of(&self.config.publish.state_directory)
    }

    fn configured(&self) -> Vec<FlakeReference> {
        self.config.sources.iter().map(|source| source.flake.clone()).collect()
    }

    /// Reads the sources in `asked`, and no other. Returns those whose content is not the one in `known`, or cannot be read.
    pub(super) async fn find_changed(&self, asked: &BTreeSet<FlakeReference>, known: &[Evaluation]) -> Vec<Target<'a>> {
        let mut changed = Vec::new();
        for source in self.config.sources.iter().filter(|source| asked.contains(&source.flake)) {
            let before = known.iter().find(|evaluation| evaluation.source.flake == source.flake);
            // An error is reported by the round, which tries again.
            let is_same = match before {
                Some(before) => self.evaluator.nix.has_content(&source.flake, &before.source).await.unwrap_or(false),
                None => false,
            };
            if !is_same {
                changed.push(Target::newest(source));
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_panic_ends_with_its_source() {
        let source = "git+https://git.example.org/fleet".parse().unwrap();
        assert!(matches!(unless_it_panics(&source, async { Ok(7) }).await, Ok(7)));
        let panics = async { Ok(Vec::<u8>::new()[7]) };
        let error = unless_it_panics(&source, panics).await.unwrap_err().to_string();
        assert!(error.contains("git.example.org/fleet") && error.contains("index is 7"), "{error}");
    }
}
