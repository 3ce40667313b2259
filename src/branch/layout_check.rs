//! Checks that a commit has the layout of a branch of Clavel, and nothing else.
//!
//! People or programs could use a file that Clavel does not read: an operator checks it out, a git host shows it, or a later
//! version of Clavel reads it. So an agent checks the whole commit before it trusts any part of it. The check reads trees as
//! bytes, entry by entry, and never inflates a tree that is larger than the most entries of its folder can be. It does not
//! read the contents of the files.

use std::collections::HashSet;

use super::layout::{Accepted, FolderKind, Layout, MOST_IN_TOTAL};
use crate::git::{CommitId, Mode, ObjectId, ReadError, Repository};

/// The most bytes of a name that an error shows.
const LONGEST_SHOWN_NAME: usize = 160;

/// The reason why a commit does not have the layout of a branch of Clavel.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// An entry does not belong in its folder.
    #[error("`{path}` of commit {commit} does not belong on a branch of Clavel: it is {found}, and {rule}")]
    Foreign {
        /// The path of the entry; bytes that are not plain ASCII are escaped.
        path: String,
        /// The commit.
        commit: CommitId,
        /// The kind of the entry.
        found: String,
        /// The rule for the folder.
        rule: &'static str,
    },
    /// Two names of one folder are equal, or differ in case alone.
    #[error(
        "`{path}` of commit {commit} has a twin: another name beside it differs from it in case alone, or not at all"
    )]
    Twin {
        /// The path of one of them.
        path: String,
        /// The commit.
        commit: CommitId,
    },
    /// A folder, or the whole branch, has too many entries.
    #[error("`{path}` of commit {commit} holds more than the {limit} entries that a branch of Clavel may have there")]
    TooMany {
        /// The folder; `/` is the whole branch.
        path: String,
        /// The commit.
        commit: CommitId,
        /// The limit.
        limit: usize,
    },
    /// The bytes of a folder are not those that git writes.
    #[error("the folder `{path}` of commit {commit} is not what git writes: {why}")]
    Malformed {
        /// The folder.
        path: String,
        /// The commit.
        commit: CommitId,
        /// The first fault in the bytes.
        why: &'static str,
    },
    /// Git could not read it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The first fault of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FolderFault<'t> {
    Foreign { name: &'t [u8], mode: &'t [u8] },
    Twin { name: &'t [u8] },
    TooMany,
    Malformed(&'static str),
}

/// The entries of a tree as git writes it: the mode, a space, the name, a zero, and the twenty bytes of the object id.
struct TreeEntries<'t>(&'t [u8]);

impl<'t> Iterator for TreeEntries<'t> {
    type Item = Result<(&'t [u8], &'t [u8], &'t [u8]), FolderFault<'t>>;

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
            return Some(Err(FolderFault::Malformed("an entry breaks off")));
        };
        self.0 = rest;
        Some(Ok((mode, name, id)))
    }
}

/// A folder whose entries belong there.
#[derive(Debug, PartialEq, Eq)]
struct CheckedFolder<'t> {
    /// The number of its entries.
    count: usize,
    /// The folders in it, with their kinds and trees.
    folders: Vec<(&'t [u8], FolderKind, ObjectId)>,
}

/// Checks the tree of one folder, which has these bytes. No I/O.
fn check_folder(kind: FolderKind, tree: &[u8]) -> Result<CheckedFolder<'_>, FolderFault<'_>> {
    let (most, _) = kind.limits();
    let mut checked = CheckedFolder { count: 0, folders: Vec::new() };
    let mut before: &[u8] = &[];
    let mut any_capital = false;
    for entry in TreeEntries(tree) {
        let (mode, name, id) = entry?;
        checked.count += 1;
        if checked.count > most {
            return Err(FolderFault::TooMany);
        }
        let accepted = kind.accept(name, mode).ok_or(FolderFault::Foreign { name, mode })?;
        // If two entries had one name, two readers could see different ones.
        if checked.count > 1 && !is_after(kind, before, name) {
            return Err(if before == name {
                FolderFault::Twin { name }
            } else {
                FolderFault::Malformed("its entries are not in order")
            });
        }
        before = name;
        any_capital |= name.iter().any(u8::is_ascii_uppercase);
        if let Accepted::Folder(below) = accepted {
            let id = ObjectId::try_from(id).map_err(|_| FolderFault::Malformed("an object id has a wrong length"))?;
            checked.folders.push((name, below, id));
        }
    }
    // Without a capital letter, two names cannot differ in case.
    if any_capital {
        check_twins(tree, checked.count)?;
    }
    Ok(checked)
}

/// Whether `name` comes after `before` in the order of git, which sorts a folder as if its name ended in `/`.
fn is_after(kind: FolderKind, before: &[u8], name: &[u8]) -> bool {
    match kind {
        FolderKind::Approvals => before.iter().chain(b"/").lt(name.iter().chain(b"/")),
        // The names that are accepted at the root have the same order with and without the `/`.
        FolderKind::Root | FolderKind::Documents | FolderKind::Roots | FolderKind::ApprovalsOfOne => before < name,
    }
}

/// Checks that no two names differ in case alone.
fn check_twins(tree: &[u8], count: usize) -> Result<(), FolderFault<'_>> {
    let mut seen = HashSet::with_capacity(count);
    for entry in TreeEntries(tree) {
        let (_, name, _) = entry?;
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(FolderFault::Twin { name });
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
                Err(ReadError::TooLarge { .. }) => return Err(too_many(shown, kind.limits().0)),
                tree => tree?,
            };
            let checked = check_folder(kind, &tree).map_err(|fault| layout_error(&fault, commit, kind, &path))?;
            total += checked.count;
            if total > MOST_IN_TOTAL {
                return Err(too_many("/", MOST_IN_TOTAL));
            }
            folders.extend(checked.folders.into_iter().map(|(name, kind, id)| (path_in(&path, name), kind, id)));
        }
        Ok(())
    }
}

/// The path of `name` in the folder `path`. Bytes that are not plain ASCII are escaped, so that a reader can tell letters that
/// look alike from each other, and sees bytes that are no letters.
fn path_in(path: &str, name: &[u8]) -> String {
    let end = if name.len() > LONGEST_SHOWN_NAME { "…" } else { "" };
    let name = name[..name.len().min(LONGEST_SHOWN_NAME)].escape_ascii();
    if path.is_empty() { format!("{name}{end}") } else { format!("{path}/{name}{end}") }
}

fn layout_error(fault: &FolderFault<'_>, commit: CommitId, kind: FolderKind, path: &str) -> LayoutError {
    let folder = || if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    match *fault {
        FolderFault::Foreign { name, mode } => {
            LayoutError::Foreign { path: path_in(path, name), commit, found: describe_mode(mode), rule: kind.rule() }
        }
        FolderFault::Twin { name } => LayoutError::Twin { path: path_in(path, name), commit },
        FolderFault::TooMany => LayoutError::TooMany { path: folder(), commit, limit: kind.limits().0 },
        FolderFault::Malformed(why) => LayoutError::Malformed { path: folder(), commit, why },
    }
}

/// The kind of an entry of this mode, in words.
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
