//! Too few signatures, the same one twice, signatures under another name, and signatures that only a lax verifier accepts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde_json::{Value, json};

use super::Siege;
use crate::support::attacker::{ForgedBranch, Onto, StolenKey, rendered};
use crate::support::world::World;

/// A fleet whose root needs the signatures of both its publishers, which both have signed the branch, and its agent.
fn two_publishers() -> (World, StolenKey, StolenKey) {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    let second = StolenKey::own("claveld-2", 3);
    let (newest, next, key) = (world.root(), world.at("next.json"), world.at("root-1.secret"));
    let next_of = ["root", "next", &newest, "--output", &next, "--key", &key];
    world.clavel(&[&next_of[..], &["--publisher-key", &second.public(), "--publisher-threshold", "2"]].concat()).good();
    world.clavel(&["root", "publish", &next, "--repository", &world.at("fleet.git")]).good();
    let first = StolenKey::read(&world.path("claveld-1.secret"));
    (world, first, second)
}

/// Signs every document and the index by `keys`.
fn sign_all(branch: &mut ForgedBranch<'_>, keys: &[&StolenKey], version: u64) {
    let paths: Vec<String> =
        branch.files.keys().filter(|path| crate::support::attacker::identity(path).is_some()).cloned().collect();
    for path in paths {
        branch.edit(&path, keys, |_| ());
    }
    branch.reindex(keys, |index| index["version"] = json!(version));
}

/// Changes the list of the signatures of the index by `change`.
fn with_signatures(branch: &mut ForgedBranch<'_>, path: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let mut file: Value = serde_json::from_slice(&branch.files[path].bytes).unwrap();
    change(file["signatures"].as_array_mut().unwrap());
    branch.write(path, rendered(&file));
}

const ONE_OF_TWO: &str = "1 trusted keys signed it, and 2 of claveld-1, claveld-2 have to have signed it";

/// Asserts that the agent refuses the pushed branch, and that the machine keeps what it runs.
#[track_caller]
fn refused(world: &World, branch: &ForgedBranch<'_>, why: &str) {
    branch.push(Onto::Tip);
    let profile = || std::fs::read_link(world.path("web-1/profile/system")).unwrap();
    let before = profile();
    world.agent("web-1", &["once"]).refused(5, why);
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    assert_eq!(profile(), before);
}

/// Asserts that the agent accepts what both publishers have signed.
#[track_caller]
fn assert_accepted_from_both(world: &World, branch: &mut ForgedBranch<'_>, keys: [&StolenKey; 2], version: u64) {
    sign_all(branch, &keys, version);
    branch.push(Onto::Tip);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
}

#[test]
fn a_threshold_that_is_not_met() {
    let (world, first, second) = two_publishers();
    let mut branch = ForgedBranch::of(&world);
    refused(&world, &branch, &format!("the index cannot be trusted: {ONE_OF_TWO}"));
    // The second signature is by a stranger, under the name of the second publisher.
    let stranger = StolenKey::own("claveld-2", 4);
    sign_all(&mut branch, &[&first, &stranger], 2);
    refused(&world, &branch, &format!("the index cannot be trusted: {ONE_OF_TWO}"));
    // Both publishers have to sign each document as well.
    sign_all(&mut branch, &[&first, &second], 2);
    branch.edit("units/web-1.json", &[&first], |_| ());
    branch.reindex(&[&first, &second], |_| ());
    refused(&world, &branch, &format!("units/web-1.json cannot be trusted: {ONE_OF_TWO}"));
    assert_accepted_from_both(&world, &mut branch, [&first, &second], 3);
}

#[test]
fn the_same_key_counted_twice() {
    let (world, first, second) = two_publishers();
    let mut branch = ForgedBranch::of(&world);
    sign_all(&mut branch, &[&first, &first], 2);
    refused(&world, &branch, &format!("the index cannot be trusted: {ONE_OF_TWO}"));
    assert_accepted_from_both(&world, &mut branch, [&first, &second], 3);
}

#[test]
fn one_key_under_two_names() {
    let (world, first, second) = two_publishers();
    let mut branch = ForgedBranch::of(&world);
    sign_all(&mut branch, &[&first, &first], 2);
    with_signatures(&mut branch, "index.json", |signatures| signatures[1]["keyid"] = json!("claveld-2"));
    refused(&world, &branch, &format!("the index cannot be trusted: {ONE_OF_TWO}"));
    assert_accepted_from_both(&world, &mut branch, [&first, &second], 3);
}

#[test]
fn one_key_under_two_names_in_a_root() {
    let siege = Siege::begin();
    let root = StolenKey::read(&siege.world.path("root-1.secret"));
    let mut branch = siege.branch();
    let mut said = branch.signed("root.json");
    said["fleet"] = branch.signed("index.json")["fleet"].clone();
    said["version"] = json!(2);
    let key = siege.claveld().public();
    let again = key.replace("claveld-1", "claveld-2");
    said["roles"]["publisher"] = json!({ "keys": [key, again], "threshold": 2 });
    branch.sign("roots/2.json", &said, &[&root]);
    branch.sign("root.json", &said, &[&root]);
    siege.holds(&branch, "its role `publisher` is not valid: 2 different keys have to sign, and it has 1");
}

#[test]
fn base64_that_is_written_in_another_way() {
    let siege = Siege::begin();
    let last_bits = |text: &str| {
        // The last digit before the padding carries four bits that have to be zero.
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let at = digits.iter().position(|digit| *digit == text.as_bytes()[85]).unwrap();
        format!("{}{}==", &text[..85], char::from(digits[at + 1]))
    };
    for other in [
        last_bits,
        |text: &str| text.trim_end_matches('=').to_owned(),
        |text: &str| text.replace('+', "-").replace('/', "_") + " ",
        |text: &str| format!("{text}===="),
    ] {
        let mut branch = siege.branch();
        with_signatures(&mut branch, "index.json", |signatures| {
            signatures[0]["sig"] = json!(other(signatures[0]["sig"].as_str().unwrap()));
        });
        siege.holds(&branch, "the index cannot be trusted: it is not a valid Index: at `signatures[0].sig`");
    }
}

/// The order of the base point, little-endian (RFC 8032, section 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// `scalar` plus the order: another number, which a lax verifier takes for the same.
fn with_the_order_added(scalar: &[u8]) -> [u8; 32] {
    let (mut sum, mut carry) = ([0; 32], 0_u16);
    for (at, byte) in sum.iter_mut().enumerate() {
        let added = u16::from(scalar[at]) + u16::from(ORDER[at]) + carry;
        *byte = added.to_le_bytes()[0];
        carry = added >> 8;
    }
    sum
}

/// The variants that an attacker can make of a good signature.
type Forgery<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

#[test]
fn signatures_that_only_a_lax_verifier_accepts() {
    let siege = Siege::begin();
    let mut identity = [0_u8; 32];
    identity[0] = 1;
    // The point of order two has y = -1. The neutral one has y = 1, and here also as a number beyond the field: p + 1.
    let mut minus_one = [0xff_u8; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut beyond_the_field = [0xff_u8; 32];
    (beyond_the_field[0], beyond_the_field[31]) = (0xee, 0x7f);
    let attacks: [Forgery<'_>; 6] = [
        // The same signature with a scalar that is not reduced.
        &|good| [&good[..32], &with_the_order_added(&good[32..])].concat(),
        // A commitment of low order, and one of zeros.
        &|_| [identity, [0; 32]].concat(),
        &|_| [minus_one, [0; 32]].concat(),
        &|_| [beyond_the_field, [0; 32]].concat(),
        &|_| vec![0; 64],
        // A sign bit on a point that has none.
        &|good| [&[good[..31].to_vec(), vec![good[31] ^ 0x80]].concat()[..], &good[32..]].concat(),
    ];
    for attack in attacks {
        let mut branch = siege.branch();
        with_signatures(&mut branch, "index.json", |signatures| {
            let good = STANDARD.decode(signatures[0]["sig"].as_str().unwrap()).unwrap();
            signatures[0]["sig"] = json!(STANDARD.encode(attack(&good)));
        });
        siege.holds(&branch, "the index cannot be trusted: no valid signature by a trusted key");
    }
}

/// Asserts that the agent refuses a root whose publisher has this key.
fn holds_against(siege: &Siege, key: [u8; 32]) {
    let root = StolenKey::read(&siege.world.path("root-1.secret"));
    let mut branch = siege.branch();
    let mut said = branch.signed("root.json");
    said["fleet"] = branch.signed("index.json")["fleet"].clone();
    said["version"] = json!(2);
    said["roles"]["publisher"]["keys"] = json!([format!("weak:{}", STANDARD.encode(key))]);
    branch.sign("roots/2.json", &said, &[&root]);
    branch.sign("root.json", &said, &[&root]);
    siege.holds(&branch, "the public key `weak` is not a usable ed25519 key");
}

/// The point of order two, whose y is -1.
fn of_order_two() -> [u8; 32] {
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    minus_one
}

#[test]
fn keys_under_which_anybody_can_sign_are_no_keys_of_a_root() {
    let siege = Siege::begin();
    let mut identity = [0; 32];
    identity[0] = 1;
    // The neutral point once more, as a number beyond the field: p + 1.
    let mut beyond_the_field = [0xff; 32];
    (beyond_the_field[0], beyond_the_field[31]) = (0xee, 0x7f);
    for weak in [identity, of_order_two(), [0; 32], beyond_the_field] {
        holds_against(&siege, weak);
    }
}

#[test]
fn a_key_with_a_part_of_low_order_is_no_key_of_a_root() {
    let siege = Siege::begin();
    let good = SigningKey::from_bytes(&[5; 32]).verifying_key().to_edwards();
    let two = VerifyingKey::from_bytes(&of_order_two()).unwrap().to_edwards();
    holds_against(&siege, (good + two).compress().to_bytes());
}
