//! The terms of Nix as types: store paths, systems, substituters, attributes and source revisions.
//!
//! Flake references are in `flake_reference`, and hashes in `digest`. Running Nix does not belong here.

use std::fmt;
use std::str::FromStr;

use nix_derivation::{CAHash, NixHash, store_path};

use super::text::{as_text, check_printable_ascii, validated_text};
use super::{Invalid, NarHash};
use crate::redact::user_part;

/// A path directly in `/nix/store`: `/nix/store/HASH-NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(store_path::StorePath);

impl StorePath {
    /// The part after the hash and its dash.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The path of a source tree with this hash. Nix gives every source tree the name `source` (Nix's manual, "Store path
    /// specification").
    pub fn of_source(hash: &NarHash) -> Result<Self, Invalid> {
        Self::of_tree("source", hash)
    }

    /// The path of a tree with this hash under the name `name`, without references.
    pub fn of_tree(name: &str, hash: &NarHash) -> Result<Self, Invalid> {
        let content = CAHash::Nar(NixHash::Sha256(*hash.bytes()));
        let path = store_path::build_ca_path(name, &content, [], false);
        path.map(Self).map_err(|error| Invalid::new("the hash of a source", &hash.to_string(), error.to_string()))
    }

    /// The 32 characters of its hash.
    pub fn hash_part(&self) -> String {
        self.0.to_basename().chars().take(32).collect()
    }

    /// The path as a type of the crate that parses derivations.
    pub fn as_nix(&self) -> &store_path::StorePath {
        &self.0
    }

    /// Whether its name ends in `.drv`.
    pub fn is_derivation(&self) -> bool {
        self.0.is_derivation()
    }
}

impl From<store_path::StorePath> for StorePath {
    fn from(path: store_path::StorePath) -> Self {
        Self(path)
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_absolute_path())
    }
}

impl FromStr for StorePath {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |why: String| Invalid::new("a store path", text, why);
        let path = store_path::StorePath::from_absolute_path(text.as_bytes()).map_err(|e| bad(e.to_string()))?;
        // The parser accepts other spellings too. Clavel accepts one.
        if path.to_absolute_path() == text {
            Ok(Self(path))
        } else {
            Err(bad("it is not written in the one form of a store path".to_owned()))
        }
    }
}

as_text!(
    StorePath,
    pattern: "^/nix/store/[0-9abcdfghijklmnpqrsvwxyz]{32}-[0-9a-zA-Z+._?=-]{1,211}$",
    about: "A path in the Nix store"
);

validated_text! {
    /// A system as Nix names it: `x86_64-linux`, `aarch64-darwin`.
    System, what: "a system", check: check_system, pattern: "^[a-z0-9_]{1,32}-[a-z0-9_]{1,32}$"
}

/// The order of the bytes in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

impl System {
    /// The system of this machine, for programs like this one.
    pub fn this() -> Result<Self, Invalid> {
        let order = if cfg!(target_endian = "little") { ByteOrder::Little } else { ByteOrder::Big };
        // The kernel says which machine it is, as `uname -m` does.
        let uname = rustix::system::uname();
        Self::of(std::env::consts::ARCH, order, std::env::consts::OS, &uname.machine().to_string_lossy())
    }

    /// The system in Nix's words. `arch` and `os` are those that a program was built for, in Rust's words, and `machine` is what the
    /// kernel says. They differ where programs of 32 bits run on a kernel of 64 bits: the programs count.
    fn of(arch: &str, order: ByteOrder, os: &str, machine: &str) -> Result<Self, Invalid> {
        let arch = match (arch, order) {
            ("x86", _) => "i686",
            // One target of Rust stands for several machines.
            ("arm", _) => match machine {
                "armv5tel" | "armv5tejl" => "armv5tel",
                "armv6l" | "armv6" => "armv6l",
                _ => "armv7l",
            },
            ("powerpc64", ByteOrder::Little) => "powerpc64le",
            ("mips" | "mips32r6", ByteOrder::Little) => "mipsel",
            ("mips64" | "mips64r6", ByteOrder::Little) => "mips64el",
            (other, _) => other,
        };
        let os = if os == "macos" { "darwin" } else { os };
        format!("{arch}-{os}").parse()
    }
}

fn check_system(text: &str) -> Result<(), String> {
    let part = |part: &str| {
        (1..=32).contains(&part.len()) && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    match text.split_once('-') {
        Some((arch, os)) if part(arch) && part(os) => Ok(()),
        _ => Err("it has to read like x86_64-linux".to_owned()),
    }
}

validated_text! {
    /// A binary cache as Nix's `substituters` names it: a URL, or the absolute path of its folder.
    Substituter, what: "a substituter", check: check_substituter,
    pattern: "^((https?|s3|ssh|ssh-ng)://|file:///|/)[!-~]{1,512}$"
}

/// The parameters that every cache may have. They decide in which order Nix asks, and nothing else.
const CACHE_PARAMETERS: [&str; 2] = ["priority", "want-mass-query"];
/// The parameters that say where a bucket is.
const BUCKET_PARAMETERS: [&str; 3] = ["endpoint", "region", "scheme"];

impl Substituter {
    /// Whether the cache serves plain files, from this machine or over HTTP, without a login.
    pub fn serves_files(&self) -> bool {
        ["https://", "http://", "file://"].iter().any(|scheme| self.as_str().starts_with(scheme))
    }

    /// Whether this machine itself serves it, over HTTP on the loopback interface.
    pub fn is_loopback(&self) -> bool {
        self.as_str()
            .strip_prefix("http://127.0.0.1")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    }

    /// The folder of a cache on this machine, as it is written; none for every other cache.
    pub fn folder(&self) -> Option<&str> {
        let written = self.as_str();
        let path = written.strip_prefix("file://").or_else(|| written.starts_with('/').then_some(written))?;
        Some(path.split('?').next().unwrap_or_default())
    }

    /// The URL that Nix gets. It would take a plain path for the root of a store, and make one there.
    pub fn for_nix(&self) -> String {
        if self.as_str().starts_with('/') { format!("file://{self}") } else { self.to_string() }
    }
}

/// Accepts the listed schemes and parameters. Nix has many more, and some of them read keys, run programs, write files or turn
/// checks off.
fn check_substituter(text: &str) -> Result<(), String> {
    check_printable_ascii(text, 512)?;
    if let Some(path) = text.strip_prefix('/') {
        return match path.chars().find(|c| "?#%".contains(*c)) {
            Some(c) => Err(format!("a path may not contain `{c}`")),
            None => Ok(()),
        };
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("it has to be a URL such as https://cache.example.org, or an absolute path".to_owned());
    };
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let user = &rest[..user_part(rest)];
    match scheme {
        "ssh" | "ssh-ng" if !user.contains(':') => {}
        "https" | "http" | "s3" | "file" | "ssh" | "ssh-ng" if !user.is_empty() => {
            let why = "a user, password or token in it would be published; write it without, and give it to Nix with \
                       `netrc-file` in nix.conf on each machine";
            return Err(why.to_owned());
        }
        "https" | "http" | "s3" | "file" => {}
        _ => return Err("only https, http, s3, ssh, ssh-ng and file URLs and absolute paths are allowed".to_owned()),
    }
    if place.contains('#') {
        return Err("it may not contain `#`".to_owned());
    }
    if scheme == "file" && place.contains('%') {
        return Err("a path may not contain `%`: some versions of Nix decode it, and some do not".to_owned());
    }
    if scheme == "file" && !place.starts_with('/') {
        return Err("a file URL has three slashes: file:///path".to_owned());
    }
    if scheme != "file" && place[user.len()..].starts_with(['/', '-', ':'])
        || place.starts_with('-')
        || place.is_empty()
    {
        return Err("its host is missing, or begins with `-`".to_owned());
    }
    query.into_iter().flat_map(|query| query.split('&')).try_for_each(|parameter| check_parameter(scheme, parameter))
}

fn check_parameter(scheme: &str, parameter: &str) -> Result<(), String> {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let is_of_bucket = scheme == "s3" && BUCKET_PARAMETERS.contains(&name);
    if !(CACHE_PARAMETERS.contains(&name) || is_of_bucket) {
        let allowed = CACHE_PARAMETERS.join(", ");
        let of_bucket = BUCKET_PARAMETERS.join(", ");
        return Err(format!("only the parameters {allowed}, and for s3:// also {of_bucket}, are allowed"));
    }
    if value.chars().all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c)) {
        Ok(())
    } else {
        Err(format!("the value of `{name}` may contain A-Z a-z 0-9 . _ : and - alone"))
    }
}

validated_text! {
    /// The revision of a source in its version control, as 40 or 64 lower-case hexadecimal digits.
    SourceRevision, what: "a source revision", check: check_revision, pattern: "^([0-9a-f]{40}|[0-9a-f]{64})$"
}

impl SourceRevision {
    /// Its first 10 digits, for people.
    pub fn short(&self) -> &str {
        &self.as_str()[..10]
    }
}

fn check_revision(text: &str) -> Result<(), String> {
    let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if matches!(text.len(), 40 | 64) && text.chars().all(hexadecimal) {
        Ok(())
    } else {
        Err("it has to be 40 or 64 lower-case hexadecimal digits".to_owned())
    }
}

validated_text! {
    /// The path of an attribute in a flake's outputs, in the form of Nix's command line:
    /// `nixosConfigurations.web-1`, `nixosConfigurations."a.b"`.
    Attribute, what: "an attribute", check: check_attribute, pattern: r"^[^\u0000-\u001f\u007f-\u009f]{1,1024}$"
}

fn check_attribute(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
        return Err("it has to be 1 to 1024 bytes long, without control characters".to_owned());
    }
    Ok(())
}

impl Attribute {
    /// The attribute at `path`. It quotes every part that is not an identifier.
    pub fn at(path: &[&str]) -> Result<Self, Invalid> {
        let mut text = String::with_capacity(path.iter().map(|part| part.len() + 3).sum());
        for part in path {
            if !text.is_empty() {
                text.push('.');
            }
            add_quoted(part, &mut text);
        }
        text.parse()
    }
}

/// Adds one part of an attribute path in Nix's language: an identifier, or a quoted string.
fn add_quoted(part: &str, text: &mut String) {
    let identifier = part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-'".contains(c));
    if identifier {
        text.push_str(part);
        return;
    }
    text.push('"');
    for c in part.chars() {
        match c {
            '"' | '\\' | '$' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_store_path_is_accepted() {
        let good = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-nixos-system-web-1";
        assert_eq!(good.parse::<StorePath>().unwrap().name(), "nixos-system-web-1");
        for bad in [
            "35ir4klckx5pcsb9drk2xjh46sppdcry-x",
            "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcre-x",
            "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x/bin",
            "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry",
            "/nix/store/../../etc/passwd",
            "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x y",
            "//nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x",
            "",
        ] {
            assert!(bad.parse::<StorePath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_that_is_not_an_identifier_is_quoted() {
        let at = |name| Attribute::at(&["nixosConfigurations", name]).unwrap().to_string();
        assert_eq!(at("web-1"), "nixosConfigurations.web-1");
        assert_eq!(at("a.b"), "nixosConfigurations.\"a.b\"");
        assert_eq!(at("my host"), "nixosConfigurations.\"my host\"");
        assert_eq!(at("q\"${x}"), "nixosConfigurations.\"q\\\"\\${x}\"");
        assert_eq!(at("9lives"), "nixosConfigurations.\"9lives\"");
    }

    #[test]
    fn a_substituter_is_of_the_allowed_schemes_and_has_the_allowed_parameters() {
        for bad in [
            "--help",
            "daemon",
            "auto",
            "local",
            "http//x",
            "https://a b",
            "Http://x",
            "unix:///run/x",
            "local:///srv/x",
            "local?root=/srv/x",
            "dummy://",
            "https://",
            "https:///x",
            "ssh://-oProxyCommand=x",
            "ssh://u@-oProxyCommand=x",
            "file://host/x",
            "file://srv/cache",
            "file:///srv/a%20b",
            "/srv/cache?root=/x",
            "https://a#b",
            "file:///srv/cache?a=b&trusted=1",
            "https://a?tr%75sted=1",
            "https://a?priority=1&",
            "https://a?priority=%31",
            "file:///a?secret-key=/b",
            "https://a?local-nar-cache=/b",
            "https://a?region=eu",
            "ssh://a?ssh-key=/root/.ssh/id",
            "ssh://a?remote-program=/b",
            "ssh-ng://a?remote-store=/b",
            "s3://a?profile=b",
            "https://u:s3cret@h",
            "https://s3cret@h",
            "s3://s3cret@h",
            "ssh://u:s3cret@h",
        ] {
            let error = bad.parse::<Substituter>().expect_err(bad).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        for good in [
            "https://cache.example.org",
            "http://127.0.0.1:8080/x?priority=10&want-mass-query=true",
            "file:///srv/cache?priority=10",
            "s3://bucket?region=eu-west-1&endpoint=s3.example.org&scheme=https",
            "ssh://nix@builder",
            "ssh-ng://builder",
            "/srv/cache",
        ] {
            assert!(good.parse::<Substituter>().is_ok(), "{good}");
        }
    }

    #[test]
    fn a_path_is_the_folder_of_a_cache_and_never_the_root_of_a_store() {
        let of = |text: &str| {
            let cache: Substituter = text.parse().unwrap();
            (cache.folder().map(ToOwned::to_owned), cache.for_nix())
        };
        let folder = Some("/srv/cache".to_owned());
        assert_eq!(of("/srv/cache"), (folder.clone(), "file:///srv/cache".to_owned()));
        assert_eq!(of("file:///srv/cache?priority=1"), (folder, "file:///srv/cache?priority=1".to_owned()));
        assert_eq!(of("https://h"), (None, "https://h".to_owned()));
    }

    #[test]
    fn this_machine_has_a_valid_system() {
        System::this().unwrap();
    }

    #[test]
    fn a_system_is_that_of_the_programs_and_the_kernel_tells_the_arms_apart() {
        use ByteOrder::{Big, Little};
        for (arch, order, os, machine, system) in [
            ("x86_64", Little, "linux", "x86_64", "x86_64-linux"),
            ("x86", Little, "linux", "x86_64", "i686-linux"),
            ("aarch64", Little, "linux", "aarch64", "aarch64-linux"),
            ("aarch64", Little, "macos", "arm64", "aarch64-darwin"),
            ("arm", Little, "linux", "armv5tel", "armv5tel-linux"),
            ("arm", Little, "linux", "armv6l", "armv6l-linux"),
            ("arm", Little, "linux", "armv7l", "armv7l-linux"),
            // A kernel of 64 bits, by either of its two names.
            ("arm", Little, "linux", "armv8l", "armv7l-linux"),
            ("arm", Little, "linux", "aarch64", "armv7l-linux"),
            ("riscv64", Little, "linux", "riscv64", "riscv64-linux"),
            ("powerpc64", Little, "linux", "ppc64le", "powerpc64le-linux"),
            ("powerpc64", Big, "linux", "ppc64", "powerpc64-linux"),
            ("mips64", Little, "linux", "mips64", "mips64el-linux"),
            ("mips", Big, "linux", "mips", "mips-linux"),
            ("s390x", Big, "linux", "s390x", "s390x-linux"),
            ("loongarch64", Little, "linux", "loongarch64", "loongarch64-linux"),
            ("x86_64", Little, "freebsd", "amd64", "x86_64-freebsd"),
        ] {
            assert_eq!(System::of(arch, order, os, machine).unwrap().as_str(), system);
        }
    }
}
