//! From the tip of a static folder to a commit in this repository, which has the files that the reader needs.
//!
//! The commit is Clavel's own, and its files are believed only once they are verified as those of every other commit.

use gix::ObjectId;
use gix::objs::Kind;
use gix::objs::tree::{Editor, EntryKind};

use super::address::StaticUrl;
use super::error::StaticError;
use super::http::HttpAnswer;
use super::source::StaticSource;
use super::tip_record::TipRecord;
use super::transfer::StaticTransfer;
use crate::disk::sync_file_system;
use crate::git::address::CommitId;
use crate::git::fetch::{FetchRequest, Fetched};
use crate::git::fetch_error::FetchError;
use crate::git::repository::{GitError, Repository};
use crate::git::snapshot::Snapshot;
use crate::model::{FileDigest, Sha256Digest};

/// The most bytes of one fetch: 256 MiB. All bins of a million units have that.
const MAX_BYTES: u64 = 256 << 20;

impl Repository {
    /// Moves the ref to a commit of the files that the folder's tip names and `request.part` needs. If the tip has not changed, that is one
    /// request.
    pub(in crate::git) fn fetch_static(
        &self,
        request: &FetchRequest<'_>,
        url: &StaticUrl,
    ) -> Result<Fetched, FetchError> {
        self.read_static(request, url).map_err(|source| match source {
            StaticError::Local(error) => FetchError::Local(error),
            source => FetchError::Static {
                remote: request.remote.to_string(),
                branch: request.branch.clone(),
                source: Box::new(source),
            },
        })
    }

    fn read_static(&self, request: &FetchRequest<'_>, url: &StaticUrl) -> Result<Fetched, StaticError> {
        let (known, git_dir, part) = (self.tip_of_ref(request.into)?, self.git_dir(), TipRecord::part(request.part));
        let before = TipRecord::read(&git_dir)
            .zip(known)
            .filter(|(record, known)| record.commit == *known && record.url == url.to_string() && record.part == part);
        let mut source = StaticSource::open(url, MAX_BYTES)?;
        let (tip, validators) = match source.tip(before.as_ref().map(|(record, _)| &record.validators))? {
            HttpAnswer::Missing => return Ok(Fetched::BranchMissing),
            HttpAnswer::NotModified => {
                // The condition was sent because of this commit.
                return known.map(Fetched::Unchanged).ok_or_else(|| StaticError::NotThere { file: url.to_string() });
            }
            HttpAnswer::File(tip, validators) => (tip, validators),
        };
        let digest = Sha256Digest::of(&tip);
        let fetched = if let Some((_, known)) = before.filter(|(record, _)| record.tip == digest) {
            Fetched::Unchanged(known)
        } else {
            let local = self.separate_handle()?;
            let editor = Editor::new(gix::objs::Tree::empty(), &local.objects, local.object_hash());
            // A commit that cannot be read is as good as none: everything is read again.
            let before = known.and_then(|known| self.snapshot(known).ok());
            let mut files = ReceivedFiles { repository: self, local: &local, editor, before, source };
            (request.read_static)(&tip, request.part, &mut files)?;
            files.commit(request, known)?
        };
        let (Fetched::Unchanged(commit) | Fetched::Moved(commit)) = fetched else { return Ok(fetched) };
        let record = TipRecord { url: url.to_string(), part, commit, tip: digest, validators };
        if let Err(error) = record.write(&git_dir) {
            tracing::warn!(repository = %git_dir.display(), %error, "cannot remember the tip; the next fetch reads it again");
        }
        Ok(fetched)
    }
}

/// The files of the branch that were received so far. Each is an object of the repository already; no ref leads to it yet.
struct ReceivedFiles<'a> {
    repository: &'a Repository,
    local: &'a gix::Repository,
    editor: Editor<'a>,
    /// The files as they were read before.
    before: Option<Snapshot>,
    source: StaticSource<'a>,
}

impl StaticTransfer for ReceivedFiles<'_> {
    fn file(&mut self, path: &str, digest: &FileDigest) -> Result<Vec<u8>, StaticError> {
        let known = self.known(path, digest.length).filter(|bytes| FileDigest::of(bytes) == *digest);
        let bytes = known.map_or_else(|| self.source.object(digest), Ok)?;
        self.keep(path, &bytes)?;
        Ok(bytes)
    }

    fn object(&mut self, digest: &FileDigest) -> Result<Vec<u8>, StaticError> {
        self.source.object(digest)
    }

    fn known(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        self.before.as_ref()?.read(path, limit).ok().flatten()
    }

    fn keep(&mut self, path: &str, bytes: &[u8]) -> Result<(), StaticError> {
        let repository = self.repository.path();
        let failed = |error: &gix::Error| GitError::new(format!("write {path} to {}", repository.display()), error);
        let blob = self.local.write_blob(bytes).map_err(|error| failed(&error))?.detach();
        self.editor.upsert(path.split('/'), EntryKind::Blob, blob).map_err(|error| failed(&error))?;
        Ok(())
    }
}

impl ReceivedFiles<'_> {
    /// Makes the commit, and moves the ref to it.
    fn commit(mut self, request: &FetchRequest<'_>, known: Option<CommitId>) -> Result<Fetched, StaticError> {
        let (repository, local) = (self.repository, self.local);
        let act = |what: &str| format!("write {what} to {}", repository.path().display());
        let tree = self.editor.write(|tree| local.write_object(tree).map(gix::Id::detach));
        let tree = tree.map_err(|error| GitError::new(act("a tree"), &error))?;
        if let Some(known) = known.filter(|known| tree_of(local, *known) == Some(tree)) {
            return Ok(Fetched::Unchanged(known));
        }
        // The same files after the same commit make the same commit.
        let by = gix::actor::Signature {
            name: "clavel".into(),
            email: "clavel@localhost".into(),
            time: gix::date::Time { seconds: 0, offset: 0 },
        };
        let commit = gix::objs::Commit {
            tree,
            parents: known.map(CommitId::object).into_iter().collect(),
            author: by.clone(),
            committer: by,
            encoding: None,
            message: "Files of a static folder\n".into(),
            extra_headers: Vec::new(),
        };
        let commit =
            local.write_object(&commit).map_err(|error| GitError::new(act("a commit"), &error))?.detach().into();
        // Objects are written without fsync. After a power cut the ref must not lead to one that is gone.
        sync_file_system(&repository.git_dir())
            .map_err(|error| GitError::io(act("the files of a static folder"), &error))?;
        repository.move_ref(local, request.into, known, commit)?;
        Ok(Fetched::Moved(commit))
    }
}

/// The tree of a commit that can be read.
fn tree_of(local: &gix::Repository, commit: CommitId) -> Option<ObjectId> {
    let object = local.find_object(commit.object()).ok().filter(|object| object.kind == Kind::Commit)?;
    Some(object.try_into_commit().ok()?.tree_id().ok()?.detach())
}
