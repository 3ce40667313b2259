//! A temporary repository with the commits of a push that git has not accepted yet.
//!
//! While a `pre-receive` hook runs, git keeps the new objects in a quarantine that other programs do not read. A preview is a
//! repository of its own, in a temporary folder. It has no objects itself, and borrows those of the quarantine and of the
//! repository. Its readers see exactly the pushed commits, and nothing has to be checked out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::repository::{OpenError, Repository};
use crate::model::SourceRevision;

/// The reason why the commits of a push cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The repository that receives the push cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A path has a line break. Git's list of the folders with borrowed objects has one path on each line.
    #[error(
        "cannot read the pushed commits: the path {path:?} has a line break, and git cannot borrow objects from there; \
         move the repository to another path"
    )]
    LineBreak {
        /// The path.
        path: PathBuf,
    },
    /// The temporary repository cannot be created.
    #[error("cannot read the pushed commits: cannot create a temporary repository")]
    NotCreated {
        /// The error of the system.
        #[from]
        source: io::Error,
    },
}

/// A temporary repository with the objects of another one, including those in quarantine. It is deleted when this value is
/// dropped.
#[derive(Debug)]
pub struct Preview {
    folder: tempfile::TempDir,
}

impl Preview {
    /// Creates a preview of the repository at `git_dir` with the objects in `quarantine`, and one branch for each revision.
    pub fn new(git_dir: &Path, quarantine: Option<&Path>, revisions: &[&SourceRevision]) -> Result<Self, PreviewError> {
        let shared = Repository::open(git_dir)?.git_dir().canonicalize()?;
        let quarantine = quarantine.map(Path::canonicalize).transpose()?;
        let alternates = alternates(quarantine.into_iter().chain([shared.join("objects")]))?;
        let preview = Self { folder: tempfile::Builder::new().prefix("clavel-preview-").tempdir()? };
        // It is not a bare repository, because Nix would first copy that into its own cache, by the path of this folder.
        let git_dir = preview.path().join(".git");
        fs::create_dir_all(git_dir.join("objects/info"))?;
        fs::create_dir_all(git_dir.join("refs/heads"))?;
        fs::write(git_dir.join("objects/info/alternates"), alternates)?;
        fs::write(git_dir.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = false\n")?;
        fs::write(git_dir.join("HEAD"), "ref: refs/heads/preview-0\n")?;
        // Older versions of Nix clone it for submodules, and a clone has only the commits that refs lead to.
        for (at, revision) in revisions.iter().enumerate() {
            fs::write(git_dir.join(format!("refs/heads/preview-{at}")), format!("{revision}\n"))?;
        }
        // If the repository is shallow, the preview has to be shallow too.
        match fs::copy(shared.join("shallow"), git_dir.join("shallow")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(preview),
        }
    }

    /// The path of its work tree, which has no files.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The file that lists the folders from which objects are borrowed (gitrepository-layout(5), "objects/info/alternates").
fn alternates(folders: impl Iterator<Item = PathBuf>) -> Result<Vec<u8>, PreviewError> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut file = Vec::new();
    for path in folders {
        if path.as_os_str().as_bytes().contains(&b'\n') {
            return Err(PreviewError::LineBreak { path });
        }
        file.extend_from_slice(path.as_os_str().as_bytes());
        file.push(b'\n');
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, TestFolder};
    use super::*;

    #[test]
    fn pushed_and_older_commits_are_read() {
        let dir = TestFolder::new();
        let repository = dir.repository("there.git");
        let before = fixture::put(&repository, None, &[("a.json", "1")]);
        // The objects of a push, in the folder where git keeps them while the hook runs. No repository has that folder.
        fixture::git(dir.path(), &["clone", "-q", "--shared", "-b", "deployments", "there.git", "pusher"]);
        let pusher = dir.path().join("pusher");
        fs::write(pusher.join("b.json"), "2").unwrap();
        fixture::git(&pusher, &["add", "-A"]);
        fixture::git(&pusher, &["commit", "-qm", "more"]);
        let after: SourceRevision = fixture::git(&pusher, &["rev-parse", "HEAD"]).parse().unwrap();
        let before: SourceRevision = before.to_string().parse().unwrap();
        let quarantine = dir.path().join("quarantine");
        fs::rename(pusher.join(".git/objects"), &quarantine).unwrap();
        fs::remove_file(quarantine.join("info/alternates")).unwrap();

        let there = dir.path().join("there.git");
        let preview = Preview::new(&there, Some(&quarantine), &[&after, &before]).unwrap();
        let files = |revision: &SourceRevision| {
            fixture::git(preview.path(), &["ls-tree", "--name-only", "-r", revision.as_str()])
        };
        assert_eq!(files(&after), "a.json\nb.json");
        assert_eq!(files(&before), "a.json");
        assert_eq!(fixture::git(preview.path(), &["rev-list", "--count", "--all"]), "2");
        assert_eq!(fs::read_dir(preview.path().join(".git/objects")).unwrap().count(), 1, "nothing was copied");
        let path = preview.path().to_owned();
        drop(preview);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_with_a_line_break_is_refused() {
        let dir = TestFolder::new();
        let odd = dir.path().join("odd\nfolder.git");
        Repository::open_or_create_bare(&odd).unwrap();
        let error = Preview::new(&odd, None, &[]).unwrap_err();
        assert!(matches!(error, PreviewError::LineBreak { .. }), "{error}");
    }
}
