//! `claveld run`

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::once::{announced, report, told_reasons, trouble};
use super::progress::Board;
use crate::cli::exit::{Exit, error};
use crate::cli::{asked_to_stop, output};
use crate::config::ClaveldConfig;
use crate::evaluate::{Demand, Evaluation};
use crate::publish::{Outcome, Report, Round, Target, Watcher};

pub(super) async fn run(config: &ClaveldConfig) -> Result<(), Exit> {
    let round = Round::new(config, Demand::Changed)?;
    tokio::select! {
        stopped = asked_to_stop() => stopped.map_err(|error| Exit::machine(&error)),
        () = rounds(config, &round) => Ok(()),
    }
}

/// Round after round. What fails is told and tried again; the last good state stays on the branch.
async fn rounds(config: &ClaveldConfig, round: &Round<'_>) {
    let mut watcher = Watcher::new(&config.sources).map_err(error).ok();
    let mut known: Vec<Evaluation> = Vec::new();
    let mut waiting = Waiting::new();
    let mut targets = round.all();
    let mut written = None;
    loop {
        if !waiting.is_empty() {
            let is_target = |known: &&Evaluation| targets.iter().any(|t| t.source.flake == known.source.flake);
            let unchanged: Vec<Evaluation> = known.iter().filter(|known| !is_target(known)).cloned().collect();
            waiting = look_again(round, &unchanged, waiting).await;
        }
        let due = written.is_none_or(|at: Instant| at.elapsed() > config.publish.validity / 2);
        if due || !targets.is_empty() {
            written = published(round, &targets, &mut known, &mut waiting).await.or(written);
        }
        match &mut watcher {
            Some(watcher) => drop(watcher.next(config.poll_interval).await),
            None => tokio::time::sleep(config.poll_interval).await,
        }
        targets = round.changed(&known).await;
    }
}

/// What was said of each deployment that waits for a cache, or for somebody to release it.
type Waiting = BTreeSet<String>;

fn waiting_of(report: &Report) -> impl Iterator<Item = String> {
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
            error(&unpublished);
            waiting
        }
    }
}

/// One round; when it wrote or found the branch in order.
async fn published(
    round: &Round<'_>,
    targets: &[Target<'_>],
    known: &mut Vec<Evaluation>,
    waiting: &mut Waiting,
) -> Option<Instant> {
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
            let Outcome { evaluations, .. } = outcome;
            known.retain(|known| evaluations.iter().all(|new| new.source.flake != known.source.flake));
            known.extend(evaluations);
            Some(Instant::now())
        }
        Err(unpublished) => {
            // What was evaluated is not on the branch: the next round has to do it again.
            known.retain(|known| targets.iter().all(|target| target.source.flake != known.source.flake));
            error(&unpublished);
            None
        }
    }
}
