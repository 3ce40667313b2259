//! What a publication changes, as people and commit messages tell it.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::ready::Unready;
use crate::changes::Told;
use crate::model::{DocumentPath, Folder, Hold, IndexVersion, Name, Revision, SourceRevision, Timestamp};

/// How many lines tell what changes inside one deployment.
const LINES_OF_ONE: usize = 20;
/// How many lines tell it of all deployments together, about: whoever reads a commit message reads no more.
const LINES_OF_ALL: usize = 400;

/// One document that a publication changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where it is.
    pub path: DocumentPath,
    /// The revision it had; none for a new one.
    pub from: Option<Revision>,
    /// The revision it gets; none for one that is withdrawn.
    pub to: Option<Revision>,
    /// Whether what was there was not believed: somebody altered it, or its signer publishes no more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mended: bool,
    /// What changes inside the system; none where there was none before, or it is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Told>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (None, Some(to)) => write!(f, "new, revision {to}")?,
            (Some(from), Some(to)) => write!(f, "revision {from} → {to}")?,
            (Some(from), None) => write!(f, "withdrawn after revision {from}")?,
            (None, None) => write!(f, "nothing")?,
        }
        if self.mended { write!(f, " (what was there was not to be believed)") } else { Ok(()) }
    }
}

/// A name that two sources claim. What the branch has under it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Conflict {
    /// The document.
    pub path: DocumentPath,
    /// Who claims it.
    pub sources: Vec<String>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is claimed by {}; rename one of them", self.path, self.sources.join(" and by "))
    }
}

/// What somebody's hold keeps back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptBack {
    /// The deployment that is frozen.
    pub name: Name,
    /// Where, since when, and why.
    #[serde(flatten)]
    pub hold: Hold,
    /// What its source gives otherwise: of the deployment itself, of its unit, and of the agents that name it.
    pub changes: Vec<Change>,
}

impl fmt::Display for KeptBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, hold, changes } = self;
        let told = |change: &Change| {
            let what = match (change.from, change.to) {
                (Some(_), Some(_)) => "changed",
                (None, _) => "new",
                (Some(_), None) => "gone",
            };
            format!("{} ({what})", change.path)
        };
        let changes: Vec<String> = changes.iter().map(told).collect();
        let changes = changes.join(", ");
        write!(
            f,
            "{name}: {}; kept back: {changes}; `clavel release {name}` lets it follow its source",
            told_hold(hold)
        )
    }
}

/// A deployment whose document somebody altered, where nothing has the one that the index lists any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// The deployment.
    pub name: Name,
    /// The revision that the index lists.
    pub revision: Revision,
    /// What of it is not to be lost.
    pub kept: Kept,
}

/// What a publication does not replace by what a source gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Somebody froze it.
    Hold,
    /// It may have been pinned, and is not pinned by what the caches have now.
    Pin,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, revision, kept } = self;
        let (what, then) = match kept {
            Kept::Hold => ("it is held there", "lets it follow its source"),
            Kept::Pin => ("its pin went with it", "has it pinned anew, by what its caches have now"),
        };
        write!(
            f,
            "{name}: revision {revision} is not on the branch any more, nor in its history, and {what}: nothing is \
             published in its place. Put deployments/{name}.json back, from a mirror or an agent's copy; where it is lost, `clavel \
             release {name}` {then}"
        )
    }
}

/// A hold in words: `held at revision 3 since 2026-01-01T00:00:00Z (it does not boot)`.
pub fn told_hold(hold: &Hold) -> String {
    let Hold { revision, since, why } = hold;
    let why = if why.as_str().is_empty() { String::new() } else { format!(" ({why})") };
    format!("held at revision {revision} since {since}{why}")
}

/// What a publication did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The documents that changed.
    pub changes: Vec<Change>,
    /// The names that two sources claim.
    pub conflicts: Vec<Conflict>,
    /// The deployments that are not published yet, since no cache has them.
    #[serde(flatten)]
    pub unready: Unready,
    /// What somebody's holds keep back.
    pub kept_back: Vec<KeptBack>,
    /// Holds that ended with the key or the epoch that had signed them: these deployments follow their sources again.
    pub lost_holds: Vec<Name>,
    /// Deployments that stay as they are since the branch does not have any more what they are to stay at.
    pub gone: Vec<Gone>,
    /// The version of the index now.
    pub version: IndexVersion,
    /// When the index is signed anew though nothing changes.
    pub sign_anew_at: Timestamp,
    /// The commit that was made; none where nothing had to be written.
    pub commit: Option<String>,
}

impl Report {
    /// The changed Deployments alone: what a pusher wants to know first.
    pub fn deployments(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.path.folder() == Folder::Deployments)
    }

    /// The changes, each with lines on what changes inside.
    pub fn told(&self) -> impl Iterator<Item = (&Change, Vec<String>)> {
        self.changes.iter().zip(inside(&self.changes))
    }
}

/// Of each change what it changes inside, in few lines. Where one deployment changes as another did, that is all there is
/// to say: a hundred hosts that get the same new kernel are read about once.
fn inside(changes: &[Change]) -> Vec<Vec<String>> {
    let (mut told_of, mut total) = (HashMap::new(), 0);
    let lines = changes.iter().map(|change| {
        let Some(told) = &change.system else { return Vec::new() };
        let name = change.path.name();
        let mut lines = told.lines(LINES_OF_ONE);
        let first = serde_json::to_string(told).ok().map(|key| *told_of.entry(key).or_insert(name));
        if let Some(first) = first.filter(|first| *first != name && lines.len() > 1) {
            lines = vec![format!("the same as {first}")];
        } else if total + lines.len() > LINES_OF_ALL {
            lines = vec![format!("`clavel diff {name}` tells what changes inside")];
        }
        total += lines.len();
        lines
    });
    lines.collect()
}

/// The message of the commit that makes `changes`, which came from `sources` at those revisions.
pub(super) fn commit_message(
    changes: &[Change],
    version: IndexVersion,
    sources: &[(String, Option<SourceRevision>)],
) -> String {
    let mut paragraphs = vec![subject(changes, version)];
    paragraphs.extend(told_changes(changes));
    if !sources.is_empty() {
        let revision = |r: &Option<SourceRevision>| r.as_ref().map_or("(no revision)".to_owned(), ToString::to_string);
        paragraphs.push(lines(sources.iter().map(|(source, at)| format!("Source: {source} {}", revision(at)))));
    }
    paragraphs.join("\n\n")
}

/// The changes as a paragraph of a commit message; none where there are none.
pub(super) fn told_changes(changes: &[Change]) -> Option<String> {
    let told = changes.iter().zip(inside(changes)).flat_map(|(change, inside)| {
        let inside = inside.into_iter().map(|line| format!("  {line}"));
        std::iter::once(format!("{}: {change}", change.path)).chain(inside)
    });
    (!changes.is_empty()).then(|| lines(told))
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

fn subject(changes: &[Change], version: IndexVersion) -> String {
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
    use crate::changes::{FileChange, FileFate, SystemChange};

    fn change(name: &str, files: usize, prefix: &str) -> Change {
        let file = |n| FileChange { name: format!("{prefix}{n}"), change: FileFate::Changed };
        let settings = (0..files.min(1)).map(|_| "motd".to_owned()).collect();
        let system = SystemChange { files: (0..files).map(file).collect(), settings, ..SystemChange::default() };
        let revision = Revision::try_from(1).unwrap();
        let path = format!("deployments/{name}.json").parse().unwrap();
        Change { path, from: Some(revision), to: revision.next(), mended: false, system: Some(Told::Change(system)) }
    }

    #[test]
    fn a_message_tells_what_changes_inside_and_the_same_only_once() {
        let unknown = Told::Unknown { unknown: "no".to_owned() };
        let lost = Change { system: Some(unknown), ..change("lost", 0, "") };
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
  what changes inside cannot be told: no";
        assert_eq!(message, expected);
    }

    #[test]
    fn a_message_ends() {
        let changes: Vec<Change> = (0..1000).map(|n| change(&format!("host-{n}"), 1, &format!("of-{n}-"))).collect();
        let message = commit_message(&changes, IndexVersion::FIRST, &[]);
        let inside = message.lines().filter(|line| line.starts_with("  ")).count();
        assert_eq!(inside, 200 + 1000 - 200 + 200, "{message}");
        assert!(message.ends_with("  `clavel diff host-999` tells what changes inside"));
    }
}
