//! Maps every error to its exit code. The table of docs/guide.md says the same.

use std::error::Error;

use crate::agent::{DeploymentFailure, PassError};
use crate::branch::{BranchError, RootsError, WriteError};
use crate::claveld::{GateError, HookError};
use crate::config::ConfigError;
use crate::evaluate::EvaluateError;
use crate::git::{ConfinedFetchError, OpenError, PreviewError};
use crate::model::describe_error;
use crate::publish::{OperateError, PublishBaseError, PublishError};
use crate::trust::{AnchorError, SecretKeyError};

/// The failure of a command: its exit code and its message.
#[derive(Debug)]
pub struct Exit {
    code: Code,
    message: String,
    document: ErrorDocument,
}

/// Whether `--json` makes the failure a document on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorDocument {
    /// It does: the command has printed no other document.
    Print,
    /// It does not: standard output has the command's document, or a part of it, or cannot be written to.
    Omit,
}

/// The meaning of an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Code {
    /// Something in a source is broken, claimed by two sources, or would wait for a cache for ever, and the rest was done. Or
    /// the gate refused a push, or `check` found a problem.
    Incomplete = 1,
    // 2 is a usage error, which clap reports.
    /// The configuration, a key file or an argument is not right.
    Configuration = 3,
    /// A repository cannot be reached, read or written.
    Repository = 4,
    /// Clavel refuses a branch, or something on it.
    Refused = 5,
    /// A deployment could not be fetched from its caches, or is not what is pinned.
    Realise = 6,
    /// A unit did not switch.
    Activate = 7,
    /// This machine is at fault: its disk, its system, its state folder. Or the command was told to stop before it was done.
    Machine = 8,
    /// The server of a source does not answer, and everything else was done.
    Unreachable = 9,
}

impl Exit {
    /// The failure of a command by an error, whose sources the message says too, or by a text.
    pub(super) fn new<'a>(code: Code, error: impl Into<Box<dyn Error + 'a>>) -> Self {
        Self { code, message: describe_error(&*error.into()), document: ErrorDocument::Print }
    }

    /// The failure of a command that has printed everything already.
    pub(super) fn silent(code: Code) -> Self {
        Self { code, message: String::new(), document: ErrorDocument::Omit }
    }

    /// Whether the command has printed everything already.
    pub(super) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// The same failure of a command that began to print its document.
    #[must_use]
    pub(super) fn without_document(self) -> Self {
        Self { document: ErrorDocument::Omit, ..self }
    }

    /// Whether `--json` makes the failure a document.
    pub(super) fn document(&self) -> ErrorDocument {
        self.document
    }

    /// The exit code.
    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// The message for the person who ran the command; empty where the command has printed everything
    /// already.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// A failure of this machine.
    pub(super) fn machine<'a>(error: impl Into<Box<dyn Error + 'a>>) -> Self {
        Self::new(Code::Machine, error)
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::new(Code::Configuration, error)
    }
}

impl From<SecretKeyError> for Exit {
    fn from(error: SecretKeyError) -> Self {
        Self::new(Code::Configuration, error)
    }
}

impl From<AnchorError> for Exit {
    fn from(error: AnchorError) -> Self {
        Self::new(Code::Configuration, error)
    }
}

impl From<RootsError> for Exit {
    fn from(error: RootsError) -> Self {
        let code = if matches!(error, RootsError::Read(_)) { Code::Repository } else { Code::Refused };
        Self::new(code, error)
    }
}

impl From<WriteError> for Exit {
    fn from(error: WriteError) -> Self {
        Self::new(Code::Repository, error)
    }
}

impl From<EvaluateError> for Exit {
    fn from(error: EvaluateError) -> Self {
        Self::new(Code::Incomplete, error)
    }
}

impl From<HookError> for Exit {
    fn from(error: HookError) -> Self {
        Self::new(Code::Configuration, error)
    }
}

impl From<GateError> for Exit {
    fn from(error: GateError) -> Self {
        let code = match &error {
            GateError::Hook(_) | GateError::NoSource => Code::Configuration,
            GateError::Preview(PreviewError::Open(_) | PreviewError::LineBreak { .. }) => Code::Repository,
            GateError::Preview(PreviewError::NotCreated { .. }) | GateError::TemporaryFolder(_) => Code::Machine,
        };
        Self::new(code, error)
    }
}

impl From<OpenError> for Exit {
    fn from(error: OpenError) -> Self {
        Self::new(Code::Repository, error)
    }
}

impl From<BranchError> for Exit {
    fn from(error: BranchError) -> Self {
        let code = match &error {
            BranchError::NoIndex
            | BranchError::Index(_)
            | BranchError::OtherBranch { .. }
            | BranchError::OtherEpoch { .. }
            | BranchError::Bin(_)
            | BranchError::Document(_)
            | BranchError::Layout(_) => Code::Refused,
            BranchError::Read(_) => Code::Repository,
        };
        Self::new(code, error)
    }
}

impl From<ConfinedFetchError> for Exit {
    fn from(error: ConfinedFetchError) -> Self {
        Self::new(Code::Repository, error)
    }
}

impl From<PublishError> for Exit {
    fn from(error: PublishError) -> Self {
        let code = match &error {
            PublishError::Signer(_)
            | PublishError::Anchor(_)
            | PublishError::NoPublisher { .. }
            | PublishError::Branch { source: PublishBaseError::NoRoot, .. }
            | PublishError::Operate(
                OperateError::Unknown(_)
                | OperateError::Unmatched(_)
                | OperateError::NoneHeld(_)
                | OperateError::EndsBeforeNow(_)
                | OperateError::Withdrawn { .. }
                | OperateError::OlderRoot
                | OperateError::HeldAlready { .. }
                | OperateError::NotHeld(_)
                | OperateError::NoSuchRevision { .. }
                | OperateError::AtIt { .. }
                | OperateError::SaysTheSame { .. }
                | OperateError::OtherUnit { .. }
                | OperateError::UnitChanged { .. }
                | OperateError::NotPinned { .. },
            ) => Code::Configuration,
            PublishError::Branch {
                source: PublishBaseError::Branch(BranchError::Read(_)) | PublishBaseError::Roots(RootsError::Read(_)),
                ..
            }
            | PublishError::NeedsEverything
            | PublishError::Write(_) => Code::Repository,
            PublishError::Branch { .. }
            | PublishError::WentBack { .. }
            | PublishError::Operate(
                OperateError::NotVouchedFor { .. } | OperateError::Altered(_) | OperateError::Lost(_),
            ) => Code::Refused,
            PublishError::Note(_) => Code::Machine,
            PublishError::NothingRead
            | PublishError::Plan(_)
            | PublishError::Index(_)
            | PublishError::Operate(OperateError::Plan(_)) => Code::Incomplete,
        };
        Self::new(code, error)
    }
}

impl From<PassError> for Exit {
    fn from(error: PassError) -> Self {
        let code = match &error {
            PassError::State(_) | PassError::System(_) | PassError::Transition(_) => Code::Machine,
            PassError::Branch(none) if none.any_refused() => Code::Refused,
            PassError::Branch(_) => Code::Repository,
            PassError::Anchor(_) | PassError::OtherFleet { .. } => Code::Configuration,
        };
        Self::new(code, error)
    }
}

/// The exit code for a deployment that failed.
pub(super) fn code_of(failure: &DeploymentFailure) -> Code {
    match failure {
        DeploymentFailure::Unfit(_) => Code::Refused,
        DeploymentFailure::Realise(_) => Code::Realise,
        DeploymentFailure::Activate(_) | DeploymentFailure::Before(_) | DeploymentFailure::NotBack { .. } => {
            Code::Activate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_the_sources_of_an_error_and_the_whole_of_a_text() {
        let source = std::io::Error::other("the disk is gone");
        let error = AnchorError::Io { path: "/root.json".into(), source };
        assert_eq!(Exit::from(error).message(), "cannot read the root /root.json: the disk is gone");
        assert_eq!(Exit::machine("stopped").message(), "stopped");
    }
}
