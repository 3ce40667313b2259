//! Prints the events and the outcome of a round, for several commands of `claveld`. It decides nothing: see the room `claveld`.

use super::progress::{Board, reasons};
use crate::claveld::{Completeness, RoundEvent, RoundOutcome, SourceFailure};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::evaluate::{Failure, Item};
use crate::model::describe_error;
use crate::publish::PublishReport;

pub(super) fn print_event(board: &Board, event: &RoundEvent<'_>) {
    match event {
        RoundEvent::Evaluating { source, progress } => board.advance(source, progress),
        RoundEvent::Publishing => board.say("publishing"),
        RoundEvent::SourceBroken(broken) => print_broken_source(broken),
    }
}

/// Prints the reasons why attributes were evaluated.
pub(super) fn print_reasons(outcome: &RoundOutcome) {
    outcome.evaluations.iter().flat_map(|evaluation| reasons(&evaluation.work)).for_each(output::remark);
}

/// Describes a publication, in lines.
pub(super) fn report_lines(report: &PublishReport) -> Vec<String> {
    let width = report.changes.iter().map(|change| change.path.to_string().len()).max().unwrap_or(0);
    let described = report.described_changes().flat_map(|(change, differences)| {
        let differences = differences.into_iter().map(|line| format!("  {line}"));
        std::iter::once(format!("{:width$}  {change}", change.path)).chain(differences)
    });
    let mut lines: Vec<String> = described.collect();
    match (&report.commit, report.changes.is_empty()) {
        (Some(commit), false) => {
            lines.push(format!("published as index version {} in commit {}", report.version, &commit[..10]));
        }
        (Some(commit), true) => lines.push(format!(
            "nothing changed; index version {} signed anew in commit {}",
            report.version,
            &commit[..10]
        )),
        (None, _) => lines.push(format!("nothing changed (index version {})", report.version)),
    }
    lines.extend(report.unready.waiting.iter().map(ToString::to_string));
    lines.extend(report.kept_back.iter().map(ToString::to_string));
    lines
        .extend(report.removed.iter().map(|path| format!("{path}: removed, because it does not belong on the branch")));
    lines.extend(report.lost_holds.iter().map(|name| {
        format!("{name}: is no longer held, because no present publisher vouches for the revision that it was held at")
    }));
    lines
}

/// Prints the problems that an operator has to solve.
pub(super) fn print_trouble(outcome: &RoundOutcome) {
    print_failures(outcome.failures());
    print_differences(outcome.differences());
    for broken in &outcome.broken_sources {
        print_broken_source(broken);
    }
    for conflict in &outcome.report.conflicts {
        output::error(conflict);
    }
    for lost in &outcome.report.lost {
        output::error(lost);
    }
    for held in &outcome.report.withdrawals {
        output::error(held);
    }
    if let Some(warning) = outcome.report.root_warning {
        output::remark(format_args!("warning: {warning}"));
    }
    for unpublishable in &outcome.report.unready.unpublishable {
        output::error(unpublishable);
    }
}

fn print_broken_source(broken: &SourceFailure) {
    let error = describe_error(&broken.error);
    match broken.unreachable_since {
        Some(since) => output::error(format_args!("{} is out of reach since {since}: {error}", broken.source)),
        None => output::error(error),
    }
}

/// Turns the completeness of a round into the exit of the command.
pub(super) fn exit_of(completeness: Completeness) -> Result<(), Exit> {
    match completeness {
        Completeness::Complete => Ok(()),
        Completeness::Incomplete => Err(Exit::silent(Code::Incomplete)),
        Completeness::Unreachable => Err(Exit::silent(Code::Unreachable)),
    }
}

/// Prints the attributes whose recorded value was wrong.
pub(super) fn print_differences<'a>(differences: impl Iterator<Item = &'a Item>) {
    for attribute in differences {
        output::error(format_args!(
            "{attribute} differs from its recorded value, though nothing that it depends on changed. The new value counts. This \
             is a mistake in Clavel; please report it"
        ));
    }
}

/// Prints the broken attributes, each with Nix's own message.
pub(super) fn print_failures<'a>(failures: impl Iterator<Item = &'a Failure>) {
    for failure in failures {
        output::remark(format_args!("\nbroken: {}\n{}", failure.part, output::indent(&failure.error)));
    }
}
