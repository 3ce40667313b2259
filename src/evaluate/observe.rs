//! What an evaluation looked at, from what strace and the traces in `call.nix` tell. No I/O.
//!
//! Whatever cannot be understood makes the whole observation worthless, and says why: an evaluation is believed to have
//! read only what it is known to have read.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a system call learns of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Look {
    /// Whether it is there, what it is, whether it may be run, where a link leads to.
    Status,
    /// A file's bytes, or the names in a folder.
    Content,
}

/// One look at a path below the source's tree; the empty path is the tree itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Read {
    pub(super) path: PathBuf,
    pub(super) look: Look,
}

/// All that an evaluation used of what may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// What it read of the source's tree.
    pub(super) reads: BTreeSet<Read>,
    /// The attributes that the flake used of what Nix tells it of itself.
    pub(super) own: BTreeSet<String>,
    /// The inputs that it used.
    pub(super) inputs: BTreeSet<String>,
}

/// Why an evaluation is not known by what it read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unseen {
    /// strace wrote what Clavel does not understand.
    #[error("what strace tells of it is not understood: `{0}`")]
    Line(String),
    /// It did something whose reads nobody sees.
    #[error("it did what cannot be watched (`{0}`)")]
    Call(String),
    /// The flake's own `flake.nix` was not among the reads: it was read in another way, or somewhere else.
    #[error("its reads were not seen")]
    Nothing,
    /// A trace is not one of ours.
    #[error("what Nix tells of it is not understood: `{0}`")]
    Trace(String),
}

/// Calls that only ask about a path. Every other call is taken for one that reads it.
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

/// Calls after which files may be read that strace does not tell of.
const UNWATCHED_CALLS: [&str; 1] = ["io_uring_setup"];

impl Observed {
    /// What was used, by the `calls` that strace saw and what was `told` by traces; `tree` is where the source is.
    pub(super) fn of(calls: &str, told: &[String], tree: &Path) -> Result<Self, Unseen> {
        let mut observed = Self::default();
        for line in calls.lines() {
            observed.call(line, tree)?;
        }
        for trace in told {
            observed.trace(trace)?;
        }
        let seen = observed.reads.iter().any(|read| read.look == Look::Content && read.path.ends_with("flake.nix"));
        if seen { Ok(observed) } else { Err(Unseen::Nothing) }
    }

    fn trace(&mut self, trace: &str) -> Result<(), Unseen> {
        let bad = || Unseen::Trace(trace.to_owned());
        let (kind, name) = trace.split_once(' ').ok_or_else(bad)?;
        let name: String = serde_json::from_str(name).map_err(|_| bad())?;
        match kind {
            "own" => self.own.insert(name),
            "input" => self.inputs.insert(name),
            _ => return Err(bad()),
        };
        Ok(())
    }

    /// A line is `PID call(arguments) = result`, where every text is escaped byte by byte (strace's `-xx`).
    fn call(&mut self, line: &str, tree: &Path) -> Result<(), Unseen> {
        let bad = || Unseen::Line(line.chars().take(200).collect());
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        // A process that ended, a signal, and the second half of a call whose first half told the path.
        if ["+++", "---", "<..."].iter().any(|other| call.starts_with(other)) {
            return Ok(());
        }
        let (name, arguments) = call.split_once('(').ok_or_else(bad)?;
        if UNWATCHED_CALLS.contains(&name) {
            return Err(Unseen::Call(name.to_owned()));
        }
        let look = if STATUS_CALLS.contains(&name) { Look::Status } else { Look::Content };
        // Of a program that is run, the arguments are no paths that it was looked up by.
        let most = if name == "execve" { 1 } else { usize::MAX };
        for path in paths(arguments, most).ok_or_else(bad)? {
            match below(&path, tree) {
                Place::Inside(path) => drop(self.reads.insert(Read { path, look })),
                Place::Outside => {}
                Place::Unknown => return Err(bad()),
            }
        }
        Ok(())
    }
}

/// The paths among a call's arguments: each text, below the folder of the descriptor that stands before it where it is
/// not absolute itself; at most `most` of them. None where they cannot be read.
fn paths(arguments: &str, most: usize) -> Option<Vec<PathBuf>> {
    let (mut paths, mut base, mut rest) = (Vec::new(), PathBuf::new(), arguments);
    while let (true, Some(at)) = (paths.len() < most, rest.find(['"', '<'])) {
        let close = if rest.as_bytes()[at] == b'"' { '"' } else { '>' };
        let text = &rest[at + 1..];
        let end = text.find(close)?;
        rest = &text[end + 1..];
        let is_descriptor = close == '>';
        // Of a longer text strace shows the beginning alone.
        if !is_descriptor && rest.starts_with("...") {
            return None;
        }
        match unescaped(&text[..end]) {
            Some(path) if is_descriptor => base = path,
            Some(path) => paths.push(base.join(path)),
            // `<unfinished ...>`, `<pipe:[1]>`: no path.
            None if is_descriptor => {}
            None => return None,
        }
    }
    Some(paths)
}

/// The path that `\x2f\x6e…` stands for; none where it is written in another way.
fn unescaped(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let byte = |pair: &str| u8::from_str_radix(pair, 16).ok();
    let bytes = text.split("\\x").skip(1).map(byte).collect::<Option<Vec<u8>>>()?;
    (bytes.len() * 4 == text.len()).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// Where a path leads.
enum Place {
    /// Into the tree, to there.
    Inside(PathBuf),
    Outside,
    Unknown,
}

/// Where the path leads. One that goes up again depends on what the links on its way are, and is not known where it may
/// lead into the tree.
fn below(path: &Path, tree: &Path) -> Place {
    let mut parts = path.components();
    if path.components().any(|part| part == Component::ParentDir) {
        let touches = tree.file_name().is_some_and(|name| parts.any(|part| part.as_os_str() == name));
        return if touches { Place::Unknown } else { Place::Outside };
    }
    let inside = |rest: &Path| rest.components().filter(|part| *part != Component::CurDir).collect();
    path.strip_prefix(tree).map_or(Place::Outside, |rest| Place::Inside(inside(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source";

    fn escaped(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<Vec<_>>().concat()
    }

    /// A log in which what stands between `{` and `}` is escaped as strace does.
    fn log(text: &str) -> String {
        let mut log = String::new();
        for (at, part) in text.replace("TREE", TREE).split(['{', '}']).enumerate() {
            log.push_str(&if at % 2 == 1 { escaped(part) } else { part.to_owned() });
        }
        log
    }

    fn seen(calls: &str) -> Result<Vec<String>, Unseen> {
        let calls = log(&format!("{calls}\n7 openat(AT_FDCWD<{{/tmp}}>, \"{{TREE/flake.nix}}\", O_RDONLY) = 8"));
        let observed = Observed::of(&calls, &[], Path::new(TREE))?;
        let shown = |read: &Read| format!("{:?} {}", read.look, read.path.display());
        Ok(observed.reads.iter().map(shown).filter(|read| read != "Content flake.nix").collect())
    }

    #[test]
    fn every_call_tells_what_it_looks_at() {
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
        let mut seen = seen(&calls).unwrap();
        seen.sort_by_key(|read| read.split(' ').nth(1).map(str::to_owned));
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_not_understood_is_no_observation() {
        for (calls, expected) in [
            ("7 something odd", Unseen::Line("7 something odd".into())),
            ("7 open(\"/plain\") = 1", Unseen::Line("7 open(\"/plain\") = 1".into())),
            ("7 io_uring_setup(8, 0x7f) = 3", Unseen::Call("io_uring_setup".into())),
        ] {
            assert_eq!(seen(calls).unwrap_err(), expected);
        }
        assert!(matches!(seen("7 open(\"{TREE/a}\"..., O_RDONLY) = 1"), Err(Unseen::Line(_))));
        assert!(matches!(seen("7 open(\"{TREE/a/../b}\", O_RDONLY) = 1"), Err(Unseen::Line(_))));
        assert_eq!(Observed::of("", &[], Path::new(TREE)), Err(Unseen::Nothing));
    }

    #[test]
    fn traces_tell_what_a_flake_uses_of_itself_and_its_inputs() {
        let calls = log("7 open(\"{TREE/flake.nix}\", O_RDONLY) = 1");
        let told = ["own \"rev\"".to_owned(), "input \"nixpkgs\"".to_owned(), "own \"rev\"".to_owned()];
        let observed = Observed::of(&calls, &told, Path::new(TREE)).unwrap();
        assert_eq!(observed.own, BTreeSet::from(["rev".to_owned()]));
        assert_eq!(observed.inputs, BTreeSet::from(["nixpkgs".to_owned()]));
        let odd = ["rev".to_owned()];
        assert_eq!(Observed::of(&calls, &odd, Path::new(TREE)), Err(Unseen::Trace("rev".into())));
    }
}
