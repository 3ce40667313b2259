//! Reads single files of a commit whose layout was not checked. It is for roots: their own signatures verify them, whatever
//! else the commit has.

use gix::ObjectId;
use gix::objs::{Kind, TreeRefIter};

use super::address::CommitId;
use super::files::Files;
use super::objects::{Mode, ObjectReader, ReadError};
use super::repository::Repository;

/// The largest tree object that is searched: 1 MiB, some 20,000 names. A server that hides a file among more entries could
/// as well leave the file out.
const LARGEST_TREE: u64 = 1 << 20;

/// The files of a commit whose layout was not checked. It belongs to one thread.
#[derive(Debug)]
pub struct UncheckedFiles {
    repository: gix::Repository,
    commit: CommitId,
}

impl Repository {
    /// The files of `commit`, whatever its layout.
    pub fn unchecked_files(&self, commit: CommitId) -> UncheckedFiles {
        UncheckedFiles { repository: self.local(), commit }
    }
}

impl Files for UncheckedFiles {
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let reader = ObjectReader { repository: &self.repository, commit: self.commit };
        let unexpected =
            |found, wanted| ReadError::Unexpected { path: path.to_owned(), commit: self.commit, found, wanted };
        let (mut folder, mut names) = (reader.root()?, path.split('/').peekable());
        while let Some(name) = names.next() {
            match (reader.find(path, folder, name)?, names.peek()) {
                (None, _) => return Ok(None),
                (Some((Mode::Folder, id)), Some(_)) => folder = id,
                (Some((Mode::File, id)), None) => return reader.object(path, id, Kind::Blob, limit).map(Some),
                (Some((found, _)), Some(_)) => return Err(unexpected(found, "a folder")),
                (Some((found, _)), None) => return Err(unexpected(found, "a regular file")),
            }
        }
        Ok(None)
    }
}

impl ObjectReader<'_> {
    /// The entry `name` of the tree `id`, on the way to `path`.
    fn find(&self, path: &str, id: ObjectId, name: &str) -> Result<Option<(Mode, ObjectId)>, ReadError> {
        let bytes = self.object(path, id, Kind::Tree, LARGEST_TREE)?;
        for entry in TreeRefIter::from_bytes(&bytes, id.kind()) {
            let entry = entry.map_err(|error| self.damaged(path, id, error.to_string()))?;
            if entry.filename == name.as_bytes() {
                return Ok(Some((Mode::of(entry.mode), entry.oid.to_owned())));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, TestFolder};
    use super::*;

    #[test]
    fn a_regular_file_is_found_beside_foreign_entries() {
        let dir = TestFolder::new();
        let repository = dir.repository("r.git");
        let path = dir.path().join("r.git");
        let blob = fixture::git_with_input(&path, &["hash-object", "-w", "--stdin"], "hello");
        let roots = fixture::git_with_input(&path, &["mktree"], &format!("100644 blob {blob}\t2.json\n"));
        let root = format!(
            "040000 tree {roots}\troots\n100755 blob {blob}\tevil.sh\n120000 blob {blob}\tlink\n\
             100644 blob {blob}\tfile\n"
        );
        let commit = fixture::commit_tree(&path, &fixture::git_with_input(&path, &["mktree"], &root));
        let files = repository.unchecked_files(commit);
        for found in ["roots/2.json", "file"] {
            assert_eq!(files.read(found, 5).unwrap().as_deref(), Some(&b"hello"[..]), "{found}");
        }
        for absent in ["roots/3.json", "none/2.json", "none", "", "roots//2.json"] {
            assert_eq!(files.read(absent, 5).unwrap(), None, "{absent}");
        }
        for other in ["roots", "evil.sh", "link", "link/2.json", "file/2.json"] {
            assert!(matches!(files.read(other, 5), Err(ReadError::Unexpected { .. })), "{other}");
        }
        assert!(matches!(files.read("file", 4), Err(ReadError::TooLarge { .. })));
    }
}
