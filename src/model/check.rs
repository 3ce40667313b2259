//! What a check of a set-up found, for people and monitoring: one finding for each thing that it looked at. Pure.

use std::fmt::Display;

use schemars::JsonSchema;
use serde::Serialize;

use super::{RootValidity, Timestamp};

/// How a thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// It is right.
    Ok,
    /// It was not looked at; the message says why.
    Skipped,
    /// It works, and needs attention.
    Warning,
    /// It does not work.
    Problem,
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CheckFinding {
    /// The thing, such as `nix` or `source git+https://git.example.org/fleet`.
    pub subject: String,
    /// How it was found.
    pub outcome: CheckOutcome,
    /// What was found, in words. An error says in it what to do, where it knows that.
    pub message: String,
    /// What to do next, where the message does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl CheckFinding {
    /// A thing that is right.
    pub fn ok(subject: impl Into<String>, message: impl Display) -> Self {
        Self::new(subject, CheckOutcome::Ok, message)
    }

    /// A thing that was not looked at, and why.
    pub fn skipped(subject: impl Into<String>, why: impl Display) -> Self {
        Self::new(subject, CheckOutcome::Skipped, why)
    }

    /// A thing that works, and needs attention.
    pub fn warning(subject: impl Into<String>, message: impl Display) -> Self {
        Self::new(subject, CheckOutcome::Warning, message)
    }

    /// A thing that does not work.
    pub fn problem(subject: impl Into<String>, message: impl Display) -> Self {
        Self::new(subject, CheckOutcome::Problem, message)
    }

    fn new(subject: impl Into<String>, outcome: CheckOutcome, message: impl Display) -> Self {
        Self { subject: subject.into(), outcome, message: message.to_string(), advice: None }
    }

    /// How long a root is valid, at `now`.
    pub fn about_root(validity: RootValidity, now: Timestamp) -> Self {
        const SUBJECT: &str = "root";
        match validity.warning(now) {
            Some(warning) if warning.is_expired() => Self::problem(SUBJECT, warning),
            Some(warning) => Self::warning(SUBJECT, warning),
            None => Self::ok(SUBJECT, format!("version {}, until {}", validity.version, validity.expires)),
        }
    }

    /// The same finding, with what to do next.
    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// The same finding, as a warning where it is a problem.
    #[must_use]
    pub fn at_most_a_warning(self) -> Self {
        match self.outcome {
            CheckOutcome::Problem => Self { outcome: CheckOutcome::Warning, ..self },
            CheckOutcome::Ok | CheckOutcome::Skipped | CheckOutcome::Warning => self,
        }
    }
}

/// The result of a check, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CheckReport {
    /// Whether there is no problem.
    pub ok: bool,
    /// How many problems there are.
    pub problems: usize,
    /// How many warnings there are.
    pub warnings: usize,
    /// How many things could not be looked at.
    pub skipped: usize,
    /// Each thing, in the order in which it was looked at.
    pub findings: Vec<CheckFinding>,
}

impl CheckReport {
    /// The report of these findings.
    pub fn of(findings: Vec<CheckFinding>) -> Self {
        let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
        let (problems, warnings) = (count(CheckOutcome::Problem), count(CheckOutcome::Warning));
        Self { ok: problems == 0, problems, warnings, skipped: count(CheckOutcome::Skipped), findings }
    }

    /// The report in one line.
    pub fn summary(&self) -> String {
        let number = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            count => format!("{count} {word}s"),
        };
        let looked_at = self.findings.len() - self.skipped;
        let (problems, warnings) = (number(self.problems, "problem"), number(self.warnings, "warning"));
        let skipped = if self.skipped == 0 { String::new() } else { format!(", {} not looked at", self.skipped) };
        format!("{} checked: {problems}, {warnings}{skipped}", number(looked_at, "thing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_problems_make_a_set_up_wrong() {
        let (ok, warning) = (CheckFinding::ok("nix", "2.8"), CheckFinding::warning("root", "expires soon"));
        let skipped = CheckFinding::skipped("branch", "its repository cannot be read");
        let problem = CheckFinding::problem("git", "not found").advise("install it");
        let good = CheckReport::of(vec![ok.clone(), warning.clone()]);
        assert!(good.ok);
        assert_eq!(good.summary(), "2 things checked: 0 problems, 1 warning");
        let bad = CheckReport::of(vec![ok, warning, skipped, problem.clone()]);
        assert!(!bad.ok);
        assert_eq!(bad.summary(), "3 things checked: 1 problem, 1 warning, 1 not looked at");
        assert_eq!(problem.at_most_a_warning().outcome, CheckOutcome::Warning);
    }
}
