//! Pushes one commit to one branch of a remote. gix cannot push, so this runs the `git` program; no other file depends on
//! that.
//!
//! Unlike a fetch, a push follows the machine's git configuration: an operator gives `claveld` the right to write through
//! the credential helpers there, or a `[[credentials]]` table in its configuration.

use std::time::Duration;

use tempfile::NamedTempFile;

use super::address::{CommitId, RefName};
use super::explain::explain;
use super::git_settings::GitSettings;
use super::host_key::private_file;
use super::http_trace::HttpTrace;
use super::remote::Remote;
use super::remote_url::RemoteUrl;
use super::repository::Repository;
use crate::model::BranchName;
use crate::process::{Invocation, ProcessError};

/// What to do where git's words are not known.
const CHECK: &str = "check the URL, the network and the credentials";
/// The number of lines of git's output that an error has.
const MAX_OUTPUT_LINES: usize = 12;

/// A push that is to be made. It is never forced: the branch of the remote only moves forward.
#[derive(Debug)]
pub struct Push<'a> {
    /// The remote.
    pub remote: &'a Remote,
    /// The branch of the remote. It is created if it does not exist.
    pub branch: &'a BranchName,
    /// The commit that the branch moves to.
    pub commit: CommitId,
    /// The longest time that the push may take.
    pub within: Duration,
}

/// The reason why the branch of the remote was not moved.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Another writer moved it. The caller has to fetch it, and to commit on top of it.
    #[error("cannot push to branch `{branch}` of {remote}: another program moved it meanwhile; try again")]
    Moved {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
    },
    /// It has commits that the pushed commit does not descend from. Another writer was faster, or it has another history.
    #[error(
        "cannot push to branch `{branch}` of {remote}: it has commits that are not in the history of what is pushed"
    )]
    Diverged {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
    },
    /// The remote declined the push by a rule of its own, such as a hook or a protected branch.
    #[error("cannot push to branch `{branch}` of {remote}: the remote declined it:\n{output}")]
    Declined {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The end of git's output, without secrets.
        output: String,
    },
    /// Git failed because of the network, the credentials or the URL.
    #[error("cannot push to branch `{branch}` of {remote}: {output}\n{advice}")]
    Failed {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The end of git's output, without secrets.
        output: String,
        /// What to do.
        advice: &'static str,
        /// For how long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The remote is a bundle.
    #[error(
        "cannot write to the bundle {remote}: a bundle is only read; name the repository, and make the bundle anew with `clavel bundle create`"
    )]
    Bundle {
        /// The path of the bundle.
        remote: String,
    },
    /// The remote is a static folder.
    #[error(
        "cannot write to {remote}: a static folder is a copy of a repository; name the repository, and export it with `clavel export --static`"
    )]
    Static {
        /// The URL of the folder.
        remote: String,
    },
    /// Git could not be run, or did not finish in time.
    #[error("cannot push to branch `{branch}` of {remote}")]
    NotRun {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The error of the run.
        source: ProcessError,
    },
}

impl Push<'_> {
    /// Connects to the remote and logs in as a push does, and moves nothing: `git push --dry-run`. The remote does not run its
    /// hooks or look at its rules then.
    pub async fn rehearse(&self, repository: &Repository) -> Result<(), PushError> {
        self.run_git(repository, &["--dry-run"]).await
    }

    /// Pushes from `repository`. If the branch of the remote is at the commit already, nothing happens, and that is no error.
    pub async fn run(&self, repository: &Repository) -> Result<(), PushError> {
        self.run_git(repository, &[]).await
    }

    async fn run_git(&self, repository: &Repository, options: &[&str]) -> Result<(), PushError> {
        match self.remote {
            Remote::Bundle(_) => Err(PushError::Bundle { remote: self.remote.to_string() }),
            Remote::Static(_) => Err(PushError::Static { remote: self.remote.to_string() }),
            Remote::Url(url) => {
                // The files are there until git has ended.
                let (mut invocation, _files) =
                    self.invocation(repository, url, options).map_err(|output| PushError::Failed {
                        remote: self.remote.to_string(),
                        branch: self.branch.clone(),
                        output,
                        advice: CHECK,
                        retry_after: None,
                    })?;
                let trace = HttpTrace::of(url);
                if let Some(trace) = &trace {
                    invocation = trace.give_to(invocation);
                }
                let outcome = invocation.run().await;
                outcome.map(drop).map_err(|error| self.failed(error, trace.and_then(|trace| trace.retry_after())))
            }
        }
    }

    fn invocation(
        &self,
        repository: &Repository,
        url: &RemoteUrl,
        options: &[&str],
    ) -> Result<(Invocation, Vec<NamedTempFile>), String> {
        let target = format!("{}:{}", self.commit, RefName::of(self.branch));
        let git = Invocation::new("git")
            // Clavel may run inside a hook, whose variables name another repository.
            .outside_any_repository()
            .current_dir(repository.git_dir())
            .within(self.within)
            // No person is there to answer. Without this, git would wait for an answer at the terminal.
            .env("GIT_TERMINAL_PROMPT", "0")
            // `rejection` reads git's output, so it has to be in one language.
            .env("LC_ALL", "C")
            .env_remove("LANGUAGE")
            .arg("push")
            // A pre-push hook of the machine's template or configuration must not stop a publication.
            .arg("--no-verify")
            // Push the branch alone, without the tags that push.followTags would add.
            .arg("--no-follow-tags")
            // Keep progress bars out of the error.
            .arg("--quiet")
            .args(options.iter().copied());
        let git = match std::env::var_os("GIT_SSH_COMMAND") {
            // BatchMode, because no person is there to type a password.
            None => git.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
            Some(_) => git,
        };
        let (git, files) = with_remote(git, url)?;
        Ok((git.args(["--", "clavel", &target]), files))
    }

    /// The error for a run of git that failed.
    fn failed(&self, error: ProcessError, retry_after: Option<Duration>) -> PushError {
        let (remote, branch) = (self.remote.to_string(), self.branch.clone());
        let ProcessError::Failed { stderr, .. } = &error else {
            return PushError::NotRun { remote, branch, source: error };
        };
        let output = last_lines(stderr);
        match rejection(stderr) {
            Some(PushRejection::Moved) => PushError::Moved { remote, branch },
            Some(PushRejection::Diverged) => PushError::Diverged { remote, branch },
            Some(PushRejection::Declined) => PushError::Declined { remote, branch, output },
            None => {
                let access = self.remote.access().cloned().unwrap_or_default();
                let advice = explain(&output, &access).map_or(CHECK, |known| known.advice);
                PushError::Failed { remote, branch, output, advice, retry_after }
            }
        }
    }
}

/// The run with the remote, and with what git needs to reach it: variables, and files that have to stay as long as it runs.
fn with_remote(mut git: Invocation, url: &RemoteUrl) -> Result<(Invocation, Vec<NamedTempFile>), String> {
    let mut settings = GitSettings::to_reach(url.parsed(), url.access())?;
    settings.set("remote.clavel.url", url.to_string());
    let mut files = Vec::new();
    for (variable, text) in std::mem::take(&mut settings.files) {
        let file = private_file(&text).map_err(|error| format!("cannot write a temporary file: {error}"))?;
        git = git.env(variable, file.path());
        files.push(file);
    }
    let environment = settings.into_environment(None);
    Ok((environment.into_iter().fold(git, |git, (variable, value)| git.env(variable, value)), files))
}

/// The reason that git gives for a rejected branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PushRejection {
    /// The branch of the remote was moved while git pushed.
    Moved,
    /// The branch of the remote is at a commit that is no ancestor of the pushed one.
    Diverged,
    /// A rule of the remote forbids the push.
    Declined,
}

/// Reads git's line about the branch, like ` ! [rejected]  0123 -> deployments (fetch first)`.
fn rejection(stderr: &str) -> Option<PushRejection> {
    let line = stderr.lines().map(str::trim).find(|line| line.starts_with("! ["))?;
    // In the first case the remote's commit is not here; in the second it is here, and is not an ancestor.
    let diverged = ["(fetch first)", "(non-fast-forward)"];
    // Another writer moved the branch after the two sides had compared their commits.
    let moved =
        ["cannot lock ref", "incorrect old value provided", "(failed to update ref)", "reference already exists"];
    let is_one_of = |reasons: &[&str]| reasons.iter().any(|reason| line.contains(reason));
    Some(match line {
        _ if is_one_of(&diverged) => PushRejection::Diverged,
        _ if is_one_of(&moved) => PushRejection::Moved,
        _ => PushRejection::Declined,
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(MAX_OUTPUT_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, TestFolder};
    use super::*;

    async fn push(from: &Repository, url: &str, commit: CommitId) -> Result<(), PushError> {
        let branch = fixture::branch();
        let url = url.parse().unwrap();
        let within = Duration::from_mins(1);
        Push { remote: &url, branch: &branch, commit, within }.run(from).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_branch_is_created_and_moved_forward() {
        let dir = TestFolder::new();
        let (from, to) = (dir.repository("from.git"), dir.repository("to.git"));
        let url = dir.path().join("to.git").display().to_string();
        let first = fixture::put(&from, None, &[("a.json", "1")]);
        push(&from, &url, first).await.unwrap();
        assert_eq!(to.tip(&fixture::branch()).unwrap(), Some(first));
        push(&from, &url, first).await.unwrap();
        let second = fixture::put(&from, Some(first), &[("a.json", "2")]);
        push(&from, &format!("file://{url}"), second).await.unwrap();
        assert_eq!(to.tip(&fixture::branch()).unwrap(), Some(second));
        fixture::git(&dir.path().join("to.git"), &["fsck", "--strict"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_branch_that_another_writer_moved_is_recognised() {
        let dir = TestFolder::new();
        let (from, to) = (dir.repository("from.git"), dir.repository("to.git"));
        let url = dir.path().join("to.git").display().to_string();
        let first = fixture::put(&from, None, &[("a.json", "1")]);
        push(&from, &url, first).await.unwrap();
        let theirs = fixture::put(&to, Some(first), &[("a.json", "theirs")]);
        let ours = fixture::put(&from, Some(first), &[("a.json", "ours")]);
        let error = push(&from, &url, ours).await.unwrap_err();
        assert!(matches!(error, PushError::Diverged { .. }), "{error}");
        assert_eq!(to.tip(&fixture::branch()).unwrap(), Some(theirs));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_error_has_the_output_of_a_hook() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = TestFolder::new();
        let (from, _to) = (dir.repository("from.git"), dir.repository("to.git"));
        let hook = dir.path().join("to.git/hooks/update");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, "#!/bin/sh\necho not on a Friday >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        let commit = fixture::put(&from, None, &[("a.json", "1")]);
        let error = push(&from, &dir.path().join("to.git").display().to_string(), commit).await.unwrap_err();
        assert!(matches!(&error, PushError::Declined { output, .. } if output.contains("not on a Friday")), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn other_errors_have_the_output_of_git_without_the_secret() {
        let dir = TestFolder::new();
        let from = dir.repository("from.git");
        let commit = fixture::put(&from, None, &[("a.json", "1")]);
        let error = push(&from, "/nowhere/at-all.git", commit).await.unwrap_err();
        assert!(
            matches!(&error, PushError::Failed { output, .. } if output.contains("/nowhere/at-all.git")),
            "{error}"
        );
        let password_file = dir.path().join("token");
        std::fs::write(&password_file, "secret\n").unwrap();
        let credentials = super::super::Credentials {
            user: Some("me".to_owned()),
            secret: super::super::SecretLocation::File(password_file),
        };
        let remote = "https://127.0.0.1:1/x.git"
            .parse::<Remote>()
            .unwrap()
            .with_access(super::super::Access { credentials: Some(credentials), ..Default::default() });
        let (branch, within) = (fixture::branch(), Duration::from_mins(1));
        let push = Push { remote: &remote, branch: &branch, commit, within };
        let error = push.run(&from).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }

    #[test]
    fn the_output_of_git_is_classified() {
        let line = |reason: &str| format!("To /x\n ! [rejected]  abc -> deployments ({reason})\nerror: failed\n");
        assert_eq!(rejection(&line("fetch first")), Some(PushRejection::Diverged));
        assert_eq!(rejection(&line("non-fast-forward")), Some(PushRejection::Diverged));
        assert_eq!(
            rejection(" ! [remote rejected] a -> b (cannot lock ref 'refs/heads/b')"),
            Some(PushRejection::Moved)
        );
        assert_eq!(rejection(" ! [remote rejected] a -> b (pre-receive hook declined)"), Some(PushRejection::Declined));
        assert_eq!(rejection("fatal: could not read Username"), None);
    }
}
