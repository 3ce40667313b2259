//! The text of a derivation: the store paths that it mentions, and the text without their hashes and versions.

use super::version::split_numbered;
use crate::model::printable_line;

/// The key of an output or a source: the hash of its store path, or the beginning of its placeholder.
pub(super) type Key = [u8; KEY];

const KEY: usize = 32;
const STORE: &str = "/nix/store/";
/// The length of a placeholder, without its slash. It stands for an output whose path is known only after the build.
const PLACEHOLDER: usize = 52;
/// The most characters of a foreign name that are shown to people.
const MAX_NAME: usize = 96;

/// The key at the beginning of a store path's last part.
pub(super) fn key(base: &str) -> Option<Key> {
    base.as_bytes().first_chunk().copied().filter(|key: &Key| key.iter().all(|byte| is_hash(*byte)))
}

/// A foreign name for people: in one line, without control characters, and cut where it is long.
pub(super) fn printable(name: &str) -> String {
    printable_line(name, MAX_NAME)
}

/// The keys of everything that `text` mentions.
pub(super) fn mentions(text: &str) -> Vec<Key> {
    pieces(text).filter_map(|piece| piece.mention().map(|(key, _)| key)).collect()
}

/// `text` with store paths that have no hash and no version: `/nix/store/nginx/bin/nginx`.
pub(super) fn without_hashes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Plain(text) => plain.push_str(text),
            Piece::Path { name, .. } => plain.extend([STORE, stem(name)]),
            Piece::Placeholder { .. } => plain.extend([STORE, "…"]),
        }
    }
    plain
}

/// The names of the store paths in a line without hashes.
pub(super) fn names(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices(STORE).map(|(at, _)| name_at(&line[at + STORE.len()..]))
}

/// A name without its version.
pub(super) fn stem(name: &str) -> &str {
    split_numbered(name).0
}

/// A piece of a text.
enum Piece<'a> {
    Plain(&'a str),
    Path { key: Key, name: &'a str },
    Placeholder { key: Key },
}

impl Piece<'_> {
    fn mention(&self) -> Option<(Key, &str)> {
        match self {
            Self::Plain(_) => None,
            Self::Path { key, name } => Some((*key, name)),
            Self::Placeholder { key } => Some((*key, "")),
        }
    }
}

/// Cuts `text` into store paths, placeholders, and the plain text between them.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Every mention begins with a slash, so the text before a slash is plain.
        let (piece, length) = mention_at(rest).unwrap_or_else(|| {
            let next =
                rest.match_indices('/').map(|(at, _)| at).find(|at| *at > 0 && mention_at(&rest[*at..]).is_some());
            let end = next.unwrap_or(rest.len());
            (Piece::Plain(&rest[..end]), end)
        });
        rest = &rest[length..];
        Some(piece)
    })
}

/// The mention at the beginning of `text`, and its length.
fn mention_at(text: &str) -> Option<(Piece<'_>, usize)> {
    if let Some(base) = text.strip_prefix(STORE) {
        let key = key(base)?;
        let name = name_at(base.get(KEY..)?.strip_prefix('-')?);
        return (!name.is_empty()).then(|| (Piece::Path { key, name }, STORE.len() + KEY + 1 + name.len()));
    }
    let after = text.strip_prefix('/')?;
    let hash = after.get(..PLACEHOLDER).filter(|hash| hash.bytes().all(is_hash))?;
    Some((Piece::Placeholder { key: key(hash)? }, 1 + PLACEHOLDER))
}

/// The name of a store path at the beginning of `text`.
fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._?=".contains(c)));
    &text[..end.unwrap_or(text.len())]
}

/// Whether it is a digit of Nix's base 32.
fn is_hash(byte: u8) -> bool {
    byte.is_ascii_digit() || (byte.is_ascii_lowercase() && !b"eotu".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "35ir4klckx5pcsb9drk2xjh46sppdcry";

    #[test]
    fn hashes_and_versions_are_taken_out_of_a_text() {
        let text = format!(
            "x=/nix/store/{HASH}-nginx-1.26.1/bin/nginx -c /etc/a:/nix/store/{HASH}-unit-a.service\n/nix/store/"
        );
        assert_eq!(
            without_hashes(&text),
            "x=/nix/store/nginx/bin/nginx -c /etc/a:/nix/store/unit-a.service\n/nix/store/"
        );
        assert_eq!(mentions(&text).len(), 2);
        assert_eq!(names(&without_hashes(&text)).collect::<Vec<_>>(), ["nginx", "unit-a.service", ""]);
        assert_eq!(mentions("/usr/bin /nix/store/short-x /nix/store/ü"), [[0; 32]; 0]);
    }

    #[test]
    fn a_placeholder_is_a_mention() {
        let placeholder = "1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9";
        let text = format!("/{placeholder}/bin/sh");
        assert_eq!(mentions(&text), [key(placeholder).unwrap()]);
        assert_eq!(without_hashes(&text), "/nix/store/…/bin/sh");
    }
}
