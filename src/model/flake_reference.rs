//! References to flakes. This file parses them, so no other file has to.
//!
//! A reference keeps every character that its owner wrote. It is the identity of a source in documents and records, so it
//! is never normalised. Only Nix can say whether it can fetch a reference.

// The crate `nix-uri` (0.2.0, maintained) does not fit: it writes references in another form than it read them (`/x` becomes
// `path:/x`, `nixpkgs` becomes `flake:nixpkgs`, parameters are sorted), refuses some that Nix accepts (`shallow=true`), and
// brings `url` with the tables of `idna` for domain names.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::Invalid;
use super::text::{as_text, check_printable_ascii};
use crate::redact::user_part;

/// The most characters of a reference.
const MAX_LENGTH: usize = 1024;
/// The scheme of a git repository on this machine.
const LOCAL_GIT: &str = "git+file";
/// Words in the names of the parameters that carry a password or a token.
const SECRET_PARAMETERS: [&str; 7] = ["token", "passw", "secret", "signature", "credential", "api-key", "api_key"];
const HAS_SECRET: &str = "a password or token in it would be published; write it without, and name a file with it in a [[credentials]] \
                          table of claveld's configuration, or give it to Nix: for HTTPS with `netrc-file` or `access-tokens` in nix.conf or git's credential helper, for SSH with a key";
/// The characters that need no encoding in a path or in the value of a parameter (RFC 3986, sections 3.3 and 3.4).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A reference to a flake in Nix's form, without a fragment: `git+https://git.example.org/fleet`, `path:/etc/fleet`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlakeReference {
    /// The whole reference, exactly as it was written.
    text: String,
    /// The part before the first colon, such as `git+file`; none for a path or a name of the registry.
    scheme: Option<String>,
    /// The part between the scheme and the `?`, still encoded.
    location: String,
    /// The part after the `?`, in the order in which it was written.
    parameters: Vec<Parameter>,
}

/// A parameter of a reference, such as `ref=main`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parameter {
    key: String,
    /// The value, still encoded; empty where there is no `=`.
    value: String,
}

impl FlakeReference {
    /// The reference as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The folder of the git repository on this machine that `git+file://…` names; none for every other reference.
    pub fn local_repository(&self) -> Option<PathBuf> {
        let path = self.location.strip_prefix("//").filter(|_| self.scheme.as_deref() == Some(LOCAL_GIT))?;
        Some(OsString::from_vec(percent_decode_str(path).collect()).into())
    }

    /// The URL of the git repository on another machine; none for every other reference.
    pub fn remote_repository(&self) -> Option<String> {
        let scheme = self.scheme.as_deref().filter(|_| self.fetcher() == "git" && self.local_repository().is_none())?;
        let transport = scheme.strip_prefix("git+").unwrap_or(scheme);
        Some(format!("{transport}:{}", self.location))
    }

    /// The same folder, if the content of the reference can change: with a revision it never does.
    pub fn changing_repository(&self) -> Option<PathBuf> {
        self.local_repository().filter(|_| !self.has_revision())
    }

    /// Its path, still encoded: the part between the scheme and the parameters.
    pub fn path(&self) -> &str {
        self.location.strip_prefix("//").unwrap_or(&self.location)
    }

    /// The branch or the full name of another ref in its `ref` parameter.
    pub fn branch(&self) -> Option<String> {
        self.parameter("ref")
    }

    /// Whether it names a revision. The content of such a reference never changes.
    pub fn has_revision(&self) -> bool {
        self.parameter("rev").is_some()
    }

    /// Whether Nix fetches the submodules of its repository too.
    pub fn has_submodules(&self) -> bool {
        self.parameter("submodules").is_some_and(|value| value == "1" || value == "true")
    }

    /// The reference with one more parameter at its end.
    pub fn with_parameter(&self, key: &str, value: &str) -> Result<Self, Invalid> {
        let separator = if self.text.contains('?') { '&' } else { '?' };
        format!("{self}{separator}{key}={}", percent_encode(value.as_bytes(), PLAIN)).parse()
    }

    /// The reference to the same flake in the git repository at `path` on this machine, with the same parameters.
    pub fn at_path(&self, path: &Path) -> Result<Self, Invalid> {
        let path = percent_encode(path.as_os_str().as_bytes(), PLAIN);
        let query = self.text.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
        format!("{LOCAL_GIT}://{path}{query}").parse()
    }

    /// The reference up to a password or token in it; none where it has none. Its text is in signed documents, in commit
    /// messages and in output. A plain user is not secret where the connection is SSH.
    fn secret(&self) -> Option<String> {
        let scheme = self.scheme.as_deref()?;
        let is_secret = |key: &str| {
            let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
            SECRET_PARAMETERS.iter().any(|word| key.contains(word))
        };
        let has_user = |parameter: &Parameter| {
            parameter.key == "host" && percent_decode_str(&parameter.value).decode_utf8_lossy().contains('@')
        };
        if self.parameters.iter().any(|parameter| is_secret(&parameter.key) || has_user(parameter)) {
            return Some(format!("{scheme}:{}?…", self.location));
        }
        let rest = self.text.get(scheme.len() + 1..)?;
        // Nix reads `git+https:u:pw@h/x` as well.
        let rest = rest.strip_prefix("//").or_else(|| (scheme != "path").then_some(rest))?;
        let user = &rest[..user_part(rest)];
        let is_plain = scheme.ends_with("ssh") && !user.contains(':');
        (!user.is_empty() && !is_plain).then(|| format!("{scheme}://…"))
    }

    /// The scheme, such as `git+file`; none for a path or a name of the registry.
    pub fn scheme(&self) -> Option<&str> {
        self.scheme.as_deref()
    }

    /// The fetcher of Nix that the scheme chooses (Nix's manual, "nix flake").
    pub fn fetcher(&self) -> &str {
        match self.scheme().map(|scheme| scheme.split('+').next().unwrap_or(scheme)) {
            Some("https" | "http" | "file") => "tarball",
            Some("flake") | None => "indirect",
            Some(fetcher) => fetcher,
        }
    }

    /// The folder of its `flake.nix` in its tree; none for the tree itself.
    pub fn folder(&self) -> Option<String> {
        self.parameter("dir").filter(|folder| !folder.is_empty())
    }

    /// The reference to its whole tree.
    pub fn without_folder(&self) -> String {
        let front = self.text.split('?').next().unwrap_or_default();
        let others = self.text.split_once('?').map_or("", |(_, query)| query).split('&');
        let others: Vec<&str> = others.filter(|p| !p.is_empty() && *p != "dir" && !p.starts_with("dir=")).collect();
        if others.is_empty() { front.to_owned() } else { format!("{front}?{}", others.join("&")) }
    }

    /// The decoded value of the first parameter called `key`.
    fn parameter(&self, key: &str) -> Option<String> {
        let Parameter { value, .. } = self.parameters.iter().find(|parameter| parameter.key == key)?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    }
}

impl fmt::Display for FlakeReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for FlakeReference {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        check(text).map_err(|why| Invalid::new("a flake reference", text, why))?;
        let (front, query) = text.split_once('?').map_or((text, None), |(front, query)| (front, Some(query)));
        let (scheme, location) = match front.split_once(':') {
            Some((scheme, location)) if is_scheme(scheme) => (Some(scheme.to_owned()), location),
            _ => (None, front),
        };
        let parameter = |text: &str| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            Parameter { key: key.to_owned(), value: value.to_owned() }
        };
        let parameters = query.into_iter().flat_map(|query| query.split('&')).map(parameter).collect();
        let reference = Self { text: text.to_owned(), scheme, location: location.to_owned(), parameters };
        match reference.secret() {
            Some(shown) => Err(Invalid::new("a flake reference", &shown, HAS_SECRET)),
            None => Ok(reference),
        }
    }
}

as_text!(FlakeReference, pattern: "^[!-~]{1,1024}$", about: "A reference to a flake");

fn check(text: &str) -> Result<(), String> {
    check_printable_ascii(text, MAX_LENGTH)?;
    if text.starts_with('-') {
        return Err("it may not begin with `-`".to_owned());
    }
    if text.contains('#') {
        return Err("name the flake alone, without `#` and an attribute".to_owned());
    }
    Ok(())
}

/// The rule of RFC 3986, section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> FlakeReference {
        text.parse().unwrap()
    }

    #[test]
    fn an_option_or_a_fragment_is_refused() {
        for bad in ["--impure", "a#b", "", "a b", "a\nb", &"x".repeat(1025)] {
            assert!(bad.parse::<FlakeReference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_or_token_is_refused_and_not_shown() {
        for bad in [
            "git+https://u:s3cret@h/x?ref=main",
            "git+https://s3cret@h/x",
            "https://u:s3/s3cret@h/x.tar.gz",
            "git+ssh://git:s3cret@h/x",
            "git+file://s3cret@h/x",
            "https://h/x.tar.gz?private_token=s3cret",
            "git+https:u:s3cret@h/x",
            "github:o/r?host=u:s3cret@h",
            "https://h/x.tar.gz?access%5Ftoken=s3cret",
            "https://h/x.tar.gz?X-Amz-Signature=s3cret",
        ] {
            let error = bad.parse::<FlakeReference>().unwrap_err().to_string();
            assert!(!error.contains("s3") && error.contains("netrc-file"), "{error}");
        }
        for good in ["git+ssh://git@h/x", "git+https://h/x?ref=a@b", "github:o/r", "path:/a@b", "https://h:80/a@b"] {
            assert_eq!(parsed(good).as_str(), good);
        }
    }

    #[test]
    fn a_local_repository_is_recognised_with_its_branch() {
        let main = parsed("git+file:///srv/my%20fleet.git?dir=x&ref=ma%2fin");
        assert_eq!(main.local_repository(), Some("/srv/my fleet.git".into()));
        assert_eq!(main.branch().as_deref(), Some("ma/in"));
        assert!(!main.has_revision() && !main.has_submodules());
        assert!(parsed("git+file:///srv/x?rev=ab&submodules=1").has_revision());
        assert!(parsed("git+file:///srv/x?rev=ab&submodules=1").has_submodules());
        assert!(!parsed("git+file:///srv/x?submodules=0").has_submodules());
        for other in ["/srv/x", "path:/srv/x", "git+https://h/x?ref=main", "github:o/r/git+file://", "git+file:x", "."]
        {
            assert_eq!(parsed(other).local_repository(), None, "{other}");
        }
    }

    #[test]
    fn a_parameter_is_added_at_the_end() {
        let with = |text: &str| parsed(text).with_parameter("dir", "a b").unwrap().to_string();
        assert_eq!(with("git+file:///x"), "git+file:///x?dir=a%20b");
        assert_eq!(with("git+file:///x?ref=main"), "git+file:///x?ref=main&dir=a%20b");
        assert!(parsed("x").with_parameter("dir", &"y".repeat(1024)).is_err());
    }

    #[test]
    fn a_flake_at_another_path_keeps_its_parameters() {
        let moved = |flake: &str| parsed(flake).at_path(Path::new("/tmp/a b")).unwrap().to_string();
        assert_eq!(moved("git+file:///srv/fleet.git"), "git+file:///tmp/a%20b");
        assert_eq!(moved("git+file:///srv/x%20y?ref=main&dir=sub"), "git+file:///tmp/a%20b?ref=main&dir=sub");
    }

    proptest! {
        #[test]
        fn a_reference_is_written_as_it_was_read(text in "[!-~]{1,80}") {
            if let Ok(reference) = text.parse::<FlakeReference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }

        #[test]
        fn a_reference_is_split_into_all_its_parts(
            scheme in "[a-z]{1,4}(\\+[a-z]{1,4})?",
            location in "[a-z/%0-9:.]{0,20}",
            parameters in prop::collection::vec(("[a-z]{1,5}", "[a-z0-9%/=]{0,8}"), 0..4),
        ) {
            let query: Vec<String> = parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let mark = if query.is_empty() { "" } else { "?" };
            let reference = parsed(&format!("{scheme}:{location}{mark}{}", query.join("&")));
            prop_assert_eq!(reference.scheme, Some(scheme));
            prop_assert_eq!(reference.location, location);
            let read = reference.parameters.into_iter().map(|Parameter { key, value }| (key, value));
            prop_assert_eq!(read.collect::<Vec<_>>(), parameters);
        }

        #[test]
        fn a_path_is_encoded_and_decoded_without_loss(path in "/[^\0]{0,40}", value in "\\PC{0,20}") {
            let reference = parsed("git+file:///x?ref=main").at_path(Path::new(&path)).unwrap();
            prop_assert_eq!(reference.local_repository(), Some(PathBuf::from(path)));
            let reference = reference.with_parameter("dir", &value).unwrap();
            prop_assert_eq!(reference.parameter("dir"), Some(value));
        }
    }
}
