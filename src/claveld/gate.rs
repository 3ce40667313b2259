//! The gate: whether a push may come in, judged while git still holds it back.
//!
//! A push is refused where something in a source that it changes evaluated before and does not any more. What was broken
//! before stands in nobody's way. Nothing is signed here, and no key is read.

use std::collections::BTreeSet;
use std::path::Path;

use super::hook::{HookError, PushedRef, PushedSource, pushed_sources, sources_in};
use super::round::{Announcement, Target, evaluated, evaluator, looked_again};
use crate::config::ClaveldConfig;
use crate::evaluate::{EvalMode, Evaluator, Failure};
use crate::git::{Preview, PreviewError};
use crate::model::{Invalid, Source, SourceRevision};

/// Why a push could not be judged. It does not come in then: a gate that lets through what it cannot see is none.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// It cannot be told what was pushed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The configuration has nothing that this gate could look at.
    #[error(
        "no source of the configuration is this repository, so the gate would let everything through; \
         name it in a [[source]] as git+file://, or take hooks/pre-receive away"
    )]
    NoSource,
    /// What was pushed cannot be read.
    #[error(transparent)]
    Preview(#[from] PreviewError),
    /// The temporary folder has a name that no flake can have.
    #[error("cannot look at what is pushed: {0}; set TMPDIR to a shorter path")]
    Place(#[from] Invalid),
}

/// What git says of a push that it holds back.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// The repository that is pushed to.
    pub git_dir: &'a Path,
    /// The folder with the objects that the push brings; none where it brings none.
    pub quarantine: Option<&'a Path>,
    /// The refs that it moves.
    pub refs: &'a [PushedRef],
}

/// What a push does to a source.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It breaks nothing.
    Passes {
        /// What is broken in it, and was broken before.
        broken_before: Vec<Failure>,
    },
    /// It breaks something.
    Breaks {
        /// What does not evaluate any more, or is new and does not evaluate.
        broken: Vec<Failure>,
        /// What is broken in it, and was broken before.
        broken_before: Vec<Failure>,
        /// Why it cannot be told what was broken before, where that is so. All of it counts as healthy then.
        untold: Option<String>,
    },
    /// Nothing of the source can be evaluated.
    BreaksAll {
        /// Why.
        why: String,
    },
}

/// What a source gave at one revision: what is broken in it, or why nothing of it could be evaluated.
type Found = Result<Vec<Failure>, String>;

/// Judges a revision where something is broken, by the revision before it.
fn judge(after: Vec<Failure>, before: Found) -> Judgement {
    // Whoever let everything through that follows on what cannot be evaluated would let new damage through with it.
    let (before, untold) = before.map_or_else(|why| (Vec::new(), Some(why)), |before| (before, None));
    let known: BTreeSet<String> = before.into_iter().map(|failure| failure.attribute).collect();
    let (broken_before, broken): (Vec<_>, Vec<_>) = after.into_iter().partition(|f| known.contains(&f.attribute));
    if broken.is_empty() {
        Judgement::Passes { broken_before }
    } else {
        Judgement::Breaks { broken, broken_before, untold }
    }
}

/// Who judges pushes, and with what.
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

    /// Judges every source that `push` changes.
    pub async fn judge(
        &self,
        push: Push<'_>,
        announce: &dyn Fn(Announcement<'_>),
    ) -> Result<Vec<(&'a Source, Judgement)>, GateError> {
        if sources_in(push.git_dir, &self.config.sources)?.is_empty() {
            return Err(GateError::NoSource);
        }
        let mut judgements = Vec::new();
        for pushed in pushed_sources(push.git_dir, push.refs, &self.config.sources)? {
            let look = Look::new(&self.evaluator, push, &pushed, announce)?;
            let found = look.at(&pushed.after).await;
            if found.is_ok() {
                look.again(&pushed.after).await;
            }
            let judgement = match found {
                Err(why) => Judgement::BreaksAll { why },
                Ok(failures) if failures.is_empty() => Judgement::Passes { broken_before: Vec::new() },
                Ok(failures) => match &pushed.before {
                    Some(before) => judge(failures, look.at(before).await),
                    // There was nothing before that could have been broken.
                    None => judge(failures, Ok(Vec::new())),
                },
            };
            judgements.push((pushed.source, judgement));
        }
        Ok(judgements)
    }
}

/// A look at a source before git has taken it in.
struct Look<'a> {
    evaluator: &'a Evaluator,
    preview: Preview,
    /// The source as its owner wrote it.
    source: &'a Source,
    /// The same, in the preview.
    previewed: Source,
    announce: &'a dyn Fn(Announcement<'_>),
}

impl<'a> Look<'a> {
    fn new(
        evaluator: &'a Evaluator,
        push: Push<'_>,
        pushed: &PushedSource<'a>,
        announce: &'a dyn Fn(Announcement<'_>),
    ) -> Result<Self, GateError> {
        let revisions: Vec<&SourceRevision> = [&pushed.after].into_iter().chain(&pushed.before).collect();
        let preview = Preview::new(push.git_dir, push.quarantine, &revisions)?;
        let previewed = Source { flake: pushed.source.flake.at_path(preview.path())?, ..pushed.source.clone() };
        Ok(Self { evaluator, preview, source: pushed.source, previewed, announce })
    }

    fn target(&self, revision: &SourceRevision) -> Target<'_> {
        // What holds of the source holds of it here: it is the same content.
        Target { source: &self.previewed, pin: Some(revision.clone()), remembered_as: &self.source.flake }
    }

    fn announce(&self, announcement: &Announcement<'_>) {
        if let Announcement::Evaluating { progress, .. } = announcement {
            (self.announce)(Announcement::Evaluating { source: self.source, progress: progress.clone() });
        }
    }

    /// What was just found there is found from another place as well.
    async fn again(&self, revision: &SourceRevision) {
        looked_again(self.evaluator, &[self.target(revision)], &|step| self.announce(&step)).await;
    }

    async fn at(&self, revision: &SourceRevision) -> Found {
        let targets = [self.target(revision)];
        let (mut evaluations, broken) = evaluated(self.evaluator, &targets, &|step| self.announce(&step)).await;
        let whole = broken.first().map(|broken| self.in_the_owners_words(&broken.error.message()));
        match (evaluations.pop(), whole) {
            (Some(evaluation), None) => {
                let own = |failure: Failure| Failure { error: self.in_the_owners_words(&failure.error), ..failure };
                Ok(evaluation.drafts.failures.into_iter().map(own).collect())
            }
            (_, why) => Err(why.unwrap_or_default() + self.hint()),
        }
    }

    /// What else may be in the way, where nothing could be evaluated.
    fn hint(&self) -> &'static str {
        if self.source.flake.has_submodules() {
            // A relative URL counts from where the repository is, and the preview is elsewhere.
            "\nthe gate does not find submodules whose URL in .gitmodules is relative; make it a full one"
        } else {
            ""
        }
    }

    /// `text` with the repository's own place where it names the preview's, which nobody will find there.
    fn in_the_owners_words(&self, text: &str) -> String {
        let own = self.source.flake.path();
        text.replace(self.previewed.flake.path(), own).replace(&self.preview.path().display().to_string(), own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(names: &[&str]) -> Vec<Failure> {
        let failure = |name: &&str| Failure {
            name: (*name).to_owned(),
            attribute: format!("nixosConfigurations.{name}"),
            error: format!("error: {name}"),
        };
        names.iter().map(failure).collect()
    }

    #[test]
    fn what_was_broken_before_stands_in_nobodys_way() {
        let passes = Judgement::Passes { broken_before: failing(&["a"]) };
        assert_eq!(judge(failing(&["a"]), Ok(failing(&["a", "b"]))), passes);
    }

    #[test]
    fn what_is_broken_now_is_told_apart_from_what_was() {
        let breaks = |broken, broken_before, untold: Option<&str>| Judgement::Breaks {
            broken: failing(broken),
            broken_before: failing(broken_before),
            untold: untold.map(str::to_owned),
        };
        assert_eq!(judge(failing(&["a", "b"]), Ok(failing(&["a"]))), breaks(&["b"], &["a"], None));
        // In a branch that is new nothing was broken before.
        assert_eq!(judge(failing(&["a"]), Ok(Vec::new())), breaks(&["a"], &[], None));
        assert_eq!(judge(failing(&["a"]), Err("syntax".to_owned())), breaks(&["a"], &[], Some("syntax")));
    }
}
