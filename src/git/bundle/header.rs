//! The text at the beginning of a bundle (gitformat-bundle(5)): what it builds on, and what it brings.
//!
//! No checksum protects it, so it is read strictly: a damaged byte is an error, or names another commit, which is not in the bundle.

use std::io::{BufRead, Read as _, Write};

use super::error::{HeaderError, MAX_HEADER_BYTES, MAX_LINES};
use crate::git::address::{CommitId, RefName};
use crate::model::BranchName;

const VERSION_2: &[u8] = b"# v2 git bundle\n";
const VERSION_3: &[u8] = b"# v3 git bundle\n";

/// What a bundle builds on, and what it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleHeader {
    /// The commits that a reader has to have already; none for a complete bundle.
    pub prerequisites: Vec<CommitId>,
    /// The refs that it brings.
    refs: Vec<(String, CommitId)>,
}

impl BundleHeader {
    /// The header of a bundle with one branch. `HEAD` stands beside it, so that `git clone` checks the branch out.
    pub(super) fn of(branch: &BranchName, tip: CommitId, prerequisite: Option<CommitId>) -> Self {
        let refs = vec![(RefName::of(branch).to_string(), tip), ("HEAD".to_owned(), tip)];
        Self { prerequisites: prerequisite.into_iter().collect(), refs }
    }

    /// Reads it. What follows in `input` is the pack.
    pub(super) fn read(input: &mut impl BufRead) -> Result<Self, HeaderError> {
        let mut input = input.take(MAX_HEADER_BYTES);
        let mut header = Self { prerequisites: Vec::new(), refs: Vec::new() };
        let version_3 = match next_line(&mut input) {
            Ok(line) if line == VERSION_2 => false,
            Ok(line) if line == VERSION_3 => true,
            Err(HeaderError::Read(error)) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(HeaderError::Read(error));
            }
            Ok(_) | Err(_) => return Err(HeaderError::NotABundle),
        };
        for _ in 0..MAX_LINES {
            let line = next_line(&mut input)?;
            let line = str::from_utf8(&line).map_err(|_| HeaderError::Line)?.trim_end_matches('\n');
            if line.is_empty() {
                return Ok(header);
            }
            match line.strip_prefix('@') {
                Some("object-format=sha1") if version_3 => {}
                Some(capability) if version_3 => {
                    return Err(HeaderError::Capability(capability.chars().take(80).collect()));
                }
                Some(_) | None => header.add(line)?,
            }
        }
        Err(HeaderError::TooLong)
    }

    fn add(&mut self, line: &str) -> Result<(), HeaderError> {
        if let Some(rest) = line.strip_prefix('-') {
            // What follows the id is a comment.
            let (id, _) = rest.split_once(' ').unwrap_or((rest, ""));
            self.prerequisites.push(id_of(id)?);
            return Ok(());
        }
        let (id, name) = line.split_once(' ').ok_or(HeaderError::Line)?;
        if self.refs.iter().any(|(known, _)| known == name) {
            return Err(HeaderError::Twice(name.chars().take(80).collect()));
        }
        self.refs.push((name.to_owned(), id_of(id)?));
        Ok(())
    }

    /// Writes it.
    pub(super) fn write(&self, output: &mut impl Write) -> std::io::Result<()> {
        output.write_all(VERSION_2)?;
        for id in &self.prerequisites {
            writeln!(output, "-{id}")?;
        }
        for (name, id) in &self.refs {
            writeln!(output, "{id} {name}")?;
        }
        output.write_all(b"\n")
    }

    /// The commit of a branch; `None` if the bundle does not have that branch.
    pub fn tip(&self, branch: &BranchName) -> Option<CommitId> {
        let name = RefName::of(branch);
        self.refs.iter().find(|(known, _)| known == name.as_str()).map(|(_, id)| *id)
    }

    /// The names of its branches.
    pub fn branches(&self) -> Vec<&str> {
        self.refs.iter().filter_map(|(name, _)| name.strip_prefix("refs/heads/")).collect()
    }
}

/// The id as git writes it. Upper case would be another byte with the same meaning.
fn id_of(text: &str) -> Result<CommitId, HeaderError> {
    let id: CommitId = text.parse().map_err(|_| HeaderError::Line)?;
    if id.to_string() == text { Ok(id) } else { Err(HeaderError::Line) }
}

/// The next line with its end.
fn next_line(input: &mut std::io::Take<impl BufRead>) -> Result<Vec<u8>, HeaderError> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).map_err(HeaderError::Read)?;
    match line.last() {
        Some(b'\n') => Ok(line),
        _ if input.limit() == 0 => Err(HeaderError::TooLong),
        _ => Err(HeaderError::Read(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";
    const OTHER: &str = "abcdef0123abcdef0123abcdef0123abcdef0123";

    fn read(text: &str) -> Result<(BundleHeader, String), HeaderError> {
        let mut input = text.as_bytes();
        let header = BundleHeader::read(&mut input)?;
        Ok((header, String::from_utf8(input.to_vec()).unwrap()))
    }

    #[test]
    fn what_is_written_is_read_up_to_the_pack() {
        let branch = "deployments".parse().unwrap();
        let (id, other) = (ID.parse().unwrap(), OTHER.parse().unwrap());
        for header in [BundleHeader::of(&branch, id, None), BundleHeader::of(&branch, id, Some(other))] {
            let mut written = Vec::new();
            header.write(&mut written).unwrap();
            written.extend(b"PACK\n\n");
            assert_eq!(read(str::from_utf8(&written).unwrap()).unwrap(), (header.clone(), "PACK\n\n".to_owned()));
            assert_eq!((header.tip(&branch), header.branches()), (Some(id), vec!["deployments"]));
            assert_eq!(header.tip(&"main".parse().unwrap()), None);
        }
    }

    #[test]
    fn headers_of_git_are_read_and_others_are_refused() {
        let of_git = format!("# v2 git bundle\n-{OTHER} a comment\n{ID} refs/heads/deployments\n\nPACK");
        assert_eq!(read(&of_git).unwrap().0.prerequisites, [OTHER.parse().unwrap()]);
        read(&format!("# v3 git bundle\n@object-format=sha1\n{ID} refs/heads/deployments\n\n")).unwrap();
        let long = format!("# v2 git bundle\n{}\n", "x".repeat(70_000));
        let many = format!("# v2 git bundle\n{}\n", format!("-{ID}\n").repeat(600));
        for (bad, kind) in [
            ("", "NotABundle"),
            ("# v4 git bundle\n\n", "NotABundle"),
            ("PACK", "NotABundle"),
            ("# v2 git bundle\n", "Read"),
            (&format!("# v2 git bundle\n{ID} refs/heads/deployments\n"), "Read"),
            (&format!("# v3 git bundle\n@filter=blob:none\n{ID} HEAD\n\n"), "Capability"),
            (&format!("# v2 git bundle\n@object-format=sha1\n{ID} HEAD\n\n"), "Line"),
            (&format!("# v2 git bundle\n{ID}\n\n"), "Line"),
            (&format!("# v2 git bundle\n{} HEAD\n\n", OTHER.to_uppercase()), "Line"),
            (&format!("# v2 git bundle\n{ID} HEAD\n{ID} HEAD\n\n"), "Twice"),
            (&long, "TooLong"),
            (&many, "TooLong"),
        ] {
            let error = format!("{:?}", read(bad).unwrap_err());
            assert!(error.starts_with(kind), "{bad:.60}: {error}");
        }
    }
}
