//! The deed: ask Nix everything in one process; ask again, one by one, for what failed.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::Evaluation;
use super::assemble::{Answers, assemble};
use super::outputs::{All, Guarded, Names, Output, Question};
use crate::model::{LockedSource, Source, SourceRevision, Timestamp};
use crate::nix::{Nix, NixError};

/// Why a source could not be evaluated at all.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Nix could not say what the source is, or which hosts it has.
    #[error("{0}")]
    Source(#[from] NixError),
    /// The source's `clavel` output has what Clavel does not know.
    #[error("the `clavel` output of {flake} has `{attribute}`, and only deployments, units and agents may stand there")]
    UnknownOutput {
        /// The source.
        flake: String,
        /// The attribute below `clavel`.
        attribute: String,
    },
    /// Nix answered something that no version of it is known to.
    #[error("cannot understand what nix says of {flake}: {why}")]
    Answer {
        /// The source.
        flake: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What an evaluation is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Finding out which content the source has.
    Locking,
    /// Evaluating everything at once.
    Evaluating(LockedSource),
    /// Evaluating one attribute by itself, since everything at once did not tell what is wrong with it.
    Isolating {
        /// The attribute.
        attribute: String,
        /// How many were so evaluated before it.
        done: usize,
        /// How many there are.
        of: usize,
    },
}

/// Evaluates `source` at its newest content, or at the revision `pin`.
///
/// Every run of Nix has the deadline of `nix`. An attribute that fails is among the failures; the source as a whole
/// fails only where not even its names can be had.
pub async fn evaluate(
    nix: &Nix,
    source: &Source,
    pin: Option<&SourceRevision>,
    now: Timestamp,
    progress: &dyn Fn(Progress),
) -> Result<Evaluation, EvaluateError> {
    progress(Progress::Locking);
    let locked = nix.lock(&source.flake, pin).await?;
    progress(Progress::Evaluating(locked.clone()));
    let flake = Flake { nix, locked: &locked };
    let mut answers = Answers::new();
    let mut open = Vec::new();
    match flake.ask::<All>(Question::All).await {
        Ok(all) => {
            flake.refuse_others(&all.others)?;
            for (output, name, answer) in flatten(all.kinds) {
                match answer {
                    Guarded::Ok(value) => drop(answers.insert((output, name), Ok(value))),
                    Guarded::Failed(_) => open.push((output, name)),
                }
            }
        }
        Err(error) => {
            // Something in it ended the whole evaluation. The names may still be had; where they cannot, that is why.
            tracing::debug!(%error, "evaluating everything at once failed");
            let names = flake.ask::<Names>(Question::Names).await?;
            flake.refuse_others(&names.others)?;
            open.extend(
                names.kinds.into_iter().flat_map(|(output, names)| names.into_iter().map(move |n| (output, n))),
            );
        }
    }
    let of = open.len();
    for (done, (output, name)) in open.into_iter().enumerate() {
        let attribute = output.attribute(&name).map_or_else(|_| name.clone(), |a| a.to_string());
        progress(Progress::Isolating { attribute, done, of });
        let answer = flake.ask(Question::One(output, &name)).await.map_err(|error| error.message());
        answers.insert((output, name), answer);
    }
    let found = assemble(source, &locked, now, answers);
    Ok(Evaluation { source: locked, found })
}

/// A source at one content, and who evaluates it.
struct Flake<'a> {
    nix: &'a Nix,
    locked: &'a LockedSource,
}

impl Flake<'_> {
    async fn ask<T: DeserializeOwned>(&self, question: Question<'_>) -> Result<T, EvaluateError> {
        let act = || format!("evaluate {}", self.locked.locked);
        let answer = self.nix.evaluate(act, &question.expression(&self.locked.locked)).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| EvaluateError::Answer { flake: self.locked.flake.to_string(), why: error.to_string() })
    }

    fn refuse_others(&self, others: &[String]) -> Result<(), EvaluateError> {
        match others.first() {
            None => Ok(()),
            Some(other) => Err(EvaluateError::UnknownOutput {
                flake: self.locked.flake.to_string(),
                attribute: other.escape_debug().to_string(),
            }),
        }
    }
}

impl EvaluateError {
    /// Nix's own message where Nix said something.
    pub fn message(&self) -> String {
        match self {
            Self::Source(error) => error.message(),
            Self::UnknownOutput { .. } | Self::Answer { .. } => self.to_string(),
        }
    }
}

fn flatten(kinds: BTreeMap<Output, BTreeMap<String, Guarded>>) -> impl Iterator<Item = (Output, String, Guarded)> {
    kinds.into_iter().flat_map(|(output, values)| values.into_iter().map(move |(name, value)| (output, name, value)))
}
