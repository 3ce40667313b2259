//! `clavel list`: prints the deployments on a branch.

use super::view::{BranchArguments, View};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::git::Depth;
use crate::model::{Deployment, DeploymentSpecification, Folder, Index, Provenance};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    branch: BranchArguments,
    /// Print one JSON document: a list of the deployments, as they are signed.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let view = arguments.branch.view(Depth::Tip)?;
    let Some(branch) = view.verified_or_warn() else {
        let (deployments, index) = read_unverified(&view)?;
        return print(arguments, &deployments, &index, &[]);
    };
    let index = branch.index()?;
    let takers = branch.agents_by_deployment(&index);
    let (mut deployments, mut waiting) = (Vec::new(), Vec::new());
    for name in index.names(Folder::Deployments) {
        let deployment = branch.document::<DeploymentSpecification>(&index, &name)?;
        let approvals = branch.approvals(&deployment, takers.of(&name));
        if let Some(approvals) = approvals.filter(|approvals| !approvals.suffice()) {
            waiting.push(format!("{name} waits: {approvals}"));
        }
        deployments.push(deployment.into_inner());
    }
    print(arguments, &deployments, &index.index, &waiting)
}

fn print(arguments: &Arguments, deployments: &[Deployment], index: &Index, waiting: &[String]) -> Result<(), Exit> {
    if arguments.json {
        return output::json(&deployments);
    }
    print_table(deployments, index)?;
    waiting.iter().for_each(output::remark);
    Ok(())
}

/// Reads the deployments and the index without verifying them.
fn read_unverified(view: &View) -> Result<(Vec<Deployment>, Index), Exit> {
    let index = view.index()?;
    let listed = index.documents.iter().map(|(path, _)| path).filter(|path| path.folder() == Folder::Deployments);
    let deployments = listed.map(|path| view.document::<DeploymentSpecification>(path.name()));
    Ok((deployments.collect::<Result<_, _>>()?, index))
}

fn print_table(deployments: &[Deployment], index: &Index) -> Result<(), Exit> {
    let rows = deployments.iter().map(|deployment| {
        let provenance = Provenance::try_from(&deployment.metadata).ok();
        let describe = |field: fn(&Provenance) -> String| provenance.as_ref().map_or_else(|| "-".to_owned(), field);
        let specification = &deployment.specification;
        vec![
            deployment.name.to_string(),
            match index.held.get(&deployment.name) {
                Some(_) => format!("{} (held)", deployment.revision),
                None => deployment.revision.to_string(),
            },
            specification.unit.to_string(),
            describe(|p| p.source_revision.as_ref().map_or_else(|| "-".to_owned(), |r| r.short().to_owned())),
            describe(|p| p.evaluated_at.to_string()),
            specification.template.nar_id.to_string(),
        ]
    });
    output::table(&["deployment", "revision", "unit", "source", "evaluated", "store path"], rows)
}
