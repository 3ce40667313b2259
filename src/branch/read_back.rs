//! Reads a commit back before the branch moves to it, with the code, the limits and the checks of the layout that an agent has.
//!
//! So claveld never publishes what every agent would refuse: a commit message that is too long, a bin that is too large, a
//! document under a wrong path.

use std::collections::BTreeSet;

use super::documents::{Branch, BranchError, VerifiedIndex};
use super::root_chain::{RootChain, RootsError};
use crate::git::Files;
use crate::model::{
    AgentSpecification, BinId, BranchName, DeploymentSpecification, DocumentPath, Folder, UnitSpecification,
};
use crate::parallel::in_parts;
use crate::trust::{DocumentError, TrustedRoot};

/// How many documents are held at a time.
const PART: usize = 4096;

/// What a publication wrote, and how a reader verifies it.
#[derive(Debug, Clone)]
pub struct ReadBack {
    /// The root that a reader trusts.
    pub root: TrustedRoot,
    /// The branch.
    pub branch: BranchName,
    /// The bins of the names that were written or withdrawn.
    pub bins: BTreeSet<BinId>,
    /// The documents that were written.
    pub documents: Vec<DocumentPath>,
}

/// The reason why a reader would refuse the commit.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    /// Its roots.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// Its index, a bin, a document or its layout.
    #[error(transparent)]
    Branch(#[from] BranchError),
}

impl ReadBack {
    /// Checks the files of the commit.
    pub fn check<F: Files>(&self, files: &F) -> Result<(), ReadBackError> {
        let newest = RootChain::walk(files, &self.root)?.newest;
        let branch = Branch::new(files, &newest, &self.branch);
        let mut index = branch.index()?;
        for bin in &self.bins {
            branch.read_bin(&mut index, *bin)?;
        }
        for part in self.documents.chunks(PART) {
            let mut read = Vec::with_capacity(part.len());
            for path in part {
                read.push((path, branch.read_listed(&mut index, path)?));
            }
            verify_all(&read, &index, &newest).map_err(BranchError::from)?;
        }
        Ok(())
    }
}

/// Verifies these documents, with all processors where they are many.
fn verify_all(
    read: &[(&DocumentPath, Option<Vec<u8>>)],
    index: &VerifiedIndex,
    root: &TrustedRoot,
) -> Result<(), DocumentError> {
    let verify_each = |of: &[(&DocumentPath, Option<Vec<u8>>)]| -> Result<(), DocumentError> {
        of.iter().try_for_each(|(path, bytes)| {
            let bytes = bytes.as_deref();
            match path.folder() {
                Folder::Agents => index.verify::<AgentSpecification>(path, bytes, root).map(drop),
                Folder::Deployments => index.verify::<DeploymentSpecification>(path, bytes, root).map(drop),
                Folder::Units => index.verify::<UnitSpecification>(path, bytes, root).map(drop),
            }
        })
    };
    in_parts(read, verify_each).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::super::fixture::{Listing, index, index_files};
    use super::super::layout::Layout;
    use super::super::writer::{BranchWriter, Proposal, WriteError};
    use super::*;
    use crate::git::fixture::TestFolder;
    use crate::git::{Authorship, Change, Identity};
    use crate::model::describe_error;
    use crate::model::{BinCount, Draft, IndexEntry, IndexVersion, Metadata, Revision, UnitType};
    use crate::parallel::MANY;
    use crate::trust::fixture::Fleet;
    use crate::trust::{Signed, digest};

    /// Publishes a branch without documents, with `more` beside it and this message.
    fn publish(more: Option<(&str, &str)>, message: &str) -> (Result<(), WriteError>, bool) {
        let (folder, fleet, branch) = (TestFolder::new(), Fleet::new(), "deployments".parse().unwrap());
        let repository = folder.repository("r.git");
        let listing = Listing::empty(BinCount::ONE);
        let now = SystemTime::now().into();
        let index = index(&fleet, &listing, now, IndexVersion::FIRST);
        let put = |path: &str, bytes: &[u8]| Change::Put { path: path.to_owned(), bytes: bytes.to_vec() };
        let mut changes = vec![put(Layout::NEWEST_ROOT, fleet.root.file()), put("roots/1.json", fleet.root.file())];
        changes.extend(index_files(&fleet, &listing, index).iter().map(|(path, bytes)| put(path, bytes)));
        changes.extend(more.map(|(path, text)| put(path, text.as_bytes())));
        let remote = folder.path().join("r.git").to_str().unwrap().parse().unwrap();
        let copy = folder.path().join("copy");
        let writer = BranchWriter { remote: &remote, branch: &branch, copy: &copy };
        let bins = BinCount::ONE.bins().collect();
        let read_back = ReadBack { root: fleet.root.clone(), branch: branch.clone(), bins, documents: Vec::new() };
        let by = Authorship::of(Identity::of_program("claveld", "claveld"));
        let attempt = async |writer: &BranchWriter<'_>| -> Result<_, WriteError> {
            let (by, read_back) = (by.clone(), Some(read_back.clone()));
            let (changes, message) = (changes.clone(), message.to_owned());
            Ok((
                (),
                Some(Proposal { on: writer.open().await?, changes, message, by, at: SystemTime::now(), read_back }),
            ))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let written = runtime.block_on(writer.commit_with_retry(attempt)).map(drop);
        (written, repository.tip(&branch).unwrap().is_some())
    }

    #[test]
    fn each_of_many_documents_is_verified() {
        let fleet = Fleet::new();
        let count = 3 * MANY;
        let (mut listing, mut documents) = (Listing::empty(BinCount::ONE), BTreeMap::new());
        for at in 0..count {
            let specification = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type: UnitType::Nixos };
            let draft = Draft::new(format!("u{at}").parse().unwrap(), Metadata::default(), specification);
            let path = DocumentPath::new(Folder::Units, draft.name.clone());
            let bytes = Signed::sign(draft.at(Revision::FIRST, fleet.id()), &fleet.key).render();
            let (length, sha256) = (bytes.len() as u64, digest(&bytes));
            listing.documents.insert(path.clone(), IndexEntry { length, revision: Revision::FIRST, sha256 });
            documents.insert(path, bytes);
        }
        let branch: BranchName = "deployments".parse().unwrap();
        let index = index(&fleet, &listing, SystemTime::now().into(), IndexVersion::FIRST);
        let mut files = index_files(&fleet, &listing, index);
        files.extend([Layout::NEWEST_ROOT, "roots/1.json"].map(|path| (path.to_owned(), fleet.root.file().to_vec())));
        let layout = Layout::of(BinCount::ONE);
        files.extend(documents.iter().map(|(path, bytes)| (layout.document(path), bytes.clone())));
        let bins = BinCount::ONE.bins().collect();
        let written = documents.keys().cloned().collect();
        let read_back = ReadBack { root: fleet.root.clone(), branch, bins, documents: written };
        read_back.check(&files).unwrap();
        for at in [0, MANY, count - 1] {
            let path: DocumentPath = format!("units/u{at}.json").parse().unwrap();
            let file = layout.document(&path);
            let whole = files.insert(file.clone(), documents[&path][1..].to_vec()).unwrap();
            let error = describe_error(&read_back.check(&files).unwrap_err());
            assert!(error.contains(&file), "{error}");
            files.insert(file, whole);
        }
    }

    #[test]
    fn what_an_agent_would_refuse_is_not_published() {
        let (written, is_there) = publish(None, "index: version 1");
        written.unwrap();
        assert!(is_there);
        for (more, message, why) in [
            (None, "x".repeat(2 << 20), "nobody could read what was about to be committed: cannot read `/`"),
            (
                Some(("evil.sh", "")),
                "evil".to_owned(),
                "agents would refuse what was about to be published: `evil.sh` does not belong",
            ),
            (Some(("units/a.json", "{}")), "unlisted".to_owned(), "`units/a.json` does not belong"),
            (Some(("index/all.json", "{}\n")), "a bin".to_owned(), "is not the file that the index lists"),
        ] {
            let (written, is_there) = publish(more, &message);
            let error = describe_error(&written.unwrap_err());
            assert!(error.contains("the branch was not moved") && error.contains(why), "{error}");
            assert!(!is_there, "{why}");
        }
    }
}
