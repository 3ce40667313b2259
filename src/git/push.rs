//! Pushing one commit to one branch of a remote. gix cannot push, so the `git` program does; nothing outside this file
//! knows that.
//!
//! Unlike a fetch, a push follows the machine's git configuration: its credential helpers are how an operator gives
//! `claveld` the right to write.

use std::time::Duration;

use super::address::{CommitId, RefName};
use super::remote::{Remote, RemoteUrl};
use super::repository::Repository;
use crate::model::BranchName;
use crate::process::{Invocation, ProcessError};

/// The variable through which the password reaches git.
const PASSWORD: &str = "CLAVEL_GIT_PASSWORD";
/// A credential helper for [`PASSWORD`]: git runs it with the shell and the verb `get`.
const HELPER: &str = r#"!f() { test "$1" = get && printf 'password=%s\n' "$CLAVEL_GIT_PASSWORD"; }; f"#;
/// How many lines of git's own words are shown.
const SHOWN_LINES: usize = 12;

/// A push about to be made. It is never forced: the remote's branch only moves forward.
#[derive(Debug)]
pub struct Push<'a> {
    /// The remote.
    pub remote: &'a Remote,
    /// Its branch, which comes into being if it is not there.
    pub branch: &'a BranchName,
    /// The commit that the branch is to be at.
    pub commit: CommitId,
    /// The command in place of plain `ssh`. It has to understand OpenSSH's options.
    pub ssh_command: Option<&'a str>,
    /// How long it may take.
    pub within: Duration,
}

/// Why the remote's branch was not moved.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Somebody else moved it: fetch it, and commit on top of it.
    #[error("cannot push to branch `{branch}` of {remote}: it has moved meanwhile; fetch it and decide again")]
    Moved {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
    },
    /// The remote was reached, and a rule of its own (a hook, a protected branch) declined.
    #[error("cannot push to branch `{branch}` of {remote}: the remote declined it:\n{said}")]
    Declined {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The end of what git said, without secrets.
        said: String,
    },
    /// Git failed: the network, the credentials, the URL.
    #[error("cannot push to branch `{branch}` of {remote}: {said}\ncheck the URL, the network and the credentials")]
    Failed {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The end of what git said, without secrets.
        said: String,
    },
    /// Git could not be run, or took too long.
    #[error("cannot push to branch `{branch}` of {remote}: {source}")]
    NotRun {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What happened.
        source: ProcessError,
    },
}

impl Push<'_> {
    /// Pushes from `repository`. A remote whose branch is at the commit already is content.
    pub async fn run(&self, repository: &Repository) -> Result<(), PushError> {
        match self.remote {
            Remote::Url(url) => {
                let outcome = self.invocation(repository, url).run().await;
                outcome.map(drop).map_err(|error| self.explained(url, error))
            }
        }
    }

    fn invocation(&self, repository: &Repository, url: &RemoteUrl) -> Invocation {
        let target = format!("{}:{}", self.commit, RefName::of(self.branch));
        let git = Invocation::new("git")
            // We may run inside a hook, whose variables name another repository.
            .outside_any_repository()
            .current_dir(repository.git_dir())
            .within(self.within)
            // There is nobody to ask; without this git waits for an answer.
            .env("GIT_TERMINAL_PROMPT", "0")
            // What git says is read below.
            .env("LC_ALL", "C")
            .env_remove("LANGUAGE")
            .arg("push")
            // No pre-push hook of the machine's template or configuration has a say in a publication.
            .arg("--no-verify")
            // One branch: not the tags that push.followTags would add.
            .arg("--no-follow-tags")
            // No progress bars in the error.
            .arg("--quiet");
        let git = match self.ssh_command {
            Some(command) => git.env("GIT_SSH_COMMAND", command),
            // BatchMode: nobody is there to type a password.
            None if std::env::var_os("GIT_SSH_COMMAND").is_none() => git.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
            None => git,
        };
        with_remote(git, url).args(["--", "clavel", &target])
    }

    fn explained(&self, url: &RemoteUrl, error: ProcessError) -> PushError {
        let (remote, branch) = (self.remote.to_string(), self.branch.clone());
        let ProcessError::Failed { stderr, .. } = &error else {
            return PushError::NotRun { remote, branch, source: error };
        };
        let said = url.redact(&last_lines(stderr));
        match refusal(stderr) {
            Some(Refusal::Moved) => PushError::Moved { remote, branch },
            Some(Refusal::Declined) => PushError::Declined { remote, branch, said },
            None => PushError::Failed { remote, branch, said },
        }
    }
}

/// Names the remote through the environment: arguments can be read by every user of the machine, and are logged.
fn with_remote(git: Invocation, url: &RemoteUrl) -> Invocation {
    let mut settings = Vec::new();
    match url.parsed().password() {
        Some(_) => {
            let mut bare = url.parsed().clone();
            bare.set_password(None);
            settings.push(("remote.clavel.url", bare.to_bstring().to_string()));
            // The empty value forgets the machine's helpers, which would be asked first, and told the password.
            settings.push(("credential.helper", String::new()));
            settings.push(("credential.helper", HELPER.to_owned()));
        }
        None => settings.push(("remote.clavel.url", url.reveal().to_owned())),
    }
    let git = git.env("GIT_CONFIG_COUNT", settings.len().to_string());
    let git = settings.into_iter().enumerate().fold(git, |git, (number, (key, value))| {
        git.env(format!("GIT_CONFIG_KEY_{number}"), key).env(format!("GIT_CONFIG_VALUE_{number}"), value)
    });
    match url.parsed().password() {
        Some(password) => git.env(PASSWORD, password),
        None => git,
    }
}

/// Why the remote's branch stayed where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Moved,
    Declined,
}

/// Reads git's line about the branch, like ` ! [rejected]  0123 -> deployments (fetch first)`.
fn refusal(stderr: &str) -> Option<Refusal> {
    let line = stderr.lines().map(str::trim).find(|line| line.starts_with("! ["))?;
    let moved = [
        // The remote's commit is not here; the remote's commit is here, and is not an ancestor.
        "(fetch first)",
        "(non-fast-forward)",
        // Somebody was faster by a moment, after the two sides had compared.
        "cannot lock ref",
        "incorrect old value provided",
        "(failed to update ref)",
        "reference already exists",
    ];
    Some(if moved.iter().any(|reason| line.contains(reason)) { Refusal::Moved } else { Refusal::Declined })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Bench};
    use super::*;

    async fn push(from: &Repository, url: &str, commit: CommitId) -> Result<(), PushError> {
        let branch = fixture::branch();
        let url = url.parse().unwrap();
        let within = Duration::from_mins(1);
        Push { remote: &url, branch: &branch, commit, ssh_command: None, within }.run(from).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_branch_is_made_and_moved_forward() {
        let bench = Bench::new();
        let (from, to) = (bench.repository("from.git"), bench.repository("to.git"));
        let url = bench.path().join("to.git").display().to_string();
        let first = fixture::put(&from, None, &[("a.json", "1")]);
        push(&from, &url, first).await.unwrap();
        assert_eq!(to.tip(&fixture::branch()).unwrap(), Some(first));
        push(&from, &url, first).await.unwrap();
        let second = fixture::put(&from, Some(first), &[("a.json", "2")]);
        push(&from, &format!("file://{url}"), second).await.unwrap();
        assert_eq!(to.tip(&fixture::branch()).unwrap(), Some(second));
        fixture::git(&bench.path().join("to.git"), &["fsck", "--strict"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_branch_that_moved_is_told_apart() {
        let bench = Bench::new();
        let (from, to) = (bench.repository("from.git"), bench.repository("to.git"));
        let url = bench.path().join("to.git").display().to_string();
        let first = fixture::put(&from, None, &[("a.json", "1")]);
        push(&from, &url, first).await.unwrap();
        let theirs = fixture::put(&to, Some(first), &[("a.json", "theirs")]);
        let ours = fixture::put(&from, Some(first), &[("a.json", "ours")]);
        let error = push(&from, &url, ours).await.unwrap_err();
        assert!(matches!(error, PushError::Moved { .. }), "{error}");
        assert_eq!(to.tip(&fixture::branch()).unwrap(), Some(theirs));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_hook_says_is_shown() {
        use std::os::unix::fs::PermissionsExt as _;
        let bench = Bench::new();
        let (from, _to) = (bench.repository("from.git"), bench.repository("to.git"));
        let hook = bench.path().join("to.git/hooks/update");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, "#!/bin/sh\necho not on a Friday >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        let commit = fixture::put(&from, None, &[("a.json", "1")]);
        let error = push(&from, &bench.path().join("to.git").display().to_string(), commit).await.unwrap_err();
        assert!(matches!(&error, PushError::Declined { said, .. } if said.contains("not on a Friday")), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn other_failures_show_what_git_said_without_the_secret() {
        let bench = Bench::new();
        let from = bench.repository("from.git");
        let commit = fixture::put(&from, None, &[("a.json", "1")]);
        let error = push(&from, "/nowhere/at-all.git", commit).await.unwrap_err();
        assert!(matches!(&error, PushError::Failed { said, .. } if said.contains("/nowhere/at-all.git")), "{error}");
        let error = push(&from, "https://me:secret@127.0.0.1:1/x.git", commit).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }

    #[test]
    fn gits_words_are_understood() {
        let line = |reason: &str| format!("To /x\n ! [rejected]  abc -> deployments ({reason})\nerror: failed\n");
        assert_eq!(refusal(&line("fetch first")), Some(Refusal::Moved));
        assert_eq!(refusal(&line("non-fast-forward")), Some(Refusal::Moved));
        assert_eq!(refusal(" ! [remote rejected] a -> b (cannot lock ref 'refs/heads/b')"), Some(Refusal::Moved));
        assert_eq!(refusal(" ! [remote rejected] a -> b (pre-receive hook declined)"), Some(Refusal::Declined));
        assert_eq!(refusal("fatal: could not read Username"), None);
    }
}
