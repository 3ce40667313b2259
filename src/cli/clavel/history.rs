//! `clavel history`: lists the revisions of a deployment, from the branch's history.

use serde::Serialize;

use super::diff::verify;
use super::view::BranchArguments;
use crate::branch::past_files;
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::git::Depth;
use crate::model::{Deployment, Name, Revision, SourceRevision, StorePath, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The deployment's name.
    name: Name,
    #[command(flatten)]
    branch: BranchArguments,
    /// Print one JSON document: a list of the revisions, the newest first.
    #[arg(long)]
    json: bool,
}

/// One revision, with the first commit that has it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct PastRevision {
    revision: Revision,
    /// When the commit was made.
    date: Timestamp,
    commit: String,
    nar_id: StorePath,
    /// The revision of the source; none where the source has no revisions.
    source_revision: Option<SourceRevision>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let Arguments { name, branch, json } = arguments;
    let view = branch.view(Depth::Full).await?;
    view.verified_or_warn();
    let (mut revisions, mut left_out) = (Vec::<PastRevision>::new(), 0);
    for past in past_files(&view.repository, view.snapshot.commit(), name)? {
        let Some(deployment) = verify(&view, &past.snapshot, &past.file, name)? else {
            left_out += 1;
            continue;
        };
        let found = described(&deployment, past.snapshot.commit().to_string(), past.date);
        match revisions.last_mut().filter(|newer| newer.revision == found.revision) {
            // The same revision, signed by other keys later.
            Some(newer) => *newer = found,
            None => revisions.push(found),
        }
    }
    if left_out > 0 {
        output::remark(format_args!("left out: {left_out} contents that no root of this branch vouches for"));
    }
    if revisions.is_empty() {
        let why = format!("the branch has no deployment {name} in its history; `clavel list` shows those that it has");
        return Err(Exit::new(Code::Configuration, why));
    }
    if *json { output::json(&revisions) } else { print(&revisions) }
}

fn described(deployment: &Deployment, commit: String, date: Timestamp) -> PastRevision {
    PastRevision {
        revision: deployment.revision,
        date,
        commit,
        nar_id: deployment.specification.template.nar_id.clone(),
        source_revision: deployment.provenance().and_then(|provenance| provenance.source_revision.clone()),
    }
}

fn print(revisions: &[PastRevision]) -> Result<(), Exit> {
    let rows = revisions.iter().map(|PastRevision { revision, date, commit, nar_id, source_revision }| {
        vec![
            revision.to_string(),
            date.to_string(),
            commit.chars().take(10).collect(),
            source_revision.as_ref().map_or_else(|| "-".to_owned(), |revision| revision.short().to_owned()),
            nar_id.to_string(),
        ]
    });
    output::table(&["revision", "date", "commit", "source", "store path"], rows)
}
