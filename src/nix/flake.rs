//! Flakes: resolving a reference to one content, and evaluating an expression.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{Nix, NixError};
use crate::model::{FlakeReference, LockedSource, NarHash, SourceRevision};

/// The most that one evaluation may print: a line for each of ten thousand hosts is 10 MiB.
const LARGEST_OUTPUT: usize = 256 << 20;

/// What is read of `nix flake metadata --json`.
#[derive(Deserialize)]
struct FlakeMetadata {
    locked: Locked,
    path: String,
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
    /// Finds out which content `flake` has now, or at `pin`, and fetches it into the store.
    pub async fn lock(&self, flake: &FlakeReference, pin: Option<&SourceRevision>) -> Result<LockedSource, NixError> {
        let act = || format!("read the source {flake}");
        let asked =
            pin.map_or_else(|| flake.to_string(), |revision| with_parameter(flake.as_str(), "rev", revision.as_str()));
        let run = self
            .nix(&["flake", "metadata", "--json"])
            // The owner's flake.lock is the truth: a stale one is an error, never silently another one.
            .arg("--no-update-lock-file")
            // A branch is asked for anew each time; Nix would believe an answer of the last hour.
            .args(["--option", "tarball-ttl", "0"])
            .args(["--option", "accept-flake-config", "false"])
            .arg(asked)
            .run();
        let output = run.await.map_err(|source| NixError::Failed { act: act(), source })?;
        let unexpected = |why: String| NixError::Unexpected { act: act(), why };
        let metadata: FlakeMetadata =
            serde_json::from_slice(&output.stdout).map_err(|error| unexpected(error.to_string()))?;
        let locked = metadata.locked_reference().parse().map_err(|error| unexpected(format!("{error}")))?;
        let FlakeMetadata { locked: Locked { nar_hash, rev, .. }, .. } = metadata;
        Ok(LockedSource { flake: flake.clone(), locked, hash: nar_hash, revision: rev })
    }

    /// Evaluates `expression`, purely, and gives what `--json` prints. Nothing is built for it, ever.
    pub async fn evaluate(&self, act: impl Fn() -> String, expression: &str) -> Result<Vec<u8>, NixError> {
        let run = self
            .nix(&["eval", "--json"])
            // What a host is must follow from the flake alone, not from this machine.
            .args(["--option", "pure-eval", "true"])
            // An import from a derivation would have to be built first.
            .args(["--option", "allow-import-from-derivation", "false"])
            // And whatever else might ask for a build finds nobody to do it.
            .args(["--option", "max-jobs", "0", "--option", "builders", ""])
            // A flake's nixConfig may not change how it is evaluated.
            .args(["--option", "accept-flake-config", "false"])
            .args(["--expr", expression])
            .at_most(LARGEST_OUTPUT)
            .run();
        let output = run.await.map_err(|source| NixError::Failed { act: act(), source })?;
        Ok(output.stdout)
    }
}

impl FlakeMetadata {
    /// The reference that a pure evaluation takes, and that always means this content.
    fn locked_reference(&self) -> String {
        let is_git = matches!(self.locked.fetcher.as_str(), "git" | "mercurial");
        if !is_git || self.locked.rev.is_some() {
            return self.url.clone();
        }
        // A dirty work tree has no name; the copy that Nix made of it has.
        let mut reference =
            with_parameter(&format!("path:{}", self.path), "narHash", &self.locked.nar_hash.to_string());
        if let Some(seconds) = self.locked.last_modified {
            reference = with_parameter(&reference, "lastModified", &seconds.to_string());
        }
        if let Some(dir) = &self.locked.dir {
            reference = with_parameter(&reference, "dir", dir);
        }
        reference
    }
}

/// What may stand unencoded in a parameter's value (RFC 3986, sections 2.3 and 3.4).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// `reference` with one more parameter.
fn with_parameter(reference: &str, key: &str, value: &str) -> String {
    let separator = if reference.contains('?') { '&' } else { '?' };
    format!("{reference}{separator}{key}={}", utf8_percent_encode(value, PLAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dirty_tree_is_named_by_its_copy() {
        let json = r#"{"locked":{"lastModified":12,"narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4=",
            "type":"git","dir":"a b"},"path":"/nix/store/x-source","url":"git+file:///tmp/w"}"#;
        let metadata: FlakeMetadata = serde_json::from_str(json).unwrap();
        assert_eq!(
            metadata.locked_reference(),
            "path:/nix/store/x-source?narHash=sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4%3D&lastModified=12&dir=a%20b"
        );
    }

    #[test]
    fn a_pin_goes_beside_what_is_there() {
        assert_eq!(with_parameter("git+file:///x", "rev", "ab"), "git+file:///x?rev=ab");
        assert_eq!(with_parameter("git+file:///x?ref=main", "rev", "ab"), "git+file:///x?ref=main&rev=ab");
    }
}
