//! Checks that a commit has the layout of a branch of Clavel, and nothing else, wherever a reader looks.
//!
//! People or programs could use a file that Clavel does not read: an operator checks it out, a git host shows it, or a later
//! version of Clavel reads it. So a reader checks each folder before it trusts a file in it: the folders at the top, and of the
//! bins that it reads each folder with its documents. It never looks at the others, since they grow with the fleet.
//!
//! The check reads trees as bytes, entry by entry, and never inflates a tree that is larger than the most entries of its folder
//! can be. It does not read the contents of the files.

use std::collections::HashSet;
use std::fmt;

use super::layout::{BranchFolder, Layout};
use crate::git::{Files, Mode, ReadError};
use crate::model::{BinCount, DocumentPath, Folder as Documents, Index, Name};
use crate::trust::{TrustedRoot, VerifiedBin};

/// The most bytes of a name that an error shows.
const MAX_SHOWN_NAME_BYTES: usize = 160;

/// The reason why a commit does not have the layout of a branch of Clavel.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// An entry does not belong in its folder.
    #[error("`{path}` does not belong on a branch of Clavel: it is {found}, and {rule}")]
    Foreign {
        /// The path of the entry; bytes that are not plain ASCII are escaped.
        path: String,
        /// The kind of the entry.
        found: String,
        /// The rule for the folder.
        rule: &'static str,
    },
    /// Two names of one folder are equal, or differ in case alone.
    #[error("`{path}` has a twin: another name beside it differs from it in case alone, or not at all")]
    Twin {
        /// The path of one of them.
        path: String,
    },
    /// A folder has too many entries.
    #[error("`{path}` holds more than the {limit} entries that a branch of Clavel may have there")]
    TooMany {
        /// The folder; `/` is the top.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// The bytes of a folder are not those that git writes.
    #[error("the folder `{path}` is not what git writes: {why}")]
    Malformed {
        /// The folder.
        path: String,
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

/// The entries of a tree as git writes it: the mode, a space, the name, a zero, and the twenty bytes of the object id. Each item
/// is the mode and the name.
struct TreeEntries<'t>(&'t [u8]);

impl<'t> Iterator for TreeEntries<'t> {
    type Item = Result<(&'t [u8], &'t [u8]), FolderFault<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = (|| {
            let (mode, rest) = self.0.split_at_checked(memchr::memchr(b' ', self.0)?)?;
            let rest = &rest[1..];
            let (name, rest) = rest.split_at_checked(memchr::memchr(0, rest)?)?;
            let (_, rest) = rest[1..].split_at_checked(20)?;
            Some((mode, name, rest))
        })();
        let Some((mode, name, rest)) = entry else {
            self.0 = &[];
            return Some(Err(FolderFault::Malformed("an entry breaks off")));
        };
        self.0 = rest;
        Some(Ok((mode, name)))
    }
}

/// Checks the tree of one folder, which has these bytes. No I/O.
fn check_tree<'t>(folder: BranchFolder<'_>, tree: &'t [u8]) -> Result<(), FolderFault<'t>> {
    let (most, _) = folder.limits();
    let mut count = 0;
    let mut before = None;
    let mut any_capital = false;
    for entry in TreeEntries(tree) {
        let (mode, name) = entry?;
        count += 1;
        if count > most {
            return Err(FolderFault::TooMany);
        }
        if !folder.accepts(name, mode) {
            return Err(FolderFault::Foreign { name, mode });
        }
        // If two entries had one name, two readers could see different ones.
        match before.replace((mode, name)) {
            Some((_, before)) if before == name => return Err(FolderFault::Twin { name }),
            Some(before) if !is_after(before, (mode, name)) => {
                return Err(FolderFault::Malformed("its entries are not in order"));
            }
            _ => {}
        }
        any_capital |= name.iter().any(u8::is_ascii_uppercase);
    }
    // Without a capital letter, two names cannot differ in case.
    if any_capital { check_twins(tree, count) } else { Ok(()) }
}

/// Whether an entry comes after the one before it in the order of git, which sorts a folder as if its name ended in `/`.
fn is_after((mode_before, before): (&[u8], &[u8]), (mode, name): (&[u8], &[u8])) -> bool {
    let end = |mode: &[u8]| if mode == b"40000" { b"/".as_slice() } else { b"" };
    before.iter().chain(end(mode_before)).lt(name.iter().chain(end(mode)))
}

/// Checks that no two names differ in case alone.
fn check_twins(tree: &[u8], count: usize) -> Result<(), FolderFault<'_>> {
    let mut seen = HashSet::with_capacity(count);
    for entry in TreeEntries(tree) {
        let (_, name) = entry?;
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(FolderFault::Twin { name });
        }
    }
    Ok(())
}

/// Checks a folder, if it exists.
fn check_folder(files: &impl Files, path: &str, folder: BranchFolder<'_>) -> Result<(), LayoutError> {
    let shown = || if path.is_empty() { "/" } else { path }.to_owned();
    let too_many = || LayoutError::TooMany { path: shown(), limit: folder.limits().0 };
    let tree = match files.tree(path, folder.most_bytes()) {
        Ok(None) => return Ok(()),
        Err(ReadError::TooLarge { .. }) => return Err(too_many()),
        Err(ReadError::Unexpected { found, .. }) => {
            return Err(LayoutError::Foreign {
                path: path.to_owned(),
                found: found.to_string(),
                rule: "it has to be a folder",
            });
        }
        tree => tree?,
    };
    check_tree(folder, tree.as_deref().unwrap_or_default()).map_err(|fault| match fault {
        FolderFault::Foreign { name, mode } => {
            LayoutError::Foreign { path: path_in(path, name), found: describe_mode(mode), rule: folder.rule() }
        }
        FolderFault::Twin { name } => LayoutError::Twin { path: path_in(path, name) },
        FolderFault::TooMany => too_many(),
        FolderFault::Malformed(why) => LayoutError::Malformed { path: shown(), why },
    })
}

/// Checks the folders that every reader of a branch with this index reads.
pub(super) fn check_top(files: &impl Files, index: &Index) -> Result<(), LayoutError> {
    let count = index.bins.count();
    check_folder(files, "", BranchFolder::Top(index))?;
    check_folder(files, "index", BranchFolder::Index(count))?;
    check_folder(files, "roots", BranchFolder::Roots)?;
    if count == BinCount::ONE {
        return Ok(());
    }
    let folders = index.folders.iter().map(AsRef::as_ref).chain(["approvals"]);
    folders.into_iter().try_for_each(|folder: &str| check_folder(files, folder, BranchFolder::Bins(count)))
}

/// Checks the folders that have the documents of one bin, and its approvals.
pub(super) fn check_bin(files: &impl Files, index: &Index, bin: &VerifiedBin) -> Result<(), LayoutError> {
    let layout = Layout::of(index.bins.count());
    for folder in index.folders.iter().map(AsRef::as_ref) {
        check_folder(files, &layout.folder(folder, bin.id()), BranchFolder::Documents(folder, bin))?;
    }
    check_folder(files, &layout.folder("approvals", bin.id()), BranchFolder::Approvals)
}

/// An entry that nothing signed on the branch accounts for. `Display` gives its path, where bytes that are not plain ASCII are
/// escaped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignEntry {
    /// The folder; empty for the top.
    pub folder: String,
    /// The bytes of its name.
    pub name: Vec<u8>,
}

impl fmt::Display for ForeignEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&path_in(&self.folder, &self.name))
    }
}

/// The entries that the checks above refuse as foreign, and approvals of what the index does not list or by who is no approver of
/// `root`. The publisher removes them.
pub(super) fn foreign_entries<'b>(
    files: &impl Files,
    root: &TrustedRoot,
    index: &Index,
    bins: impl Iterator<Item = &'b VerifiedBin>,
) -> Result<Vec<ForeignEntry>, ReadError> {
    let (count, mut found) = (index.bins.count(), Vec::new());
    let layout = Layout::of(count);
    let folders = || index.folders.iter().map(AsRef::<str>::as_ref);
    // Looks at one folder, and returns the names of the entries that belong there.
    let mut look =
        |path: &str, folder: BranchFolder<'_>, is_known: &dyn Fn(&str) -> bool| -> Result<Vec<String>, ReadError> {
            let tree = match files.tree(path, folder.most_bytes()) {
                // The publication says what is wrong there when it is read back.
                Err(ReadError::TooLarge { .. } | ReadError::Unexpected { .. }) => None,
                tree => tree?,
            };
            let (tree, mut known) = (tree.unwrap_or_default(), Vec::new());
            for (mode, name) in TreeEntries(&tree).map_while(Result::ok) {
                let text = std::str::from_utf8(name).ok().filter(|text| folder.accepts(name, mode) && is_known(text));
                match text {
                    Some(text) => known.push(text.to_owned()),
                    None => found.push(ForeignEntry { folder: path.to_owned(), name: name.to_owned() }),
                }
            }
            Ok(known)
        };
    let any = |_: &str| true;
    look("", BranchFolder::Top(index), &any)?;
    look("index", BranchFolder::Index(count), &any)?;
    look("roots", BranchFolder::Roots, &any)?;
    if count != BinCount::ONE {
        folders()
            .chain(["approvals"])
            .try_for_each(|folder| look(folder, BranchFolder::Bins(count), &any).map(drop))?;
    }
    let approvers = &root.root().roles.approver.keys;
    let is_approver = |file: &str| {
        file.strip_suffix(".json").is_some_and(|stem| approvers.iter().any(|key| key.id().to_string() == stem))
    };
    for bin in bins {
        for folder in folders() {
            look(&layout.folder(folder, bin.id()), BranchFolder::Documents(folder, bin), &any)?;
        }
        // A withdrawn deployment may come back, and keeps its approvals.
        let path = |name: &str| Some(DocumentPath::new(Documents::Deployments, name.parse().ok()?));
        let is_listed =
            |name: &str| path(name).is_some_and(|path| bin.document(&path).is_some() || bin.tombstone(&path).is_some());
        let folder = layout.folder("approvals", bin.id());
        for name in look(&folder, BranchFolder::Approvals, &is_listed)? {
            look(&format!("{folder}/{name}"), BranchFolder::ApprovalsOfOne, &is_approver)?;
        }
    }
    Ok(found)
}

/// Checks the folder with the approvals of one deployment.
pub(super) fn check_approvals(files: &impl Files, layout: Layout, name: &Name) -> Result<(), LayoutError> {
    check_folder(files, &layout.approvals(name), BranchFolder::ApprovalsOfOne)
}

/// The path of `name` in the folder `path`. Bytes that are not plain ASCII are escaped, so that a reader can tell letters that
/// look alike from each other, and sees bytes that are no letters.
fn path_in(path: &str, name: &[u8]) -> String {
    let end = if name.len() > MAX_SHOWN_NAME_BYTES { "…" } else { "" };
    let name = name[..name.len().min(MAX_SHOWN_NAME_BYTES)].escape_ascii();
    if path.is_empty() { format!("{name}{end}") } else { format!("{path}/{name}{end}") }
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
