//! The tip of a static folder: the one file that changes. Its first line names what the index does not, and the rest is the index file.
//!
//! Nothing of it is trusted. docs/static-export.md has the bytes.

use serde::{Deserialize, Serialize};

use crate::model::json::{self, JsonError};
use crate::model::{BinId, FileDigest, Index, List, MAX_ENTRIES_OF_A_BIN, Map, Name};
use crate::trust::{Signed, SignedError};

/// The format that this Clavel writes and reads.
const FORMAT: u64 = 1;
/// The most bytes of the first line: 1 MiB. An entry for each of 4,096 bins takes half of that.
const MAX_HEAD_BYTES: u64 = 1 << 20;

/// The digests of the roots, beginning with that of version 1.
pub type StaticRoots = List<FileDigest, 4096>;
/// The approvals of the deployments of one bin: for each deployment the file of each approver.
pub type StaticApprovals = Map<Name, Map<Name, FileDigest, 64>, MAX_ENTRIES_OF_A_BIN>;

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticHead {
    /// For each bin with approvals, the list of them ([`StaticApprovals`]).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub approvals: Map<BinId, FileDigest, 4096>,
    format: u64,
    /// The list of the roots ([`StaticRoots`]).
    pub roots: FileDigest,
}

/// A tip: its first line, and the file of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticTip<'a> {
    /// What the first line says.
    pub head: StaticHead,
    /// The bytes of the index file.
    pub index: &'a [u8],
}

/// Why bytes are no tip that this Clavel can read.
#[derive(Debug, thiserror::Error)]
pub enum StaticTipError {
    /// The first line is none of a tip.
    #[error("its first line is not that of a tip")]
    Head(#[source] JsonError),
    /// A newer Clavel wrote it.
    #[error("a newer Clavel wrote it, in format {0}, and this one reads format {FORMAT}: upgrade this program")]
    Newer(u64),
    /// The index in it is cut off or damaged.
    #[error("the index in it cannot be read")]
    Index(#[source] SignedError),
}

impl StaticHead {
    /// The first line of a tip with these lists.
    pub fn new(roots: FileDigest, approvals: Map<BinId, FileDigest, 4096>) -> Self {
        Self { approvals, format: FORMAT, roots }
    }
}

impl<'a> StaticTip<'a> {
    /// Takes a tip apart. The index is not parsed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StaticTipError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u64,
        }
        let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
        let (line, rest) = bytes.split_at(end);
        match json::parse::<Versioned>(line, MAX_HEAD_BYTES).map_err(StaticTipError::Head)?.format {
            FORMAT => {}
            newer => return Err(StaticTipError::Newer(newer)),
        }
        let head = json::parse(line, MAX_HEAD_BYTES).map_err(StaticTipError::Head)?;
        Ok(Self { head, index: rest.get(1..).unwrap_or_default() })
    }

    /// What the index says; `None` where only a newer Clavel can read it. Its signatures are not verified.
    pub fn unverified_index(&self) -> Result<Option<Signed<Index>>, StaticTipError> {
        match Signed::<Index>::parse(self.index) {
            Ok(index) => Ok(Some(index)),
            Err(error) if error.is_of_a_newer_clavel() => Ok(None),
            Err(error) => Err(StaticTipError::Index(error)),
        }
    }

    /// The bytes of the tip.
    pub fn render(&self) -> Vec<u8> {
        [&json::compact(&self.head)[..], b"\n", self.index].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tip_is_a_line_and_the_index_and_nothing_else_is_one() {
        let approvals = vec![("all".parse().unwrap(), FileDigest::of(b"list"))].try_into().unwrap();
        let tip = StaticTip { head: StaticHead::new(FileDigest::of(b"roots"), approvals), index: b"{\n}\n" };
        let bytes = tip.render();
        assert_eq!(StaticTip::parse(&bytes).unwrap(), tip);
        assert!(matches!(tip.unverified_index(), Err(StaticTipError::Index(_))));
        for bad in [&b""[..], b"<!DOCTYPE html>\n<html>", b"{}\n", &bytes[..40], b"\xef\xbb\xbf{}", b"{\"format\":1}\n"]
        {
            assert!(matches!(StaticTip::parse(bad), Err(StaticTipError::Head(_))), "{bad:?}");
        }
        // What a newer one adds is ignored, unless it says that it must not be.
        let line = String::from_utf8(bytes).unwrap();
        StaticTip::parse(line.replacen('{', "{\"new\":7,", 1).as_bytes()).unwrap();
        let newer = StaticTip::parse(b"{\"format\":2}\n");
        assert!(matches!(newer, Err(StaticTipError::Newer(2))), "{newer:?}");
    }
}
