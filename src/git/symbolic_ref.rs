//! Follows symbolic refs, as git names them to its hooks: it gives them the names as they were pushed.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

/// The most symbolic refs in a chain; git follows five.
const MAX_CHAIN: usize = 6;
/// The most bytes of the file of a symbolic ref.
const MAX_FILE: u64 = 4096;

/// What a name leads to.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum RefTarget {
    /// The ref at the end, by its full name. It need not exist.
    Ref(String),
    /// This name, which is no ref's, or leads in a circle.
    Invalid(String),
    /// The repository keeps its refs in a reftable, which is not read here.
    Reftable,
}

/// Follows symbolic refs from `name` to the ref at their end. A symbolic ref is a file with `ref: NAME`
/// (gitrepository-layout(5)).
pub fn resolve_ref(git_dir: &Path, name: &str) -> io::Result<RefTarget> {
    let mut name = name.to_owned();
    for _ in 0..MAX_CHAIN {
        let is_plain = name == "HEAD" || (name.starts_with("refs/") && !name.split('/').any(|part| part == ".."));
        if !is_plain {
            return Ok(RefTarget::Invalid(name));
        }
        let mut text = Vec::new();
        match File::open(git_dir.join(&name)) {
            Ok(file) => file.take(MAX_FILE).read_to_end(&mut text).or_else(ignore_a_folder)?,
            // The ref is packed, or does not exist yet.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => 0,
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&text);
        let Some(next) = text.strip_prefix("ref:") else { return Ok(RefTarget::Ref(name)) };
        next.trim().clone_into(&mut name);
        // Git writes this for programs that cannot read its reftable format.
        if name == "refs/heads/.invalid" {
            return Ok(RefTarget::Reftable);
        }
    }
    Ok(RefTarget::Invalid(name))
}

/// A name with other refs below it is a folder, and no ref itself.
fn ignore_a_folder(error: io::Error) -> io::Result<usize> {
    if error.kind() == ErrorKind::IsADirectory { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_ref_leads_to_the_ref_at_its_end() {
        let git_dir = tempfile::tempdir().unwrap();
        let resolve = |name: &str| resolve_ref(git_dir.path(), name).unwrap();
        let write = |name: &str, text: &str| std::fs::write(git_dir.path().join(name), text).unwrap();
        let of = |name: &str| RefTarget::Ref(name.to_owned());
        std::fs::create_dir_all(git_dir.path().join("refs/heads/folder")).unwrap();
        write("HEAD", "ref: refs/heads/old\n");
        write("refs/heads/old", "ref: refs/heads/main\n");
        assert_eq!(resolve("HEAD"), of("refs/heads/main"));
        assert_eq!(resolve("refs/heads/folder"), of("refs/heads/folder"));
        assert_eq!(resolve("refs/heads/main"), of("refs/heads/main"));
        for bad in ["main", "refs/../HEAD", "refs/heads/.."] {
            assert_eq!(resolve(bad), RefTarget::Invalid(bad.to_owned()));
        }
        write("refs/heads/main", "ref: refs/heads/old\n");
        assert!(matches!(resolve("HEAD"), RefTarget::Invalid(_)));
        write("HEAD", "ref: refs/heads/.invalid\n");
        assert_eq!(resolve("HEAD"), RefTarget::Reftable);
    }
}
