//! Reads the files of a commit from the object database. Nothing is checked out, so git follows no link and runs no filter,
//! and no path of the branch becomes a path of this machine.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use gix::bstr::ByteSlice as _;
use gix::objs::Kind;

use super::address::CommitId;
use super::folder::TreeFolder;
use super::objects::{Mode, ObjectId, ObjectReader, ReadError};
use super::repository::Repository;

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Its name. Bytes that are not UTF-8 are replaced by U+FFFD, so that the name equals no name that Clavel gives.
    pub name: String,
    /// Its kind.
    pub mode: Mode,
}

/// The files of one commit. It belongs to one thread.
#[derive(Debug)]
pub struct Snapshot {
    repository: gix::Repository,
    commit: CommitId,
    root: Rc<TreeFolder>,
    /// The folders that were parsed already. A branch has many documents in few folders, and each folder is parsed once.
    folders: RefCell<HashMap<ObjectId, Rc<TreeFolder>>>,
}

impl Repository {
    /// The files of `commit`.
    pub fn snapshot(&self, commit: CommitId) -> Result<Snapshot, ReadError> {
        Snapshot::of(self.local(), commit)
    }
}

impl Snapshot {
    /// The files of `commit`, which `repository` has, be it in memory.
    pub(super) fn of(repository: gix::Repository, commit: CommitId) -> Result<Self, ReadError> {
        let reader = ObjectReader { repository: &repository, commit };
        let root = Rc::new(reader.folder("/", reader.root()?)?);
        Ok(Self { repository, commit, root, folders: RefCell::default() })
    }

    /// The handle that it reads with.
    pub(super) fn into_repository(self) -> gix::Repository {
        self.repository
    }

    /// The commit whose files these are.
    pub fn commit(&self) -> CommitId {
        self.commit
    }

    /// The parents of the commit: none for the first commit of a branch, otherwise one, or several for a merge.
    pub fn parents(&self) -> Result<Vec<CommitId>, ReadError> {
        Ok(self.reader().parents()?.into_iter().map(CommitId::from).collect())
    }

    /// The time at which the commit was made, as it says. A time before 1970 is 1970.
    pub fn time(&self) -> Result<SystemTime, ReadError> {
        let seconds = u64::try_from(self.reader().seconds()?).unwrap_or_default();
        Ok(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// The bytes of the regular file at `path`; `None` if the path does not exist. An entry of another kind at the path is an
    /// error, and so is a file of more than `limit` bytes, which is not inflated.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let id = self.file_id(path)?;
        id.map(|id| self.reader().object(path, id, Kind::Blob, limit)).transpose()
    }

    /// The object of the regular file at `path`; `None` if the path does not exist.
    pub(super) fn file_id(&self, path: &str) -> Result<Option<ObjectId>, ReadError> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(folder) = self.folder(folder)? else { return Ok(None) };
        match folder.get(name).map(|entry| (Mode::of(entry.mode), entry.oid)) {
            None => Ok(None),
            Some((Mode::File, id)) => Ok(Some(id.to_owned())),
            Some((found, _)) => Err(self.unexpected(path, found, "a regular file")),
        }
    }

    /// The entries of the folder `path`, of which there may be `most`. The root is the empty string. A folder that does not
    /// exist has no entries, because git has no empty folders.
    pub fn list(&self, path: &str, most: usize) -> Result<Vec<TreeEntry>, ReadError> {
        let Some(folder) = self.folder(path)? else { return Ok(Vec::new()) };
        if folder.len() > most {
            let path = if path.is_empty() { "/" } else { path }.to_owned();
            return Err(ReadError::TooMany { path, commit: self.commit, count: folder.len(), limit: most });
        }
        Ok(folder
            .entries()
            .map(|entry| TreeEntry { name: entry.filename.to_str_lossy().into_owned(), mode: Mode::of(entry.mode) })
            .collect())
    }

    /// The objects of the entries of the folder `path`, by name. A folder that does not exist has no entries.
    pub fn entries(&self, path: &str) -> Result<BTreeMap<String, ObjectId>, ReadError> {
        let Some(folder) = self.folder(path)? else { return Ok(BTreeMap::new()) };
        Ok(folder.entries().map(|entry| (entry.filename.to_str_lossy().into_owned(), entry.oid.to_owned())).collect())
    }

    /// The folder at `path` as git writes it; `None` if the path does not exist. An entry of another kind at the path is an error,
    /// and so is a folder of more than `limit` bytes, which is not inflated.
    pub fn tree(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        if path.is_empty() {
            return self.reader().object("/", self.reader().root()?, Kind::Tree, limit).map(Some);
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(folder) = self.folder(folder)? else { return Ok(None) };
        match folder.get(name).map(|entry| (Mode::of(entry.mode), entry.oid)) {
            None => Ok(None),
            Some((Mode::Folder, id)) => self.reader().object(path, id.to_owned(), Kind::Tree, limit).map(Some),
            Some((found, _)) => Err(self.unexpected(path, found, "a folder")),
        }
    }

    fn reader(&self) -> ObjectReader<'_> {
        ObjectReader { repository: &self.repository, commit: self.commit }
    }

    fn folder(&self, path: &str) -> Result<Option<Rc<TreeFolder>>, ReadError> {
        let mut folder = Rc::clone(&self.root);
        if path.is_empty() {
            return Ok(Some(folder));
        }
        for (end, name) in components(path) {
            let here = &path[..end];
            folder = match folder.get(name).map(|entry| (Mode::of(entry.mode), entry.oid)) {
                None => return Ok(None),
                Some((Mode::Folder, id)) => self.parsed(here, id.to_owned())?,
                Some((found, _)) => return Err(self.unexpected(here, found, "a folder")),
            };
        }
        Ok(Some(folder))
    }

    fn parsed(&self, path: &str, id: ObjectId) -> Result<Rc<TreeFolder>, ReadError> {
        if let Some(folder) = self.folders.borrow().get(&id) {
            return Ok(Rc::clone(folder));
        }
        let folder = Rc::new(self.reader().folder(path, id)?);
        self.folders.borrow_mut().insert(id, Rc::clone(&folder));
        Ok(folder)
    }

    fn unexpected(&self, path: &str, found: Mode, wanted: &'static str) -> ReadError {
        ReadError::Unexpected { path: path.to_owned(), commit: self.commit, found, wanted }
    }
}

/// The parts of a path, each with the position of its end.
fn components(path: &str) -> impl Iterator<Item = (usize, &str)> {
    path.split('/').scan(0, |start, name| {
        let end = *start + name.len();
        *start = end + 1;
        Some((end, name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, TestFolder};
    use super::*;

    const NO_LIMIT: u64 = 1 << 20;

    /// A commit whose root has one entry of each kind, made by git itself.
    fn commit_of_every_kind(dir: &TestFolder) -> (Repository, CommitId) {
        let repository = dir.repository("r.git");
        let path = dir.path().join("r.git");
        let blob = fixture::git_with_input(&path, &["hash-object", "-w", "--stdin"], "hello");
        let sub = fixture::git_with_input(&path, &["mktree"], &format!("100644 blob {blob}\ta.json\n"));
        let commit = "0123456789012345678901234567890123456789";
        let root = format!(
            "100644 blob {blob}\tfile.json\n100755 blob {blob}\texec.json\n120000 blob {blob}\tlink.json\n\
             160000 commit {commit}\tsub.json\n040000 tree {sub}\tdir\n120000 blob {blob}\tlinkdir\n"
        );
        (repository, fixture::commit_tree(&path, &fixture::git_with_input(&path, &["mktree"], &root)))
    }

    #[test]
    fn only_regular_files_are_read() {
        let dir = TestFolder::new();
        let (repository, commit) = commit_of_every_kind(&dir);
        let snapshot = repository.snapshot(commit).unwrap();
        assert_eq!(snapshot.commit(), commit);
        for path in ["file.json", "dir/a.json"] {
            assert_eq!(snapshot.read(path, NO_LIMIT).unwrap().as_deref(), Some(&b"hello"[..]), "{path}");
        }
        for path in ["none.json", "none/a.json", "dir/none.json", "FILE.json", "dir//a.json", ""] {
            assert_eq!(snapshot.read(path, NO_LIMIT).unwrap(), None, "{path}");
        }
        for (path, mode, named) in [
            ("exec.json", Mode::Executable, "exec.json"),
            ("link.json", Mode::Symlink, "link.json"),
            ("sub.json", Mode::Submodule, "sub.json"),
            ("dir", Mode::Folder, "dir"),
            ("linkdir/a.json", Mode::Symlink, "linkdir"),
            ("file.json/a.json", Mode::File, "file.json"),
        ] {
            let error = snapshot.read(path, NO_LIMIT).unwrap_err();
            let as_expected =
                matches!(&error, ReadError::Unexpected { path, found, .. } if path == named && *found == mode);
            assert!(as_expected, "{error}");
        }
    }

    #[test]
    fn a_folder_is_listed_with_modes_and_within_a_limit() {
        let dir = TestFolder::new();
        let (repository, commit) = commit_of_every_kind(&dir);
        let snapshot = repository.snapshot(commit).unwrap();
        let entries = snapshot.list("", 6).unwrap();
        assert_eq!(entries.len(), 6);
        assert!(entries.contains(&TreeEntry { name: "link.json".to_owned(), mode: Mode::Symlink }));
        assert_eq!(snapshot.list("dir", 1).unwrap(), [TreeEntry { name: "a.json".to_owned(), mode: Mode::File }]);
        assert_eq!(snapshot.list("none", 1).unwrap(), []);
        assert!(matches!(snapshot.list("", 5), Err(ReadError::TooMany { count: 6, limit: 5, .. })));
        assert!(matches!(snapshot.list("file.json", 5), Err(ReadError::Unexpected { .. })));
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = TestFolder::new();
        let (repository, commit) = commit_of_every_kind(&dir);
        let snapshot = repository.snapshot(commit).unwrap();
        assert!(snapshot.read("file.json", 5).is_ok());
        assert!(matches!(snapshot.read("file.json", 4), Err(ReadError::TooLarge { size: 5, limit: 4, .. })));
    }

    #[test]
    fn an_error_names_the_missing_object() {
        let dir = TestFolder::new();
        let repository = dir.repository("r.git");
        let commit = fixture::put(&repository, None, &[("a.json", "x"), ("d/b.json", "y")]);
        let blob = fixture::git(&dir.path().join("r.git"), &["rev-parse", "deployments:a.json"]);
        std::fs::remove_file(dir.path().join("r.git/objects").join(&blob[..2]).join(&blob[2..])).unwrap();
        let snapshot = Repository::open(&dir.path().join("r.git")).unwrap().snapshot(commit).unwrap();
        let error = snapshot.read("a.json", NO_LIMIT).unwrap_err();
        assert!(matches!(&error, ReadError::Missing { object, .. } if *object == blob), "{error}");
        assert!(snapshot.read("d/b.json", NO_LIMIT).unwrap().is_some());
        let nowhere = "0123456789012345678901234567890123456789".parse().unwrap();
        assert!(matches!(repository.snapshot(nowhere), Err(ReadError::Missing { .. })));
    }
}
