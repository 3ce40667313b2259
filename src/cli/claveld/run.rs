//! `claveld run`

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::once::{announced, report, told_reasons, trouble};
use super::progress::Board;
use crate::claveld::{Outcome, Round, Target, Watcher};
use crate::cli::exit::Exit;
use crate::cli::{asked_to_stop, output};
use crate::config::ClaveldConfig;
use crate::evaluate::{EvalMode, Evaluation};
use crate::model::Timestamp;
use crate::publish::PublishReport;

pub(super) async fn run(config: &ClaveldConfig) -> Result<(), Exit> {
    let round = Round::new(config, EvalMode::Changed)?;
    tokio::select! {
        stopped = asked_to_stop() => stopped.map_err(|error| Exit::machine(&error)),
        () = rounds(config, &round) => Ok(()),
    }
}

/// Round after round. What fails is told and tried again; the last good state stays on the branch.
async fn rounds(config: &ClaveldConfig, round: &Round<'_>) {
    let mut watcher = Watcher::new(&config.sources).map_err(output::error).ok();
    let mut known: Vec<Evaluation> = Vec::new();
    let mut waiting = Waiting::new();
    let mut targets = round.all();
    let mut sign_anew_at = None;
    let mut looked_again = false;
    loop {
        if !waiting.is_empty() {
            let is_target = |known: &&Evaluation| targets.iter().any(|t| t.source.flake == known.source.flake);
            let unchanged: Vec<Evaluation> = known.iter().filter(|known| !is_target(known)).cloned().collect();
            waiting = look_again(round, &unchanged, waiting).await;
        }
        // By the index's own time: rounds that changed nothing, and starts of claveld, make it no younger.
        let is_due = sign_anew_at.is_none_or(|at: Timestamp| at <= SystemTime::now().into());
        if is_due || !targets.is_empty() {
            sign_anew_at = published(round, &targets, &mut known, &mut waiting).await.or(sign_anew_at);
        }
        let next = async {
            match &mut watcher {
                Some(watcher) => watcher.next(config.poll_interval).await,
                None => tokio::time::sleep(config.poll_interval).await,
            }
        };
        // A push does not wait for it.
        let meanwhile = async {
            if !looked_again {
                round.look_again(&round.all(), &|_| ()).await;
                looked_again = true;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = next => {}
            () = meanwhile => {}
        }
        targets = round.changed(&known).await;
        looked_again &= targets.is_empty();
    }
}

/// What was said of each deployment that waits for a cache, or for somebody to release it.
type Waiting = BTreeSet<String>;

fn waiting_of(report: &PublishReport) -> impl Iterator<Item = String> {
    let held = report.kept_back.iter().map(ToString::to_string);
    report.unready.waiting.iter().map(ToString::to_string).chain(held)
}

/// Publishes what waited for a cache that has it now, or was released, and says what has changed for the rest. What waits
/// still.
async fn look_again(round: &Round<'_>, known: &[Evaluation], waiting: Waiting) -> Waiting {
    match round.publish_again(known).await {
        Ok(published) => {
            let still: Waiting = waiting_of(&published).collect();
            if published.commit.is_some() {
                report(&published).into_iter().for_each(output::remark);
            } else {
                still.difference(&waiting).for_each(output::remark);
            }
            still
        }
        Err(unpublished) => {
            output::error(&unpublished);
            waiting
        }
    }
}

/// One round; when the index is to be signed anew, where it went well.
async fn published(
    round: &Round<'_>,
    targets: &[Target<'_>],
    known: &mut Vec<Evaluation>,
    waiting: &mut Waiting,
) -> Option<Timestamp> {
    let board = Board::lines();
    let outcome = round.run(targets, &|announcement| announced(&board, &announcement)).await;
    match outcome {
        Ok(outcome) => {
            told_reasons(&outcome);
            for line in report(&outcome.report) {
                output::remark(line);
            }
            trouble(&outcome);
            waiting.extend(waiting_of(&outcome.report));
            let Outcome { evaluations, report, .. } = outcome;
            known.retain(|known| evaluations.iter().all(|new| new.source.flake != known.source.flake));
            known.extend(evaluations);
            Some(report.sign_anew_at)
        }
        Err(unpublished) => {
            // What was evaluated is not on the branch: the next round has to do it again.
            known.retain(|known| targets.iter().all(|target| target.source.flake != known.source.flake));
            output::error(&unpublished);
            None
        }
    }
}
