//! `clavel list`: prints the deployments on a branch.

use serde::Serialize;

use super::view::BranchArguments;
use crate::branch::BranchError;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::git::Depth;
use crate::model::{BrokenPart, Deployment, DeploymentSpecification, Folder, IndexSource, Provenance, printable_line};

/// The most characters of an attribute or an error.
const MAX_SHOWN: usize = 200;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    branch: BranchArguments,
    /// Print one JSON document: the deployments, as they are signed, and the sources, as the index has them.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let view = arguments.branch.view(Depth::Tip).await?;
    let Some(branch) = view.verified_or_warn() else {
        let index = view.unverified_index()?;
        let names = index.deployments().into_iter();
        let read = |name| Ok((view.unverified_document(&index, name)?, index.hold(name).is_some()));
        let deployments = names.map(read).collect::<Result<Vec<_>, Exit>>()?;
        return print(arguments, &deployments, &[], index.sources());
    };
    let mut index = branch.whole_index()?;
    let takers = branch.agents_by_deployment(&mut index);
    let (mut deployments, mut waiting) = (Vec::new(), Vec::new());
    for name in index.names(Folder::Deployments) {
        let deployment = branch.document::<DeploymentSpecification>(&mut index, &name)?;
        let approvals = branch.approvals(&index, &deployment, takers.of(&name)).map_err(BranchError::from)?;
        if let Some(approvals) = approvals.filter(|approvals| !approvals.suffice()) {
            waiting.push(format!("{name} waits: {approvals}"));
        }
        deployments.push((deployment.into_inner(), index.hold(&name).is_some()));
    }
    print(arguments, &deployments, &waiting, &index.index().sources)
}

/// A deployment, and whether it is held.
type ListedDeployment = (Deployment, bool);

/// The JSON of the list.
#[derive(Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct ListOutput<'a> {
    deployments: Vec<&'a Deployment>,
    sources: &'a [IndexSource],
}

fn print(
    arguments: &Arguments,
    deployments: &[ListedDeployment],
    waiting: &[String],
    sources: &[IndexSource],
) -> Result<(), Exit> {
    if arguments.json {
        let deployments = deployments.iter().map(|(deployment, _)| deployment).collect();
        return output::json(&ListOutput { deployments, sources });
    }
    print_table(deployments)?;
    waiting.iter().for_each(output::remark);
    sources.iter().flat_map(describe_trouble).for_each(output::remark);
    Ok(())
}

/// Describes what of a source was not read or broken when the index was signed, in lines.
fn describe_trouble(source: &IndexSource) -> Vec<String> {
    let IndexSource { broken, more_broken, source, unread_since, revision: _ } = source;
    let mut lines: Vec<String> =
        unread_since.iter().map(|since| format!("{source} is not read since {since}")).collect();
    let part = |BrokenPart { attribute, error, since }: &BrokenPart| {
        // It may be unverified, and from anybody.
        let [attribute, error] = [attribute, error].map(|text| printable_line(text.as_str(), MAX_SHOWN));
        format!("{attribute} of {source} is broken since {since}: {error}")
    };
    lines.extend(broken.iter().map(part));
    if *more_broken > 0 {
        lines.push(format!("{more_broken} more parts of {source} are broken"));
    }
    lines
}

fn print_table(deployments: &[ListedDeployment]) -> Result<(), Exit> {
    let rows = deployments.iter().map(|(deployment, is_held)| {
        let provenance = deployment.provenance();
        let describe = |field: fn(&Provenance) -> String| provenance.map_or_else(|| "-".to_owned(), field);
        let specification = &deployment.specification;
        vec![
            deployment.name.to_string(),
            if *is_held { format!("{} (held)", deployment.revision) } else { deployment.revision.to_string() },
            specification.unit.to_string(),
            describe(|p| p.source_revision.as_ref().map_or_else(|| "-".to_owned(), |r| r.short().to_owned())),
            describe(|p| p.evaluated_at.to_string()),
            specification.template.nar_id.to_string(),
        ]
    });
    output::table(&["deployment", "revision", "unit", "source", "evaluated", "store path"], rows)
}
