//! Verifies a bin against the index, which has the digest of its bytes.

use std::ops::Deref;

use super::growth::{check_critical, check_schema};
use super::{SignedError, Verified};
use crate::model::{
    Bin, BinId, BranchFile as _, FileDigest, Index, Name, Sha256Digest, is_rendering, parse_rendering, read_part,
};

/// A bin that a trusted index has. Only [`VerifiedBin::verify`] makes one of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedBin {
    id: BinId,
    bin: Bin,
}

/// The reason why a bin is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinError {
    /// The branch does not have it.
    #[error("the bin {bin} of the index is not on the branch")]
    Absent {
        /// The bin.
        bin: BinId,
    },
    /// Its bytes are not those that the index lists.
    #[error("the bin {bin} is not the file that the index lists (SHA-256 {}… in place of {}…): somebody altered it", found.short(), listed.short())]
    Altered {
        /// The bin.
        bin: BinId,
        /// The digest that the index lists.
        listed: Sha256Digest,
        /// The digest of the file.
        found: Sha256Digest,
    },
    /// It does not parse, or only a newer Clavel can read it.
    #[error("cannot read the bin {bin} of the index")]
    Unreadable {
        /// The bin.
        bin: BinId,
        /// The reason.
        source: SignedError,
    },
    /// It lists a name that belongs to another bin.
    #[error("the bin {bin} of the index lists `{name}`, which belongs to the bin {right}")]
    OtherBin {
        /// The bin.
        bin: BinId,
        /// The name.
        name: Name,
        /// The bin of the name.
        right: BinId,
    },
    /// It lists a document that it has a tombstone of.
    #[error(
        "the bin {bin} of the index lists {path} and says that it was withdrawn, and only one can hold; somebody has a publisher's \
         key, or published wrongly"
    )]
    ListedAndWithdrawn {
        /// The bin.
        bin: BinId,
        /// The folder and the name of the document.
        path: String,
    },
}

impl VerifiedBin {
    /// Verifies that `bytes` are the bin `id` of `index`, that every name in it belongs there, and that it lists no document that was
    /// withdrawn.
    pub fn verify(id: BinId, bytes: Option<&[u8]>, index: &Verified<Index>) -> Result<Self, BinError> {
        let listed = index.bins.get(id).ok_or(BinError::Absent { bin: id })?;
        let bytes = bytes.ok_or(BinError::Absent { bin: id })?;
        let found = FileDigest::of(bytes);
        if found != *listed {
            return Err(BinError::Altered { bin: id, listed: listed.sha256, found: found.sha256 });
        }
        let bin = parse_bin(bytes).map_err(|source| BinError::Unreadable { bin: id, source })?;
        for name in bin.names() {
            let right = id.count().bin_of(name);
            if right != id {
                return Err(BinError::OtherBin { bin: id, name: name.clone(), right });
            }
        }
        if let Some((folder, name)) = bin.listed_and_withdrawn() {
            return Err(BinError::ListedAndWithdrawn { bin: id, path: format!("{folder}/{name}.json") });
        }
        Ok(Self { id, bin })
    }

    /// Which bin it is.
    pub fn id(&self) -> BinId {
        self.id
    }
}

impl Deref for VerifiedBin {
    type Target = Bin;
    fn deref(&self) -> &Bin {
        &self.bin
    }
}

/// Parses the file of a bin. It verifies nothing.
pub fn parse_bin(bytes: &[u8]) -> Result<Bin, SignedError> {
    if bytes.len() as u64 <= Bin::MAX_BYTES
        && let Ok(bin) = serde_json::from_slice::<Bin>(bytes)
        && is_rendering(&bin, bytes)
    {
        return Ok(bin);
    }
    let malformed = |source| SignedError::Malformed { kind: Bin::KIND, source };
    let value = parse_rendering(bytes, Bin::MAX_BYTES).map_err(malformed)?;
    check_schema::<Bin>(&value)?;
    let bin: Bin = read_part(&value, "").map_err(malformed)?;
    check_critical::<Bin>(&value, || serde_json::to_value(&bin).unwrap_or_default())?;
    Ok(bin)
}
