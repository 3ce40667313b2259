//! Files that two parsers, or a parser and a person, could read differently, and files that are too expensive to parse.

use serde_json::json;

use super::Siege;
use crate::support::attacker::{ForgedBranch, Onto, StolenKey};

const DEPLOYMENT: &str = "deployments/web-1.json";

/// The deployment with a piece of its text replaced, listed by an index that claveld's key signed.
fn rewritten<'a>(siege: &'a Siege, key: &StolenKey, from: &str, to: &str) -> ForgedBranch<'a> {
    changed(siege, key, |text| {
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1)
    })
}

fn changed<'a>(siege: &'a Siege, key: &StolenKey, change: impl FnOnce(&str) -> String) -> ForgedBranch<'a> {
    let mut branch = siege.branch();
    let text = String::from_utf8(branch.files[DEPLOYMENT].bytes.clone()).unwrap();
    branch.write(DEPLOYMENT, change(&text));
    branch.reindex(&[key], |index| {
        index["version"] = json!(2);
        index["documents"][DEPLOYMENT]["revision"] = json!(1);
    });
    branch
}

#[test]
fn the_same_content_in_another_rendering() {
    let siege = Siege::begin();
    let key = siege.claveld();
    for (from, to) in [
        ("  \"signed\"", "\t\"signed\""),
        ("\"web-1\"", "\"web\\u002d1\""),
        ("{\n", "{\r\n"),
        ("}\n", "}\n\n"),
        ("\"revision\": 1", "\"revision\":  1"),
        ("{\n  \"sig", "\n{\n  \"sig"),
    ] {
        siege.holds(&rewritten(&siege, &key, from, to), "it is not written in the one form that its content has");
    }
}

#[test]
fn keys_that_stand_there_twice() {
    let siege = Siege::begin();
    let key = siege.claveld();
    for (from, to) in [
        ("\"revision\": 1", "\"revision\": 1,\n    \"revision\": 2"),
        ("\"attribute\":", "\"attribute\": \"a\",\n      \"attribute\":"),
    ] {
        siege.holds(&rewritten(&siege, &key, from, to), "it is not written in the one form that its content has");
    }
    let twice = changed(&siege, &key, |text| {
        let signed = &text[text.find("  \"signed\": {").unwrap()..text.len() - "\n}\n".len()];
        text.replacen(signed, &format!("{signed},\n{signed}"), 1)
    });
    siege.holds(&twice, "it is not written in the one form that its content has");
}

#[test]
fn numbers_that_readers_disagree_on() {
    let siege = Siege::begin();
    let key = siege.claveld();
    for (number, why) in [
        ("9007199254740992", "is not an integer from 0 to 2^53 - 1"),
        ("18446744073709551616", "is not an integer from 0 to 2^53 - 1"),
        ("1e0", "is not an integer from 0 to 2^53 - 1"),
        ("1.0", "is not an integer from 0 to 2^53 - 1"),
        ("-1", "-1 is not an integer from 0 to 2^53 - 1"),
        ("0", "from 1 to 2^53 - 1"),
        ("01", "invalid number"),
        ("\"1\"", "invalid type: string"),
    ] {
        siege.holds(&rewritten(&siege, &key, "\"revision\": 1", &format!("\"revision\": {number}")), why);
    }
}

#[test]
fn deep_nesting() {
    let siege = Siege::begin();
    let key = siege.claveld();
    let deep = "[".repeat(50_000);
    siege.holds(
        &rewritten(&siege, &key, "\"unit\": \"web-1\"", &format!("\"unit\": {deep}")),
        "at `signed.specification.unit",
    );
    let mut branch = siege.branch();
    branch.write("index.json", "{\"a\":".repeat(100_000));
    siege.holds(&branch, "the index cannot be trusted: it is not a valid Index");
}

#[test]
fn unknown_fields_and_what_trails() {
    let siege = Siege::begin();
    let key = siege.claveld();
    // A field that this version does not know is as much under the signature as any other.
    let more = rewritten(&siege, &key, "\"revision\": 1", "\"revision\": 1,\n    \"run\": \"evil\"");
    siege.holds(&more, "no valid signature by a trusted key");
    let beside = rewritten(&siege, &key, "\"keyid\":", "\"alg\": \"none\",\n      \"keyid\":");
    beside.push(Onto::Tip);
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    let siege = Siege::begin();
    let key = siege.claveld();
    for trailing in ["{}\n", "x", "\0"] {
        let branch = changed(&siege, &key, |text| format!("{text}{trailing}"));
        siege.holds(&branch, "trailing characters at line");
    }
    let mut branch = siege.branch();
    let index = branch.files["index.json"].bytes.clone();
    branch.write("index.json", [&index[..], b"{}"].concat());
    siege.holds(&branch, "trailing characters");
    branch.write("index.json", [b"\xef\xbb\xbf", &index[..]].concat());
    siege.holds(&branch, "byte-order mark");
}

#[test]
fn names_in_other_alphabets_and_with_steering_characters() {
    let siege = Siege::begin();
    let key = siege.claveld();
    for name in ["w\u{435}b-1", "web-1\u{200b}", "we\u{301}b", "web-1\u{202e}", "../web-1", "web-1\\u0000", "WEB 1"] {
        siege.holds(&rewritten(&siege, &key, "\"name\": \"web-1\"", &format!("\"name\": \"{name}\"")), "is not a name");
    }
    // A name in another case is another name.
    let mut branch = siege.branch();
    branch.edit(DEPLOYMENT, &[&key], |signed| signed["name"] = json!("WEB-1"));
    branch.reindex(&[&key], |index| index["version"] = json!(2));
    siege.holds(&branch, "deployments/web-1.json says that it is `WEB-1`");
}

#[test]
fn files_that_are_larger_than_they_may_be() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.write(DEPLOYMENT, vec![b' '; 300 << 10]);
    siege.holds(&branch, "it has 307200 bytes, and 262144 are allowed");
    let mut branch = siege.branch();
    branch.write("root.json", vec![b' '; 301 << 10]);
    siege.holds(&branch, "it has 308224 bytes, and 262144 are allowed");
}
