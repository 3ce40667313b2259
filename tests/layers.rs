//! Promise: a room imports only what ARCHITECTURE.md allows it.

use std::collections::BTreeSet;
use std::path::Path;

/// The rooms that each room may import.
const RULES: [(&str, &[&str]); 26] = [
    ("model", &["redact"]),
    ("process", &["redact", "stderr"]),
    ("redact", &[]),
    ("stderr", &["model"]),
    ("disk", &[]),
    ("news", &[]),
    ("metrics", &[]),
    ("parallel", &[]),
    ("trust", &["model"]),
    ("changes", &["model"]),
    ("signers", &["model", "trust"]),
    ("closures", &["model"]),
    ("stick", &["model", "trust", "disk"]),
    ("git", &["model", "process", "redact", "closures", "disk"]),
    ("branch", &["model", "trust", "git", "parallel"]),
    ("store", &["model", "process"]),
    ("nix", &["model", "process"]),
    ("host", &["model", "process", "nix"]),
    ("config", &["model", "trust", "git"]),
    ("evaluate", &["model", "nix", "process", "disk", "parallel"]),
    ("publish", &["model", "trust", "signers", "branch", "evaluate", "changes", "store", "disk"]),
    (
        "claveld",
        &[
            "model", "trust", "signers", "git", "branch", "store", "nix", "evaluate", "changes", "publish", "config",
            "process", "disk", "host", "news", "metrics",
        ],
    ),
    (
        "agent",
        &[
            "model", "trust", "signers", "branch", "git", "store", "closures", "process", "config", "disk", "host",
            "news", "metrics", "stick", "changes", "stderr",
        ],
    ),
    (
        "cli",
        &[
            "model", "process", "trust", "changes", "signers", "git", "branch", "store", "nix", "config", "evaluate",
            "publish", "claveld", "agent", "disk", "stderr", "host", "closures", "stick", "redact",
        ],
    ),
    ("bin", &["cli"]),
    ("lib", &[]),
];

/// A line without the comment at its end. `://` is in an address, and what follows it is code.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// The rooms that a source text names by `crate::ROOM`, by `clavel::ROOM` in a program, or by as many `super::` as
/// lead from its module, `depth` below the root, to there.
fn rooms_in(source: &str, depth: usize) -> BTreeSet<String> {
    let code = source.lines().map(without_comment).collect::<Vec<_>>().join("\n");
    let up = "super::".repeat(depth.max(1));
    let after = |prefix: &str| code.match_indices(prefix).map(|(at, _)| &code[at + prefix.len()..]).collect::<Vec<_>>();
    let mut rooms = BTreeSet::new();
    for rest in [after("crate::"), after("clavel::"), after(&up)].concat() {
        let words = match rest.strip_prefix('{') {
            // The first word of each item in `use crate::{a::B, c}`.
            Some(list) => top_level_items(list),
            None => vec![rest],
        };
        for word in words {
            let end = word.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(word.len());
            // A list may end in a comma.
            if end > 0 {
                rooms.insert(word[..end].to_owned());
            }
        }
    }
    rooms
}

/// The items of a list up to its closing brace, leaving what is in inner braces to them.
fn top_level_items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0_i32, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(list[start..at].trim());
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// How far below the root of the crate the module of a file is.
fn depth(relative: &Path) -> usize {
    relative.components().count() - usize::from(relative.ends_with("mod.rs"))
}

/// The files of Rust code below a folder.
pub(super) fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| sources(folder));
    files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")).chain(below).collect()
}

#[test]
fn every_import_is_allowed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = BTreeSet::new();
    for file in sources(&src) {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        let rule = RULES.iter().find(|(name, _)| *name == room);
        let (_, allowed) = rule.unwrap_or_else(|| panic!("{room} has no rule here: write it, and ARCHITECTURE.md"));
        seen.insert(room.to_owned());
        for used in rooms_in(&std::fs::read_to_string(&file).unwrap(), depth(relative)) {
            let is_room = RULES.iter().any(|(name, _)| *name == used);
            assert!(!is_room || used == room || allowed.contains(&used.as_str()), "{} uses {used}", relative.display());
        }
    }
    assert_eq!(seen.len(), RULES.len(), "a rule is for a room that is not there: {seen:?}");
}

#[test]
fn the_scanner_sees_every_way_to_import() {
    let rooms = |source: &str| rooms_in(source, 2).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(rooms("use crate::agent::Pass;"), "agent");
    assert_eq!(rooms("use crate::{\n    agent::{Pass, x},\n    nix,\n};"), "agent nix");
    assert_eq!(rooms("let a: crate::publish::Report = b();"), "publish");
    assert_eq!(rooms("// crate::agent is not for us"), "");
    assert_eq!(rooms("let a = \"file://x\"; crate::agent::b();"), "agent");
    assert_eq!(rooms("use super::super::publish::Report;"), "publish");
    assert_eq!(rooms("use super::state::State;"), "");
    assert_eq!([depth(Path::new("agent/mod.rs")), depth(Path::new("agent/pass.rs"))], [1, 2]);
    assert_eq!(rooms("fn main() { clavel::cli::claveld::main() }"), "cli");
}
