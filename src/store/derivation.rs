//! Reads the file of a derivation from the store. Parsing it does not belong here.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The most bytes that the file of a derivation may have: a hundred times the largest derivation of a large NixOS system.
const MAX_BYTES: u64 = 16 << 20;

/// The reason why the file of a derivation cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DerivationError {
    /// It is not in the store: it was collected as garbage, or evaluated on another machine.
    #[error("it is not on this machine, or not any more")]
    Missing,
    /// It is larger than the limit, and was not read to its end.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// The system could not read it.
    #[error(transparent)]
    Io(io::Error),
}

/// Reads the file of the derivation at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DerivationError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DerivationError::Missing,
        _ => DerivationError::Io(error),
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(DerivationError::Io)?;
    if bytes.len() as u64 > MAX_BYTES { Err(DerivationError::TooLarge) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derivation_is_read_within_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.drv");
        assert!(matches!(read(&path), Err(DerivationError::Missing)));
        std::fs::write(&path, "Derive()").unwrap();
        assert_eq!(read(&path).unwrap(), b"Derive()");
        File::options().write(true).open(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(read(&path), Err(DerivationError::TooLarge)));
    }
}
