//! The README of the branch: the table that a git host shows to a visitor. No program reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::{Deployment, Hold, Name, Provenance, SourceRevision};

/// A deployment and its provenance; none where its metadata states none.
pub(super) type Row<'a> = (&'a Deployment, Option<&'a Provenance>);

/// The README of a branch with these deployments and holds.
pub(super) fn readme<'a>(deployments: impl Iterator<Item = Row<'a>>, holds: &BTreeMap<Name, Hold>) -> String {
    let mut text = String::from(
        "# Deployments\n\nWritten by claveld. Machines read the signed files beside this one, not this table.\n\n\
         | deployment | unit | revision | runs | source | since |\n|---|---|---|---|---|---|\n",
    );
    for (deployment, provenance) in deployments {
        let source = provenance.and_then(|p| p.source_revision.as_ref()).map_or("", SourceRevision::short);
        let since = provenance.map(|p| p.evaluated_at.to_string()).unwrap_or_default();
        let Deployment { name, revision, specification, .. } = deployment;
        let runs = specification.template.nar_id.name();
        // The reason of a hold is not shown: it is free text, which Markdown could interpret.
        let held = holds.get(name).map(|hold| format!(", held since {}", hold.since)).unwrap_or_default();
        let unit = &specification.unit;
        // Names and store paths have no character that Markdown interprets, except `_` and `@`, which are harmless in code.
        let _ = writeln!(text, "| `{name}` | `{unit}` | {revision}{held} | `{runs}` | {source} | {since} |");
    }
    text
}
