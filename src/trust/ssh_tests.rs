use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use ssh_key::Signature;
use ssh_key::public::SkEd25519;

use super::*;
use crate::model::{KeyId, List, PublicKey, Role, Threshold};
use crate::trust::Authority;

/// The order of ed25519's base point, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn secret(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn id() -> KeyId {
    "alice".parse().unwrap()
}

fn plain(key: &SigningKey) -> RoleKey {
    PublicKey::new(id(), key.verifying_key().to_bytes()).into()
}

fn hardware(key: &SigningKey, application: &str) -> RoleKey {
    let public = hardware_key(key, application);
    let line = ssh_key::PublicKey::new(public, "alice").to_openssh().unwrap();
    line.parse().unwrap()
}

fn hardware_key(key: &SigningKey, application: &str) -> KeyData {
    KeyData::SkEd25519(SkEd25519::new(Ed25519PublicKey(key.verifying_key().to_bytes()), application))
}

fn usable(key: &RoleKey) -> UsableKey {
    UsableKey::of(key).unwrap()
}

fn blob(signature: &SshSig) -> Vec<u8> {
    let mut blob = Vec::new();
    signature.encode(&mut blob).unwrap();
    blob
}

/// A signature as `ssh-keygen -Y sign` makes it.
fn plain_signature(key: &SigningKey, namespace: &str, hash: HashAlg, message: &[u8]) -> Vec<u8> {
    let bytes = key.sign(&SshSig::signed_data(namespace, hash, message).unwrap()).to_bytes();
    let signature = Signature::new(Algorithm::Ed25519, bytes).unwrap();
    let public = KeyData::Ed25519(Ed25519PublicKey(key.verifying_key().to_bytes()));
    blob(&SshSig::new(public, namespace, hash, signature).unwrap())
}

/// A signature as an authenticator makes it.
fn hardware_signature(key: &SigningKey, application: &str, flags: u8, counter: u32, message: &[u8]) -> Vec<u8> {
    let wrapped = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, message).unwrap();
    let mut bytes = key.sign(&hardware_message(&wrapped, application, flags, counter)).to_bytes().to_vec();
    bytes.push(flags);
    bytes.extend_from_slice(&counter.to_be_bytes());
    let signature = Signature::new(Algorithm::SkEd25519, bytes).unwrap();
    blob(&SshSig::new(hardware_key(key, application), NAMESPACE, HashAlg::Sha512, signature).unwrap())
}

fn is_valid(blob: &[u8], key: &RoleKey, message: &[u8]) -> bool {
    SshSignature::parse(blob).is_ok_and(|signature| signature.is_by(&usable(key), message))
}

#[test]
fn a_signature_is_valid_with_either_hash() {
    let key = secret(1);
    for hash in [HashAlg::Sha256, HashAlg::Sha512] {
        assert!(is_valid(&plain_signature(&key, NAMESPACE, hash, b"this"), &plain(&key), b"this"));
    }
    let blob = plain_signature(&key, NAMESPACE, HashAlg::Sha512, b"this");
    assert!(!is_valid(&blob, &plain(&key), b"that"));
    assert!(!is_valid(&blob, &plain(&secret(2)), b"this"));
    assert!(!is_valid(&blob, &hardware(&key, "ssh:"), b"this"));
}

#[test]
fn a_wrapped_signature_is_the_one_that_ssh_keygen_makes() {
    let key = secret(1);
    let public = PublicKey::new(id(), key.verifying_key().to_bytes());
    let message = vec![b'x'; 300 << 10];
    let asked = SshSignature::to_be_signed(&message).unwrap();
    assert!(asked.len() < 200, "{}", asked.len());
    let signature = SshSignature::wrap(&public, key.sign(&asked).to_bytes()).unwrap();
    assert_eq!(signature.blob(), plain_signature(&key, "clavel", HashAlg::Sha512, &message));
    assert!(signature.is_by(&usable(&plain(&key)), &message));
    // A signature of the bare message is not valid in the envelope of a signature of its digest.
    let other = SshSignature::wrap(&public, key.sign(&message).to_bytes()).unwrap();
    assert!(!other.is_by(&usable(&plain(&key)), &message));
}

#[test]
fn another_namespace_does_not_count() {
    let error = SshSignature::parse(&plain_signature(&secret(1), "file", HashAlg::Sha512, b"this")).unwrap_err();
    assert_eq!(error, SshSignatureError::OtherNamespace("file".to_owned()));
}

#[test]
fn a_hardware_signature_needs_a_touch() {
    let key = secret(1);
    let expected = hardware(&key, "ssh:");
    // The flags say: touched; touched and verified by a PIN.
    for flags in [0x01, 0x05] {
        assert!(is_valid(&hardware_signature(&key, "ssh:", flags, 7, b"this"), &expected, b"this"));
    }
    for flags in [0x00, 0x04] {
        let error = SshSignature::parse(&hardware_signature(&key, "ssh:", flags, 7, b"this")).unwrap_err();
        assert_eq!(error, SshSignatureError::NotTouched);
    }
    assert!(!is_valid(&hardware_signature(&key, "ssh:", 1, 7, b"this"), &expected, b"that"));
    assert!(!is_valid(&hardware_signature(&key, "ssh:other", 1, 7, b"this"), &expected, b"this"));
    assert!(!is_valid(&hardware_signature(&key, "ssh:", 1, 7, b"this"), &plain(&key), b"this"));
    assert!(!is_valid(&hardware_signature(&secret(2), "ssh:", 1, 7, b"this"), &expected, b"this"));
    // An authenticator never makes a plain signature, so one by the same secret does not count.
    assert!(!is_valid(&plain_signature(&key, NAMESPACE, HashAlg::Sha512, b"this"), &expected, b"this"));
}

#[test]
fn the_key_inside_a_signature_is_not_trusted() {
    // The thief made the signature, and put the expected key beside it.
    let (ours, thief) = (secret(1), secret(2));
    let parsed = SshSig::decode(&mut plain_signature(&thief, NAMESPACE, HashAlg::Sha512, b"this").as_slice()).unwrap();
    let public = KeyData::Ed25519(Ed25519PublicKey(ours.verifying_key().to_bytes()));
    let forged = SshSig::new(public, NAMESPACE, HashAlg::Sha512, parsed.signature().clone()).unwrap();
    assert!(!is_valid(&blob(&forged), &plain(&ours), b"this"));
}

#[test]
fn a_signature_has_one_encoding() {
    let key = secret(1);
    let good = plain_signature(&key, NAMESPACE, HashAlg::Sha512, b"this");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut blob = good.clone();
        change(&mut blob);
        SshSignature::parse(&blob).unwrap_err()
    };
    // Trailing bytes, no bytes at all, a cut, another magic, another version.
    changed(&|blob| blob.push(0));
    changed(&Vec::clear);
    changed(&|blob| blob.truncate(blob.len() - 1));
    changed(&|blob| blob[0] = b's');
    changed(&|blob| blob[9] = 2);
    changed(&|blob| blob[9] = 0);
    changed(&|blob| blob.resize(MAX_BYTES + 1, 0));
    // The reserved field (after magic, version, key of 51 bytes and namespace) is not empty.
    let reserved = 6 + 4 + (4 + 51) + (4 + NAMESPACE.len());
    changed(&|blob| {
        blob[reserved + 3] = 1;
        blob.insert(reserved + 4, b'x');
    });
    // Every byte, and so every length, is one more or one less.
    for at in 0..good.len() - 4 {
        for to in [1, u8::MAX] {
            let mut blob = good.clone();
            blob[at] = blob[at].wrapping_add(to);
            assert!(!is_valid(&blob, &plain(&key), b"this"), "byte {at}");
        }
    }
}

#[test]
fn an_error_names_the_algorithm_of_another_key() {
    let mpint = |bytes: &[u8]| ssh_key::Mpint::from_positive_bytes(bytes).unwrap();
    let rsa = ssh_key::public::RsaPublicKey { e: mpint(&[1, 0, 1]), n: mpint(&[0x7f; 256]) };
    let signature = Signature::new(Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, vec![1; 256]).unwrap();
    let rsa = SshSig::new(KeyData::Rsa(rsa), NAMESPACE, HashAlg::Sha512, signature).unwrap();
    let error = SshSignature::parse(&blob(&rsa)).unwrap_err();
    assert_eq!(error, SshSignatureError::OtherAlgorithm("ssh-rsa".to_owned()));
    // The key is a plain ed25519 one, and the signature says that a hardware key made it.
    let key = KeyData::Ed25519(Ed25519PublicKey(secret(1).verifying_key().to_bytes()));
    let signature = Signature::new(Algorithm::SkEd25519, vec![1; 69]).unwrap();
    let mixed = SshSig::new(key, NAMESPACE, HashAlg::Sha512, signature).unwrap();
    let error = SshSignature::parse(&blob(&mixed)).unwrap_err().to_string();
    assert!(error.contains("two algorithms"), "{error}");
}

#[test]
fn a_scalar_beyond_the_order_is_refused() {
    // A lax verifier accepts s + L as well ("Taming the many EdDSAs", section 3).
    let key = secret(1);
    let mut blob = plain_signature(&key, NAMESPACE, HashAlg::Sha512, b"this");
    let at = blob.len() - 32;
    let mut carry = 0_u16;
    for (byte, order) in blob[at..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert!(SshSignature::parse(&blob).is_ok());
    assert!(!is_valid(&blob, &plain(&key), b"this"));
}

/// Every encoding of a point of low order: the eight points, and those of them that have a second encoding.
fn low_order() -> Vec<[u8; 32]> {
    let eighth: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    let other_eighth: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    let small = |y: u8| {
        let mut bytes = [0; 32];
        bytes[0] = y;
        bytes
    };
    // y = 0 and 1; y = -1; y = p and p + 1, which are 0 and 1 again.
    let mut all = vec![small(0), small(1), beyond(0xec), beyond(0xed), beyond(0xee), eighth, other_eighth];
    for mut bytes in all.clone() {
        bytes[31] |= 0x80;
        all.push(bytes);
    }
    all
}

/// The number 2^255 - 256 + `low`, little-endian: beyond the field's prime, 2^255 - 19, from 0xed on.
fn beyond(low: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = low;
    bytes[31] = 0x7f;
    bytes
}

#[test]
fn points_of_low_order_and_second_encodings_are_refused_as_keys() {
    let key = |bytes| RoleKey::from(PublicKey::new(id(), bytes));
    for bytes in low_order() {
        assert!(UsableKey::of(&key(bytes)).is_none(), "{bytes:x?}");
    }
    let mut points = 0;
    for low in 0xed..=0xff {
        for sign in [0, 0x80] {
            let mut bytes = beyond(low);
            bytes[31] |= sign;
            points += usize::from(VerifyingKey::from_bytes(&bytes).is_ok());
            assert!(UsableKey::of(&key(bytes)).is_none(), "{bytes:x?}");
        }
    }
    assert!(points > 4, "a lax decoder accepts some of them");
    let role = Role { keys: List::one(key(low_order()[0])), threshold: Threshold::ONE };
    assert!(Authority::of(&role).is_err());
}

#[test]
fn points_with_a_part_of_low_order_are_refused_as_keys() {
    let ours = secret(1).verifying_key().to_edwards();
    let mut different = 0;
    for bytes in low_order() {
        let torsion = VerifyingKey::from_bytes(&bytes).unwrap().to_edwards();
        let mixed = (ours + torsion).compress().to_bytes();
        let key = RoleKey::from(PublicKey::new(id(), mixed));
        // The sum with the identity, which has the order one, is the key itself.
        let is_ours = mixed == secret(1).verifying_key().to_bytes();
        assert!(!VerifyingKey::from_bytes(&mixed).unwrap().is_weak());
        assert_eq!(UsableKey::of(&key).is_some(), is_ours, "{mixed:x?}");
        different += usize::from(!is_ours);
    }
    assert!(different >= 7);
}

#[test]
fn a_signature_with_a_point_of_low_order_is_refused() {
    // R of low order and s = 0 are valid for any message under a key of low order. R of low order is refused under any key.
    let key = secret(1);
    for point in low_order() {
        let mut blob = plain_signature(&key, NAMESPACE, HashAlg::Sha512, b"this");
        let at = blob.len() - 64;
        blob[at..at + 32].copy_from_slice(&point);
        assert!(!is_valid(&blob, &plain(&key), b"this"));
        blob[at + 32..].fill(0);
        assert!(!is_valid(&blob, &plain(&key), b"this"));
    }
}

#[test]
fn a_key_in_hardware_and_in_a_file_counts_once() {
    let key = secret(1);
    let both =
        Role { keys: vec![plain(&key), hardware(&key, "ssh:")].try_into().unwrap(), threshold: 2.try_into().unwrap() };
    assert!(matches!(Authority::of(&both), Err(crate::trust::AuthorityError::UnreachableThreshold { keys: 1, .. })));
}

#[test]
fn the_armour_has_one_form() {
    let key = secret(1);
    let blob = plain_signature(&key, NAMESPACE, HashAlg::Sha512, b"this");
    let armored = SshSig::decode(&mut blob.as_slice()).unwrap().to_pem(LineEnding::LF).unwrap();
    assert_eq!(SshSignature::from_armor(&armored).unwrap().blob(), blob);
    for bad in [
        String::new(),
        armored.replace("SSH SIGNATURE", "SSH SIG"),
        STANDARD.encode(&blob),
        "x".repeat(9999),
        // The same signature with other line breaks or other text.
        armored.trim_end().to_owned(),
        format!("{armored}\n"),
        format!("\n{armored}"),
        format!("a remark\n{armored}"),
        armored.replace('\n', "\r\n"),
        armored.replacen('\n', "\r\n", 1),
    ] {
        assert!(SshSignature::from_armor(&bad).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn a_parsed_signature_is_written_as_it_was_read(blob: Vec<u8>, text in any::<String>()) {
        let magic = [b"SSHSIG\0\0\0\x01".as_slice(), &blob].concat();
        for blob in [blob, magic] {
            if let Ok(signature) = SshSignature::parse(&blob) {
                prop_assert_eq!(signature.blob(), blob);
            }
        }
        let _never_panics = SshSignature::from_armor(&text);
    }

    #[test]
    fn one_flipped_bit_makes_a_signature_invalid(at: prop::sample::Index, bit in 0..8_u8, by_touch: bool) {
        let key = secret(1);
        let (mut blob, expected) = if by_touch {
            (hardware_signature(&key, "ssh:", 1, 7, b"this"), hardware(&key, "ssh:"))
        } else {
            (plain_signature(&key, NAMESPACE, HashAlg::Sha512, b"this"), plain(&key))
        };
        prop_assert!(is_valid(&blob, &expected, b"this"));
        let at = at.index(blob.len());
        blob[at] ^= 1 << bit;
        prop_assert!(!is_valid(&blob, &expected, b"this"));
        if let Ok(signature) = SshSignature::parse(&blob) {
            prop_assert_eq!(signature.blob(), blob);
        }
    }

    #[test]
    fn every_signature_is_read_and_verified(seed: u8, message: Vec<u8>, counter: u32, application in "ssh:[!-~]{0,64}") {
        let key = secret(seed);
        prop_assert!(is_valid(&plain_signature(&key, NAMESPACE, HashAlg::Sha256, &message), &plain(&key), &message));
        let blob = hardware_signature(&key, &application, 1, counter, &message);
        prop_assert!(is_valid(&blob, &hardware(&key, &application), &message));
    }
}
