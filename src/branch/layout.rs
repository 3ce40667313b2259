//! Exactly the layout: what may stand on a branch of Clavel, and nothing beside it.
//!
//! Whatever Clavel does not read could still be read by somebody else: checked out by hand, shown by a git host, or taken
//! for something by a later version. So a commit is looked at as a whole before anything of it is believed:
//!
//!     README.md  index.json  root.json         files
//!     agents/  deployments/  units/            NAME.json
//!     roots/                                   N.json, with N from 1 to 2^53 - 1
//!     approvals/                               NAME/KEY.json
//!
//! Trees are read as bytes and entry by entry. A tree that is larger than its most entries could be is never inflated.
//! What the files hold is not looked at here.

use std::collections::HashSet;

use crate::git::{CommitId, Mode, ObjectId, ReadError, Repository};
use crate::model::{Name, RootVersion};

/// The most entries of `agents/`, `deployments/`, `units/` and `approvals/`: as many as an index may list.
const MOST_OF_A_FOLDER: usize = 100_000;
/// The most versions of a root: one a day for ten years.
const MOST_ROOTS: usize = 4096;
/// The most people who approve of one deployment.
const MOST_APPROVALS: usize = 64;
/// The most entries of all folders together: three documents for each of 10,000 units are 30,000.
const MOST_IN_TOTAL: usize = 250_000;
/// The bytes of a tree's entry beside its name: mode, space, zero and object id.
const BESIDE_NAME: usize = 6 + 1 + 1 + 20;
/// The bytes of the longest name of an entry: a [`Name`] and `.json`.
const LONGEST_NAME: usize = 128 + 5;
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

/// A folder of the branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    /// `agents/`, `deployments/` or `units/`.
    Documents,
    Roots,
    Approvals,
    /// One folder in `approvals/`.
    ApprovalsOfOne,
}

impl Place {
    /// The most entries of such a folder, and the bytes of the longest name that one can have.
    fn most(self) -> (usize, usize) {
        match self {
            Self::Root => (8, "deployments".len()),
            Self::Documents | Self::Approvals => (MOST_OF_A_FOLDER, LONGEST_NAME),
            Self::Roots => (MOST_ROOTS, "9007199254740991.json".len()),
            Self::ApprovalsOfOne => (MOST_APPROVALS, LONGEST_NAME),
        }
    }

    /// The most bytes that its tree can have.
    fn most_bytes(self) -> u64 {
        let (entries, name) = self.most();
        (entries * (name + BESIDE_NAME)) as u64
    }

    fn rule(self) -> &'static str {
        match self {
            Self::Root => {
                "only the files README.md, index.json and root.json and the folders agents, approvals, deployments, roots \
                 and units belong there"
            }
            Self::Documents => "only regular files called NAME.json belong there",
            Self::Roots => "only regular files called N.json belong there, where N counts from 1",
            Self::Approvals => "only folders called NAME belong there",
            Self::ApprovalsOfOne => "only regular files called KEY.json belong there",
        }
    }
}

/// What may be inside an entry that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepted {
    File,
    Folder(Place),
}

/// Whether an entry belongs in `place`.
fn accept(place: Place, name: &[u8], mode: &[u8]) -> Option<Accepted> {
    let name = std::str::from_utf8(name).ok()?;
    let is_file = mode == b"100644";
    let is_folder = mode == b"40000";
    match place {
        Place::Root if is_file => matches!(name, "README.md" | "index.json" | "root.json").then_some(Accepted::File),
        Place::Root if is_folder => match name {
            "agents" | "deployments" | "units" => Some(Accepted::Folder(Place::Documents)),
            "roots" => Some(Accepted::Folder(Place::Roots)),
            "approvals" => Some(Accepted::Folder(Place::Approvals)),
            _ => None,
        },
        Place::Documents | Place::ApprovalsOfOne if is_file => {
            name.strip_suffix(".json")?.parse::<Name>().ok().map(|_| Accepted::File)
        }
        Place::Roots if is_file => {
            let digits = name.strip_suffix(".json")?;
            // The one way to write a number: no sign, no zero before it.
            let number = digits.parse::<u64>().ok().filter(|number| number.to_string() == digits)?;
            RootVersion::try_from(number).ok().map(|_| Accepted::File)
        }
        Place::Approvals if is_folder => name.parse::<Name>().ok().map(|_| Accepted::Folder(Place::ApprovalsOfOne)),
        Place::Root | Place::Documents | Place::Roots | Place::Approvals | Place::ApprovalsOfOne => None,
    }
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
struct Held<'t> {
    /// How many entries.
    count: usize,
    /// The folders in it.
    folders: Vec<(&'t [u8], Place, ObjectId)>,
}

/// Checks the tree of one folder. Pure: its bytes go in.
fn check_folder(place: Place, tree: &[u8]) -> Result<Held<'_>, Wrong<'_>> {
    let (most, _) = place.most();
    let mut held = Held { count: 0, folders: Vec::new() };
    let mut before: &[u8] = &[];
    let mut any_capital = false;
    for entry in Entries(tree) {
        let (mode, name, id) = entry?;
        held.count += 1;
        if held.count > most {
            return Err(Wrong::TooMany);
        }
        let accepted = accept(place, name, mode).ok_or(Wrong::Foreign { name, mode })?;
        // Of two entries with one name, two readers could see different ones.
        if held.count > 1 && !is_after(place, before, name) {
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
            held.folders.push((name, below, id));
        }
    }
    // Without a capital letter, two names cannot differ in case.
    if any_capital {
        no_twins(tree, held.count)?;
    }
    Ok(held)
}

/// Whether `name` comes after `before`, as git sorts what belongs in `place`: a folder as if its name ended in `/`.
fn is_after(place: Place, before: &[u8], name: &[u8]) -> bool {
    match place {
        Place::Approvals => before.iter().chain(b"/").lt(name.iter().chain(b"/")),
        // Among the names that are accepted at the root, that makes no difference.
        Place::Root | Place::Documents | Place::Roots | Place::ApprovalsOfOne => before < name,
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

/// Checks that `commit` holds what a branch of Clavel may hold and nothing else.
pub fn check_layout(repository: &Repository, commit: CommitId) -> Result<(), LayoutError> {
    let trees = repository.trees(commit);
    let mut total = 0;
    let mut folders = vec![(String::new(), Place::Root, trees.root()?)];
    while let Some((path, place, id)) = folders.pop() {
        let shown = if path.is_empty() { "/" } else { &path };
        let too_many = |path: &str, limit| LayoutError::TooMany { path: path.to_owned(), commit, limit };
        let tree = match trees.bytes(shown, id, place.most_bytes()) {
            Err(ReadError::TooLarge { .. }) => return Err(too_many(shown, place.most().0)),
            tree => tree?,
        };
        let held = check_folder(place, &tree).map_err(|wrong| told(&wrong, commit, place, &path))?;
        total += held.count;
        if total > MOST_IN_TOTAL {
            return Err(too_many("/", MOST_IN_TOTAL));
        }
        folders.extend(held.folders.into_iter().map(|(name, place, id)| (below(&path, name), place, id)));
    }
    Ok(())
}

/// The path of `name` in the folder `path`. Only what is plain ASCII is shown as it is: letters that look alike, and
/// bytes that are no letters, are told apart by their escapes.
fn below(path: &str, name: &[u8]) -> String {
    let end = if name.len() > SHOWN { "…" } else { "" };
    let name = name[..name.len().min(SHOWN)].escape_ascii();
    if path.is_empty() { format!("{name}{end}") } else { format!("{path}/{name}{end}") }
}

fn told(wrong: &Wrong<'_>, commit: CommitId, place: Place, path: &str) -> LayoutError {
    let folder = || if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    match *wrong {
        Wrong::Foreign { name, mode } => {
            LayoutError::Foreign { path: below(path, name), commit, found: kind(mode), rule: place.rule() }
        }
        Wrong::Twin { name } => LayoutError::Twin { path: below(path, name), commit },
        Wrong::TooMany => LayoutError::TooMany { path: folder(), commit, limit: place.most().0 },
        Wrong::Malformed(why) => LayoutError::Malformed { path: folder(), commit, why },
    }
}

/// What an entry of this mode is, in words.
fn kind(mode: &[u8]) -> String {
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
#[path = "layout_tests.rs"]
mod tests;
