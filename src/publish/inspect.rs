//! Looks at the branch as a publication would find it, and publishes nothing.

use std::path::Path;

use super::attempt::{FoundBranch, PublishSettings};
use super::error::PublishError;
use super::settled::Scope;
use crate::branch::{BranchError, BranchWriter, OpenBranch};
use crate::model::{PublicKey, Timestamp};
use crate::trust::{Anchor, TrustedRoot};

/// What a publication would begin with.
#[derive(Debug)]
pub struct BranchInspection {
    /// The branch.
    pub on: OpenBranch,
    /// Its newest root; none where there is no anchor to verify it by.
    pub root: Option<Result<TrustedRoot, PublishError>>,
    /// When its index was signed; none where there is none, or it was not verified.
    pub issued: Option<Timestamp>,
}

/// Opens the branch and verifies all of it by `anchor`, as a publication does. A remote repository is fetched into `copy`.
pub async fn inspect(
    settings: &PublishSettings,
    anchor: Option<&Anchor>,
    copy: &Path,
) -> Result<BranchInspection, PublishError> {
    // What is wrong with the note is told by `check_note`.
    let last = settings.note().last().ok().flatten();
    let writer = BranchWriter { remote: &settings.repository, branch: &settings.branch, copy };
    let on = writer.open().await?;
    let files = on.files().map_err(|error| settings.branch_error(BranchError::from(error).into()))?;
    let base = anchor.map(|anchor| {
        let found = FoundBranch { on: &on, files: files.as_ref(), last };
        settings.read_base(&found, anchor, &Scope::All)
    });
    let index = base.as_ref().and_then(|base| base.as_ref().ok()?.branch.index.as_ref());
    let issued = index.map(|(index, _)| index.index().issued);
    let root = base.map(|base| base.map(|base| base.root));
    Ok(BranchInspection { on, root, issued })
}

/// Checks that the note of the last publication can be read, without which nothing is published.
pub fn check_note(settings: &PublishSettings) -> Result<(), PublishError> {
    Ok(settings.note().last().map(drop)?)
}

/// Checks that agents with this root would believe what these keys sign.
pub fn check_keys(settings: &PublishSettings, keys: &[PublicKey], root: &TrustedRoot) -> Result<(), PublishError> {
    settings.check_keys(keys, root)
}
