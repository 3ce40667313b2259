//! The table that a git host shows to whoever opens the branch. Nothing reads it but people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::{Deployment, Hold, Name, Provenance, SourceRevision, Timestamp};

/// The README of a branch with these deployments, some of which are frozen.
pub(super) fn readme<'a>(deployments: impl Iterator<Item = &'a Deployment>, holds: &BTreeMap<Name, Hold>) -> String {
    let mut text = String::from(
        "# Deployments\n\nWritten by claveld; what machines believe are the signed files beside this one.\n\n\
         | deployment | unit | revision | runs | source | since |\n|---|---|---|---|---|---|\n",
    );
    for deployment in deployments {
        let provenance = Provenance::try_from(&deployment.metadata).ok();
        let source = provenance.as_ref().and_then(|p| p.source_revision.as_ref()).map_or("", SourceRevision::short);
        let since = provenance.as_ref().map(|p| p.evaluated_at).as_ref().map(Timestamp::to_string).unwrap_or_default();
        let Deployment { name, revision, specification, .. } = deployment;
        let runs = specification.template.nar_id.name();
        // Why somebody froze it is not told here: those are words that Markdown could take for its own.
        let held = holds.get(name).map(|hold| format!(", held since {}", hold.since)).unwrap_or_default();
        let unit = &specification.unit;
        // Names and store paths have no character that a table or Markdown would take for its own, but `_` and `@`.
        let _ = writeln!(text, "| `{name}` | `{unit}` | {revision}{held} | `{runs}` | {source} | {since} |");
    }
    text
}
