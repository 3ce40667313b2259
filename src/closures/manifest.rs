//! `bundle.json`, the first member: what is in the file.
//!
//! It is signed by nobody. Its digest tells damage, and no more: the branch, the signatures of the caches and the pins decide what is
//! believed.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::json::{self, JsonError};
use crate::model::{BranchName, Name, NarHash, Revision, Sha256Digest, StorePath};

/// The most bytes of `bundle.json`: 32 MiB.
pub(super) const MAX_BYTES: u64 = 32 << 20;
/// The most store paths in one file, and the most that its reader is taken to have.
const MAX_PATHS: usize = 65_536;
/// The format of the file.
const FORMAT: &str = "clavel/closures/v1";

/// What is in a bundle with closures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The store paths that its reader is taken to have, and that its closures need.
    pub assumed: Vec<StorePath>,
    /// The branch.
    pub branch: BranchName,
    /// The commit of the branch, as 40 hexadecimal digits.
    pub commit: String,
    /// The deployments whose closures it has, sorted by name.
    pub deployments: Vec<CarriedDeployment>,
    /// The store paths in it, each after those that it refers to.
    pub paths: Vec<CarriedPath>,
}

/// A deployment whose closure is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CarriedDeployment {
    /// Its name.
    pub name: Name,
    /// Its store path.
    pub nar_id: StorePath,
    /// Its revision.
    pub revision: Revision,
    /// The unit that it is for.
    pub unit: Name,
}

/// A store path in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CarriedPath {
    /// The hash of its NAR.
    pub nar_hash: NarHash,
    /// The length of its NAR in bytes.
    pub nar_size: u64,
    /// The path.
    pub path: StorePath,
}

/// `bundle.json`: a [`Manifest`], with what tells damage and the format.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// What is in the file.
    content: Manifest,
    /// The SHA-256 of `content` as JSON without white space.
    digest: Sha256Digest,
    /// `clavel/closures/v1`
    format: String,
}

/// Why `bundle.json` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no valid JSON, or not of this form.
    #[error("it cannot be parsed")]
    Json(#[from] JsonError),
    /// A newer Clavel wrote it.
    #[error("a newer Clavel wrote it: it is of the format `{0}`, and this one knows `{FORMAT}`; upgrade this program")]
    Newer(String),
    /// It is not as it was written.
    #[error("it was changed or damaged after it was written; copy the bundle again")]
    Damaged,
    /// It lists more paths than any bundle may have, or one of them twice.
    #[error(
        "it lists more than {MAX_PATHS} store paths, or one of them twice; make several bundles, each with --closures and some names"
    )]
    Paths,
}

impl Manifest {
    /// The file.
    pub(super) fn render(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let file = ManifestFile { digest: self.digest(), format: FORMAT.to_owned(), content: self.clone() };
        let bytes = json::render(&file);
        if bytes.len() as u64 > MAX_BYTES { Err(ManifestError::Paths) } else { Ok(bytes) }
    }

    /// Reads the file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Formatted {
            format: String,
        }
        let Formatted { format } = json::parse(bytes, MAX_BYTES)?;
        if format != FORMAT {
            return Err(ManifestError::Newer(format.chars().take(80).collect()));
        }
        let file: ManifestFile = json::parse(bytes, MAX_BYTES)?;
        if file.content.digest() != file.digest || json::render(&file) != bytes {
            return Err(ManifestError::Damaged);
        }
        file.content.check()?;
        Ok(file.content)
    }

    fn digest(&self) -> Sha256Digest {
        Sha256Digest::from_bytes(Sha256::digest(json::compact(self)).into())
    }

    fn check(&self) -> Result<(), ManifestError> {
        let distinct: BTreeSet<&StorePath> =
            self.paths.iter().map(|carried| &carried.path).chain(&self.assumed).collect();
        let is_good = distinct.len() == self.paths.len() + self.assumed.len()
            && self.paths.len() <= MAX_PATHS
            && self.assumed.len() <= MAX_PATHS;
        if is_good { Ok(()) } else { Err(ManifestError::Paths) }
    }

    /// The store paths that a reader of this bundle has afterwards.
    pub fn known_afterwards(&self) -> BTreeSet<StorePath> {
        self.paths.iter().map(|carried| carried.path.clone()).chain(self.assumed.iter().cloned()).collect()
    }

    /// The bytes of all NARs that it lists.
    pub fn nar_bytes(&self) -> u64 {
        self.paths.iter().fold(0, |sum, carried| sum.saturating_add(carried.nar_size))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::closures) fn manifest() -> Manifest {
        let path = |text: &str| -> StorePath { text.parse().unwrap() };
        let x = path("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x");
        let nar_hash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap();
        Manifest {
            assumed: vec![path("/nix/store/pxzcmw8rvay770ashv53bv5765sv0hfb-t")],
            branch: "deployments".parse().unwrap(),
            commit: "0123456789012345678901234567890123456789".to_owned(),
            deployments: vec![CarriedDeployment {
                name: "web-1".parse().unwrap(),
                nar_id: x.clone(),
                revision: serde_json::from_str("3").unwrap(),
                unit: "web-1".parse().unwrap(),
            }],
            paths: vec![CarriedPath { nar_hash, nar_size: 456, path: x }],
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_no_flipped_bit_is() {
        let written = manifest().render().unwrap();
        assert_eq!(Manifest::parse(&written).unwrap(), manifest());
        for at in 0..written.len() {
            let mut flipped = written.clone();
            flipped[at] ^= 1;
            assert!(Manifest::parse(&flipped).is_err(), "byte {at}: {}", String::from_utf8_lossy(&flipped));
        }
        let newer = String::from_utf8(written).unwrap().replace(FORMAT, "clavel/closures/v2");
        assert!(
            matches!(Manifest::parse(newer.as_bytes()), Err(ManifestError::Newer(format)) if format.ends_with("v2"))
        );
    }

    #[test]
    fn a_path_is_listed_once() {
        let mut twice = manifest();
        twice.assumed.push(twice.paths[0].path.clone());
        assert!(matches!(twice.render(), Err(ManifestError::Paths)));
        let mut twice = manifest();
        twice.paths.push(twice.paths[0].clone());
        assert!(matches!(twice.render(), Err(ManifestError::Paths)));
    }
}
