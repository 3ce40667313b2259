//! The report of a publication, and the commit message that says the same.

use std::collections::HashMap;

use serde::Serialize;

use super::document_change::{DocumentChange, NameConflict};
use super::left_out::{KeptBack, LostDeployment, Unready};
use super::withdrawals::HeldWithdrawals;
use crate::model::{Folder, IndexVersion, Name, RootValidity, RootWarning, SourceRevision, Timestamp};

/// The most lines about the differences inside one deployment.
const LINES_OF_ONE: usize = 20;
/// The most lines about the differences inside all deployments together, roughly: nobody reads a longer commit message.
const LINES_OF_ALL: usize = 400;
/// The most bytes of a commit message. Readers refuse a commit object of more than 1 MiB.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// The most bytes that the changes take of it.
const MAX_CHANGES_BYTES: usize = 48 << 10;

/// The result of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishReport {
    /// The documents that changed.
    pub changes: Vec<DocumentChange>,
    /// The names that two sources claim.
    pub conflicts: Vec<NameConflict>,
    /// The deployments that are not published yet, because no cache has them.
    #[serde(flatten)]
    pub unready: Unready,
    /// The changes that operators' holds keep back.
    pub kept_back: Vec<KeptBack>,
    /// The deployments whose hold ended with the key or the epoch that had signed it. They follow their sources again.
    pub lost_holds: Vec<Name>,
    /// The files and folders that did not belong on the branch, so that agents refused it. The publication removed them.
    pub removed: Vec<String>,
    /// The deployments that stay as they are because the document that they have to stay at is lost.
    pub lost: Vec<LostDeployment>,
    /// The withdrawals that wait for an operator.
    pub withdrawals: Vec<HeldWithdrawals>,
    /// Until when the root is valid.
    pub root: RootValidity,
    /// The root ends soon, or has ended.
    #[serde(rename = "rootWarning")]
    pub root_warning: Option<RootWarning>,
    /// The version of the index after the publication.
    pub version: IndexVersion,
    /// The time at which claveld signs the index again even if nothing changes.
    pub sign_anew_at: Timestamp,
    /// The commit that claveld made; none where there was nothing to write.
    pub commit: Option<String>,
}

impl PublishReport {
    /// The changes of Deployments alone.
    pub fn deployments(&self) -> impl Iterator<Item = &DocumentChange> {
        self.changes.iter().filter(|change| change.path.folder() == Folder::Deployments)
    }

    /// The changes, each with lines that describe the differences inside the system.
    pub fn described_changes(&self) -> impl Iterator<Item = (&DocumentChange, Vec<String>)> {
        self.changes.iter().zip(describe_differences(&self.changes))
    }
}

/// Describes for each change the differences inside the system, in few lines. A deployment that changes exactly as an
/// earlier one refers to that one: a hundred hosts that get the same new kernel are described once.
fn describe_differences(changes: &[DocumentChange]) -> Vec<Vec<String>> {
    let (mut first_with, mut total) = (HashMap::new(), 0);
    let lines = changes.iter().map(|change| {
        let Some(differences) = &change.system else { return Vec::new() };
        let name = change.path.name();
        let mut lines = differences.lines(LINES_OF_ONE);
        let first = serde_json::to_string(differences).ok().map(|key| *first_with.entry(key).or_insert(name));
        if let Some(first) = first.filter(|first| *first != name && lines.len() > 1) {
            lines = vec![format!("the same as {first}")];
        } else if total + lines.len() > LINES_OF_ALL {
            lines = vec![format!("`clavel diff {name}` shows the differences")];
        }
        total += lines.len();
        lines
    });
    lines.collect()
}

/// The message of the commit that makes `changes`, which come from `sources` at these revisions. It has at most 64 KiB.
pub(super) fn commit_message(
    changes: &[DocumentChange],
    version: IndexVersion,
    sources: &[(String, Option<SourceRevision>)],
) -> String {
    let mut paragraphs = vec![subject(changes, version)];
    paragraphs.extend(describe_changes(changes));
    if !sources.is_empty() {
        let revision = |r: &Option<SourceRevision>| r.as_ref().map_or("(no revision)".to_owned(), ToString::to_string);
        let sources = sources.iter().map(|(source, at)| format!("Source: {source} {}", revision(at)));
        paragraphs.push(lines_within(MAX_MESSAGE_BYTES - MAX_CHANGES_BYTES - 2048, "sources", sources));
    }
    paragraphs.join("\n\n")
}

/// Describes the changes in one paragraph of a commit message; none where there are no changes.
pub(super) fn describe_changes(changes: &[DocumentChange]) -> Option<String> {
    let described = changes.iter().zip(describe_differences(changes)).map(|(change, differences)| {
        let differences = differences.into_iter().map(|line| format!("\n  {line}"));
        std::iter::once(format!("{}: {change}", change.path)).chain(differences).collect::<String>()
    });
    (!changes.is_empty()).then(|| lines_within(MAX_CHANGES_BYTES, "documents", described))
}

/// The items, each on a line, in at most `most` bytes. The last line says how many are left out.
fn lines_within(most: usize, what: &str, items: impl ExactSizeIterator<Item = String>) -> String {
    const LAST_LINE: usize = 80;
    let (count, mut text) = (items.len(), String::new());
    for (at, item) in items.enumerate() {
        if text.len() + item.len() + LAST_LINE > most {
            let left_out = count - at;
            return format!("{text}and {left_out} more {what}");
        }
        text.push_str(&item);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

fn subject(changes: &[DocumentChange], version: IndexVersion) -> String {
    const NAMED: usize = 4;
    if changes.is_empty() {
        return format!("index: version {version}, signed anew");
    }
    let deployments: Vec<String> = changes
        .iter()
        .filter(|change| change.path.folder() == Folder::Deployments)
        .map(|change| match change.to {
            Some(to) => format!("{} {to}", change.path.name()),
            None => format!("{} withdrawn", change.path.name()),
        })
        .collect();
    match deployments.len() {
        0 => format!("units and agents: {} changed", changes.len()),
        1..=NAMED => format!("deployments: {}", deployments.join(", ")),
        many => format!("deployments: {} and {} more", deployments[..NAMED - 1].join(", "), many - NAMED + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::{FileChange, FileChangeKind, SystemChange, SystemDiff};
    use crate::model::Revision;

    fn change(name: &str, files: usize, prefix: &str) -> DocumentChange {
        let file = |n| FileChange { name: format!("{prefix}{n}"), change: FileChangeKind::Changed };
        let settings = (0..files.min(1)).map(|_| "motd".to_owned()).collect();
        let system = SystemChange { files: (0..files).map(file).collect(), settings, ..SystemChange::default() };
        let revision = Revision::try_from(1).unwrap();
        let path = format!("deployments/{name}.json").parse().unwrap();
        DocumentChange {
            path,
            from: Some(revision),
            to: revision.next(),
            repaired: false,
            system: Some(SystemDiff::Change(system)),
        }
    }

    #[test]
    fn a_message_describes_equal_differences_once() {
        let unknown = SystemDiff::Unknown { unknown: "no".to_owned() };
        let lost = DocumentChange { system: Some(unknown), ..change("lost", 0, "") };
        let changes = [change("a", 2, "f"), change("b", 2, "f"), change("c", 1, "g"), lost];
        let message = commit_message(&changes, IndexVersion::FIRST, &[]);
        let expected = "deployments: a 2, b 2, c 2, lost 2

deployments/a.json: revision 1 → 2
  settings: motd
  files: f0, f1
deployments/b.json: revision 1 → 2
  the same as a
deployments/c.json: revision 1 → 2
  settings: motd
  files: g0
deployments/lost.json: revision 1 → 2
  the changes inside are not known: no";
        assert_eq!(message, expected);
    }

    #[test]
    fn a_message_has_a_bounded_length() {
        let changes: Vec<DocumentChange> =
            (0..1000).map(|n| change(&format!("host-{n}"), 1, &format!("of-{n}-"))).collect();
        let message = commit_message(&changes, IndexVersion::FIRST, &[]);
        assert!(message.ends_with(" more documents"), "{message}");
        assert!(message.len() < MAX_MESSAGE_BYTES, "{}", message.len());
        let inside = message.lines().filter(|line| line.starts_with("  ")).count();
        let left_out: usize = message.rsplit("and ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(inside, 400 + 800 - left_out, "{message}");
        assert!(message.contains("  `clavel diff host-500` shows the differences"));
    }

    #[test]
    fn a_message_about_the_longest_names_and_many_sources_is_bounded() {
        let long = |n: usize| format!("{n:06}{}", "x".repeat(122));
        let changes: Vec<DocumentChange> = (0..5000).map(|n| change(&long(n), 0, "")).collect();
        let sources: Vec<_> = (0..500).map(|n| (format!("git+https://{}", long(n)), None)).collect();
        let message = commit_message(&changes, IndexVersion::FIRST, &sources);
        assert!(message.len() <= MAX_MESSAGE_BYTES, "{}", message.len());
        assert!(message.contains(" more documents\n\nSource: ") && message.ends_with(" more sources"), "{message}");
    }
}
