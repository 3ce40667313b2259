//! The text of a derivation: which store paths it mentions, and how it reads without their hashes and versions.

use super::version::split_numbered;

/// By what an output or a source is mentioned: the hash of its store path, or as much of its placeholder.
pub(super) type Key = [u8; KEY];

const KEY: usize = 32;
const STORE: &str = "/nix/store/";
/// The length of what stands, after a slash, for an output whose path is not known before it is built.
const PLACEHOLDER: usize = 52;
/// What people are shown of a name that somebody gave: no more than this.
const SHOWN: usize = 96;

/// The key at the beginning of a store path's last part.
pub(super) fn key(base: &str) -> Option<Key> {
    base.as_bytes().first_chunk().copied().filter(|key: &Key| key.iter().all(|byte| is_hash(*byte)))
}

/// A name from a derivation as people are shown it: in one line, and not endless.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(SHOWN).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What `text` mentions.
pub(super) fn mentions(text: &str) -> Vec<Key> {
    pieces(text).filter_map(|piece| piece.mention().map(|(key, _)| key)).collect()
}

/// `text` with every store path spelt by its name alone, without hash and version: `/nix/store/nginx/bin/nginx`.
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

/// The names that a line without hashes mentions.
pub(super) fn names(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices(STORE).map(|(at, _)| name_at(&line[at + STORE.len()..]))
}

/// A name without its version.
pub(super) fn stem(name: &str) -> &str {
    split_numbered(name).0
}

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

/// `text` cut into store paths, placeholders, and what stands between them.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Every mention begins with a slash, so what comes before one is plain.
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

/// The mention that `text` begins with, and its length.
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

/// The store path's name that `text` begins with.
fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._?=".contains(c)));
    &text[..end.unwrap_or(text.len())]
}

/// The digits of Nix's base 32.
fn is_hash(byte: u8) -> bool {
    byte.is_ascii_digit() || (byte.is_ascii_lowercase() && !b"eotu".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "35ir4klckx5pcsb9drk2xjh46sppdcry";

    #[test]
    fn a_text_reads_without_hashes_and_versions() {
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

    #[test]
    fn what_is_shown_steers_nothing_and_ends() {
        assert_eq!(shown("a\n\u{1b}[2J"), "a\u{fffd}\u{fffd}[2J");
        assert_eq!(shown(&"x".repeat(1000)).len(), SHOWN);
    }
}
