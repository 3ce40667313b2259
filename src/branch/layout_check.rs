//! The check that a commit has the layout of a branch of Clavel, and holds nothing else.
//!
//! A file that Clavel does not read could still be read by somebody else: checked out by hand, shown by a git host, or
//! read by a later version. So an agent checks the whole commit before it trusts any part of it. Trees are read as bytes,
//! entry by entry; a tree that is larger than its most entries could be is never inflated. The contents of the files are
//! not read here.

use std::collections::HashSet;

use super::layout::{Accepted, FolderKind, Layout, MOST_IN_TOTAL};
use crate::git::{CommitId, Mode, ObjectId, ReadError, Repository};

/// How many bytes of a name an error shows.
const SHOWN: usize = 160;

/// Why a commit does not have the layout of a branch of Clavel.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Something is there that does not belong there.
    #[error("`{path}` of commit {commit} does not belong on a branch of Clavel: it is {found}, and {rule}")]
    Foreign {
        /// Where; what is not plain ASCII in it is escaped.
        path: String,
        /// In which commit.
        commit: CommitId,
        /// What is there.
        found: String,
        /// What may be there.
        rule: &'static str,
    },
    /// Two names differ in case alone, or not even in that.
    #[error(
        "`{path}` of commit {commit} has a twin: another name beside it differs from it in case alone, or not at all"
    )]
    Twin {
        /// One of them.
        path: String,
        /// In which commit.
        commit: CommitId,
    },
    /// There are too many entries.
    #[error("`{path}` of commit {commit} holds more than the {limit} entries that a branch of Clavel may have there")]
    TooMany {
        /// The folder; `/` is the whole branch.
        path: String,
        /// In which commit.
        commit: CommitId,
        /// The limit.
        limit: usize,
    },
    /// The bytes of a folder are not what git writes.
    #[error("the folder `{path}` of commit {commit} is not what git writes: {why}")]
    Malformed {
        /// The folder.
        path: String,
        /// In which commit.
        commit: CommitId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Git could not read it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What is wrong with a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wrong<'t> {
    Foreign { name: &'t [u8], mode: &'t [u8] },
    Twin { name: &'t [u8] },
    TooMany,
    Malformed(&'static str),
}

/// The entries of a tree as git writes it: mode, space, name, zero, twenty bytes of object id.
struct Entries<'t>(&'t [u8]);

impl<'t> Iterator for Entries<'t> {
    type Item = Result<(&'t [u8], &'t [u8], &'t [u8]), Wrong<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = (|| {
            let (mode, rest) = self.0.split_at_checked(memchr::memchr(b' ', self.0)?)?;
            let rest = &rest[1..];
            let (name, rest) = rest.split_at_checked(memchr::memchr(0, rest)?)?;
            let (id, rest) = rest[1..].split_at_checked(20)?;
            Some((mode, name, id, rest))
        })();
        let Some((mode, name, id, rest)) = entry else {
            self.0 = &[];
            return Some(Err(Wrong::Malformed("an entry breaks off")));
        };
        self.0 = rest;
        Some(Ok((mode, name, id)))
    }
}

/// What one folder holds.
#[derive(Debug, PartialEq, Eq)]
struct Checked<'t> {
    /// How many entries.
    count: usize,
    /// The folders in it.
    folders: Vec<(&'t [u8], FolderKind, ObjectId)>,
}

/// Checks the tree of one folder. Pure: its bytes go in.
fn check_folder(kind: FolderKind, tree: &[u8]) -> Result<Checked<'_>, Wrong<'_>> {
    let (most, _) = kind.most();
    let mut checked = Checked { count: 0, folders: Vec::new() };
    let mut before: &[u8] = &[];
    let mut any_capital = false;
    for entry in Entries(tree) {
        let (mode, name, id) = entry?;
        checked.count += 1;
        if checked.count > most {
            return Err(Wrong::TooMany);
        }
        let accepted = kind.accept(name, mode).ok_or(Wrong::Foreign { name, mode })?;
        // Of two entries with one name, two readers could see different ones.
        if checked.count > 1 && !is_after(kind, before, name) {
            return Err(if before == name {
                Wrong::Twin { name }
            } else {
                Wrong::Malformed("its entries are not in order")
            });
        }
        before = name;
        any_capital |= name.iter().any(u8::is_ascii_uppercase);
        if let Accepted::Folder(below) = accepted {
            let id = ObjectId::try_from(id).map_err(|_| Wrong::Malformed("an object id has a wrong length"))?;
            checked.folders.push((name, below, id));
        }
    }
    // Without a capital letter, two names cannot differ in case.
    if any_capital {
        no_twins(tree, checked.count)?;
    }
    Ok(checked)
}

/// Whether `name` comes after `before`, as git sorts what belongs in `kind`: a folder as if its name ended in `/`.
fn is_after(kind: FolderKind, before: &[u8], name: &[u8]) -> bool {
    match kind {
        FolderKind::Approvals => before.iter().chain(b"/").lt(name.iter().chain(b"/")),
        // Among the names that are accepted at the root, that makes no difference.
        FolderKind::Root | FolderKind::Documents | FolderKind::Roots | FolderKind::ApprovalsOfOne => before < name,
    }
}

fn no_twins(tree: &[u8], count: usize) -> Result<(), Wrong<'_>> {
    let mut seen = HashSet::with_capacity(count);
    for entry in Entries(tree) {
        let (_, name, _) = entry?;
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(Wrong::Twin { name });
        }
    }
    Ok(())
}

impl Layout {
    /// Checks that `commit` holds the files and folders of this layout, and nothing else.
    pub fn check(self, repository: &Repository, commit: CommitId) -> Result<(), LayoutError> {
        let trees = repository.trees(commit);
        let mut total = 0;
        let Self::Flat = self;
        let mut folders = vec![(String::new(), FolderKind::Root, trees.root()?)];
        while let Some((path, kind, id)) = folders.pop() {
            let shown = if path.is_empty() { "/" } else { &path };
            let too_many = |path: &str, limit| LayoutError::TooMany { path: path.to_owned(), commit, limit };
            let tree = match trees.bytes(shown, id, kind.most_bytes()) {
                Err(ReadError::TooLarge { .. }) => return Err(too_many(shown, kind.most().0)),
                tree => tree?,
            };
            let checked = check_folder(kind, &tree).map_err(|wrong| error_of(&wrong, commit, kind, &path))?;
            total += checked.count;
            if total > MOST_IN_TOTAL {
                return Err(too_many("/", MOST_IN_TOTAL));
            }
            folders.extend(checked.folders.into_iter().map(|(name, kind, id)| (below(&path, name), kind, id)));
        }
        Ok(())
    }
}

/// The path of `name` in the folder `path`. Only what is plain ASCII is shown as it is: letters that look alike, and
/// bytes that are no letters, are told apart by their escapes.
fn below(path: &str, name: &[u8]) -> String {
    let end = if name.len() > SHOWN { "…" } else { "" };
    let name = name[..name.len().min(SHOWN)].escape_ascii();
    if path.is_empty() { format!("{name}{end}") } else { format!("{path}/{name}{end}") }
}

fn error_of(wrong: &Wrong<'_>, commit: CommitId, kind: FolderKind, path: &str) -> LayoutError {
    let folder = || if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    match *wrong {
        Wrong::Foreign { name, mode } => {
            LayoutError::Foreign { path: below(path, name), commit, found: describe_mode(mode), rule: kind.rule() }
        }
        Wrong::Twin { name } => LayoutError::Twin { path: below(path, name), commit },
        Wrong::TooMany => LayoutError::TooMany { path: folder(), commit, limit: kind.most().0 },
        Wrong::Malformed(why) => LayoutError::Malformed { path: folder(), commit, why },
    }
}

/// The kind of entry that this mode stands for, in words.
fn describe_mode(mode: &[u8]) -> String {
    match mode {
        b"100644" => Mode::File.to_string(),
        b"100755" => Mode::Executable.to_string(),
        b"120000" => Mode::Symlink.to_string(),
        b"40000" => Mode::Folder.to_string(),
        b"160000" => Mode::Submodule.to_string(),
        other => format!("an entry of mode `{}`", other[..other.len().min(16)].escape_ascii()),
    }
}

#[cfg(test)]
#[path = "layout_check_tests.rs"]
mod tests;
