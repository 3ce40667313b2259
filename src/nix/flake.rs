//! Locks a flake reference at one content, and fetches the inputs of a flake.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Nix, NixError};
use crate::model::{FlakeReference, Invalid, LockedSource, NarHash, SourceRevision, StorePath};

/// A flake at one content, with its metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct LockedFlake {
    /// The source at this content.
    pub source: LockedSource,
    /// The store path of its tree.
    pub tree: StorePath,
    /// The attributes that name this content, as Nix writes them in locks.
    pub locked: Map<String, Value>,
    /// Its lock, of version 7 or earlier.
    pub lock: Value,
}

/// The fields of `nix flake metadata --json` that Clavel reads.
#[derive(Deserialize)]
struct FlakeMetadata {
    locked: Map<String, Value>,
    locks: Value,
    path: StorePath,
    url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Locked {
    dir: Option<String>,
    last_modified: Option<u64>,
    nar_hash: NarHash,
    rev: Option<SourceRevision>,
    #[serde(rename = "type")]
    fetcher: String,
}

impl Nix {
    /// Finds out which content `flake` has now, or at `revision`, and fetches it into the store.
    pub async fn lock(
        &self,
        flake: &FlakeReference,
        revision: Option<&SourceRevision>,
    ) -> Result<LockedFlake, NixError> {
        let action = || format!("read the source {flake}");
        let unexpected = |why: String| NixError::Unexpected { action: action(), why };
        let invalid = |error: Invalid| unexpected(error.to_string());
        let asked = match revision {
            Some(revision) => flake.with_parameter("rev", revision.as_str()).map_err(invalid)?,
            None => flake.clone(),
        };
        let run = self
            .nix(&["flake", "metadata", "--json"])
            // The flake.lock of the owner decides: a stale one is an error and is never replaced.
            .arg("--no-update-lock-file")
            // Query the branch each time, because Nix would otherwise use an answer of the last hour.
            .args(["--option", "tarball-ttl", "0"])
            .args(["--option", "accept-flake-config", "false"])
            .arg(asked.as_str())
            .run();
        let output = run.await.map_err(|failure| NixError::failed(action(), failure))?;
        let metadata: FlakeMetadata =
            serde_json::from_slice(&output.stdout).map_err(|error| unexpected(error.to_string()))?;
        let known: Locked =
            serde_json::from_value(metadata.locked.clone().into()).map_err(|e| unexpected(e.to_string()))?;
        let locked = known.reference(&metadata.url, &metadata.path).map_err(invalid)?;
        let source = LockedSource { flake: flake.clone(), locked, hash: known.nar_hash, revision: known.rev };
        let FlakeMetadata { locked, locks: lock, path: tree, .. } = metadata;
        Ok(LockedFlake { source, tree, locked, lock })
    }

    /// Fetches all inputs of `flake` into the store.
    pub async fn fetch_inputs(&self, flake: &FlakeReference) -> Result<(), NixError> {
        let run = self
            .nix(&["flake", "archive", "--json", "--no-update-lock-file"])
            .args(["--option", "accept-flake-config", "false"])
            .arg(flake.as_str())
            .run();
        let action = || format!("fetch the inputs of {flake}");
        run.await.map(drop).map_err(|failure| NixError::failed(action(), failure))
    }
}

impl Locked {
    /// The reference that a pure evaluation accepts, and that always means this content.
    fn reference(&self, url: &str, tree: &StorePath) -> Result<FlakeReference, Invalid> {
        let is_repository = matches!(self.fetcher.as_str(), "git" | "mercurial");
        if !is_repository || self.rev.is_some() {
            return url.parse();
        }
        // A dirty work tree has no name. The copy that Nix made of it has one.
        let copy: FlakeReference = format!("path:{tree}").parse()?;
        let mut reference = copy.with_parameter("narHash", &self.nar_hash.to_string())?;
        if let Some(seconds) = self.last_modified {
            reference = reference.with_parameter("lastModified", &seconds.to_string())?;
        }
        if let Some(dir) = &self.dir {
            reference = reference.with_parameter("dir", dir)?;
        }
        Ok(reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dirty_work_tree_gets_the_reference_of_its_copy() {
        let json = r#"{"lastModified":12,"narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4=",
            "type":"git","dir":"a b"}"#;
        let locked: Locked = serde_json::from_str(json).unwrap();
        let tree: StorePath = "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source".parse().unwrap();
        assert_eq!(
            locked.reference("git+file:///tmp/w", &tree).unwrap().to_string(),
            format!(
                "path:{tree}?narHash=sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4%3D&lastModified=12&dir=a%20b"
            )
        );
    }
}
