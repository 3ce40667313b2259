//! The test vectors of docs/format.md, in `fixtures/format`: small branches, and for each what an agent runs or why it refuses.
//!
//! Keys and times are fixed, so the files are the same whenever they are made. The branches are signed by the description of the
//! format, and rendered by Clavel.

use std::fs;
use std::io;
use std::path::Path;

#[path = "vectors/bad.rs"]
mod bad;
#[path = "vectors/branch.rs"]
mod branch;
#[path = "vectors/good.rs"]
mod good;
#[path = "vectors/wrong_bytes.rs"]
mod wrong_bytes;

/// Writes all vectors below `root`, and removes those that were there before.
pub(crate) fn all(root: &Path) -> io::Result<()> {
    let folder = root.join("fixtures/format");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let vectors = [
        good::vectors(),
        bad::roots(),
        bad::index_signatures(),
        bad::index_fields(),
        bad::bins(),
        bad::layouts(),
        bad::documents(),
        wrong_bytes::vectors(),
    ];
    vectors.into_iter().flatten().try_for_each(|vector| vector.write(&folder))
}
