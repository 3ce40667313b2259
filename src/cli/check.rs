//! What the three `check` commands share: their options, how they print their findings, and their exit code.

use super::exit::{Code, Exit};
use super::output;
use crate::config::ConfigError;
use crate::model::{CheckFinding, CheckOutcome, CheckReport, describe_error};

/// The options of printing.
#[derive(Debug, clap::Args)]
pub(super) struct CheckOutput {
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Print only warnings, problems and the summary.
    #[arg(short, long)]
    quiet: bool,
}

impl CheckOutput {
    /// Prints the findings. A problem among them fails the command.
    pub(super) fn print(&self, findings: Vec<CheckFinding>) -> Result<(), Exit> {
        let report = CheckReport::of(findings);
        if self.json {
            output::json(&report)?;
        } else {
            let needs_attention = |finding: &&CheckFinding| {
                !self.quiet || matches!(finding.outcome, CheckOutcome::Warning | CheckOutcome::Problem)
            };
            report.findings.iter().filter(needs_attention).try_for_each(print_finding)?;
            output::line(report.summary())?;
        }
        if report.ok { Ok(()) } else { Err(Exit::silent(Code::Incomplete)) }
    }
}

fn print_finding(CheckFinding { subject, outcome, message, advice }: &CheckFinding) -> Result<(), Exit> {
    let word = match outcome {
        CheckOutcome::Ok => "ok",
        CheckOutcome::Skipped => "skipped",
        CheckOutcome::Warning => "warning",
        CheckOutcome::Problem => "problem",
    };
    output::line(format_args!("{word:<8} {subject}: {message}"))?;
    match advice {
        Some(advice) => output::line(format_args!("         → {advice}")),
        None => Ok(()),
    }
}

/// The findings about the configuration, and the configuration itself where it can be used.
pub(super) fn check_configuration<C>(
    read: Result<C, ConfigError>,
    path: &std::path::Path,
) -> (Vec<CheckFinding>, Option<C>) {
    const SUBJECT: &str = "configuration";
    match read {
        Ok(config) => (vec![CheckFinding::ok(SUBJECT, path.display())], Some(config)),
        Err(error) => {
            let problem = CheckFinding::problem(SUBJECT, describe_error(&error))
                .advise("correct the file, or name another one with --config");
            (vec![problem, CheckFinding::skipped("everything that the configuration names", "it cannot be read")], None)
        }
    }
}
