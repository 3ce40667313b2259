//! Finds out what an evaluation used, from the log of strace and from the traces that `call.nix` prints. No I/O.
//!
//! A line that Clavel does not understand makes the whole observation an error: a missing read would make a recorded
//! answer look valid when it is not.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The kind of fact that a system call finds out about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ReadKind {
    /// Whether it exists, its type, whether it is executable, the target of a link.
    Status,
    /// The bytes of a file, or the names in a folder.
    Content,
}

/// One read of a path below the source's tree. The empty path is the tree itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct FileRead {
    #[serde(with = "any_path")]
    pub(super) path: PathBuf,
    pub(super) kind: ReadKind,
}

/// A path in JSON: text, or its bytes where they are no text. A name may have any bytes but `/` and zero.
mod any_path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum AnyPath {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = path.as_os_str().as_bytes();
        let any = path.to_str().map_or_else(|| AnyPath::Bytes(bytes.to_vec()), |text| AnyPath::Text(text.to_owned()));
        any.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(match AnyPath::deserialize(deserializer)? {
            AnyPath::Text(text) => text.into(),
            AnyPath::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

/// Everything that an evaluation used and that may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observation {
    /// Its reads of the source's tree.
    pub(super) reads: BTreeSet<FileRead>,
    /// The attributes of `self` that it used.
    pub(super) own: BTreeSet<String>,
    /// The inputs that it used.
    pub(super) inputs: BTreeSet<String>,
}

/// Why it is not known what an evaluation used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ObserveError {
    /// A line of strace has an unknown form.
    #[error("a line of strace about it is not understood: `{0}`")]
    Line(String),
    /// It made a system call after which strace does not see its reads.
    #[error("it made the system call `{0}`, whose reads strace does not see")]
    Call(String),
    /// The flake's own `flake.nix` is not among the reads, so it was read in another way or at another path.
    #[error("its reads were not seen")]
    Nothing,
    /// A trace has an unknown form.
    #[error("a trace of it is not understood: `{0}`")]
    Trace(String),
}

/// Calls that find out the status of a path only. Every other call counts as a read of its content.
const STATUS_CALLS: [&str; 13] = [
    "access",
    "faccessat",
    "faccessat2",
    "fstatat64",
    "lstat",
    "lstat64",
    "newfstatat",
    "readlink",
    "readlinkat",
    "stat",
    "stat64",
    "statx",
    "execve",
];

/// Calls after which a process may read files without a system call that strace sees.
const UNWATCHED_CALLS: [&str; 1] = ["io_uring_setup"];

impl Observation {
    /// Reads the log `calls` of strace and the `traces` of `call.nix`. `tree` is the path of the source.
    pub(super) fn new(calls: &str, traces: &[String], tree: &Path) -> Result<Self, ObserveError> {
        let mut observation = Self::default();
        for line in calls.lines() {
            observation.add_call(line, tree)?;
        }
        for trace in traces {
            observation.add_trace(trace)?;
        }
        let is_flake = |read: &FileRead| read.kind == ReadKind::Content && read.path.ends_with("flake.nix");
        if observation.reads.iter().any(is_flake) { Ok(observation) } else { Err(ObserveError::Nothing) }
    }

    fn add_trace(&mut self, trace: &str) -> Result<(), ObserveError> {
        let bad = || ObserveError::Trace(trace.to_owned());
        let (kind, name) = trace.split_once(' ').ok_or_else(bad)?;
        let name: String = serde_json::from_str(name).map_err(|_| bad())?;
        match kind {
            "own" => self.own.insert(name),
            "input" => self.inputs.insert(name),
            _ => return Err(bad()),
        };
        Ok(())
    }

    /// Adds the reads of a line `PID call(arguments) = result`. Every byte of every text is escaped (`--strings-in-hex`).
    fn add_call(&mut self, line: &str, tree: &Path) -> Result<(), ObserveError> {
        let bad = || ObserveError::Line(line.chars().take(200).collect());
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        // The end of a process, a signal, and the second half of a call whose first half had the path.
        if ["+++", "---", "<..."].iter().any(|other| call.starts_with(other)) {
            return Ok(());
        }
        let (name, arguments) = call.split_once('(').ok_or_else(bad)?;
        if UNWATCHED_CALLS.contains(&name) {
            return Err(ObserveError::Call(name.to_owned()));
        }
        let kind = if STATUS_CALLS.contains(&name) { ReadKind::Status } else { ReadKind::Content };
        // `execve` looks up its first text. The others are arguments of the program.
        let most = if name == "execve" { 1 } else { usize::MAX };
        for path in paths(arguments, most).ok_or_else(bad)? {
            match relative_to(&path, tree) {
                TreePath::Inside(path) => drop(self.reads.insert(FileRead { path, kind })),
                TreePath::Outside => {}
                TreePath::Unknown => return Err(bad()),
            }
        }
        Ok(())
    }
}

/// The paths among a call's arguments, at most `most` of them. A relative path is below the folder of the descriptor that
/// stands before it. None where they cannot be read.
fn paths(arguments: &str, most: usize) -> Option<Vec<PathBuf>> {
    let (mut paths, mut base, mut rest) = (Vec::new(), PathBuf::new(), arguments);
    while let (true, Some(at)) = (paths.len() < most, rest.find(['"', '<'])) {
        let close = if rest.as_bytes()[at] == b'"' { '"' } else { '>' };
        let text = &rest[at + 1..];
        let end = text.find(close)?;
        rest = &text[end + 1..];
        let is_descriptor = close == '>';
        // strace cuts a longer text short.
        if !is_descriptor && rest.starts_with("...") {
            return None;
        }
        match unescaped(&text[..end]) {
            Some(path) if is_descriptor => base = path,
            Some(path) => paths.push(base.join(path)),
            // `<unfinished ...>` and `<pipe:[1]>` are no paths.
            None if is_descriptor => {}
            None => return None,
        }
    }
    Some(paths)
}

/// The path that `\x2f\x6e…` stands for; none for any other form.
fn unescaped(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let byte = |pair: &str| u8::from_str_radix(pair, 16).ok();
    let bytes = text.split("\\x").skip(1).map(byte).collect::<Option<Vec<u8>>>()?;
    (bytes.len() * 4 == text.len()).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// A path in relation to the source's tree.
enum TreePath {
    /// It is inside, at this relative path.
    Inside(PathBuf),
    Outside,
    /// It may be inside, and it is not known where.
    Unknown,
}

/// Relates `path` to `tree`. Where `..` leads depends on the links before it, so such a path is unknown if it may lead
/// into the tree.
fn relative_to(path: &Path, tree: &Path) -> TreePath {
    let mut parts = path.components();
    if path.components().any(|part| part == Component::ParentDir) {
        let touches = tree.file_name().is_some_and(|name| parts.any(|part| part.as_os_str() == name));
        return if touches { TreePath::Unknown } else { TreePath::Outside };
    }
    let inside = |rest: &Path| rest.components().filter(|part| *part != Component::CurDir).collect();
    path.strip_prefix(tree).map_or(TreePath::Outside, |rest| TreePath::Inside(inside(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source";

    fn escaped(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<Vec<_>>().concat()
    }

    /// A log in which the text between `{` and `}` is escaped as strace does it.
    fn log(text: &str) -> String {
        let mut log = String::new();
        for (at, part) in text.replace("TREE", TREE).split(['{', '}']).enumerate() {
            log.push_str(&if at % 2 == 1 { escaped(part) } else { part.to_owned() });
        }
        log
    }

    fn reads(calls: &str) -> Result<Vec<String>, ObserveError> {
        let calls = log(&format!("{calls}\n7 openat(AT_FDCWD<{{/tmp}}>, \"{{TREE/flake.nix}}\", O_RDONLY) = 8"));
        let observation = Observation::new(&calls, &[], Path::new(TREE))?;
        let describe = |read: &FileRead| format!("{:?} {}", read.kind, read.path.display());
        Ok(observation.reads.iter().map(describe).filter(|read| read != "Content flake.nix").collect())
    }

    #[test]
    fn every_form_of_a_call_gives_its_reads() {
        let calls = r#"7 execve("{/usr/bin/nix}", ["{nix}", "{TREE/x}"..., "{TREE/..}"], 0x7ffe /* 3 vars */) = 0
7 newfstatat(AT_FDCWD<{/tmp}>, "{TREE}", {st_mode=S_IFDIR|0555, ...}, AT_SYMLINK_NOFOLLOW) = 0
7 openat(AT_FDCWD<{/tmp}>, "{TREE/hosts/web-1.nix}", O_RDONLY|O_CLOEXEC) = 8<{TREE/hosts/web-1.nix}>
9 newfstatat(8<{TREE/hosts}>, "", {st_mode=S_IFREG|0444, ...}, AT_EMPTY_PATH) = 0
9 openat(8<{TREE/hosts}>, "{web-2.nix}", O_RDONLY <unfinished ...>
7 lstat("{TREE/absent}", 0x7ffd) = -1 ENOENT (No such file or directory)
9 <... openat resumed>) = 9<{TREE/hosts/web-2.nix}>
7 getxattr("{TREE//secret}", "{user.x}", NULL, 0) = -1 ENODATA
7 openat(AT_FDCWD<{/tmp}>, "{/nix/store/other/TREE}", O_RDONLY) = 8
7 openat(AT_FDCWD<{/tmp}>, "{/usr/lib/../lib/x.so}", O_RDONLY) = 8
7 --- SIGCHLD {si_signo=SIGCHLD} ---
7 +++ exited with 0 +++"#
            .replace("{st_mode", "\u{1}st_mode")
            .replace("...},", "...\u{2},")
            .replace("{si_signo=SIGCHLD}", "si");
        let expected = [
            "Status ",
            "Status absent",
            "Status hosts",
            "Content hosts/web-1.nix",
            "Content hosts/web-2.nix",
            "Content secret",
        ];
        let mut reads = reads(&calls).unwrap();
        reads.sort_by_key(|read| read.split(' ').nth(1).map(str::to_owned));
        assert_eq!(reads, expected);
    }

    #[test]
    fn a_line_of_unknown_form_is_an_error() {
        for (calls, expected) in [
            ("7 something odd", ObserveError::Line("7 something odd".into())),
            ("7 open(\"/plain\") = 1", ObserveError::Line("7 open(\"/plain\") = 1".into())),
            ("7 io_uring_setup(8, 0x7f) = 3", ObserveError::Call("io_uring_setup".into())),
        ] {
            assert_eq!(reads(calls).unwrap_err(), expected);
        }
        assert!(matches!(reads("7 open(\"{TREE/a}\"..., O_RDONLY) = 1"), Err(ObserveError::Line(_))));
        assert!(matches!(reads("7 open(\"{TREE/a/../b}\", O_RDONLY) = 1"), Err(ObserveError::Line(_))));
        assert_eq!(Observation::new("", &[], Path::new(TREE)), Err(ObserveError::Nothing));
    }

    #[test]
    fn traces_give_the_used_inputs_and_attributes_of_self() {
        let calls = log("7 open(\"{TREE/flake.nix}\", O_RDONLY) = 1");
        let traces = ["own \"rev\"".to_owned(), "input \"nixpkgs\"".to_owned(), "own \"rev\"".to_owned()];
        let observation = Observation::new(&calls, &traces, Path::new(TREE)).unwrap();
        assert_eq!(observation.own, BTreeSet::from(["rev".to_owned()]));
        assert_eq!(observation.inputs, BTreeSet::from(["nixpkgs".to_owned()]));
        let odd = ["rev".to_owned()];
        assert_eq!(Observation::new(&calls, &odd, Path::new(TREE)), Err(ObserveError::Trace("rev".into())));
    }

    #[test]
    fn a_name_that_is_no_text_can_be_recorded() {
        use std::os::unix::ffi::OsStringExt as _;
        for bytes in [&b"data/\xff\xfe"[..], b"data/plain"] {
            let path = std::ffi::OsString::from_vec(bytes.to_vec()).into();
            let read = FileRead { path, kind: ReadKind::Content };
            let text = serde_json::to_string(&read).unwrap();
            assert_eq!(serde_json::from_str::<FileRead>(&text).unwrap(), read);
        }
    }
}
