//! One repository on disk: opening or creating it, and reading its refs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gix::create::Kind;

use super::address::{CommitId, RefName};
use crate::model::BranchName;

/// The number of packs after which a cache is better discarded: every fetch adds one, and a lookup searches all of them.
const MANY_PACKS: usize = 24;
/// The largest object that is ever inflated: 64 MiB, a hundred times the largest document. Without a limit, a hostile pack of
/// less than a megabyte can inflate into any amount of memory.
pub(super) const MAX_OBJECT_BYTES: u64 = 64 << 20;

/// An operation of git on a repository that failed, in one line.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act}: {why}")]
pub struct GitError {
    /// The operation and its object, such as `read the ref refs/heads/x of /srv/x.git`.
    pub act: String,
    /// The error of git or of the system.
    pub why: String,
}

impl GitError {
    pub(super) fn new(act: impl Into<String>, why: &gix::Error) -> Self {
        Self { act: act.into(), why: in_one_line(why) }
    }

    pub(super) fn io(act: impl Into<String>, why: &io::Error) -> Self {
        Self { act: act.into(), why: why.to_string() }
    }
}

/// An error of gix with all of its causes. gix itself displays only the outermost, which seldom names the reason.
pub(super) fn in_one_line(error: &gix::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.iter_errors() {
        let cause = cause.to_string();
        if !parts.iter().any(|part| part.contains(&cause)) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}

/// The reason why a repository cannot be opened or created.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path has no git repository.
    #[error("cannot open the git repository {}: {why}; create it with `git init --bare`, or correct the path", path.display())]
    NotARepository {
        /// The path.
        path: PathBuf,
        /// The error of git.
        why: String,
    },
    /// Its refs are stored in a format that Clavel cannot read.
    #[error(
        "cannot use the git repository {}: it uses reftable, which is not supported; \
         convert it with `git refs migrate --ref-format=files`",
        path.display()
    )]
    Reftable {
        /// The path of the repository.
        path: PathBuf,
    },
    /// Its objects are named by SHA-256.
    #[error(
        "cannot use the git repository {}: its objects are named by SHA-256, which is not supported; make one with \
         `git init --bare --object-format=sha1`",
        path.display()
    )]
    Sha256 {
        /// The path of the repository.
        path: PathBuf,
    },
    /// It could not be created.
    #[error("cannot create a bare git repository at {}: {why}", path.display())]
    NotCreated {
        /// The path of the repository.
        path: PathBuf,
        /// The error of git or of the system.
        why: String,
    },
    /// A cache could not be discarded.
    #[error("cannot discard the cache {} to fetch it anew: {why}; move that folder away", path.display())]
    NotRemoved {
        /// The path of the cache.
        path: PathBuf,
        /// The error of the system.
        why: String,
    },
}

/// A git repository on this machine. Clavel checks nothing out of it, and reads no git configuration of the machine.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: gix::ThreadSafeRepository,
    path: PathBuf,
}

impl Repository {
    /// Opens the repository at `path`: a bare one, a work tree, or the `.git` of a work tree.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let inner =
            gix::ThreadSafeRepository::open_opts(path, options()).map_err(|error| match in_one_line(&error) {
                why if why.contains("sha256") => OpenError::Sha256 { path: path.to_owned() },
                why => OpenError::NotARepository { path: path.to_owned(), why },
            })?;
        let repository = Self { inner, path: path.to_owned() };
        // gix would report every ref as missing.
        let local = repository.local();
        let format = local.config_snapshot().string("extensions.refStorage");
        if format.is_some_and(|format| format != "files") || local.common_dir().join("reftable").exists() {
            return Err(OpenError::Reftable { path: path.to_owned() });
        }
        Ok(repository)
    }

    /// Opens the repository at `path`. If the path does not exist or is an empty folder, a bare repository is created first.
    pub fn open_or_create_bare(path: &Path) -> Result<Self, OpenError> {
        let not_created = |why: String| OpenError::NotCreated { path: path.to_owned(), why };
        let empty = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(not_created(error.to_string())),
        };
        if empty {
            fs::create_dir_all(path).map_err(|error| not_created(error.to_string()))?;
            gix::ThreadSafeRepository::init_opts(path, Kind::Bare, gix::create::Options::default(), options())
                .map_err(|error| not_created(in_one_line(&error)))?;
        }
        Self::open(path)
    }

    /// The folder with the refs and objects.
    pub fn git_dir(&self) -> PathBuf {
        self.local().common_dir().to_owned()
    }

    /// The commit that `branch` points to; `None` if the branch does not exist.
    pub fn tip(&self, branch: &BranchName) -> Result<Option<CommitId>, GitError> {
        self.tip_of_ref(&RefName::of(branch))
    }

    /// The commit that the ref `name` points to; `None` if the ref does not exist.
    pub fn tip_of_ref(&self, name: &RefName) -> Result<Option<CommitId>, GitError> {
        let act = || format!("read the ref `{name}` of {}", self.path.display());
        let local = self.local();
        let found = local.try_find_reference(name.as_str()).map_err(|error| GitError::new(act(), &error))?;
        let Some(reference) = found else { return Ok(None) };
        match reference.target().try_id() {
            Some(id) => Ok(Some(id.to_owned().into())),
            // A commit to a symbolic ref would move another branch than the one that was named.
            None => Err(GitError { act: act(), why: "it is a symbolic ref; name the branch it points to".to_owned() }),
        }
    }

    /// The number of packs.
    pub fn pack_count(&self) -> Result<usize, GitError> {
        let packs = self.git_dir().join("objects/pack");
        let act = || format!("count the packs in {}", packs.display());
        let entries = fs::read_dir(&packs).map_err(|error| GitError::io(act(), &error))?;
        Ok(entries.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|e| e == "pack")).count())
    }

    /// Whether a cache has so many packs that it is better discarded, with [`Repository::start_afresh`].
    pub fn has_many_packs(&self) -> Result<bool, GitError> {
        Ok(self.pack_count()? > MANY_PACKS)
    }

    /// Deletes the bare repository at `path`, however damaged it is, and creates an empty one in its place. This is only for a
    /// cache, because the next fetch brings everything back: for that of an agent, and never for the repository that `claveld`
    /// publishes from.
    pub fn start_afresh(path: &Path) -> Result<Self, OpenError> {
        let not_removed = |why: String| OpenError::NotRemoved { path: path.to_owned(), why };
        if path.join(".git").exists() {
            return Err(not_removed("it is a work tree, and a cache is a bare repository".to_owned()));
        }
        let mut aside = path.to_owned().into_os_string();
        aside.push(".discarded");
        let aside = PathBuf::from(aside);
        // It is renamed first, so that a power cut never leaves half a repository at the path that will be opened.
        remove_if_present(&aside).map_err(|error| not_removed(error.to_string()))?;
        fs::rename(path, &aside).map_err(|error| not_removed(error.to_string()))?;
        let fresh = Self::open_or_create_bare(path)?;
        remove_if_present(&aside).map_err(|error| not_removed(error.to_string()))?;
        Ok(fresh)
    }

    /// The path at which it was opened, for errors.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle that shares no cached object with any other handle, for a fetch whose packs may be deleted again.
    pub(super) fn separate_handle(&self) -> Result<gix::Repository, GitError> {
        let opened = gix::ThreadSafeRepository::open_opts(&self.path, options());
        let act = || format!("open the git repository {}", self.path.display());
        Ok(opened.map_err(|error| GitError::new(act(), &error))?.to_thread_local())
    }

    /// A handle for this thread.
    pub(super) fn local(&self) -> gix::Repository {
        self.inner.to_thread_local()
    }
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How every repository is opened.
fn options() -> gix::open::Options {
    let mut permissions = gix::open::Permissions::isolated();
    // The environment of a machine behind a proxy names the proxy. This allows `http_proxy` and the variables like it alone.
    permissions.env.http_transport = gix::sec::Permission::Allow;
    let overrides = vec![
        // A published branch needs no reflog, and an error while writing one must not fail a publication.
        "core.logAllRefUpdates=false".to_owned(),
        // An object is the one that its id names, whatever refs/replace has.
        "core.useReplaceRefs=false".to_owned(),
        // Two writers wait for each other for two seconds. The compare-and-swap of the ref then decides which was first.
        "core.filesRefLockTimeout=2000".to_owned(),
        "core.packedRefsTimeout=2000".to_owned(),
        format!("gitoxide.objects.allocLimit={MAX_OBJECT_BYTES}"),
        // Only version 2 lists one branch without listing all of them.
        "protocol.version=2".to_owned(),
        // The connection to a server that does not answer, or sends too slowly, is ended.
        "gitoxide.http.connectTimeout=30000".to_owned(),
        "http.lowSpeedLimit=100".to_owned(),
        "http.lowSpeedTime=60".to_owned(),
    ];
    gix::open::Options::isolated().permissions(permissions).config_overrides(overrides)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, TestFolder};
    use super::*;

    #[test]
    fn a_created_repository_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.git");
        let first = Repository::open_or_create_bare(&path).unwrap();
        assert_eq!(first.tip(&fixture::branch()).unwrap(), None);
        Repository::open_or_create_bare(&path).unwrap();
        assert!(matches!(Repository::open(&dir.path().join("a")), Err(OpenError::NotARepository { .. })));
        fs::write(dir.path().join("a/file"), "x").unwrap();
        assert!(Repository::open_or_create_bare(&dir.path().join("a")).is_err());
    }

    #[test]
    fn a_work_tree_is_opened_and_never_discarded() {
        let dir = TestFolder::new();
        fixture::git(dir.path(), &["init", "-q", "tree"]);
        let tree = dir.path().join("tree");
        assert_eq!(Repository::open(&tree).unwrap().git_dir(), tree.join(".git"));
        assert!(matches!(Repository::start_afresh(&tree), Err(OpenError::NotRemoved { .. })));
        assert!(tree.join(".git").is_dir());
    }

    #[test]
    fn reftable_is_refused() {
        let dir = TestFolder::new();
        fixture::git(dir.path(), &["init", "-q", "--bare", "--ref-format=reftable", "r.git"]);
        let error = Repository::open(&dir.path().join("r.git")).unwrap_err();
        assert!(matches!(error, OpenError::Reftable { .. }), "{error}");
        assert!(error.to_string().contains("uses reftable, which is not supported"));
    }

    #[test]
    fn a_symbolic_branch_is_refused() {
        let dir = TestFolder::new();
        let repository = dir.repository("r.git");
        fixture::git(&dir.path().join("r.git"), &["symbolic-ref", "refs/heads/deployments", "refs/heads/other"]);
        let error = repository.tip(&fixture::branch()).unwrap_err();
        assert!(error.to_string().contains("symbolic"), "{error}");
    }

    #[test]
    fn starting_afresh_leaves_an_empty_repository() {
        let dir = TestFolder::new();
        let repository = dir.repository("r.git");
        fixture::put(&repository, None, &[("a.json", "1")]);
        let fresh = Repository::start_afresh(&dir.path().join("r.git")).unwrap();
        assert_eq!(fresh.tip(&fixture::branch()).unwrap(), None);
        assert_eq!(fresh.pack_count().unwrap(), 0);
        assert!(!fresh.has_many_packs().unwrap());
        assert!(!dir.path().join("r.git.discarded").exists());
    }
}
