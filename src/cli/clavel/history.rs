//! Searches the history of the branch for a deployment, from the tip back. The caller verifies what is found.

use super::view::View;
use crate::branch::BranchError;
use crate::cli::exit::Exit;
use crate::git::{ReadError, Snapshot};
use crate::model::{Deployment, DocumentPath, Folder, Name, Payload as _};

/// The most commits that are searched: two months with a commit a minute.
const MOST_COMMITS: usize = 100_000;

/// Calls `look` with each file that the deployment `name` had, the newest first, until `look` finds something.
pub(super) fn search<T>(
    view: &View,
    name: &Name,
    mut look: impl FnMut(&Snapshot, &[u8]) -> Result<Option<T>, Exit>,
) -> Result<Option<T>, Exit> {
    let path = DocumentPath::new(Folder::Deployments, name.clone()).to_string();
    let mut seen = None;
    let mut snapshot = Some(view.repository.snapshot(view.snapshot.commit()).map_err(BranchError::from)?);
    for _ in 0..MOST_COMMITS {
        let Some(here) = snapshot else { break };
        let bytes = read_file(&here, &path)?;
        if let Some(bytes) = bytes.filter(|bytes| seen.as_ref() != Some(bytes)) {
            if let Some(found) = look(&here, &bytes)? {
                return Ok(Some(found));
            }
            seen = Some(bytes);
        }
        let parent = here.parents().map_err(BranchError::from)?.first().copied();
        snapshot = parent.map(|parent| view.repository.snapshot(parent)).transpose().map_err(BranchError::from)?;
    }
    Ok(None)
}

/// Reads the file as one commit has it; `None` where its path holds something that can be no document.
fn read_file(snapshot: &Snapshot, path: &str) -> Result<Option<Vec<u8>>, Exit> {
    match snapshot.read(path, Deployment::LARGEST) {
        Ok(file) => Ok(file),
        Err(ReadError::TooLarge { .. } | ReadError::Unexpected { .. }) => Ok(None),
        Err(error) => Err(BranchError::from(error).into()),
    }
}
