//! The layout of a branch: its files and folders, their paths, their limits and their rules.
//!
//!     README.md  index.json  root.json         files
//!     index/                                   BIN.json
//!     agents/  deployments/  units/            NAME.json, or BIN/NAME.json
//!     roots/                                   N.json, with N from 1 to 2^53 - 1
//!     approvals/                               NAME/KEY.json, or BIN/NAME/KEY.json
//!
//! An index with one bin has no folders BIN. With more, each folder that has an entry for a name has such folders: git writes a
//! folder anew as a whole, so a folder of all names would make a small change large.
//!
//! A [`Layout`] makes every path on the branch, and `layout_check` checks a commit against it. The contents of the files belong
//! to `documents`, `root_chain` and `approvals`.

use crate::model::{Bin, BinCount, BinId, DocumentPath, Index, KeyId, MAX_ENTRIES_OF_A_BIN, Name, RootVersion};

/// The most versions of a root: one a day for ten years.
const MAX_ROOTS: usize = 4096;
/// The most people who approve of one deployment.
pub(super) const MAX_APPROVALS: usize = 64;
/// The bytes of an entry of a tree beside its name: the mode, a space, a zero and the object id.
const BESIDE_NAME: usize = 6 + 1 + 1 + 20;
/// The bytes of the longest name of an entry: a [`Name`] and `.json`.
const MAX_NAME_LENGTH: usize = 128 + 5;
/// The most entries of the top folder: its files and folders, and as many folders of documents as an index may name.
const MAX_ENTRIES_AT_TOP: usize = 48;

/// The layout of a branch whose index has so many bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    bins: BinCount,
}

impl Layout {
    /// The path of the index.
    pub const INDEX: &str = "index.json";
    /// The path of the overview for people, which is not signed. No part of Clavel reads it.
    pub const README: &str = "README.md";
    /// The path of the newest root.
    pub const NEWEST_ROOT: &str = "root.json";

    /// The layout of a branch whose index has so many bins.
    pub fn of(bins: BinCount) -> Self {
        Self { bins }
    }

    /// How many bins the index has.
    pub fn bins(self) -> BinCount {
        self.bins
    }

    /// The path of the root of one version.
    pub fn root(version: RootVersion) -> String {
        format!("roots/{version}.json")
    }

    /// The path of a bin of the index.
    pub fn bin(bin: BinId) -> String {
        format!("index/{bin}.json")
    }

    /// The path of a document.
    pub fn document(self, document: &DocumentPath) -> String {
        self.file(document.folder().as_str(), document.name())
    }

    /// The path of the document `name` in a folder of documents, which a newer Clavel may have made.
    pub fn file(self, folder: &str, name: &Name) -> String {
        format!("{}/{name}.json", self.folder(folder, self.bins.bin_of(name)))
    }

    /// The folder with the approvals of the deployment `name`.
    pub fn approvals(self, name: &Name) -> String {
        format!("{}/{name}", self.folder("approvals", self.bins.bin_of(name)))
    }

    /// The folder with the folders of the deployments of one bin that have approvals.
    pub fn approvals_of_bin(self, bin: BinId) -> String {
        self.folder("approvals", bin)
    }

    /// The path of the approval that the approver with this key gives to the deployment `name`.
    ///
    /// The names of approvers are valid file names, because a root with any other name is not trusted.
    pub fn approval(self, name: &Name, approver: &KeyId) -> String {
        format!("{}/{approver}.json", self.approvals(name))
    }

    /// The part of the folder `top` that has the entries of the names of `bin`.
    pub(super) fn folder(self, top: &str, bin: BinId) -> String {
        if self.bins == BinCount::ONE { top.to_owned() } else { format!("{top}/{bin}") }
    }
}

/// A folder of the branch that a reader checks. Each has its limits and its rule, which the methods below list.
#[derive(Clone, Copy)]
pub(super) enum BranchFolder<'a> {
    /// The top folder of a branch with this index.
    Top(&'a Index),
    /// `index/`.
    Index(BinCount),
    /// A folder whose entries are in a folder for each bin.
    Bins(BinCount),
    /// The documents of a folder of this name, and the bin that lists them.
    Documents(&'a str, &'a Bin),
    /// `roots/`.
    Roots,
    /// `approvals/`, or the folder of one bin there.
    Approvals,
    /// The folder of one deployment in `approvals/`.
    ApprovalsOfOne,
}

impl BranchFolder<'_> {
    /// The most entries of such a folder, and the length of the longest name that an entry can have, in bytes.
    pub(super) fn limits(self) -> (usize, usize) {
        match self {
            Self::Top(_) => (MAX_ENTRIES_AT_TOP, MAX_NAME_LENGTH),
            Self::Index(count) | Self::Bins(count) => (count.get(), "all.json".len()),
            Self::Documents(..) | Self::Approvals => (MAX_ENTRIES_OF_A_BIN, MAX_NAME_LENGTH),
            Self::Roots => (MAX_ROOTS, "9007199254740991.json".len()),
            Self::ApprovalsOfOne => (MAX_APPROVALS, MAX_NAME_LENGTH),
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
            Self::Top(_) => {
                "only the files README.md, index.json and root.json, the folders approvals, index and roots, and those that \
                 the index names belong there"
            }
            Self::Index(_) => "only the bins of the index belong there, as regular files called BIN.json",
            Self::Bins(_) => "only folders called like the bins of the index belong there",
            Self::Documents(..) => {
                "only the documents that the index lists belong there, as regular files called NAME.json"
            }
            Self::Roots => "only regular files called N.json belong there, where N counts from 1",
            Self::Approvals => "only folders called NAME belong there",
            Self::ApprovalsOfOne => "only regular files called KEY.json belong there",
        }
    }

    /// Whether an entry of this name and mode belongs in such a folder.
    pub(super) fn accepts(self, name: &[u8], mode: &[u8]) -> bool {
        let Ok(name) = std::str::from_utf8(name) else { return false };
        let is_folder = match mode {
            b"100644" => false,
            b"40000" => true,
            _ => return false,
        };
        let stem = name.strip_suffix(".json");
        let is_bin_of = |count: BinCount, text: &str| text.parse::<BinId>().is_ok_and(|bin| bin.count() == count);
        match self {
            Self::Top(_) if !is_folder => [Layout::INDEX, Layout::NEWEST_ROOT, Layout::README].contains(&name),
            Self::Top(index) => {
                ["approvals", "index", "roots"].contains(&name) || index.folders.iter().any(|f| f.as_str() == name)
            }
            Self::Index(count) => !is_folder && stem.is_some_and(|stem| is_bin_of(count, stem)),
            Self::Bins(count) => is_folder && is_bin_of(count, name),
            Self::Documents(folder, bin) => {
                let names = bin.documents.get(folder);
                !is_folder && stem.is_some_and(|stem| names.is_some_and(|names| names.get(stem).is_some()))
            }
            // A number has one spelling: without a sign, and without a zero before it.
            Self::Roots => {
                let is_number = |n: &str| n.parse::<RootVersion>().is_ok_and(|number| number.to_string() == n);
                !is_folder && stem.is_some_and(is_number)
            }
            Self::Approvals => is_folder && name.parse::<Name>().is_ok(),
            Self::ApprovalsOfOne => !is_folder && stem.is_some_and(|stem| stem.parse::<Name>().is_ok()),
        }
    }
}
