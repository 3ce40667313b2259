//! An earlier revision of a deployment, from the history of the branch.

use super::documents::{Branch, BranchError};
use super::writer::OpenBranch;
use crate::git::{CommitId, ReadError, Snapshot};
use crate::model::{
    BranchName, Deployment, DeploymentSpecification, DocumentPath, Folder, Name, Payload as _, Revision, Unit,
    UnitSpecification,
};
use crate::trust::{Signed, TrustedRoot, Verified};

/// How far back a revision is looked for: a commit a minute for two months.
const MOST_COMMITS: usize = 100_000;

/// A deployment as the branch had it once.
#[derive(Debug, Clone)]
pub struct Past {
    /// The deployment.
    pub deployment: Verified<Deployment>,
    /// Its unit at that time, where it is to be believed.
    pub unit: Option<Verified<Unit>>,
}

/// The result of a search for a revision.
#[derive(Debug, Clone)]
pub enum Found {
    /// It was published, by one who still publishes.
    Past(Box<Past>),
    /// Something is there under that revision, and it is not to be believed.
    NotBelieved(String),
    /// Nothing.
    Nowhere,
}

/// The history to search, and the root that decides who is trusted.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// The branch.
    pub on: &'a OpenBranch,
    /// Whose publishers are believed: the newest root.
    pub root: &'a TrustedRoot,
    /// The branch's name, which its indexes have to say.
    pub branch: &'a BranchName,
}

impl OpenBranch {
    /// The branch as it was, commit by commit: from `tip` back, by the first of each commit's parents.
    pub fn back_from(&self, tip: CommitId) -> impl Iterator<Item = Result<Snapshot, ReadError>> + use<'_> {
        let mut next = Some(tip);
        std::iter::from_fn(move || {
            let snapshot = self.repository().snapshot(next.take()?);
            Some(snapshot.and_then(|snapshot| {
                next = snapshot.parents()?.first().copied();
                Ok(snapshot)
            }))
        })
    }
}

impl History<'_> {
    /// Looks for a revision of `name`, from the tip back. A document says nothing of its epoch, and so it counts only
    /// where an index of this epoch lists it.
    pub fn find(&self, name: &Name, revision: Revision) -> Result<Found, ReadError> {
        let path = DocumentPath::new(Folder::Deployments, name.clone());
        let mut found = Found::Nowhere;
        let commits = self.on.tip().into_iter().flat_map(|tip| self.on.back_from(tip));
        for snapshot in commits.take(MOST_COMMITS) {
            let snapshot = snapshot?;
            let file = snapshot.read(&path.to_string(), Deployment::LARGEST)?;
            let claims = file.is_some_and(|file| claims(&file, revision));
            if claims {
                match self.read(&snapshot, name) {
                    Ok(past) => return Ok(Found::Past(Box::new(past))),
                    Err(BranchError::Read(error)) => return Err(error),
                    Err(error) => {
                        // What is nearest to the tip is what people would look at.
                        if matches!(found, Found::Nowhere) {
                            found = Found::NotBelieved(error.to_string());
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    fn read(&self, snapshot: &Snapshot, name: &Name) -> Result<Past, BranchError> {
        let branch = Branch::new(snapshot, self.root, self.branch);
        let index = branch.index()?;
        let deployment = branch.document::<DeploymentSpecification>(&index, name)?;
        let unit = branch.document::<UnitSpecification>(&index, &deployment.specification.unit);
        Ok(Past { deployment, unit: unit.ok() })
    }
}

/// Whether a file says that it is this revision, whoever signed it.
fn claims(file: &[u8], revision: Revision) -> bool {
    Signed::<Deployment>::parse(file).is_ok_and(|signed| signed.unverified().revision == revision)
}
