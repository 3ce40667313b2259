//! Repositories for tests, in a temporary folder. The `git` program makes those that a test compares with git itself.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use super::address::CommitId;
use super::commit::{Change, CommitError, NewCommit};
use super::identity::Authorship;
use super::repository::Repository;
use crate::model::BranchName;

/// A temporary folder with repositories.
pub(crate) struct TestFolder(tempfile::TempDir);

impl TestFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A bare repository of that name.
    pub(crate) fn repository(&self, name: &str) -> Repository {
        Repository::open_or_create_bare(&self.path().join(name)).unwrap()
    }
}

pub(crate) fn branch() -> BranchName {
    "deployments".parse().unwrap()
}

/// Commits to the branch `deployments`.
pub(crate) fn commit(
    repository: &Repository,
    expected: Option<CommitId>,
    changes: &[Change],
) -> Result<CommitId, CommitError> {
    let by = Authorship::of("Clavel <clavel@example.org>".parse().unwrap());
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    repository.commit(&NewCommit { branch: &branch(), expected, changes, message: "a test", by: &by, at })
}

/// Commits these files, and panics if that fails.
pub(crate) fn put(repository: &Repository, expected: Option<CommitId>, files: &[(&str, &str)]) -> CommitId {
    let change =
        |(path, text): &(&str, &str)| Change::Put { path: (*path).to_owned(), bytes: text.as_bytes().to_vec() };
    commit(repository, expected, &files.iter().map(change).collect::<Vec<_>>()).unwrap()
}

/// Makes a commit of the tree `tree`, without a parent and on no branch.
pub(crate) fn commit_tree(repository: &Path, tree: &str) -> CommitId {
    git(repository, &["commit-tree", "-m", "a test", tree]).parse().unwrap()
}

/// Runs git in `folder`, and panics if that fails. Returns its standard output without the last newline.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    git_with_input(folder, arguments, "")
}

/// Runs git in `folder` with `input` as its standard input.
#[expect(clippy::disallowed_methods, reason = "a test asks git itself, and needs no deadline")]
pub(crate) fn git_with_input(folder: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = std::process::Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "T"), ("GIT_AUTHOR_EMAIL", "t@x"), ("GIT_COMMITTER_NAME", "T")])
        .env("GIT_COMMITTER_EMAIL", "t@x")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
