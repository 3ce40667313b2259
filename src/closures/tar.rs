//! One member of the file: its name, and the header in front of its bytes (POSIX ustar).
//!
//! A header is read only if it is, byte by byte, the one that Clavel writes for this name and size. So there are no links, long names,
//! extensions or modes to be careful about.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix_derivation::nixbase32;

use crate::model::{NarHash, StorePath};

/// The size of a header, and what the bytes of a member are padded to.
pub(super) const BLOCK: u64 = BLOCK_LENGTH as u64;
const BLOCK_LENGTH: usize = 512;
/// The end of the file: two blocks of zeros.
pub(super) const END: [u8; 2 * BLOCK_LENGTH] = [0; 2 * BLOCK_LENGTH];

/// The name of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberName {
    /// What is in the file.
    Manifest,
    /// The branch.
    GitBundle,
    /// What Nix reads first of a cache.
    CacheInfo,
    /// The entry of a store path.
    Narinfo(String),
    /// The files of a store path.
    Nar(String),
}

impl MemberName {
    pub(super) fn narinfo(path: &StorePath) -> Self {
        Self::Narinfo(path.hash_part())
    }

    pub(super) fn nar(hash: &NarHash) -> Self {
        Self::Nar(nixbase32::encode(hash.bytes()))
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => f.write_str("bundle.json"),
            Self::GitBundle => f.write_str("deployments.bundle"),
            Self::CacheInfo => f.write_str("nix-cache-info"),
            Self::Narinfo(hash) => write!(f, "{hash}.narinfo"),
            Self::Nar(hash) => write!(f, "nar/{hash}.nar"),
        }
    }
}

/// Where the bytes of a member are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The place of its first byte.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
}

impl Span {
    /// The place of the next header; `None` where a size is beyond all numbers.
    pub(super) fn next_header(self) -> Option<u64> {
        self.offset.checked_add(self.size.checked_next_multiple_of(BLOCK)?)
    }
}

/// The header of a member.
pub(super) fn header(name: &MemberName, size: u64) -> io::Result<[u8; BLOCK_LENGTH]> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name.to_string())?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Reads the header of the member `name`, which has to be at `offset`. `None` where another one, or something else, is there.
pub(super) fn span_at(file: &File, offset: u64, name: &MemberName) -> io::Result<Option<Span>> {
    let mut bytes = [0; BLOCK_LENGTH];
    file.read_exact_at(&mut bytes, offset)?;
    let size = tar::Header::from_byte_slice(&bytes).entry_size();
    let (Ok(size), Some(begin)) = (size, offset.checked_add(BLOCK)) else { return Ok(None) };
    let span = Span { offset: begin, size };
    Ok((span.next_header().is_some() && header(name, size)? == bytes).then_some(span))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_the_header_that_is_written_is_read() {
        let names = [
            MemberName::Manifest,
            MemberName::narinfo(&"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x".parse().unwrap()),
            MemberName::nar(&"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap()),
        ];
        for (name, size) in names.iter().zip([0, 513, 1 << 40]) {
            let written = header(name, size).unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&written).unwrap();
            assert_eq!(span_at(&file, 0, name).unwrap(), Some(Span { offset: 512, size }));
            for at in 0..written.len() {
                let mut flipped = written;
                flipped[at] ^= 1;
                file.write_all_at(&flipped, 0).unwrap();
                assert_eq!(span_at(&file, 0, name).unwrap(), None, "{name}, byte {at}");
            }
            file.set_len(511).unwrap();
            assert!(span_at(&file, 0, name).is_err());
        }
    }

    #[test]
    fn members_are_padded_to_whole_blocks() {
        let next = |size| Span { offset: 512, size }.next_header();
        assert_eq!([0, 1, 512, 513].map(next), [Some(512), Some(1024), Some(1024), Some(1536)]);
        assert_eq!(next(u64::MAX), None);
    }
}
