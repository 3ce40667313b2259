//! One round: evaluates some sources, and publishes the result.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::time::timeout;

use super::metrics::write_metrics;
use super::mirror_states::note_published;
use super::push_on::mirror_reports;
use super::setup;
use super::source_state::{DocumentCounts, MAX_BROKEN_IN_INDEX, SourceState, SourceStates, SourceStatesFile};
use crate::config::{ClaveldConfig, EvaluateConfig};
use crate::evaluate::{Budget, EvalMode, EvaluateError, Evaluation, Evaluator, Failure, Item, Progress};
use crate::git::ProgramAccess;
use crate::model::{FlakeReference, IndexSource, Source, SourceRevision, Timestamp, describe_error, printable_line};
use crate::news::{News, Standing};
use crate::nix::{FetchAccess, FetchKeys, Nix};
use crate::publish::{OrphanPolicy, PublishError, PublishInput, PublishReport, Publisher};

/// The least number of sources that are evaluated at once, where there are so many.
const MIN_SOURCES_AT_ONCE: usize = 2;
/// How long the sources that were evaluated wait for the next one, before they are published without it.
const PATIENCE: Duration = Duration::from_secs(15);

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

/// The answers about a source whose recorded values were wrong.
#[derive(Debug)]
pub struct WrongAnswers {
    /// The source.
    pub source: FlakeReference,
    /// The attributes; at least one.
    pub attributes: Vec<Item>,
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
    /// The outcome of a round that published twice.
    fn joined(before: Option<Self>, last: Self) -> Self {
        let Some(mut all) = before else { return last };
        all.evaluations.extend(last.evaluations);
        all.broken_sources.extend(last.broken_sources);
        all.report = all.report.followed_by(last.report);
        all
    }

    /// Every attribute that gave no document.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.evaluations.iter().flat_map(|evaluation| &evaluation.drafts.failures)
    }

    /// The sources with an answer of which it was not learnt yet what it depends on.
    pub fn unlearnt(&self) -> Vec<FlakeReference> {
        let unlearnt = self.evaluations.iter().filter(|evaluation| evaluation.work.has_unlearnt);
        unlearnt.map(|evaluation| evaluation.source.flake.clone()).collect()
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
    let EvaluateConfig { deadline, source_time, processes, memory, records, isolation, inputs, access, self_check: _ } =
        config;
    let budget = Budget::of_this_machine(*processes, *memory);
    let (access, rules) = (access.clone(), access.clone());
    let keys = FetchKeys::new(move |url| {
        let ProgramAccess { environment, files, netrc, token } = access.for_program(url)?;
        Ok(FetchAccess { environment, files, netrc, token })
    })
    .with_advice(move |url, words| rules.advice(url, words));
    let nix = Nix::new(*deadline, *isolation).with_keys(keys);
    let source_time = *source_time;
    Evaluator { nix, inputs: inputs.clone(), budget, source_time, records: Some(records.clone()), mode }
}

/// Evaluates `targets` to the last one. Returns the evaluations, and the sources that could not be evaluated at all.
pub(super) async fn evaluate_targets(
    evaluator: &Evaluator,
    targets: &[Target<'_>],
    on_event: &dyn Fn(RoundEvent<'_>),
) -> (Vec<Evaluation>, Vec<SourceFailure>) {
    let mut evaluated = Evaluated::default();
    let mut running = pin!(evaluate_each(evaluator, targets, on_event));
    while let Some((at, result)) = running.next().await {
        evaluated.add(&targets[at], result);
    }
    (evaluated.evaluations, evaluated.broken)
}

/// The sources that were evaluated and are not published yet.
#[derive(Debug, Default)]
struct Evaluated {
    evaluations: Vec<Evaluation>,
    broken: Vec<SourceFailure>,
}

impl Evaluated {
    fn add(&mut self, target: &Target<'_>, result: Result<Evaluation, EvaluateError>) {
        match result {
            Ok(mut evaluation) => {
                evaluation.drafts.restrict_to_names_of(target.source);
                self.evaluations.push(evaluation);
            }
            Err(error) => {
                let source = target.source.flake.clone();
                self.broken.push(SourceFailure { source, error, unreachable_since: None });
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.evaluations.is_empty() && self.broken.is_empty()
    }
}

/// How many of so many sources are evaluated at once.
fn at_once(evaluator: &Evaluator, sources: usize) -> usize {
    sources.min(evaluator.budget.processes.max(MIN_SOURCES_AT_ONCE)).max(1)
}

/// The evaluations of `targets`, each as it ends, with its place in the list.
fn evaluate_each<'a>(
    evaluator: &'a Evaluator,
    targets: &'a [Target<'a>],
    on_event: &'a dyn Fn(RoundEvent<'_>),
) -> impl Stream<Item = (usize, Result<Evaluation, EvaluateError>)> + 'a {
    let evaluate = move |(at, target): (usize, &'a Target<'a>)| async move {
        let Target { source, revision, remembered_as } = target;
        let progress = |progress| on_event(RoundEvent::Evaluating { source, progress });
        let now = SystemTime::now().into();
        let evaluation = evaluator.evaluate(source, revision.as_ref(), remembered_as, now, &progress);
        (at, unless_it_panics(&source.flake, evaluation).await)
    };
    stream::iter(targets.iter().enumerate()).map(evaluate).buffer_unordered(at_once(evaluator, targets.len()))
}

/// Learns what the recorded answers about `targets` depend on.
pub(super) async fn learn_about(evaluator: &Evaluator, targets: &[Target<'_>], on_event: &dyn Fn(RoundEvent<'_>)) {
    for Target { source, revision, remembered_as } in targets {
        let progress = |progress| on_event(RoundEvent::Evaluating { source, progress });
        let lesson = evaluator.learn(source, revision.as_ref(), remembered_as, &progress);
        if let Err(error) = unless_it_panics(&source.flake, lesson).await {
            // The next change then takes longer, and nothing else is lost.
            tracing::debug!(source = %remembered_as, error = %describe_error(&error), "cannot learn what its answers depend on");
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
    /// What was said of a file of metrics that cannot be written.
    metrics_news: RefCell<News>,
}

impl<'a> RoundRunner<'a> {
    /// Reads the keys that `config` names, so that a bad key is an error before anything is evaluated.
    pub fn new(config: &'a ClaveldConfig, mode: EvalMode) -> Result<Self, PublishError> {
        let publisher = setup::publisher(&config.publish)?;
        Ok(Self {
            config,
            evaluator: evaluator(&config.evaluate, mode),
            publisher,
            allowed_withdrawals: 0,
            metrics_news: RefCell::default(),
        })
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
        // The sources that run at once share the budget, so that none keeps the others from going on.
        let budget = self.evaluator.budget.divided_by(at_once(&self.evaluator, targets.len()));
        let evaluator = Evaluator { budget, ..self.evaluator.clone() };
        let mut running = pin!(evaluate_each(&evaluator, targets, on_event));
        let (mut evaluated, mut before) = (Evaluated::default(), None);
        loop {
            let patience = if evaluated.is_empty() { Duration::MAX } else { PATIENCE };
            match timeout(patience, running.next()).await {
                Ok(Some((at, result))) => evaluated.add(&targets[at], result),
                Ok(None) => break,
                // What is known is not kept back by a source that takes long. An error is told with the rest.
                Err(_) => {
                    if let Ok(part) =
                        self.publish_evaluated(&mut evaluated, read_before, before.as_ref(), on_event).await
                    {
                        before = Some(RoundOutcome::joined(before, part));
                    }
                }
            }
        }
        let last = self.publish_evaluated(&mut evaluated, read_before, before.as_ref(), on_event).await;
        let last = last.inspect_err(|_| {
            // The error of the publication does not say them.
            for broken in &evaluated.broken {
                on_event(RoundEvent::SourceBroken(broken));
            }
        })?;
        Ok(RoundOutcome::joined(before, last))
    }

    /// Publishes what was evaluated, and takes it out of `evaluated`. `before` is what this round published before.
    async fn publish_evaluated(
        &self,
        evaluated: &mut Evaluated,
        read_before: &[Evaluation],
        before: Option<&RoundOutcome>,
        on_event: &dyn Fn(RoundEvent<'_>),
    ) -> Result<RoundOutcome, PublishError> {
        let Evaluated { evaluations, broken } = evaluated;
        let sources = self.remember_sources(evaluations, broken);
        on_event(RoundEvent::Publishing);
        let configured = self.configured();
        let earlier = before.map_or(&[][..], |before| &before.evaluations);
        let broken_earlier = before.map_or(&[][..], |before| &before.broken_sources);
        let is_broken =
            |flake: &FlakeReference| broken.iter().chain(broken_earlier).any(|broken| broken.source == *flake);
        let is_read = |flake: &FlakeReference| {
            let mut read = evaluations.iter().chain(earlier).chain(read_before);
            !is_broken(flake) && read.any(|evaluation| evaluation.source.flake == *flake)
        };
        let orphans = if configured.iter().all(is_read) { OrphanPolicy::Withdraw } else { OrphanPolicy::Keep };
        let report = self.publish(evaluations, orphans, &sources).await?;
        let Evaluated { evaluations, broken: broken_sources } = std::mem::take(evaluated);
        Ok(RoundOutcome { evaluations, broken_sources, report })
    }

    /// Remembers how the sources of a round were, and adds since when a source is out of reach. Returns how every source was last.
    fn remember_sources(&self, evaluations: &[Evaluation], broken: &mut [SourceFailure]) -> Vec<IndexSource> {
        let now = Timestamp::from(SystemTime::now());
        let states = self.source_states().update(&self.configured(), |states| {
            for Evaluation { source, drafts, .. } in evaluations {
                let broken = drafts.failures.iter().map(|failure| (failure.part.to_string(), failure.error.clone()));
                let before = states.remove(source.flake.as_str()).unwrap_or_default();
                let state = before.read(source.revision.clone(), broken, now);
                let documents = DocumentCounts::of(drafts);
                states.insert(source.flake.to_string(), SourceState { documents, ..state });
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
        let published = self.publisher.publish(&input).await;
        let now = SystemTime::now().into();
        let remembered = self.source_states().remember_round(evaluations, published.as_ref().ok(), now);
        if let Ok(report) = &published {
            note_published(&self.config.publish, report.tip.as_deref());
        }
        self.write_metrics(&remembered);
        published
    }

    /// Replaces the file of metrics. A daemon whose file cannot be written says so once a day.
    fn write_metrics(&self, remembered: &SourceStatesFile) {
        let Some(path) = &self.config.metrics_file else { return };
        let Err(error) = write_metrics(path, remembered, &mirror_reports(self.config)) else { return };
        if self.metrics_news.borrow_mut().is_news(&error.kind().to_string(), Standing::Open, Instant::now()) {
            tracing::warn!(path = %path.display(), %error, "cannot write the metrics; correct `metrics-file`, or make its folder");
        }
    }

    /// Learns what the recorded answers of these sources depend on. Nothing waits for this, and it may be interrupted: the next change
    /// then evaluates more.
    pub async fn learn_about(&self, sources: &[FlakeReference], on_event: &dyn Fn(RoundEvent<'_>)) {
        let is_one = |target: &Target<'_>| sources.contains(&target.source.flake);
        let targets: Vec<_> = self.all_targets().into_iter().filter(is_one).collect();
        learn_about(&self.evaluator, &targets, on_event).await;
    }

    /// Evaluates every source as a whole, at a low priority, and compares with what is recorded.
    pub(super) async fn check_itself(&self) -> Vec<WrongAnswers> {
        let nix = self.evaluator.nix.clone().at_low_priority();
        let evaluator = Evaluator { nix, mode: EvalMode::Everything, ..self.evaluator.clone() };
        let mut wrong = Vec::new();
        for target in self.all_targets() {
            let source = target.source.flake.clone();
            let (evaluations, broken) = evaluate_targets(&evaluator, &[target], &|_| ()).await;
            for SourceFailure { error, .. } in broken {
                tracing::debug!(%source, error = %describe_error(&error), "the self-check cannot evaluate the source");
            }
            let attributes: Vec<Item> = evaluations.into_iter().flat_map(|of| of.work.differences).collect();
            if !attributes.is_empty() {
                wrong.push(WrongAnswers { source, attributes });
            }
        }
        wrong
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
        let mut room = MAX_BROKEN_IN_INDEX;
        let index_source = |flake: &FlakeReference| {
            states.remove(flake.as_str()).unwrap_or_default().index_source(flake.clone(), &mut room)
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
