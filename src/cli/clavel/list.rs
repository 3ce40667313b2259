//! `clavel list`: prints the deployments on a branch.

use super::view::BranchArguments;
use crate::branch::BranchError;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::git::Depth;
use crate::model::{Deployment, DeploymentSpecification, Folder, Provenance};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    branch: BranchArguments,
    /// Print one JSON document: a list of the deployments, as they are signed.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let view = arguments.branch.view(Depth::Tip).await?;
    let Some(branch) = view.verified_or_warn() else {
        let index = view.unverified_index()?;
        let names = index.deployments().into_iter();
        let read = |name| Ok((view.unverified_document(&index, name)?, index.hold(name).is_some()));
        return print(arguments, &names.map(read).collect::<Result<Vec<_>, Exit>>()?, &[]);
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
    print(arguments, &deployments, &waiting)
}

/// A deployment, and whether it is held.
type ListedDeployment = (Deployment, bool);

fn print(arguments: &Arguments, deployments: &[ListedDeployment], waiting: &[String]) -> Result<(), Exit> {
    if arguments.json {
        return output::json(&deployments.iter().map(|(deployment, _)| deployment).collect::<Vec<_>>());
    }
    print_table(deployments)?;
    waiting.iter().for_each(output::remark);
    Ok(())
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
