//! A git `post-receive` hook: which sources did a push change?

use std::path::{Path, PathBuf};

use super::round::Target;
use crate::model::{FlakeReference, Invalid, Source, SourceRevision};

/// A line that git gives a `post-receive` hook (githooks(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedRef {
    /// The ref's full name.
    pub name: String,
    /// The commit it is at now; none where it was deleted.
    pub revision: Option<SourceRevision>,
}

/// Why a push cannot be told from what git gave.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// A line is not `OLD NEW REF`.
    #[error("cannot read what git gives its post-receive hook: the line `{line}` is not OLD NEW REF")]
    Line {
        /// The line.
        line: String,
    },
    /// A commit's id is none.
    #[error("cannot read what git gives its post-receive hook: {0}")]
    Revision(#[from] Invalid),
    /// The repository cannot be found out.
    #[error("cannot tell which repository was pushed to ({path}: {source}); this is for a post-receive hook", path = path.display())]
    Repository {
        /// What git said it is.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads the standard input of a `post-receive` hook.
pub fn pushed_refs(input: &str) -> Result<Vec<PushedRef>, HookError> {
    input.lines().map(pushed_ref).collect()
}

fn pushed_ref(line: &str) -> Result<PushedRef, HookError> {
    let mut words = line.splitn(3, ' ');
    let (Some(_old), Some(new), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(HookError::Line { line: line.escape_debug().to_string() });
    };
    let deleted = new.bytes().all(|byte| byte == b'0');
    let revision = if deleted { None } else { Some(new.parse()?) };
    Ok(PushedRef { name: name.to_owned(), revision })
}

/// The sources that a push to the repository at `git_dir` changed, pinned to what was pushed.
pub fn pushed_sources<'a>(
    git_dir: &Path,
    pushed: &[PushedRef],
    sources: &'a [Source],
) -> Result<Vec<Target<'a>>, HookError> {
    let io = |source| HookError::Repository { path: git_dir.to_owned(), source };
    let repository = git_dir.canonicalize().map_err(io)?;
    let head = std::fs::read_to_string(repository.join("HEAD")).map_err(io)?;
    let head = head.trim_end().strip_prefix("ref: ").unwrap_or_default();
    let here = |flake: &FlakeReference| local_git(flake).filter(|local| is_at(&local.path, &repository));
    let target = |source: &'a Source| {
        let wanted = here(&source.flake)?.branch.map_or_else(|| head.to_owned(), |branch| full_name(&branch));
        let pin = pushed.iter().find(|pushed| pushed.name == wanted)?.revision.clone()?;
        Some(Target { source, pin: Some(pin) })
    };
    Ok(sources.iter().filter_map(target).collect())
}

/// A git repository on this machine, as a flake reference names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LocalGit {
    pub(super) path: PathBuf,
    /// The branch, or a ref's full name.
    pub(super) branch: Option<String>,
}

/// What `git+file://…` names; `None` for everything else.
pub(super) fn local_git(flake: &FlakeReference) -> Option<LocalGit> {
    let rest = flake.as_str().strip_prefix("git+file://")?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let parameter = |key| query.split('&').filter_map(|p| p.split_once('=')).find(|(k, _)| *k == key);
    // One that names its revision never changes.
    if parameter("rev").is_some() {
        return None;
    }
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some(LocalGit { path: decoded(path).into(), branch: parameter("ref").map(|(_, branch)| decoded(branch)) })
}

fn full_name(branch: &str) -> String {
    if branch.starts_with("refs/") { branch.to_owned() } else { format!("refs/heads/{branch}") }
}

fn is_at(path: &Path, repository: &Path) -> bool {
    [path.to_owned(), path.join(".git")].iter().any(|p| p.canonicalize().is_ok_and(|p| p == repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_told_by_ref_and_repository() {
        let dir = tempfile::tempdir().unwrap();
        let git_dir = dir.path().join("fleet repo.git");
        std::fs::create_dir(&git_dir).unwrap();
        std::fs::write(git_dir.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        let at = git_dir.display().to_string().replace(' ', "%20");
        let sources: Vec<Source> = [
            format!("git+file://{at}"),
            format!("git+file://{at}?ref=staging"),
            format!("git+file://{at}?ref=main&dir=sub"),
            "git+file:///somewhere/else".to_owned(),
            "git+https://git.example.org/fleet".to_owned(),
        ]
        .iter()
        .map(|flake| Source::bare(flake.parse().unwrap()))
        .collect();
        let (old, new) = ("0".repeat(40), "a".repeat(40));
        let changed = |input: &str| -> Vec<usize> {
            let targets = pushed_sources(&git_dir, &pushed_refs(input).unwrap(), &sources).unwrap();
            targets.iter().map(|t| sources.iter().position(|s| s == t.source).unwrap()).collect()
        };
        assert_eq!(changed(&format!("{old} {new} refs/heads/main\n")), [0, 2]);
        assert_eq!(changed(&format!("{old} {new} refs/heads/staging\n{old} {new} refs/tags/x\n")), [1]);
        assert_eq!(changed(&format!("{old} {new} refs/heads/deployments\n")), [0_usize; 0]);
        assert_eq!(changed(&format!("{new} {old} refs/heads/main\n")), [0_usize; 0]);
    }

    #[test]
    fn what_is_no_push_is_refused() {
        assert!(pushed_refs("one two\n").is_err());
        assert!(pushed_refs(&format!("{0} {0}g refs/heads/x\n", "a".repeat(39))).is_err());
    }
}
