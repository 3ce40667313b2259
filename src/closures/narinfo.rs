//! The entry of a store path, as a binary cache has it.

use nix_derivation::{CAHash, NixHash, StoreDir};
use nix_narinfo::{Compression, NarInfo, NarInfoSignature, TrustedPublicKey};

use super::tar::MemberName;
use crate::model::{Content, NarHash, PublicKey, StorePath};

/// The most bytes of an entry: 1 MiB, as the crate that parses them allows.
pub(super) const MAX_BYTES: u64 = nix_narinfo::MAX_NARINFO_SIZE as u64;

/// The entry of a store path whose NAR is in the same file, and not compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Narinfo {
    info: NarInfo,
    path: StorePath,
    references: Vec<StorePath>,
}

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NarinfoError {
    /// It is no entry of a cache.
    #[error("it cannot be parsed")]
    Parse(#[source] nix_narinfo::ParseError),
    /// It cannot be made of these fields.
    #[error("it cannot be written")]
    Build(#[source] nix_narinfo::BuildError),
    /// It is not in the one form in which Clavel writes it.
    #[error("it is not written as Clavel writes it; make the bundle again")]
    OtherForm,
    /// It is about something else than the manifest says.
    #[error("it does not agree with bundle.json, which has another path, hash or size there; copy the bundle again")]
    Disagrees,
}

impl Narinfo {
    /// An entry of these fields. Signatures that Nix would not accept are left out.
    pub fn new(
        path: &StorePath,
        content: Content,
        references: &[StorePath],
        signatures: &[String],
        content_address: Option<&str>,
    ) -> Result<Self, NarinfoError> {
        let mut signatures: Vec<NarInfoSignature> =
            signatures.iter().filter_map(|text| NarInfoSignature::parse(text).ok()).collect();
        signatures.sort_by_cached_key(NarInfoSignature::to_nix_string);
        signatures.dedup();
        let hash = NixHash::Sha256(*content.nar_hash.bytes());
        let url = MemberName::nar(&content.nar_hash).to_string();
        let builder = NarInfo::builder(path.as_nix().clone(), url, hash, content.nar_size)
            .compression(Compression::None)
            .references(references.iter().map(|reference| reference.as_nix().clone()))
            .signatures(signatures)
            .content_address(content_address.and_then(|text| CAHash::parse(text).ok()));
        Ok(Self::of(builder.build().map_err(NarinfoError::Build)?))
    }

    fn of(info: NarInfo) -> Self {
        let path = info.store_path().clone().into();
        let references = info.references().iter().cloned().map(StorePath::from).collect();
        Self { info, path, references }
    }

    /// The bytes of the entry.
    pub(super) fn render(&self) -> Vec<u8> {
        self.info.to_canonical_bytes()
    }

    /// Reads the entry of `path`, whose content is `content`.
    pub(super) fn parse(bytes: &[u8], path: &StorePath, content: Content) -> Result<Self, NarinfoError> {
        let info = NarInfo::parse_in(&StoreDir::default(), bytes).map_err(NarinfoError::Parse)?;
        // Nix reads whatever URL an entry names, those of other files and servers too.
        let is_ours = info.url() == MemberName::nar(&content.nar_hash).to_string()
            && *info.compression() == Compression::None
            && info.to_canonical_bytes() == bytes;
        if !is_ours {
            return Err(NarinfoError::OtherForm);
        }
        let found = Self::of(info);
        if found.path == *path && found.is_of(&content.nar_hash, content.nar_size) {
            Ok(found)
        } else {
            Err(NarinfoError::Disagrees)
        }
    }

    fn is_of(&self, hash: &NarHash, size: u64) -> bool {
        *self.info.nar_hash() == NixHash::Sha256(*hash.bytes()) && self.info.nar_size() == size
    }

    /// The paths that this one refers to. It is one of them itself if it refers to itself.
    pub fn references(&self) -> &[StorePath] {
        &self.references
    }

    /// Whether Nix takes the path from anybody with these keys: one of them signed the entry, or the path itself names the content.
    pub fn is_accepted_with(&self, keys: &[PublicKey]) -> bool {
        let keys: Vec<TrustedPublicKey> =
            keys.iter().filter_map(|key| TrustedPublicKey::parse(&key.to_string()).ok()).collect();
        let store = StoreDir::default();
        self.info.has_valid_signature(&store, &keys) || self.info.is_content_addressed(&store)
    }

    /// The names of the keys in its signatures, which are not verified here.
    pub fn signers(&self) -> Vec<&str> {
        self.info.signatures().iter().map(|signature| signature.key_name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/nix/store/pxzcmw8rvay770ashv53bv5765sv0hfb-t";
    const KEY: &str = "c-1:zUKaRQdOh2MbC3fCvP0xWwVxdeVkF/0L1WQg6VNMcT0=";
    const SIGNATURE: &str =
        "c-1:CFBcSNfkQy9R8cvBewykipAUJ6FlNCVL3kuoC8Amn8eiNJ5kR8JPRP6WveaCYTkA7BlnA1DzMdwP/ao7Nf/EAQ==";

    fn content() -> Content {
        let nar_hash = "sha256-77dlDcqTnlOIvhVcgRCg77MIUBXSOhzwYrzh+budw6g=".parse().unwrap();
        Content { nar_hash, nar_size: 456 }
    }

    #[test]
    fn an_entry_is_read_in_one_form_and_about_one_path() {
        let path: StorePath = PATH.parse().unwrap();
        let entry = Narinfo::new(&path, content(), &[], &[SIGNATURE.to_owned(), "damaged".to_owned()], None).unwrap();
        let key: PublicKey = KEY.parse().unwrap();
        assert!(entry.is_accepted_with(std::slice::from_ref(&key)) && !entry.is_accepted_with(&[]));
        let written = entry.render();
        assert_eq!(Narinfo::parse(&written, &path, content()).unwrap(), entry);
        let other: StorePath = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x".parse().unwrap();
        assert!(matches!(Narinfo::parse(&written, &other, content()), Err(NarinfoError::Disagrees)));
        let longer = Content { nar_size: 457, ..content() };
        assert!(matches!(Narinfo::parse(&written, &path, longer), Err(NarinfoError::Disagrees)));
        let text = String::from_utf8(written.clone()).unwrap();
        for bad in [
            text.replace("URL: nar/", "URL: file:///etc/"),
            text.replace("Compression: none", "Compression: xz"),
            text.replace("References: \n", "References:\n"),
            format!("{text}Sig: x\n"),
            format!("{text}URL: http://h/x.nar\n"),
        ] {
            assert_ne!(bad, text);
            assert!(Narinfo::parse(bad.as_bytes(), &path, content()).is_err(), "{bad}");
        }
        // What is no signature any more is another form, and what is one signs something else.
        for at in 0..written.len() {
            let mut flipped = written.clone();
            flipped[at] ^= 1;
            let read = Narinfo::parse(&flipped, &path, content());
            assert!(read.is_err() || !read.unwrap().is_accepted_with(std::slice::from_ref(&key)), "byte {at}");
        }
    }
}
