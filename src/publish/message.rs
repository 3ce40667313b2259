//! The message of a publication's commit, which says the same as its report.

use super::described::{DescribedChange, describe};
use super::document_change::DocumentChange;
use crate::changes::ChangeGroup;
use crate::model::{Folder, IndexVersion, Name, SourceRevision, few};

/// The most bytes of a commit message. Readers refuse a commit object of more than 1 MiB.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// The most bytes that the changes take of it.
const MAX_CHANGES_BYTES: usize = 48 << 10;

/// The message of the commit that makes `changes`, whose groups are `groups`, which come from `sources` at these revisions, and ends
/// these holds. It has at most 64 KiB.
pub(super) fn commit_message(
    changes: &[DocumentChange],
    groups: &[ChangeGroup],
    ended_holds: &[Name],
    version: IndexVersion,
    sources: &[(String, Option<SourceRevision>)],
) -> String {
    let mut paragraphs = vec![subject(changes, ended_holds, version)];
    paragraphs.extend(describe_changes(changes, groups));
    if !ended_holds.is_empty() {
        paragraphs.push(format!("Holds that ended: {}", few(ended_holds.iter())));
    }
    if !sources.is_empty() {
        let revision = |r: &Option<SourceRevision>| r.as_ref().map_or("(no revision)".to_owned(), ToString::to_string);
        let sources = sources.iter().map(|(source, at)| format!("Source: {source} {}", revision(at)));
        paragraphs.push(lines_within(MAX_MESSAGE_BYTES - MAX_CHANGES_BYTES - 2048, "sources", sources));
    }
    paragraphs.join("\n\n")
}

/// Describes the changes in one paragraph of a commit message; none where there are no changes.
pub(super) fn describe_changes(changes: &[DocumentChange], groups: &[ChangeGroup]) -> Option<String> {
    let described = describe(changes, groups).into_iter().map(|described| {
        let (title, lines) = match described {
            DescribedChange::Shared { title, lines } => (format!("{title}:"), lines),
            DescribedChange::Document { change, lines } => (format!("{}: {change}", change.path), lines),
            DescribedChange::Line(line) => (line, Vec::new()),
        };
        std::iter::once(title).chain(lines.into_iter().map(|line| format!("\n  {line}"))).collect::<String>()
    });
    (!changes.is_empty()).then(|| lines_within(MAX_CHANGES_BYTES, "changes", described))
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

fn subject(changes: &[DocumentChange], ended_holds: &[Name], version: IndexVersion) -> String {
    if changes.is_empty() && !ended_holds.is_empty() {
        return format!("release: {}, held until now", few(ended_holds.iter()));
    }
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
        _ => format!("deployments: {}", few(deployments.iter())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::described::group_documents;
    use super::super::fixture::changed_deployment;
    use super::*;
    use crate::changes::{SystemChange, SystemDiff};

    fn change(name: &str, files: &[String]) -> DocumentChange {
        let settings = files.iter().take(1).map(|_| "motd".to_owned()).collect();
        let system = SystemChange { settings, ..SystemChange::default() };
        changed_deployment(name, files.iter().map(String::as_str), system)
    }

    fn message(changes: &[DocumentChange], sources: &[(String, Option<SourceRevision>)]) -> String {
        commit_message(changes, &group_documents(changes), &[], IndexVersion::FIRST, sources)
    }

    #[test]
    fn a_message_describes_shared_differences_once() {
        let unknown = SystemDiff::Unknown { unknown: "no".to_owned() };
        let lost = DocumentChange { system: Some(unknown), ..change("lost", &[]) };
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let changes =
            [change("a", &names(&["f0", "f1"])), change("b", &names(&["f0", "f1"])), change("c", &names(&["g"])), lost];
        let expected = "deployments: a 2, b 2, c 2, lost 2

a, b, c:
  settings: motd
a, b:
  files: f0, f1
deployments/a.json: revision 1 → 2
deployments/b.json: revision 1 → 2
deployments/c.json: revision 1 → 2
  files: g
deployments/lost.json: revision 1 → 2
  the changes inside are not known: no";
        assert_eq!(message(&changes, &[]), expected);
    }

    #[test]
    fn a_message_has_a_bounded_length() {
        let long = |n: usize, at: usize| format!("{n:06}-{at}{}", "x".repeat(88));
        let files = |n: usize| (0..10).map(|at| long(n, at)).collect::<Vec<_>>();
        let changes: Vec<DocumentChange> = (0..10_000).map(|n| change(&format!("host-{n}"), &files(n))).collect();
        let message = message(&changes, &[]);
        assert!(message.contains("\n\nall 10000:\n  settings: motd\n"), "{message}");
        assert!(message.ends_with(" more changes"), "{message}");
        assert!(message.len() <= MAX_MESSAGE_BYTES, "{}", message.len());
    }

    #[test]
    fn a_message_about_the_longest_names_and_many_sources_is_bounded() {
        let long = |n: usize| format!("{n:06}{}", "x".repeat(122));
        let changes: Vec<DocumentChange> = (0..5000).map(|n| change(&long(n), &[])).collect();
        let sources: Vec<_> = (0..500).map(|n| (format!("git+https://{}", long(n)), None)).collect();
        let message = message(&changes, &sources);
        assert!(message.len() <= MAX_MESSAGE_BYTES, "{}", message.len());
        assert!(message.contains("\n\nSource: ") && message.ends_with(" more sources"), "{message}");
    }
}
