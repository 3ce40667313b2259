//! The file of a derivation, as it lies in the store. What it says is for others to read.

use std::fs::File;
use std::io::{self, Read as _};

use super::Nix;
use crate::model::StorePath;

/// The most bytes that the file of a derivation may have: a hundred times what a large NixOS needs to gather its files.
const LARGEST: u64 = 16 << 20;

/// Why the file of a derivation cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DerivationError {
    /// It is not in the store: it was collected as garbage, or evaluated elsewhere.
    #[error("it is not on this machine, or not any more")]
    Missing,
    /// It was not read.
    #[error("it has more than {LARGEST} bytes")]
    TooLarge,
    /// The system could not read it.
    #[error("{0}")]
    Io(io::Error),
}

impl Nix {
    /// The file of the derivation at `path`.
    pub fn derivation(&self, path: &StorePath) -> Result<Vec<u8>, DerivationError> {
        let file = File::open(self.files_of(path)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DerivationError::Missing,
            _ => DerivationError::Io(error),
        })?;
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(DerivationError::Io)?;
        if bytes.len() as u64 > LARGEST { Err(DerivationError::TooLarge) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_derivation_is_read_within_a_limit_from_the_store_that_was_named() {
        let root = tempfile::tempdir().unwrap();
        let nix = Nix::new(Duration::ZERO).with_store(Some(root.path().to_owned()));
        let path: StorePath = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x.drv".parse().unwrap();
        assert!(matches!(nix.derivation(&path), Err(DerivationError::Missing)));
        std::fs::create_dir_all(root.path().join("nix/store")).unwrap();
        std::fs::write(nix.files_of(&path), "Derive()").unwrap();
        assert_eq!(nix.derivation(&path).unwrap(), b"Derive()");
        File::options().write(true).open(nix.files_of(&path)).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(nix.derivation(&path), Err(DerivationError::TooLarge)));
    }
}
