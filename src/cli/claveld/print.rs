//! Prints the events and the outcome of a round, for several commands of `claveld`. It decides nothing: see the room `claveld`.

use std::time::SystemTime;

use super::progress::{Board, reasons};
use crate::claveld::{Completeness, Finding, MirrorReport, RoundEvent, RoundNews, RoundOutcome, SourceFailure};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::evaluate::{EvalWarning, EvalWarnings, Evaluation, Failure, Item};
use crate::model::{FlakeReference, Source, describe_error};
use crate::publish::{DescribedChange, PublishReport};

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

/// Describes a publication, in lines, without what waits.
pub(super) fn report_lines(report: &PublishReport) -> Vec<String> {
    let described = report.described_changes();
    let width = |described: &DescribedChange<'_>| match described {
        DescribedChange::Document { change, .. } => change.path.to_string().len(),
        DescribedChange::Shared { .. } | DescribedChange::Line(_) => 0,
    };
    let width = described.iter().map(width).max().unwrap_or(0);
    let mut lines = Vec::new();
    for described in described {
        let (title, differences) = match described {
            DescribedChange::Shared { title, lines } => (format!("{title}:"), lines),
            DescribedChange::Document { change, lines } => (format!("{:width$}  {change}", change.path), lines),
            DescribedChange::Line(line) => (line, Vec::new()),
        };
        lines.push(title);
        lines.extend(differences.into_iter().map(|line| format!("  {line}")));
    }
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
    lines
        .extend(report.removed.iter().map(|path| format!("{path}: removed, because it does not belong on the branch")));
    lines.extend(
        report
            .ended_holds
            .iter()
            .map(|name| format!("{name}: the time of its hold is over, and it follows its source again")),
    );
    lines.extend(report.lost_holds.iter().map(|name| {
        format!("{name}: is no longer held, because no present publisher vouches for the revision that it was held at")
    }));
    lines
}

/// Describes the deployments that wait, in lines.
pub(super) fn postponed_lines(report: &PublishReport) -> impl Iterator<Item = String> {
    let waiting = report.unready.waiting.iter().map(ToString::to_string);
    waiting.chain(report.kept_back.iter().map(ToString::to_string))
}

/// Prints the problems that an operator has to solve.
pub(super) fn print_trouble(outcome: &RoundOutcome) {
    print_differences(outcome.differences());
    for Evaluation { source, warnings, .. } in &outcome.evaluations {
        print_left_out(warnings, &source.flake);
    }
    let is_trouble = |finding: &Finding<'_>| !matches!(finding, Finding::Waiting(_) | Finding::KeptBack(_));
    Finding::of_round(outcome).iter().filter(|finding| is_trouble(finding)).for_each(print_finding);
}

/// Prints what a daemon's log has to say of a round.
pub(super) fn print_news(news: &RoundNews<'_>) {
    news.findings.iter().for_each(print_finding);
    news.ended.iter().for_each(output::remark);
}

/// Prints what is wrong with mirrors.
pub(super) fn print_mirrors(mirrors: &[MirrorReport]) {
    Finding::of_mirrors(mirrors, SystemTime::now().into()).for_each(|finding| print_finding(&finding));
}

fn print_finding(finding: &Finding<'_>) {
    match finding {
        Finding::BrokenPart(_, failure) => print_failure(failure),
        Finding::Warning(_, warning) => print_warning(warning),
        Finding::BrokenSource(broken) => print_broken_source(broken),
        Finding::Conflict(conflict) => output::error(conflict),
        Finding::Lost(lost) => output::error(lost),
        Finding::Withdrawals(held) => output::error(held),
        Finding::Root(warning) => output::remark(format_args!("warning: {warning}")),
        Finding::Unpublishable(unpublishable) => output::error(unpublishable),
        Finding::Waiting(waiting) => output::remark(waiting),
        Finding::KeptBack(kept_back) => output::remark(kept_back),
        Finding::PublishFailed(error) => output::error(describe_error(*error)),
        Finding::Mirror(report) => output::error(report),
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

/// Prints the warnings of a source.
pub(super) fn print_warnings(warnings: &EvalWarnings, source: &Source) {
    print_left_out(warnings, &source.flake);
    warnings.each.iter().for_each(print_warning);
}

fn print_left_out(warnings: &EvalWarnings, source: &FlakeReference) {
    if warnings.has_more {
        let count = warnings.each.len();
        output::remark(format_args!("{source} has more than {count} different evaluation warnings; {count} are shown"));
    }
}

fn print_warning(warning: &EvalWarning) {
    output::remark(format_args!("\n{warning}\n{}", output::indent(&warning.text)));
}

/// Prints the broken attributes, each with Nix's own message.
pub(super) fn print_failures<'a>(failures: impl Iterator<Item = &'a Failure>) {
    failures.for_each(print_failure);
}

fn print_failure(failure: &Failure) {
    output::remark(format_args!("\nbroken: {}\n{}", failure.part, output::indent(&failure.error)));
}
