//! Asks a git repository on another machine which revision a source has now.
//!
//! Nix itself goes on with its last copy where the server does not answer, and says so in a warning only: the source would look
//! unchanged for ever. With the revision in hand it fetches that one, or fails.

use std::time::Duration;

use super::{Nix, NixError};
use crate::model::{FlakeReference, SourceRevision};
use crate::process::Invocation;

/// The longest time that a server may take to list one ref.
const MAX_TIME: Duration = Duration::from_mins(1);

/// What Nix says where it goes on with a copy that may be old: of a repository, and of an archive or a forge's answer.
const STALE_WORDS: [&str; 2] = ["continuing with the most recent version", "using cached version"];

/// What a server said about a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceAnswer {
    /// Its repository answers, and its branch is at this revision, where it names one.
    Answers(Option<SourceRevision>),
    /// Only an evaluation reads a source of this kind.
    NotAsked,
}

impl Nix {
    /// Asks the repository of a source, with its credentials. Nothing is fetched.
    pub async fn ask_source(&self, flake: &FlakeReference) -> Result<SourceAnswer, NixError> {
        let local = flake.local_repository().and_then(|path| path.into_os_string().into_string().ok());
        match flake.remote_repository().or(local) {
            Some(url) => self.revision_at(flake, url).await.map(SourceAnswer::Answers),
            None => Ok(SourceAnswer::NotAsked),
        }
    }

    /// The revision that `flake` has now, where it is a git repository on another machine and names a branch. None for every other
    /// source, for which Nix has to find it out.
    pub(super) async fn newest_revision(&self, flake: &FlakeReference) -> Result<Option<SourceRevision>, NixError> {
        match flake.remote_repository().filter(|_| !flake.has_revision()) {
            Some(url) => self.revision_at(flake, url).await,
            None => Ok(None),
        }
    }

    /// The revision of the branch of `flake` in its repository; none where it names no branch.
    async fn revision_at(&self, flake: &FlakeReference, url: String) -> Result<Option<SourceRevision>, NixError> {
        let action = || format!("read the source {flake}");
        let branch = flake.branch();
        let name = branch.as_deref().map_or_else(|| "HEAD".to_owned(), full_name);
        let run = Invocation::new("git")
            .args(["ls-remote", "--", &url, &name])
            // Clavel may run inside a hook, whose variables name another repository.
            .outside_any_repository()
            // Nobody is there to answer.
            .env("GIT_TERMINAL_PROMPT", "0")
            .within(self.deadline.min(MAX_TIME));
        let access = self.keys.of(&url.as_str().into()).map_err(|why| NixError::NoAccess { action: action(), why })?;
        let given = access.give_to_git(run).map_err(|source| NixError::Files { action: action(), source })?;
        let output = given.run.run().await.map_err(|source| {
            let advice =
                self.keys.advice(&url, source.stderr()).map(|advice| format!("; {advice}")).unwrap_or_default();
            NixError::Unreachable { action: action(), advice, source }
        })?;
        let refs = String::from_utf8_lossy(&output.stdout);
        match (revision_of(&refs, &name), branch) {
            (Some(revision), Some(_)) => Ok(Some(revision)),
            // Which branch counts then is up to Nix.
            (_, None) => Ok(None),
            (None, Some(_)) => Err(NixError::NoBranch { action: action(), name }),
        }
    }
}

/// The full name of the ref that a `ref` parameter stands for (Nix's manual, "nix flake").
fn full_name(branch: &str) -> String {
    if branch == "HEAD" || branch.starts_with("refs/") { branch.to_owned() } else { format!("refs/heads/{branch}") }
}

/// The revision of the ref in the output of `git ls-remote`, which also lists refs that only end in the name.
fn revision_of(refs: &str, name: &str) -> Option<SourceRevision> {
    let mut lines = refs.lines().filter_map(|line| line.split_once('\t'));
    lines.find(|(_, found)| *found == name).and_then(|(revision, _)| revision.parse().ok())
}

/// Whether Nix went on with a copy that may be old.
pub(super) fn is_stale(stderr: &str) -> bool {
    STALE_WORDS.iter().any(|words| stderr.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_of_a_ref_is_that_of_its_full_name() {
        let [one, two] = ["1", "2"].map(|digit| digit.repeat(40));
        let refs = format!("{one}\trefs/heads/old/refs/heads/main\n{two}\trefs/heads/main\n");
        assert_eq!(revision_of(&refs, &full_name("main")).unwrap().as_str(), two);
        assert_eq!(revision_of(&refs, "refs/heads/mian"), None);
        assert_eq!((full_name("refs/tags/v1").as_str(), full_name("HEAD").as_str()), ("refs/tags/v1", "HEAD"));
    }
}
