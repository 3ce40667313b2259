//! The index: which documents make up the branch at one version.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::as_text;
use super::{
    BranchName, Epoch, FleetId, IndexVersion, Invalid, Kind, Map, MetadataValue, Name, Payload, Revision, Schema,
    Sha256Digest, Timestamp,
};

/// The most documents one branch holds: three for each of ten thousand units, and room.
const MOST: usize = 100_000;

/// The folders of the branch that hold documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// `agents/`
    Agents,
    /// `deployments/`
    Deployments,
    /// `units/`
    Units,
}

impl Folder {
    /// Every folder, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Agents, Self::Deployments, Self::Units];

    /// Its name on the branch.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Deployments => "deployments",
            Self::Units => "units",
        }
    }
}

/// Where a document is on the branch: `deployments/NAME.json` and the like.
///
/// Ordered as its text is, which is the order of the index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DocumentPath {
    folder: Folder,
    name: Name,
}

impl DocumentPath {
    /// The place of the document `name` in `folder`.
    pub fn new(folder: Folder, name: Name) -> Self {
        Self { folder, name }
    }

    /// Its folder.
    pub fn folder(&self) -> Folder {
        self.folder
    }

    /// The name of the document.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl Ord for DocumentPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (name, others) = (self.name.as_str().as_bytes(), other.name.as_str().as_bytes());
        let both = name.len().min(others.len());
        let same_so_far = || name[..both].cmp(&others[..both]);
        // The ending has a say: `a-b.json` stands before `a.json`.
        let ending = || name[both..].iter().chain(b".json").cmp(others[both..].iter().chain(b".json"));
        self.folder.cmp(&other.folder).then_with(same_so_far).then_with(ending)
    }
}

impl PartialOrd for DocumentPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for DocumentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&[self.folder.as_str(), "/", self.name.as_str(), ".json"].concat())
    }
}

impl FromStr for DocumentPath {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            let why = "it has to be deployments/NAME.json, agents/NAME.json or units/NAME.json";
            Invalid::new("the path of a document", text, why)
        };
        let (folder, file) = text.split_once('/').ok_or_else(bad)?;
        let folder = Folder::ALL.into_iter().find(|f| f.as_str() == folder).ok_or_else(bad)?;
        Ok(Self::new(folder, file.strip_suffix(".json").ok_or_else(bad)?.parse()?))
    }
}

as_text!(
    DocumentPath,
    pattern: r"^(agents|deployments|units)/[A-Za-z0-9_@][A-Za-z0-9._@-]{0,127}\.json$",
    about: "Where a document is on the branch"
);

/// Which documents make up the branch, at one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The branch that it is of.
    pub branch: BranchName,
    /// Every document of the branch.
    pub documents: Map<DocumentPath, IndexEntry, MOST>,
    /// The epoch of the root that it was signed under.
    pub epoch: Epoch,
    /// From when on it must not be believed to be the newest.
    pub expires: Timestamp,
    /// Which fleet it is of.
    pub fleet: FleetId,
    /// Deployments that stay at their revision until somebody releases them.
    pub held: Map<Name, Held, MOST>,
    /// When it was signed.
    pub issued: Timestamp,
    /// What it is: an Index.
    pub kind: Kind<Self>,
    /// The SHA-256 of the index file before it; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Sha256Digest>,
    /// The version of this schema.
    pub schema: Schema,
    /// Documents that were here once and are withdrawn. What is neither here nor above was never on the branch.
    pub tombstones: Map<DocumentPath, Tombstone, MOST>,
    /// Counts up by one with every publication of an epoch.
    pub version: IndexVersion,
}

impl Payload for Index {
    const KIND: &'static str = "Index";
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.index.v1+json";
    /// Three entries for each of ten thousand units are 6 MiB. Whoever has no key can have this much read and hashed.
    const LARGEST: u64 = 16 << 20;

    fn fleet(&self) -> Option<FleetId> {
        Some(self.fleet)
    }
}

/// What the index says about a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// The bytes of its file.
    pub length: u64,
    /// Its revision.
    pub revision: Revision,
    /// The SHA-256 of its file.
    pub sha256: Sha256Digest,
}

/// What the index says about a deployment that somebody froze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The revision it stays at.
    pub revision: Revision,
    /// Since when.
    pub since: Timestamp,
    /// Why, in the words of whoever did it.
    pub why: MetadataValue,
}

/// What the index says about a document that was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// The last revision there was; if the document comes back, it goes on from here.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_layout_and_no_others() {
        let path: DocumentPath = "deployments/a.b.json".parse().unwrap();
        assert_eq!((path.folder(), path.name().as_str()), (Folder::Deployments, "a.b"));
        for bad in ["deployments/../x.json", "other/x.json", "deployments/x", "x.json", "deployments/a/b.json", ""] {
            assert!(bad.parse::<DocumentPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_ordered_as_their_text_is() {
        let mut paths: Vec<DocumentPath> = ["units/a.json", "agents/a.json", "agents/a.b.json", "agents/a-1.json"]
            .map(|path| path.parse().unwrap())
            .into();
        paths.sort();
        let texts: Vec<String> = paths.iter().map(DocumentPath::to_string).collect();
        assert_eq!(texts, ["agents/a-1.json", "agents/a.b.json", "agents/a.json", "units/a.json"]);
    }
}
