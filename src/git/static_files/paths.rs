//! The paths of the files in a static folder.

use crate::model::Sha256Digest;

/// The only file that changes.
pub const STATIC_TIP: &str = "tip";

/// The path of the file with this digest: two digits are a folder, so that no folder becomes too large.
pub fn static_object_path(digest: &Sha256Digest) -> String {
    let digits = digest.to_string();
    let (folder, file) = digits.split_at(2);
    format!("objects/{folder}/{file}")
}
