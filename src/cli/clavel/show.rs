//! `clavel show`: prints one document of a branch.

use clap::ValueEnum;

use super::view::{BranchArguments, View};
use crate::branch::BranchError;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::git::Depth;
use crate::model::{
    AgentSpecification, DeploymentSpecification, Document, Name, Probation, Specification, UnitSpecification,
};
use crate::publish::describe_hold;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The document's name.
    name: Name,
    /// The kind of the document.
    #[arg(long, default_value = "deployment")]
    kind: ShownKind,
    #[command(flatten)]
    branch: BranchArguments,
    /// Print the document as JSON, without its signatures.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShownKind {
    Deployment,
    Unit,
    Agent,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let view = arguments.branch.view(Depth::Tip).await?;
    match arguments.kind {
        ShownKind::Deployment => {
            let name = &arguments.name;
            let (deployment, approvals, hold) = if let Some(branch) = view.verified_or_warn() {
                let mut index = branch.whole_index()?;
                let deployment = branch.document::<DeploymentSpecification>(&mut index, name)?;
                let takers = branch.agents_by_deployment(&mut index);
                let approvals = branch.approvals(&index, &deployment, takers.of(name)).map_err(BranchError::from)?;
                (deployment.into_inner(), approvals, index.hold(name).cloned())
            } else {
                let index = view.unverified_index()?;
                (view.unverified_document(&index, name)?, None, index.hold(name).cloned())
            };
            let DeploymentSpecification { checks, mode, probation, template, unit } = deployment.specification.clone();
            let mut facts = vec![("unit", unit.to_string()), ("narId", template.nar_id.to_string())];
            facts.extend(approvals.map(|approvals| ("approvals", approvals.to_string())));
            facts.extend(template.substituters.iter().map(|cache| ("substituter", cache.to_string())));
            facts.extend(mode.map(|mode| ("mode", mode.to_string())));
            facts.extend(checks.iter().map(|(name, check)| ("check", format!("{name}: {check}"))));
            facts.extend(probation.iter().flat_map(Probation::facts));
            facts.extend(hold.map(|hold| ("held", describe_hold(&hold))));
            facts.extend(template.substituters_public_keys.iter().map(|key| ("public key", key.to_string())));
            print(arguments, &deployment, facts)
        }
        ShownKind::Unit => {
            let unit = read::<UnitSpecification>(arguments, &view)?;
            let UnitSpecification { arch, unit_type } = unit.specification.clone();
            print(arguments, &unit, vec![("type", unit_type.to_string()), ("arch", arch.to_string())])
        }
        ShownKind::Agent => {
            let agent = read::<AgentSpecification>(arguments, &view)?;
            let deployments = agent.specification.deployments.iter();
            let facts = deployments.map(|name| ("deployment", name.to_string())).collect();
            print(arguments, &agent, facts)
        }
    }
}

fn read<S: Specification>(arguments: &Arguments, view: &View) -> Result<Document<S>, Exit> {
    if let Some(branch) = view.verified_or_warn() {
        return Ok(branch.document::<S>(&mut branch.index()?, &arguments.name)?.into_inner());
    }
    view.unverified_document(&view.unverified_index()?, &arguments.name)
}

fn print<S: Specification>(
    arguments: &Arguments,
    document: &Document<S>,
    facts: Vec<(&str, String)>,
) -> Result<(), Exit> {
    if arguments.json {
        return output::json(document);
    }
    output::line(format_args!("{} {}, revision {}", S::KIND, document.name, document.revision))?;
    let metadata = document.metadata.iter().map(|(key, value)| (key.as_str(), value.to_string()));
    let all: Vec<(&str, String)> = facts.into_iter().chain(metadata).collect();
    let width = all.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    all.iter().try_for_each(|(key, value)| output::line(format_args!("  {key:width$}  {value}")))
}
