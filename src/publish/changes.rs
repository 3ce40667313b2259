//! What a publication changes, as people and commit messages tell it.

use std::fmt;

use serde::Serialize;

use super::ready::Unready;
use crate::model::{DocumentPath, Folder, IndexVersion, Revision, SourceRevision};

/// One document that a publication changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where it is.
    pub path: DocumentPath,
    /// The revision it had; none for a new one.
    pub from: Option<Revision>,
    /// The revision it gets; none for one that is withdrawn.
    pub to: Option<Revision>,
    /// What the document was altered to by somebody without the key, where that was found and mended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mended: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (None, Some(to)) => write!(f, "new, revision {to}")?,
            (Some(from), Some(to)) => write!(f, "revision {from} → {to}")?,
            (Some(from), None) => write!(f, "withdrawn after revision {from}")?,
            (None, None) => write!(f, "nothing")?,
        }
        if self.mended { write!(f, " (it had been altered on the branch)") } else { Ok(()) }
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
    /// The version of the index now.
    pub version: IndexVersion,
    /// The commit that was made; none where nothing had to be written.
    pub commit: Option<String>,
}

impl Report {
    /// The changed Deployments alone: what a pusher wants to know first.
    pub fn deployments(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.path.folder() == Folder::Deployments)
    }
}

/// The message of the commit that makes `changes`, which came from `sources` at those revisions.
pub(super) fn commit_message(
    changes: &[Change],
    version: IndexVersion,
    sources: &[(String, Option<SourceRevision>)],
) -> String {
    let mut paragraphs = vec![subject(changes, version)];
    if !changes.is_empty() {
        paragraphs.push(lines(changes.iter().map(|change| format!("{}: {change}", change.path))));
    }
    if !sources.is_empty() {
        let revision = |r: &Option<SourceRevision>| r.as_ref().map_or("(no revision)".to_owned(), ToString::to_string);
        paragraphs.push(lines(sources.iter().map(|(source, at)| format!("Source: {source} {}", revision(at)))));
    }
    paragraphs.join("\n\n")
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
