//! The layout of a branch: its files and folders, their paths, their limits and their rules.
//!
//!     README.md  index.json  root.json         files
//!     agents/  deployments/  units/            NAME.json
//!     roots/                                   N.json, with N from 1 to 2^53 - 1
//!     approvals/                               NAME/KEY.json
//!
//! A [`Layout`] makes every path on the branch, and `layout_check` checks a commit against it. The contents of the files belong
//! to `documents`, `root_chain` and `approvals`.

use crate::model::{DocumentPath, KeyId, Name, RootVersion};

/// The most entries of `agents/`, `deployments/`, `units/` and `approvals/`: as many as an index may list.
pub(super) const MOST_OF_A_FOLDER: usize = 100_000;
/// The most versions of a root: one a day for ten years.
const MOST_ROOTS: usize = 4096;
/// The most people who approve of one deployment.
pub(super) const MOST_APPROVALS: usize = 64;
/// The most entries of all folders together. Three documents for each of 10,000 units are 30,000.
pub(super) const MOST_IN_TOTAL: usize = 250_000;
/// The bytes of an entry of a tree beside its name: the mode, a space, a zero and the object id.
const BESIDE_NAME: usize = 6 + 1 + 1 + 20;
/// The bytes of the longest name of an entry: a [`Name`] and `.json`.
const LONGEST_NAME: usize = 128 + 5;

/// The layout of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One index file, and one folder for each kind of document.
    Flat,
}

impl Layout {
    /// The path of the index.
    pub fn index(self) -> &'static str {
        match self {
            Self::Flat => "index.json",
        }
    }

    /// The path of the overview for people, which is not signed. No part of Clavel reads it.
    pub fn readme(self) -> &'static str {
        match self {
            Self::Flat => "README.md",
        }
    }

    /// The path of the newest root.
    pub fn newest_root(self) -> &'static str {
        match self {
            Self::Flat => "root.json",
        }
    }

    /// The path of the root of one version.
    pub fn root(self, version: RootVersion) -> String {
        match self {
            Self::Flat => format!("roots/{version}.json"),
        }
    }

    /// The path of a document.
    pub fn document(self, document: &DocumentPath) -> String {
        match self {
            Self::Flat => document.to_string(),
        }
    }

    /// The folder with the approvals of the deployment `name`.
    pub fn approvals(self, name: &Name) -> String {
        match self {
            Self::Flat => format!("approvals/{name}"),
        }
    }

    /// The path of the approval that the approver with this key gives to the deployment `name`.
    ///
    /// The names of approvers are valid file names, because a root with any other name is not trusted.
    pub fn approval(self, name: &Name, approver: &KeyId) -> String {
        format!("{}/{approver}.json", self.approvals(name))
    }
}

/// A kind of folder on the branch. Each kind has its limits and its rule, which the methods below list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FolderKind {
    /// The root of the tree.
    Root,
    /// `agents/`, `deployments/` or `units/`.
    Documents,
    /// `roots/`.
    Roots,
    /// `approvals/`.
    Approvals,
    /// The folder of one deployment in `approvals/`.
    ApprovalsOfOne,
}

impl FolderKind {
    /// The most entries of such a folder, and the length of the longest name that an entry can have, in bytes.
    pub(super) fn limits(self) -> (usize, usize) {
        match self {
            Self::Root => (8, "deployments".len()),
            Self::Documents | Self::Approvals => (MOST_OF_A_FOLDER, LONGEST_NAME),
            Self::Roots => (MOST_ROOTS, "9007199254740991.json".len()),
            Self::ApprovalsOfOne => (MOST_APPROVALS, LONGEST_NAME),
        }
    }

    /// The most bytes that the tree of such a folder can have.
    pub(super) fn most_bytes(self) -> u64 {
        let (entries, name) = self.limits();
        (entries * (name + BESIDE_NAME)) as u64
    }

    /// The rule that an error quotes.
    pub(super) fn rule(self) -> &'static str {
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

    /// The entry of this name and mode, if it belongs in such a folder.
    pub(super) fn accept(self, name: &[u8], mode: &[u8]) -> Option<Accepted> {
        let name = std::str::from_utf8(name).ok()?;
        let is_file = mode == b"100644";
        let is_folder = mode == b"40000";
        match self {
            Self::Root if is_file => matches!(name, "README.md" | "index.json" | "root.json").then_some(Accepted::File),
            Self::Root if is_folder => match name {
                "agents" | "deployments" | "units" => Some(Accepted::Folder(FolderKind::Documents)),
                "roots" => Some(Accepted::Folder(FolderKind::Roots)),
                "approvals" => Some(Accepted::Folder(FolderKind::Approvals)),
                _ => None,
            },
            Self::Documents | Self::ApprovalsOfOne if is_file => {
                name.strip_suffix(".json")?.parse::<Name>().ok().map(|_| Accepted::File)
            }
            Self::Roots if is_file => {
                let digits = name.strip_suffix(".json")?;
                // A number has one spelling: without a sign, and without a zero before it.
                let number = digits.parse::<u64>().ok().filter(|number| number.to_string() == digits)?;
                RootVersion::try_from(number).ok().map(|_| Accepted::File)
            }
            Self::Approvals if is_folder => {
                name.parse::<Name>().ok().map(|_| Accepted::Folder(FolderKind::ApprovalsOfOne))
            }
            Self::Root | Self::Documents | Self::Roots | Self::Approvals | Self::ApprovalsOfOne => None,
        }
    }
}

/// An entry that belongs in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// A file.
    File,
    /// A folder of this kind.
    Folder(FolderKind),
}
