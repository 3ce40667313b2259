//! The deed: whether what was evaluated has the path of its source in it.
//!
//! `toString ./.` is text, and no use of the source's `outPath` is seen. That path is another with every change of the
//! source, and so is whatever holds it.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, Read};
use std::sync::Mutex;

use memchr::memmem;
use nix_derivation::{Derivation, StorePath as ParsedPath};

use crate::model::StorePath;

const STORE: &str = "/nix/store/";
/// A hash and at least one character of a name.
const SHORTEST: usize = 34;

/// The most bytes of a derivation: 64 MiB.
const LARGEST_DERIVATION: u64 = 64 << 20;
/// How many bytes of a text are looked at in one go.
const PIECE: u64 = 1 << 20;
/// The most bytes of a store path (Nix's manual, "Store path": a name has at most 211).
const LONGEST_PATH: usize = 256;

/// What is in a file of the store.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The path that is searched for.
    Wanted,
    /// Other paths, in which it may be.
    Names(Vec<String>),
}

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
            match self.look_into(&path)? {
                Seen::Wanted => return Ok(true),
                Seen::Names(names) => open.extend(names),
            }
            seen.insert(path);
        }
        self.without.lock().map_err(|_| io::Error::other("another search failed"))?.extend(seen);
        Ok(false)
    }

    /// What is in a file of the store; nothing, where it is no file or was never made.
    fn look_into(&self, path: &str) -> io::Result<Seen> {
        let about = match fs::symlink_metadata(path) {
            Ok(about) if about.is_file() => about,
            Ok(_) => return Ok(Seen::Names(Vec::new())),
            // A derivation below one that is there has to be there; what it makes does not.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_derivation(path) => {
                return Ok(Seen::Names(Vec::new()));
            }
            Err(error) => return Err(error),
        };
        if !is_derivation(path) {
            return self.look_through(fs::File::open(path)?);
        }
        if about.len() > LARGEST_DERIVATION {
            return Err(io::Error::other(format!(
                "{path} has {} bytes, and {LARGEST_DERIVATION} are read",
                about.len()
            )));
        }
        let bytes = fs::read(path)?;
        if memmem::find(&bytes, self.wanted.as_bytes()).is_some() {
            return Ok(Seen::Wanted);
        }
        inputs(path, &bytes).map(Seen::Names)
    }

    /// What is in a text, of which no more than a piece is held at once: a flake may have files of any size.
    fn look_through(&self, mut from: impl Read) -> io::Result<Seen> {
        let (mut names, mut piece) = (BTreeSet::new(), Vec::new());
        loop {
            let read = from.by_ref().take(PIECE).read_to_end(&mut piece)?;
            if memmem::find(&piece, self.wanted.as_bytes()).is_some() {
                return Ok(Seen::Wanted);
            }
            names.extend(store_paths(&piece));
            if read == 0 {
                return Ok(Seen::Names(names.into_iter().collect()));
            }
            // What a border cuts is whole in the next piece.
            piece.drain(..piece.len().saturating_sub(LONGEST_PATH));
        }
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

    #[test]
    fn a_text_of_any_size_is_looked_through_piece_by_piece() {
        let source = "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source".parse().unwrap();
        let other = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-b.drv";
        let search = Search::for_path_of(&source);
        let border = usize::try_from(PIECE).unwrap();
        for before in [0, border - 60, border - 20, border - 1, border, 3 * border - 30] {
            let text = |path: &str| [&vec![b' '; before], path.as_bytes(), &vec![b'\n'; border]].concat();
            let wanted = text(&source.to_string());
            assert_eq!(search.look_through(&wanted[..]).unwrap(), Seen::Wanted, "{before}");
            let Seen::Names(names) = search.look_through(&text(other)[..]).unwrap() else { panic!("{before}") };
            assert!(names.contains(&other.to_owned()), "{before}: {names:?}");
        }
    }
}
