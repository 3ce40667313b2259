//! The deed: whether what was evaluated has the path of its source in it.
//!
//! `toString ./.` is text, and no use of the source's `outPath` is seen. That path is another with every change of the
//! source, and so is whatever holds it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::Mutex;

use memchr::memmem;
use nix_derivation::{Derivation, StorePath as ParsedPath};

use crate::model::StorePath;

const STORE: &str = "/nix/store/";
/// A hash and at least one character of a name.
const SHORTEST: usize = 34;

/// Searches derivations and the texts that they are made of; what was searched once is not searched again.
#[derive(Debug)]
pub(super) struct Search {
    wanted: String,
    without: Mutex<HashSet<String>>,
}

impl Search {
    /// A search for the path of `source`.
    pub(super) fn for_path_of(source: &StorePath) -> Self {
        Self { wanted: source.hash_part(), without: Mutex::default() }
    }

    /// Whether `text` holds the path.
    pub(super) fn is_in(&self, text: &str) -> bool {
        text.contains(&self.wanted)
    }

    /// Whether it is in `derivation`, in a derivation below it, or in a file of the store that they are made of: what
    /// `builtins.toFile` wrote, which may name others in turn.
    pub(super) fn is_below(&self, derivation: &StorePath) -> io::Result<bool> {
        let mut seen = HashSet::new();
        let mut open = vec![derivation.to_string()];
        while let Some(path) = open.pop() {
            if seen.contains(&path) || self.is_known_without(&path) {
                continue;
            }
            if let Some(bytes) = text(&path)? {
                if memmem::find(&bytes, self.wanted.as_bytes()).is_some() {
                    return Ok(true);
                }
                open.extend(if is_derivation(&path) { inputs(&path, &bytes)? } else { store_paths(&bytes).collect() });
            }
            seen.insert(path);
        }
        self.without.lock().map_err(|_| io::Error::other("another search failed"))?.extend(seen);
        Ok(false)
    }

    fn is_known_without(&self, path: &str) -> bool {
        self.without.lock().is_ok_and(|without| without.contains(path))
    }
}

/// What the derivation at `path` is made of: other derivations, and sources.
fn inputs(path: &str, bytes: &[u8]) -> io::Result<Vec<String>> {
    let name = path.get(STORE.len() + SHORTEST - 1..).unwrap_or_default().trim_end_matches(".drv");
    let derivation =
        Derivation::from_aterm_bytes(bytes, name).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
    let derivations = derivation.input_derivations().keys().map(ParsedPath::to_absolute_path);
    Ok(derivations.chain(derivation.input_sources().iter().map(ParsedPath::to_absolute_path)).collect())
}

fn is_derivation(path: &str) -> bool {
    path.strip_suffix(".drv").is_some()
}

/// The bytes of a file in the store; none for what is no file, or was never made.
fn text(path: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => fs::read(path).map(Some),
        Ok(_) => Ok(None),
        // A derivation below one that is there has to be there; what it makes does not.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_derivation(path) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All store paths that the bytes name.
fn store_paths(bytes: &[u8]) -> impl Iterator<Item = String> {
    let is_of_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
    memmem::find_iter(bytes, STORE).filter_map(move |at| {
        let name: Vec<u8> = bytes[at + STORE.len()..].iter().take_while(is_of_name).copied().collect();
        let name = String::from_utf8(name).ok()?;
        (name.len() >= SHORTEST).then(|| format!("{STORE}{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_wherever_they_stand() {
        let text = br#"Derive([("out","/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-a","","")],[("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-b.drv",["out"])]"#;
        let found: Vec<String> = store_paths(text).collect();
        assert_eq!(
            found,
            ["/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-a", "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-b.drv"]
        );
        assert_eq!(store_paths(b"/nix/store/short /nix/store/").count(), 0);
    }
}
