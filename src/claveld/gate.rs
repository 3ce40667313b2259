//! The gate: decides whether git may take a push in, while git still holds it back.
//!
//! The gate refuses a push after which an attribute of a source is broken that was not broken before; a new attribute that does
//! not evaluate counts. An attribute that was broken before does not stop a push. It also refuses a push that would withdraw so
//! many documents that a publication would wait for an operator. The gate signs nothing and reads no key.

use std::collections::BTreeSet;
use std::path::Path;

use super::hook::{HookError, PushedRef, PushedSource, pushed_sources, sources_in};
use super::round::{RoundEvent, Target, evaluate_targets, evaluator};
use super::setup::settings;
use crate::config::ClaveldConfig;
use crate::evaluate::{Drafts, EvalMode, EvalWarnings, Evaluation, Evaluator, FailedPart, Failure};
use crate::git::{Preview, PreviewError};
use crate::model::{Invalid, Source, SourceRevision, describe_error};
use crate::publish::{HeldWithdrawals, foresee_withdrawals};
use crate::trust::Anchor;

/// The reason why the gate could not check a push. Git then refuses the push: the gate lets nothing through unseen.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The input of the hook cannot be understood.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// No source of the configuration is in this repository.
    #[error(
        "no source of the configuration is this repository, so the gate would let everything through; \
         name it in a [[source]] as git+file://, or take hooks/pre-receive away"
    )]
    NoSource,
    /// The pushed revision cannot be read.
    #[error(transparent)]
    Preview(#[from] PreviewError),
    /// The path of the temporary folder cannot stand in a flake reference.
    #[error("cannot check the push in a temporary folder (set TMPDIR to a shorter path)")]
    TemporaryFolder(#[from] Invalid),
}

/// A push that git holds back.
#[derive(Debug, Clone, Copy)]
pub struct IncomingPush<'a> {
    /// The repository that receives the push.
    pub git_dir: &'a Path,
    /// The folder with the new objects of the push; none where it has none.
    pub quarantine: Option<&'a Path>,
    /// The refs that the push moves.
    pub refs: &'a [PushedRef],
}

/// The verdict on a push, for one source.
#[derive(Debug, PartialEq, Eq)]
pub enum PushVerdict {
    /// The push breaks nothing.
    Passes {
        /// The attributes that are broken, and were broken before.
        broken_before: Vec<Failure>,
    },
    /// The push breaks an attribute.
    Breaks {
        /// The attributes that no longer evaluate, or are new and do not evaluate.
        broken: Vec<Failure>,
        /// The attributes that are broken, and were broken before.
        broken_before: Vec<Failure>,
        /// The error of the revision before the push, where nothing of it could be evaluated. Every attribute then counts as
        /// healthy before.
        error_before: Option<String>,
    },
    /// The push would withdraw many documents.
    Withdraws(HeldWithdrawals),
    /// Nothing of the source can be evaluated after the push.
    BreaksAll {
        /// The error.
        error: String,
    },
}

/// The decision about a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PushDecision {
    /// Git takes the push in.
    Accept,
    /// Git refuses the push.
    Refuse,
}

impl PushDecision {
    /// The decision that follows from the verdicts on all sources.
    pub fn of<'a>(verdicts: impl IntoIterator<Item = &'a PushVerdict>) -> Self {
        let passes = |verdict: &PushVerdict| matches!(verdict, PushVerdict::Passes { .. });
        if verdicts.into_iter().all(passes) { Self::Accept } else { Self::Refuse }
    }
}

/// A source that a push changes, and what the gate found about it.
#[derive(Debug)]
pub struct CheckedSource<'a> {
    /// The source.
    pub source: &'a Source,
    /// The verdict.
    pub verdict: PushVerdict,
    /// The warnings of what evaluates after the push.
    pub warnings: EvalWarnings,
}

/// What a source gives at one revision, or the reason why nothing of it could be evaluated.
type Evaluated = Result<Drafts, String>;

/// The verdict on a revision with the broken attributes `after`, in comparison with the revision before it.
fn compare(after: Vec<Failure>, before: Evaluated) -> PushVerdict {
    // If nothing could be evaluated before, every broken attribute counts as new: otherwise new damage would pass unseen.
    let (before, error_before) =
        before.map_or_else(|error| (Vec::new(), Some(error)), |before| (before.failures, None));
    let known: BTreeSet<FailedPart> = before.into_iter().map(|failure| failure.part).collect();
    let (broken_before, broken): (Vec<_>, Vec<_>) = after.into_iter().partition(|f| known.contains(&f.part));
    if broken.is_empty() {
        PushVerdict::Passes { broken_before }
    } else {
        PushVerdict::Breaks { broken, broken_before, error_before }
    }
}

/// Checks pushes.
#[derive(Debug)]
pub struct Gate<'a> {
    config: &'a ClaveldConfig,
    evaluator: Evaluator,
}

impl<'a> Gate<'a> {
    /// A gate for the sources of `config`.
    pub fn new(config: &'a ClaveldConfig) -> Self {
        Self { config, evaluator: evaluator(&config.evaluate, EvalMode::Changed) }
    }

    /// Checks every source that `push` changes.
    pub async fn check(
        &self,
        push: IncomingPush<'_>,
        on_event: &dyn Fn(RoundEvent<'_>),
    ) -> Result<Vec<CheckedSource<'a>>, GateError> {
        if sources_in(push.git_dir, &self.config.sources)?.is_empty() {
            return Err(GateError::NoSource);
        }
        let mut checked = Vec::new();
        for pushed in pushed_sources(push.git_dir, push.refs, &self.config.sources)? {
            let preview = PreviewedSource::new(&self.evaluator, push, &pushed, on_event)?;
            let (verdict, warnings) = match preview.evaluate_at(&pushed.after).await {
                Err(error) => (PushVerdict::BreaksAll { error }, EvalWarnings::default()),
                Ok((drafts, warnings)) => match self.foresee_withdrawals(pushed.source, &drafts).await {
                    Some(held) => (PushVerdict::Withdraws(held), warnings),
                    None => (Self::verdict(drafts.failures, &preview, pushed.before.as_ref()).await, warnings),
                },
            };
            checked.push(CheckedSource { source: pushed.source, verdict, warnings });
        }
        Ok(checked)
    }

    async fn verdict(
        failures: Vec<Failure>,
        preview: &PreviewedSource<'_>,
        before: Option<&SourceRevision>,
    ) -> PushVerdict {
        match before {
            _ if failures.is_empty() => PushVerdict::Passes { broken_before: Vec::new() },
            Some(before) => {
                let before = preview.evaluate_at(before).await;
                compare(failures, before.map(|(drafts, _)| drafts))
            }
            // The branch is new, so nothing was broken before.
            None => compare(failures, Ok(Drafts::default())),
        }
    }

    /// The withdrawals that would wait for an operator after the push. A branch that cannot be read refuses no push: the publication
    /// will say what is wrong with it, and withdraws nothing meanwhile.
    async fn foresee_withdrawals(&self, source: &Source, drafts: &Drafts) -> Option<HeldWithdrawals> {
        let config = &self.config.publish;
        let foreseen = match Anchor::read(&config.root) {
            Ok(anchor) => foresee_withdrawals(&settings(config), &anchor, &source.flake, drafts).await,
            Err(error) => Err(error.into()),
        };
        foreseen.unwrap_or_else(|error| {
            tracing::warn!(error = %describe_error(&error), "cannot tell what the push would withdraw");
            None
        })
    }
}

/// A source at a revision that git has not taken in yet.
struct PreviewedSource<'a> {
    evaluator: &'a Evaluator,
    preview: Preview,
    /// The source as the configuration names it.
    source: &'a Source,
    /// The same source in the preview.
    previewed: Source,
    on_event: &'a dyn Fn(RoundEvent<'_>),
}

impl<'a> PreviewedSource<'a> {
    fn new(
        evaluator: &'a Evaluator,
        push: IncomingPush<'_>,
        pushed: &PushedSource<'a>,
        on_event: &'a dyn Fn(RoundEvent<'_>),
    ) -> Result<Self, GateError> {
        let revisions: Vec<&SourceRevision> = [&pushed.after].into_iter().chain(&pushed.before).collect();
        let preview = Preview::new(push.git_dir, push.quarantine, &revisions)?;
        let previewed = Source { flake: pushed.source.flake.at_path(preview.path())?, ..pushed.source.clone() };
        Ok(Self { evaluator, preview, source: pushed.source, previewed, on_event })
    }

    fn target(&self, revision: &SourceRevision) -> Target<'_> {
        // The records of the source hold for the preview as well: it has the same content.
        Target { source: &self.previewed, revision: Some(revision.clone()), remembered_as: &self.source.flake }
    }

    /// Reports the progress of an evaluation under the source's own name.
    fn report(&self, event: RoundEvent<'_>) {
        if let RoundEvent::Evaluating { progress, .. } = event {
            (self.on_event)(RoundEvent::Evaluating { source: self.source, progress });
        }
    }

    /// What the source gives at `revision`.
    async fn evaluate_at(&self, revision: &SourceRevision) -> Result<(Drafts, EvalWarnings), String> {
        let targets = [self.target(revision)];
        let (mut evaluations, broken) = evaluate_targets(self.evaluator, &targets, &|event| self.report(event)).await;
        let whole = broken.first().map(|broken| self.with_original_paths(&broken.error.message()));
        match (evaluations.pop(), whole) {
            (Some(Evaluation { mut drafts, warnings, .. }), None) => {
                for failure in &mut drafts.failures {
                    failure.error = self.with_original_paths(&failure.error);
                }
                Ok((drafts, warnings))
            }
            (_, why) => Err(why.unwrap_or_default() + self.hint()),
        }
    }

    /// A further possible reason, where nothing could be evaluated.
    fn hint(&self) -> &'static str {
        if self.source.flake.has_submodules() {
            // A relative URL starts from the place of the repository, and the preview has another place.
            "\nthe gate does not find submodules whose URL in .gitmodules is relative; make it a full one"
        } else {
            ""
        }
    }

    /// `text` with the path of the repository in place of the path of the preview, which is gone when somebody reads it.
    fn with_original_paths(&self, text: &str) -> String {
        let own = self.source.flake.path();
        text.replace(self.previewed.flake.path(), own).replace(&self.preview.path().display().to_string(), own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Item;

    fn part(output: &str, name: &str) -> FailedPart {
        FailedPart::Item(Item::try_from(vec![output.to_owned(), name.to_owned()]).unwrap())
    }

    fn failing(names: &[&str]) -> Vec<Failure> {
        let failure =
            |name: &&str| Failure { part: part("nixosConfigurations", name), error: format!("error: {name}") };
        names.iter().map(failure).collect()
    }

    fn drafts(failing_names: &[&str]) -> Drafts {
        Drafts { failures: failing(failing_names), ..Drafts::default() }
    }

    #[test]
    fn an_attribute_that_was_broken_before_does_not_stop_a_push() {
        let passes = PushVerdict::Passes { broken_before: failing(&["a"]) };
        assert_eq!(compare(failing(&["a"]), Ok(drafts(&["a", "b"]))), passes);
    }

    #[test]
    fn a_newly_broken_attribute_stops_a_push() {
        let breaks = |broken, broken_before, error_before: Option<&str>| PushVerdict::Breaks {
            broken: failing(broken),
            broken_before: failing(broken_before),
            error_before: error_before.map(str::to_owned),
        };
        assert_eq!(compare(failing(&["a", "b"]), Ok(drafts(&["a"]))), breaks(&["b"], &["a"], None));
        // On a new branch nothing was broken before.
        assert_eq!(compare(failing(&["a"]), Ok(Drafts::default())), breaks(&["a"], &[], None));
        assert_eq!(compare(failing(&["a"]), Err("syntax".to_owned())), breaks(&["a"], &[], Some("syntax")));
    }

    #[test]
    fn an_attribute_excuses_no_other_one_that_has_the_same_text() {
        let with_end = |length: usize, end: &str| "x".repeat(length) + end;
        let nixos = |name: &str| part("nixosConfigurations", name);
        let too_long = with_end(2000, "");
        for (before, after) in [
            (nixos(&with_end(299, "a")), nixos(&with_end(299, "b"))),
            (nixos(&with_end(2000, "a")), nixos(&with_end(2000, "b"))),
            // No attribute is so long, so messages have the name alone.
            (part("darwinConfigurations", &too_long), nixos(&too_long)),
            (nixos("a\0"), part("homeConfigurations", "a\0")),
        ] {
            let failures = |part: &FailedPart| vec![Failure { part: part.clone(), error: "error: no".to_owned() }];
            let verdict = compare(failures(&after), Ok(Drafts { failures: failures(&before), ..Drafts::default() }));
            assert!(matches!(&verdict, PushVerdict::Breaks { broken, .. } if broken[0].part == after), "{verdict:?}");
            let verdict = compare(failures(&after), Ok(Drafts { failures: failures(&after), ..Drafts::default() }));
            assert!(matches!(&verdict, PushVerdict::Passes { .. }), "{verdict:?}");
        }
    }
}
