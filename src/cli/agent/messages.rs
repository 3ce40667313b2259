//! The messages of an agent: its events and its results in words, and as entries of systemd's journal.
//!
//! `CLAVEL_DEPLOYMENT`, `CLAVEL_UNIT` and `CLAVEL_REVISION` say what an entry is about, and `CLAVEL_STEP` at which step.

use crate::agent::{DeploymentOutcome, DeploymentReport, Event, HookWarning, PassReport, Rollout};
use crate::cli::output;
use crate::model::{Name, Revision, describe_error, headline};
use crate::stderr::{Message, Severity};

/// What a message is about.
#[derive(Debug, Default)]
struct Subject<'a> {
    deployment: Option<&'a Name>,
    unit: Option<&'a Name>,
    revision: Option<Revision>,
    step: Option<&'static str>,
}

impl Subject<'_> {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("CLAVEL_DEPLOYMENT", self.deployment.map(ToString::to_string)),
            ("CLAVEL_UNIT", self.unit.map(ToString::to_string)),
            ("CLAVEL_REVISION", self.revision.map(|revision| revision.to_string())),
            ("CLAVEL_STEP", self.step.map(ToOwned::to_owned)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The messages of a pass: the warnings, and then one for each deployment, or the error.
pub(super) fn pass_messages(report: &PassReport) -> Vec<Message> {
    let warning = |text: String| output::message(Severity::Warning, format_args!("warning: {text}"));
    let hooks = report.hook_warnings.iter().map(hook_message);
    let unused = report.unused_units.iter().map(|unused| warning(unused.to_string()));
    let warnings = unused.chain(hooks);
    match &report.result {
        Err(refused) => warnings.chain([output::message(Severity::Error, describe_error(refused))]).collect(),
        Ok(reports) => {
            let clock = report.clock_trouble.iter().map(|trouble| warning(trouble.to_string()));
            let root = report.root_warning.iter().map(|root| warning(root.to_string()));
            clock.chain(warnings).chain(root).chain(reports.iter().map(report_message)).collect()
        }
    }
}

/// The message of the result for one deployment.
pub(super) fn report_message(report: &DeploymentReport) -> Message {
    let DeploymentReport { name, unit, revision, outcome } = report;
    let severity = match outcome {
        DeploymentOutcome::Failed(_) => Severity::Error,
        DeploymentOutcome::Moved { .. } | DeploymentOutcome::Withdrawn | DeploymentOutcome::Dropped => {
            Severity::Warning
        }
        DeploymentOutcome::UpToDate(_)
        | DeploymentOutcome::Adopted(_)
        | DeploymentOutcome::AwaitingReboot(..)
        | DeploymentOutcome::Switched(_)
        | DeploymentOutcome::Waiting(_) => Severity::Info,
    };
    let subject =
        Subject { deployment: Some(name), unit: unit.as_ref(), revision: *revision, step: Some(outcome.word()) };
    Message { fields: subject.fields(), ..output::message(severity, report) }
}

fn hook_message(warning: &HookWarning) -> Message {
    let called_for = warning.called_for.as_ref();
    let subject = Subject {
        deployment: called_for.map(|(deployment, ..)| deployment),
        unit: called_for.map(|(_, unit, _)| unit),
        revision: called_for.map(|(.., revision)| *revision),
        step: Some("hook"),
    };
    Message { fields: subject.fields(), ..output::message(Severity::Warning, format_args!("warning: {warning}")) }
}

/// The message of an event of a pass.
pub(super) fn event_message(event: &Event<'_>) -> Message {
    Message { fields: subject(event).fields(), ..output::message(severity(event), describe(event)) }
}

fn severity(event: &Event<'_>) -> Severity {
    match event {
        Event::ForkKept(_)
        | Event::ForkFolderFull(_)
        | Event::Mirror(_)
        | Event::Rewritten(_)
        | Event::OnlyTold { .. }
        | Event::RollingBack { .. }
        | Event::ReportNotSaved(_)
        | Event::MetricsNotWritten(..) => Severity::Warning,
        Event::RollbackFailed { .. } => Severity::Error,
        Event::Fetched(_)
        | Event::Realising(_)
        | Event::AwaitingActivation { .. }
        | Event::EarlierActivationSucceeded { .. }
        | Event::Activating { .. }
        | Event::Booted { .. }
        | Event::OnProbation { .. }
        | Event::MirrorUnread { .. }
        | Event::AwaitingPerson { .. } => Severity::Info,
    }
}

fn subject<'a>(event: &Event<'a>) -> Subject<'a> {
    let (deployment, unit, revision, step) = match event {
        Event::Realising(order) => {
            let unit = Some(&order.unit.name);
            (&order.deployment.name, unit, Some(order.deployment.revision), "realise")
        }
        Event::AwaitingActivation { deployment } => (*deployment, None, None, "activate"),
        Event::EarlierActivationSucceeded { deployment, revision } | Event::Booted { deployment, revision } => {
            (*deployment, None, Some(*revision), "activate")
        }
        Event::Activating { deployment, rollout } => {
            (*deployment, Some(&rollout.unit.name), Some(rollout.candidate.revision), "activate")
        }
        Event::OnProbation { deployment, rollout, .. }
        | Event::MirrorUnread { deployment, rollout, .. }
        | Event::AwaitingPerson { deployment, rollout, .. }
        | Event::OnlyTold { deployment, rollout, .. } => {
            (*deployment, Some(&rollout.unit.name), Some(rollout.candidate.revision), "probation")
        }
        Event::RollingBack { deployment, rollback } | Event::RollbackFailed { deployment, rollback, .. } => {
            (*deployment, Some(&rollback.unit.name), Some(rollback.candidate.revision), "rollback")
        }
        Event::ForkKept(_)
        | Event::ForkFolderFull(_)
        | Event::Mirror(_)
        | Event::Fetched(_)
        | Event::Rewritten(_)
        | Event::ReportNotSaved(_)
        | Event::MetricsNotWritten(..) => return Subject::default(),
    };
    Subject { deployment: Some(deployment), unit, revision, step: Some(step) }
}

/// Describes an event of a pass in one line.
fn describe(event: &Event<'_>) -> String {
    match event {
        Event::ForkKept(folder) => format!("both contents are kept in {}", folder.display()),
        Event::ForkFolderFull(folder) => format!(
            "cannot keep both contents of another fork: {} is full; look at its files and move them away",
            folder.display()
        ),
        Event::Mirror(report) => {
            format!("a mirror is not used: {}", report.error.as_deref().unwrap_or(&report.repository))
        }
        Event::Fetched(commit) => format!("the branch is at {}", &commit.to_string()[..10]),
        Event::Rewritten(before) => format!(
            "the history of the branch was rewritten: {} is not part of it any more; its index is signed and no older, so the \
             agent uses it",
            &before.to_string()[..10]
        ),
        Event::Realising(order) => {
            let deployment = &order.deployment;
            let path = &deployment.specification.template.nar_id;
            format!("{}: fetching {path} (revision {})", deployment.name, deployment.revision)
        }
        Event::AwaitingActivation { deployment } => {
            format!("{deployment}: an activation that began before this agent still runs; waiting for it")
        }
        Event::EarlierActivationSucceeded { deployment, revision } => {
            format!("{deployment}: switched to revision {revision}, by an activation that began before this agent")
        }
        Event::Booted { deployment, revision } => {
            format!("{deployment}: the machine runs revision {revision} since it booted")
        }
        Event::Activating { deployment, rollout: Rollout { next_boot: Some(next_boot), .. } } => {
            format!("{deployment}: setting it for the next boot{}", next_boot.why())
        }
        Event::Activating { deployment, rollout } => match rollout.attempts {
            1 => format!("{deployment}: activating"),
            attempts => format!("{deployment}: activating again (attempt {attempts})"),
        },
        Event::MirrorUnread { deployment, error, .. } => {
            format!("{deployment}: on probation until a mirror can be read again: {}", headline(error))
        }
        Event::OnProbation { deployment, checks: 1, .. } => format!("{deployment}: on probation; it has one check"),
        Event::OnProbation { deployment, checks, .. } => format!("{deployment}: on probation; it has {checks} checks"),
        Event::AwaitingPerson { deployment, deadline, .. } => format!(
            "{deployment}: all of it holds; confirm it with `clavel-agent confirm {deployment}`, or the machine goes back {} after \
             the switch",
            humantime::format_duration(*deadline)
        ),
        Event::OnlyTold { deployment, complaint, .. } => format!("{deployment}: warning: it stays, and {complaint}"),
        Event::RollingBack { deployment, rollback } => {
            format!("{deployment}: revision {} failed; going back to {}", rollback.candidate.revision, rollback.to)
        }
        Event::RollbackFailed { deployment, error, .. } => {
            format!("{deployment}: going back failed as well: {}", describe_error(error))
        }
        Event::ReportNotSaved(error) => {
            format!("`clavel-agent status` will not show this pass: {}", describe_error(error))
        }
        Event::MetricsNotWritten(path, error) => {
            format!(
                "cannot write the metrics to {}: {error}; correct `metrics-file`, or make its folder",
                path.display()
            )
        }
    }
}

/// Says that the agent ends before an activation.
pub(super) fn describe_left(deployment: &Name) -> String {
    format!(
        "{deployment}: the agent ends, and leaves the activation running that is under way; the next pass waits for it and takes \
         its result"
    )
}
