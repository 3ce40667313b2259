//! nix-eval-jobs, in place of evaluators of our own.

use serde::Deserialize;

use super::{Nix, NixError};
use crate::process::Invocation;

/// What nix-eval-jobs is to evaluate, and with what.
#[derive(Debug, Clone, Copy)]
pub struct JobsQuestion<'a> {
    /// What it is, for the errors: "evaluate web-1".
    pub act: &'a str,
    /// An expression whose attributes are the jobs, in Nix's language; at most 128 KiB, as an argument may have.
    pub expression: &'a str,
    /// How many processes evaluate.
    pub workers: usize,
    /// The memory in bytes after which one of them begins anew.
    pub memory_of_each: u64,
    /// The most memory that all of them may take, in bytes.
    pub memory: u64,
    /// The most bytes that the answers may have.
    pub largest: usize,
}

/// A line that nix-eval-jobs prints.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Job {
    /// The attribute.
    pub attr: String,
    /// Nix's own message, where it does not evaluate.
    pub error: Option<String>,
    /// What the derivation's `meta` says.
    #[serde(default)]
    pub meta: serde_json::Map<String, serde_json::Value>,
}

impl Nix {
    /// Evaluates the attributes of an expression that are derivations, purely, and builds nothing for it.
    pub async fn evaluate_jobs(&self, question: &JobsQuestion<'_>) -> Result<Vec<Job>, NixError> {
        let act = || question.act.to_owned();
        let run = self
            .prepared(Invocation::new("nix-eval-jobs"))
            .args(["--extra-experimental-features", "nix-command flakes"])
            .args(["--workers", &question.workers.to_string()])
            .args(["--max-memory-size", &(question.memory_of_each >> 20).max(1).to_string()])
            // Our answers come in it.
            .arg("--meta")
            // As for our own evaluators: see there.
            .args(["--option", "pure-eval", "true"])
            .args(["--option", "allow-import-from-derivation", "false"])
            .args(["--option", "max-jobs", "0", "--option", "builders", ""])
            .args(["--option", "accept-flake-config", "false"])
            .args(["--expr", question.expression])
            .within_memory(question.memory)
            .at_most(question.largest);
        let output = run.run().await.map_err(|source| NixError::Failed { act: act(), source })?;
        let jobs = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Job>();
        jobs.collect::<Result<_, _>>().map_err(|error| NixError::Unexpected { act: act(), why: error.to_string() })
    }
}
