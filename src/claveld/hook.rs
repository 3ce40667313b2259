//! The input of git's `pre-receive` and `post-receive` hooks: the sources that a push changes, with the revisions before and
//! after it. Evaluating them belongs to `round` and `gate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::round::Target;
use crate::git::{RefTarget, resolve_ref};
use crate::model::{Invalid, Source, SourceRevision};

/// A line that git gives these hooks (githooks(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedRef {
    /// The ref's full name.
    pub name: String,
    /// The commit before the push; none for a new ref.
    pub before: Option<SourceRevision>,
    /// The commit after the push; none for a deleted ref.
    pub after: Option<SourceRevision>,
}

/// A source that a push changes.
#[derive(Debug, Clone)]
pub struct PushedSource<'a> {
    /// The source.
    pub source: &'a Source,
    /// The revision before the push; none where its branch is new.
    pub before: Option<SourceRevision>,
    /// The revision after the push.
    pub after: SourceRevision,
}

impl<'a> PushedSource<'a> {
    /// The source at the pushed revision.
    pub fn target(&self) -> Target<'a> {
        Target { source: self.source, revision: Some(self.after.clone()), remembered_as: &self.source.flake }
    }
}

/// The reason why the input of a hook cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// A line is not `OLD NEW REF`.
    #[error("cannot read the input of git's hook: the line `{line}` is not OLD NEW REF")]
    Line {
        /// The line.
        line: String,
    },
    /// A commit id is not valid.
    #[error("cannot read the input of git's hook")]
    Revision(#[from] Invalid),
    /// A ref is not valid, or leads in a circle.
    #[error("cannot resolve the ref `{}` to a branch: it is not valid, or leads in a circle", name.escape_debug())]
    Ref {
        /// The ref.
        name: String,
    },
    /// The repository keeps its refs in another format.
    #[error(
        "cannot resolve the symbolic refs: this repository keeps its refs in a reftable, which Clavel does not read; convert it \
         with `git refs migrate --ref-format=files`"
    )]
    Reftable,
    /// The repository cannot be read.
    #[error("cannot read the repository {path} that was pushed to (this command is for a hook of git)", path = path.display())]
    Repository {
        /// Its path, as git states it.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Reads the standard input of either hook.
pub fn pushed_refs(input: &str) -> Result<Vec<PushedRef>, HookError> {
    input.lines().map(pushed_ref).collect()
}

fn pushed_ref(line: &str) -> Result<PushedRef, HookError> {
    let mut words = line.splitn(3, ' ');
    let (Some(before), Some(after), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(HookError::Line { line: line.escape_debug().to_string() });
    };
    Ok(PushedRef { name: name.to_owned(), before: revision(before)?, after: revision(after)? })
}

/// Git writes zeros where there is no commit.
fn revision(text: &str) -> Result<Option<SourceRevision>, Invalid> {
    if !text.is_empty() && text.bytes().all(|byte| byte == b'0') { Ok(None) } else { text.parse().map(Some) }
}

/// The sources that a push to the repository at `git_dir` changes.
pub fn pushed_sources<'a>(
    git_dir: &Path,
    pushed: &[PushedRef],
    sources: &'a [Source],
) -> Result<Vec<PushedSource<'a>>, HookError> {
    let here = sources_in(git_dir, sources)?;
    if here.is_empty() {
        return Ok(Vec::new());
    }
    // A push to a symbolic ref moves the ref that it leads to, and git names the symbolic one to the hook.
    let moved = pushed.iter().map(|pushed| Ok((full_ref(git_dir, &pushed.name)?, pushed)));
    let moved: BTreeMap<String, &PushedRef> = moved.collect::<Result<_, HookError>>()?;
    let mut changed = Vec::new();
    for (source, branch) in here {
        let wanted = branch.filter(|branch| branch != "HEAD").map_or_else(|| "HEAD".to_owned(), |b| full_name(&b));
        if let Some(PushedRef { before, after: Some(after), .. }) = moved.get(&full_ref(git_dir, &wanted)?) {
            changed.push(PushedSource { source, before: before.clone(), after: after.clone() });
        }
    }
    Ok(changed)
}

/// The sources in the repository at `git_dir`, each with the branch that it names.
pub(super) fn sources_in<'a>(
    git_dir: &Path,
    sources: &'a [Source],
) -> Result<Vec<(&'a Source, Option<String>)>, HookError> {
    let repository = git_dir.canonicalize().map_err(repository_error(git_dir))?;
    let here = |source: &'a Source| {
        let path = source.flake.changing_repository()?;
        is_at(&path, &repository).then(|| (source, source.flake.branch()))
    };
    Ok(sources.iter().filter_map(here).collect())
}

/// The ref that `name` leads to. Git names the refs to its hooks as they were pushed.
fn full_ref(git_dir: &Path, name: &str) -> Result<String, HookError> {
    match resolve_ref(git_dir, name).map_err(repository_error(git_dir))? {
        RefTarget::Ref(name) => Ok(name),
        RefTarget::Invalid(name) => Err(HookError::Ref { name }),
        RefTarget::Reftable => Err(HookError::Reftable),
    }
}

fn repository_error(git_dir: &Path) -> impl Fn(std::io::Error) -> HookError {
    move |source| HookError::Repository { path: git_dir.to_owned(), source }
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
    fn a_push_changes_the_sources_on_its_branches() {
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
            format!("git+file://{at}?ref=HEAD&rev={}", "b".repeat(40)),
            "git+https://git.example.org/fleet".to_owned(),
        ]
        .iter()
        .map(|flake| Source::bare(flake.parse().unwrap()))
        .collect();
        let (old, new) = ("0".repeat(40), "a".repeat(40));
        let changed = |input: &str| -> Vec<usize> {
            let targets = pushed_sources(&git_dir, &pushed_refs(input).unwrap(), &sources).unwrap();
            targets.iter().map(|pushed| sources.iter().position(|s| s == pushed.source).unwrap()).collect()
        };
        assert_eq!(changed(&format!("{old} {new} refs/heads/main\n")), [0, 2]);
        assert_eq!(changed(&format!("{old} {new} refs/heads/staging\n{old} {new} refs/tags/x\n")), [1]);
        assert_eq!(changed(&format!("{old} {new} refs/heads/deployments\n")), [0_usize; 0]);
        assert_eq!(changed(&format!("{new} {old} refs/heads/main\n")), [0_usize; 0]);
        assert_eq!(sources_in(&git_dir, &sources).unwrap().len(), 3);

        // A branch under its old name.
        std::fs::create_dir_all(git_dir.join("refs/heads/feature")).unwrap();
        std::fs::write(git_dir.join("refs/heads/master"), "ref: refs/heads/main\n").unwrap();
        std::fs::write(git_dir.join("refs/heads/main"), format!("{new}\n")).unwrap();
        assert_eq!(changed(&format!("{old} {new} refs/heads/master\n")), [0, 2]);
        assert_eq!(changed(&format!("{old} {new} refs/heads/feature\n")), [0_usize; 0]);
        std::fs::write(git_dir.join("refs/heads/main"), "ref: refs/heads/master\n").unwrap();
        let error =
            |input: &str| pushed_sources(&git_dir, &pushed_refs(input).unwrap(), &sources).unwrap_err().to_string();
        assert!(error(&format!("{old} {new} refs/heads/x\n")).contains("cannot resolve the ref"));
        std::fs::write(git_dir.join("HEAD"), "ref: refs/heads/.invalid\n").unwrap();
        assert!(error("").contains("reftable"));
    }

    #[test]
    fn malformed_input_is_refused() {
        assert!(pushed_refs("one two\n").is_err());
        assert!(pushed_refs(&format!("{}  refs/heads/x\n", "a".repeat(40))).is_err());
        assert!(pushed_refs(&format!("{0} {0}g refs/heads/x\n", "a".repeat(39))).is_err());
    }
}
