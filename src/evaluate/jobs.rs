//! The deed: nix-eval-jobs in place of the pool, for all that has a derivation.

use std::collections::BTreeMap;

use super::outputs::{Item, Question};
use super::pool::Outcome;
use super::run::EvaluateError;
use super::schedule::{Budget, Cost};
use super::session::Session;
use crate::nix::Job;

/// So many items are asked for at once: an argument may have 128 KiB, and a name 128 bytes.
const AT_ONCE: usize = 500;

/// What nix-eval-jobs says of `items`. Those that have no derivation are not among the outcomes, nor those at which it
/// gave up.
pub(super) async fn run(
    session: &Session<'_>,
    budget: Budget,
    items: &[Item],
) -> Result<BTreeMap<Item, Outcome>, EvaluateError> {
    let mut outcomes = BTreeMap::new();
    for items in items.chunks(AT_ONCE) {
        let asked: Vec<&Item> = items.iter().collect();
        match session.ask_jobs(&Question::Jobs(&asked), budget).await {
            Ok(jobs) => outcomes.extend(jobs.into_iter().filter_map(|job| outcome(items, job))),
            Err(error) if is_absent(&error) => return Err(error),
            // One host may end it as a whole. Our own evaluators find out which.
            Err(error) => tracing::warn!(%error, "nix-eval-jobs gave up, and claveld's own evaluators take its place"),
        }
    }
    Ok(outcomes)
}

/// Whether there is no such program.
fn is_absent(error: &EvaluateError) -> bool {
    use crate::nix::NixError;
    use crate::process::ProcessError;
    matches!(error, EvaluateError::Source(NixError::Failed { source: ProcessError::NotStarted { .. }, .. }))
}

/// A job is called by the place of its item.
fn outcome(items: &[Item], job: Job) -> Option<(Item, Outcome)> {
    let item = items.get(job.attr.parse::<usize>().ok()?)?.clone();
    if let Some(error) = job.error {
        return Some((item, Outcome::Failed(error.trim().to_owned())));
    }
    let value = serde_json::from_str(job.meta.get("clavel")?.as_str()?).ok()?;
    let observed = Err("what nix-eval-jobs reads is not watched".to_owned());
    Some((item, Outcome::Answered { value, observed, cost: Cost::default(), alone: false }))
}

#[cfg(test)]
mod tests {
    use super::super::outputs::Output;
    use super::*;

    #[test]
    fn a_job_is_the_answer_about_the_item_at_its_place() {
        let item = |name: &str| Output::Deployments.item(name);
        let items = [item("a"), item("b")];
        // As nix-eval-jobs prints them.
        let said = |line: &str| outcome(&items, serde_json::from_str(line).unwrap());
        let answered = r#"{"attr":"1","attrPath":["1"],"drvPath":"/nix/store/x.drv","meta":{"clavel":"{\"nar\":7}"},
            "name":"clavel","outputs":{"out":"/nix/store/x"},"system":"x86_64-linux"}"#;
        let (of, outcome) = said(answered).unwrap();
        assert_eq!((of, outcome.into_answer()), (item("b"), Ok(serde_json::json!({ "nar": 7 }))));
        let (of, outcome) = said(r#"{"attr":"0","attrPath":["0"],"error":"error: no\n"}"#).unwrap();
        assert_eq!((of, outcome.into_answer()), (item("a"), Err("error: no".to_owned())));
        assert!(said(r#"{"attr":"7","error":"error: no"}"#).is_none());
        assert!(said(r#"{"attr":"0","meta":{}}"#).is_none(), "it is asked for in another way");
    }
}
