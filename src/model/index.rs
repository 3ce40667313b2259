//! The index: the digests of its bins at one version. Each bin lists the documents whose names belong to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::validated_text;
use super::{
    BinDigests, BranchFile, BranchName, DocumentPath, Epoch, FileDigest, FleetId, Folder, IndexSource, IndexVersion,
    Kind, List, Map, MetadataValue, Name, Payload, Revision, Schema, Sha256Digest, Timestamp,
};

/// The most documents of one folder in one bin. There are at most 4096 bins, and a publisher keeps them far smaller.
pub const MAX_ENTRIES_OF_A_BIN: usize = 8192;
/// The most folders of documents.
const MAX_FOLDERS: usize = 32;
/// The most sources that an index names.
pub const MAX_SOURCES: usize = 256;

validated_text! {
    /// The name of a folder of documents: a lower-case letter, then up to 31 of `a-z 0-9 -`. Claveld writes those of [`Folder`], and
    /// a newer one may write others.
    FolderName, what: "a folder of documents", check: check_folder, pattern: "^[a-z][a-z0-9-]{0,31}$"
}

fn check_folder(text: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if ["approvals", "index", "roots"].contains(&text) {
        return Err("that folder has no documents".to_owned());
    }
    if text.len() > 32 || !text.starts_with(|c: char| c.is_ascii_lowercase()) || !text.bytes().all(is_plain) {
        return Err("it has to be a lower-case letter and up to 31 of a-z 0-9 -".to_owned());
    }
    Ok(())
}

impl From<Folder> for FolderName {
    fn from(folder: Folder) -> Self {
        Self(folder.as_str().into())
    }
}

/// The digests of the bins at one version of the branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Index {
    /// The bins.
    pub bins: BinDigests,
    /// The branch that it belongs to.
    pub branch: BranchName,
    /// The epoch of the root under which it was signed.
    pub epoch: Epoch,
    /// The time from which on it must not be taken for the newest index.
    pub expires: Timestamp,
    /// The fleet that it belongs to.
    pub fleet: FleetId,
    /// The folders of documents that the branch may have.
    pub folders: List<FolderName, MAX_FOLDERS>,
    /// The time at which it was signed.
    pub issued: Timestamp,
    /// The kind: Index.
    pub kind: Kind<Self>,
    /// The SHA-256 of the previous index file; absent in the first index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Sha256Digest>,
    /// The version of this schema.
    pub schema: Schema,
    /// The sources of the documents, as they were when the index was signed; at most 256 of them.
    #[serde(default, skip_serializing_if = "List::is_empty")]
    pub sources: List<IndexSource, MAX_SOURCES>,
    /// The version, which goes up by one with every publication of an epoch.
    pub version: IndexVersion,
}

impl BranchFile for Index {
    const KIND: &'static str = "Index";
    // An entry takes 128 bytes, and there are at most 4096 bins. An attacker without a key can make an agent read and hash this
    // much.
    const MAX_BYTES: u64 = 1 << 20;
}

impl Payload for Index {
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.index.v1+json";

    fn fleet(&self) -> Option<FleetId> {
        Some(self.fleet)
    }
}

/// What a bin says of each name of some folders.
type ByFolder<T> = Map<FolderName, Map<Name, T, MAX_ENTRIES_OF_A_BIN>, MAX_FOLDERS>;

/// The documents whose names belong to one bin. Nobody signs it: the index has its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bin {
    /// The documents of each folder.
    pub documents: ByFolder<IndexEntry>,
    /// The holds: deployments that stay at their revision until an operator releases them.
    pub held: Map<Name, Hold, MAX_ENTRIES_OF_A_BIN>,
    /// The kind: Bin.
    pub kind: Kind<Self>,
    /// The version of this schema.
    pub schema: Schema,
    /// The documents that were withdrawn. A document that is neither here nor in `documents` was never on the branch.
    pub tombstones: ByFolder<Tombstone>,
}

impl BranchFile for Bin {
    const KIND: &'static str = "Bin";
    // A publisher chooses a number of bins with which a bin has some 200 KiB.
    const MAX_BYTES: u64 = 1 << 20;
}

impl Bin {
    /// A bin without any names.
    pub fn empty() -> Self {
        let (documents, tombstones) = (Map::default(), Map::default());
        Self { documents, held: Map::default(), kind: Kind::THIS, schema: Schema::V1, tombstones }
    }

    /// The entry of a document.
    pub fn document(&self, path: &DocumentPath) -> Option<&IndexEntry> {
        self.documents.get(path.folder().as_str())?.get(path.name())
    }

    /// The tombstone of a document.
    pub fn tombstone(&self, path: &DocumentPath) -> Option<&Tombstone> {
        self.tombstones.get(path.folder().as_str())?.get(path.name())
    }

    /// The documents of one folder.
    pub fn documents_in(&self, folder: &str) -> impl Iterator<Item = (&Name, &IndexEntry)> {
        self.documents.get(folder).into_iter().flat_map(Map::iter)
    }

    /// A document that is both listed and withdrawn: its folder and its name.
    pub fn listed_and_withdrawn(&self) -> Option<(&FolderName, &Name)> {
        self.tombstones.iter().find_map(|(folder, withdrawn)| {
            let listed = self.documents.get(folder.as_str())?;
            let name = withdrawn.iter().map(|(name, _)| name).find(|name| listed.get(name.as_str()).is_some())?;
            Some((folder, name))
        })
    }

    /// Every name in it, as often as it stands there.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        let documents = self.documents.iter().flat_map(|(_, names)| names.iter().map(|(name, _)| name));
        let tombstones = self.tombstones.iter().flat_map(|(_, names)| names.iter().map(|(name, _)| name));
        documents.chain(tombstones).chain(self.held.iter().map(|(name, _)| name))
    }
}

/// The entry of a document in a bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexEntry {
    /// The length of its file, in bytes.
    #[serde(deserialize_with = "super::number::integer")]
    pub length: u64,
    /// Its revision.
    pub revision: Revision,
    /// The SHA-256 of its file.
    pub sha256: Sha256Digest,
}

impl IndexEntry {
    /// The digest and the length of its file.
    pub fn file(&self) -> FileDigest {
        FileDigest { length: self.length, sha256: self.sha256 }
    }
}

/// The hold of a deployment in its bin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// The revision at which the deployment stays.
    pub revision: Revision,
    /// The time at which the hold began.
    pub since: Timestamp,
    /// The time from which on the deployment follows its source again; absent where an operator has to release it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The reason, in the words of the operator.
    pub why: MetadataValue,
}

/// The entry of a document that was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tombstone {
    /// The last revision of the document. If it comes back, its revisions continue from here.
    pub revision: Revision,
}
