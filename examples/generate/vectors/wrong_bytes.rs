//! Documents that are signed and listed, and not written in the one rendering of their value.

use super::branch::{Vector, VectorBranch};

const PATH: &str = "deployments/web-1.json";

/// A branch on which the file of a deployment has `from` replaced by `to`.
fn replaced(from: &str, to: &str) -> VectorBranch {
    let mut branch = VectorBranch::new();
    let text = String::from_utf8_lossy(&branch.files[PATH]).replacen(from, to, 1);
    branch.put(PATH, text.into_bytes());
    branch.reindex();
    branch
}

/// The same with bytes in front of the file and behind it.
fn between(front: &[u8], behind: &[u8]) -> VectorBranch {
    let mut branch = VectorBranch::new();
    branch.put(PATH, [front, &branch.files[PATH], behind].concat());
    branch.reindex();
    branch
}

/// A branch whose document has a field of another value, written as this text.
fn field(text: &str) -> VectorBranch {
    replaced("    \"name\":", &format!("    \"a\": {text},\n    \"name\":"))
}

pub(super) fn vectors() -> Vec<Vector> {
    let refused = |name, about, branch| Vector::refused(name, "malformed", about, branch);
    let swapped = replaced("    \"kind\": \"Deployment\",\n", "");
    let text = String::from_utf8_lossy(&swapped.files[PATH]).replacen(
        "  \"signed\": {\n",
        "  \"signed\": {\n    \"kind\": \"Deployment\",\n",
        1,
    );
    let mut key_order = VectorBranch::new();
    key_order.put(PATH, text.into_bytes());
    key_order.reindex();
    let nested = format!("{}{}", "[".repeat(40), "]".repeat(40));
    vec![
        refused("rendering-key-order", "a key is before a smaller one", key_order),
        refused(
            "rendering-key-twice",
            "an object has a key twice",
            replaced("    \"name\":", "    \"name\": \"web-1\",\n    \"name\":"),
        ),
        refused("rendering-white-space", "a space too many", replaced("\"name\": ", "\"name\":  ")),
        refused("rendering-tabs", "a tab in place of two spaces", replaced("  \"signed\"", "\t\"signed\"")),
        refused("rendering-line-ends", "the line ends of Windows", replaced("\n", "\r\n")),
        refused("rendering-escape", "a letter is escaped", replaced("\"web-1\"", "\"web\\u002d1\"")),
        refused("rendering-slash", "a slash is escaped", replaced("/nix", "\\/nix")),
        refused("rendering-float", "a number with a fraction", replaced("\"revision\": 7", "\"revision\": 7.0")),
        refused("rendering-exponent", "a number with an exponent", field("1e3")),
        refused("rendering-negative", "a number below zero", field("-1")),
        refused("rendering-large", "a number that is too large", field("9007199254740992")),
        refused("rendering-deep", "lists 40 levels deep", field(&nested)),
        refused("rendering-surrogate", "half of a surrogate pair", field("\"\\ud800\"")),
        refused(
            "rendering-key-not-ascii",
            "a key that is not ASCII",
            replaced("    \"name\":", "    \"é\": 1,\n    \"name\":"),
        ),
        refused("rendering-byte-order-mark", "a byte-order mark", between(b"\xef\xbb\xbf", b"")),
        refused("rendering-no-line-end", "no final newline", replaced("}\n  }\n}\n", "}\n  }\n}")),
        refused("rendering-more", "a second final newline", between(b"", b"\n")),
        refused("rendering-not-utf-8", "a byte that is not UTF-8", between(b"", b"\xff")),
    ]
}
