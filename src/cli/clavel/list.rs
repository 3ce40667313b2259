//! `clavel list`

use super::view::{BranchArguments, View};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::{Deployment, DeploymentSpecification, Folder, Index, Provenance};
use crate::repository::Depth;

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
    let (deployments, index) = match view.believed() {
        Some(branch) => {
            let index = branch.index()?;
            let names = index.names(Folder::Deployments);
            let read = |name| Ok(branch.document::<DeploymentSpecification>(&index, &name)?.into_inner());
            (names.into_iter().map(read).collect::<Result<Vec<Deployment>, Exit>>()?, index.index.into_inner())
        }
        None => unverified(&view)?,
    };
    if arguments.json { output::json(&deployments) } else { show(&deployments, &index) }
}

fn unverified(view: &View) -> Result<(Vec<Deployment>, Index), Exit> {
    let index = view.index()?;
    let listed = index.documents.iter().map(|(path, _)| path).filter(|path| path.folder() == Folder::Deployments);
    let deployments = listed.map(|path| view.document::<DeploymentSpecification>(path.name()));
    Ok((deployments.collect::<Result<_, _>>()?, index))
}

fn show(deployments: &[Deployment], index: &Index) -> Result<(), Exit> {
    let rows = deployments.iter().map(|deployment| {
        let provenance = Provenance::try_from(&deployment.metadata).ok();
        let told = |tell: fn(&Provenance) -> String| provenance.as_ref().map_or_else(|| "-".to_owned(), tell);
        let specification = &deployment.specification;
        vec![
            deployment.name.to_string(),
            match index.held.get(&deployment.name) {
                Some(_) => format!("{} (held)", deployment.revision),
                None => deployment.revision.to_string(),
            },
            specification.unit.to_string(),
            told(|p| p.source_revision.as_ref().map_or_else(|| "-".to_owned(), |r| r.short().to_owned())),
            told(|p| p.evaluated_at.to_string()),
            specification.template.nar_id.to_string(),
        ]
    });
    output::table(&["deployment", "revision", "unit", "source", "evaluated", "store path"], rows)
}
