//! Randomly spliced files. Each is refused, or it is the one rendering of its content; the file of a secret key is refused, or it
//! is the text of the key that was read.

use proptest::prelude::*;

use super::fixture::{Fleet, first_root, key, signed};
use super::{SecretKey, Signed, TrustedRoot};
use crate::model::{
    Agent, AgentSpecification, BinCount, BinDigests, Deployment, Draft, Epoch, FileDigest, Index, IndexVersion, Kind,
    List, Metadata, Payload, Revision, Root, Schema,
};

fn index() -> Vec<u8> {
    let fleet = Fleet::new();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let index = Index {
        bins: BinDigests::of(BinCount::ONE, |_| FileDigest::of(b"x")),
        branch: "deployments".parse().unwrap(),
        epoch: Epoch::FIRST,
        expires: now,
        fleet: fleet.id(),
        folders: List::one("units".parse().unwrap()),
        issued: now,
        kind: Kind::THIS,
        previous: None,
        schema: Schema::V1,
        sources: List::default(),
        version: IndexVersion::FIRST,
    };
    signed(index, &[&fleet.key])
}

fn agent() -> Vec<u8> {
    let fleet = Fleet::new();
    let name: crate::model::Name = "web-1".parse().unwrap();
    let specification = AgentSpecification { deployments: List::one(name.clone()) };
    let document = Draft::new(name, Metadata::default(), specification).at(Revision::FIRST, fleet.id());
    signed(document, &[&fleet.key])
}

fn root() -> Vec<u8> {
    let key = key("root-1");
    signed(first_root(&[&key], 1), &[&key])
}

/// `file` after some splices: bytes of itself, or others, replace some of its own.
fn spliced(file: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let own = file.clone();
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..6),
        (any::<prop::sample::Index>(), 0..40_usize).prop_map(move |(at, length)| {
            let at = at.index(own.len());
            own[at..(at + length).min(own.len())].to_vec()
        }),
        "[\\[\\]{}\",:0-9a-z\\\\ \n-]{0,6}".prop_map(String::into_bytes),
    ];
    let splice = (any::<prop::sample::Index>(), 0..12_usize, piece);
    proptest::collection::vec(splice, 0..4).prop_map(move |splices| {
        let mut file = file.clone();
        for (at, length, piece) in splices {
            let at = at.index(file.len() + 1);
            let end = (at + length).min(file.len());
            file.splice(at..end, piece);
        }
        file
    })
}

fn one_rendering<P: Payload>(file: &[u8]) -> bool {
    Signed::<P>::parse(file).map_or(true, |signed| signed.render() == file)
}

proptest! {
    #[test]
    fn a_spliced_index_has_one_rendering(file in spliced(index())) {
        prop_assert!(one_rendering::<Index>(&file));
    }

    #[test]
    fn a_spliced_document_has_one_rendering(file in spliced(agent())) {
        prop_assert!(one_rendering::<Agent>(&file) && one_rendering::<Deployment>(&file));
    }

    #[test]
    fn a_spliced_root_has_one_rendering(file in spliced(root())) {
        prop_assert!(one_rendering::<Root>(&file));
        if let Ok(root) = TrustedRoot::given(&file) {
            prop_assert_eq!(root.file(), &file);
        }
    }

    #[test]
    fn a_spliced_secret_key_has_one_text(text in spliced(key("claveld-1").to_text().as_bytes().to_vec())) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), &text).unwrap();
        match SecretKey::read(&path) {
            Ok(key) => prop_assert!(key.to_text().as_bytes() == text.trim_ascii_end()),
            // The error quotes no part of the file.
            Err(error) => prop_assert!(error.to_string().len() < 400),
        }
    }
}
