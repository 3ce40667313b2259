//! A mirror that is a folder of plain files: claveld exports the branch to it where it pushes to the others.

use std::path::PathBuf;

use super::mirror_state::PushResult;
use crate::branch::{RootChain, RootsError};
use crate::git::{CommitId, ReadError, Repository};
use crate::model::{BranchName, describe_error};
use crate::publish::{ExportError, StaticExport};
use crate::trust::{Anchor, AnchorError, AnchorLocation};

/// An export of one commit.
#[derive(Debug)]
pub(super) struct StaticMirror {
    pub(super) folder: PathBuf,
    pub(super) branch: BranchName,
    pub(super) root: AnchorLocation,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
enum StaticMirrorError {
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error(transparent)]
    Export(#[from] ExportError),
}

impl StaticMirror {
    /// Exports the commit, beside the daemon's other work: a large fleet has many files.
    pub(super) async fn bring_to(self, repository: &Repository, commit: CommitId) -> PushResult {
        let repository = repository.clone();
        let exported = tokio::task::spawn_blocking(move || self.export(&repository, commit)).await;
        match exported {
            Ok(Ok(())) => PushResult::Pushed,
            Ok(Err(error @ StaticMirrorError::Export(ExportError::OtherHistory(_)))) => {
                PushResult::Rewritten(describe_error(&error))
            }
            Ok(Err(error)) => PushResult::failed(describe_error(&error)),
            Err(error) => PushResult::failed(format!("the export ended: {error}")),
        }
    }

    fn export(&self, repository: &Repository, commit: CommitId) -> Result<(), StaticMirrorError> {
        let files = repository.snapshot(commit)?;
        let roots = RootChain::from_anchor(&files, &Anchor::read(&self.root)?)?;
        StaticExport { folder: &self.folder, branch: &self.branch, roots: &roots }.run(&files)?;
        Ok(())
    }
}
