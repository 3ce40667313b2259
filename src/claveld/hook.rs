//! Git's `pre-receive` and `post-receive` hooks: which sources does a push change, from what to what?

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::round::Target;
use crate::model::{Invalid, Source, SourceRevision};

/// The most symbolic refs that lead from one to the next; git follows five.
const LONGEST_CHAIN: usize = 6;
/// The most bytes of the file of a ref.
const LONGEST_REF: u64 = 4096;

/// A line that git gives these hooks (githooks(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedRef {
    /// The ref's full name.
    pub name: String,
    /// The commit it was at before; none where it is new.
    pub before: Option<SourceRevision>,
    /// The commit it is at after; none where it is deleted.
    pub after: Option<SourceRevision>,
}

/// A source that a push changes.
#[derive(Debug, Clone)]
pub struct PushedSource<'a> {
    /// The source.
    pub source: &'a Source,
    /// The revision it was at before; none where its branch is new.
    pub before: Option<SourceRevision>,
    /// The revision it is at after.
    pub after: SourceRevision,
}

impl<'a> PushedSource<'a> {
    /// The source, pinned to what was pushed.
    pub fn target(&self) -> Target<'a> {
        Target { source: self.source, pin: Some(self.after.clone()), remembered_as: &self.source.flake }
    }
}

/// Why a push cannot be told from what git gave.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// A line is not `OLD NEW REF`.
    #[error("cannot read what git gives its hook: the line `{line}` is not OLD NEW REF")]
    Line {
        /// The line.
        line: String,
    },
    /// A commit's id is none.
    #[error("cannot read what git gives its hook: {0}")]
    Revision(#[from] Invalid),
    /// A ref is none, or leads in a circle.
    #[error("cannot tell which branch the ref `{}` is", name.escape_debug())]
    Ref {
        /// The ref.
        name: String,
    },
    /// The refs are kept in another format.
    #[error(
        "cannot tell which branches lead to which: this repository keeps its refs in a reftable, which Clavel does not read; \
         `git refs migrate --ref-format=files` changes that"
    )]
    Reftable,
    /// The repository cannot be found out.
    #[error("cannot tell which repository was pushed to ({path}: {source}); this is for a hook of git", path = path.display())]
    Repository {
        /// What git said it is.
        path: PathBuf,
        /// What the system said.
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
    // A push to a symbolic ref moves what it leads to, and git tells the hook of the symbolic one.
    let moved = pushed.iter().map(|pushed| Ok((resolved(git_dir, &pushed.name)?, pushed)));
    let moved: BTreeMap<String, &PushedRef> = moved.collect::<Result<_, HookError>>()?;
    let mut changed = Vec::new();
    for (source, branch) in here {
        let wanted = branch.filter(|branch| branch != "HEAD").map_or_else(|| "HEAD".to_owned(), |b| full_name(&b));
        if let Some(PushedRef { before, after: Some(after), .. }) = moved.get(&resolved(git_dir, &wanted)?) {
            changed.push(PushedSource { source, before: before.clone(), after: after.clone() });
        }
    }
    Ok(changed)
}

/// Those of `sources` that are in the repository at `git_dir`, and the branch that each of them names.
pub(super) fn sources_in<'a>(
    git_dir: &Path,
    sources: &'a [Source],
) -> Result<Vec<(&'a Source, Option<String>)>, HookError> {
    let repository = git_dir.canonicalize().map_err(not_told(git_dir))?;
    let here = |source: &'a Source| {
        let path = source.flake.local_repository().filter(|_| !source.flake.has_revision())?;
        is_at(&path, &repository).then(|| (source, source.flake.branch()))
    };
    Ok(sources.iter().filter_map(here).collect())
}

/// The ref that `name` leads to, by way of symbolic refs, which are files that say `ref: NAME` (gitrepository-layout(5)).
fn resolved(git_dir: &Path, name: &str) -> Result<String, HookError> {
    let mut name = name.to_owned();
    for _ in 0..LONGEST_CHAIN {
        let is_plain = name == "HEAD" || (name.starts_with("refs/") && !name.split('/').any(|part| part == ".."));
        if !is_plain {
            return Err(HookError::Ref { name });
        }
        let mut text = Vec::new();
        match std::fs::File::open(git_dir.join(&name)) {
            Ok(file) => {
                file.take(LONGEST_REF).read_to_end(&mut text).or_else(ignore_a_folder).map_err(not_told(git_dir))?;
            }
            // It is packed, or not there yet.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(not_told(git_dir)(error)),
        }
        let text = String::from_utf8_lossy(&text);
        let Some(next) = text.strip_prefix("ref:") else { return Ok(name) };
        next.trim().clone_into(&mut name);
        // What git writes for those who cannot read its other format of refs.
        if name == "refs/heads/.invalid" {
            return Err(HookError::Reftable);
        }
    }
    Err(HookError::Ref { name })
}

/// Where other refs are below a name, it is none itself.
fn ignore_a_folder(error: std::io::Error) -> std::io::Result<usize> {
    if error.kind() == ErrorKind::IsADirectory { Ok(0) } else { Err(error) }
}

fn not_told(git_dir: &Path) -> impl Fn(std::io::Error) -> HookError {
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
        let told =
            |input: &str| pushed_sources(&git_dir, &pushed_refs(input).unwrap(), &sources).unwrap_err().to_string();
        assert!(told(&format!("{old} {new} refs/heads/x\n")).contains("cannot tell which branch the ref"));
        std::fs::write(git_dir.join("HEAD"), "ref: refs/heads/.invalid\n").unwrap();
        assert!(told("").contains("reftable"));
    }

    #[test]
    fn what_is_no_push_is_refused() {
        assert!(pushed_refs("one two\n").is_err());
        assert!(pushed_refs(&format!("{}  refs/heads/x\n", "a".repeat(40))).is_err());
        assert!(pushed_refs(&format!("{0} {0}g refs/heads/x\n", "a".repeat(39))).is_err());
    }
}
