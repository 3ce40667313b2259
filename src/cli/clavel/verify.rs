//! `clavel verify`: verifies everything on a branch, as an agent would, and prints each error.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::view::BranchArguments;
use crate::branch::{Branch, BranchError, VerifiedIndex};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::git::{Depth, Files};
use crate::model::{
    AgentSpecification, DeploymentSpecification, FleetId, Folder, IndexVersion, Name, RootVersion, Specification,
    Timestamp, UnitSpecification, describe_error,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    branch: BranchArguments,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// The document that `--json` prints.
#[derive(Serialize)]
struct VerifyOutput {
    fleet: FleetId,
    root: RootVersion,
    version: IndexVersion,
    expires: Timestamp,
    deployments: usize,
    units: usize,
    agents: usize,
    /// The deployments that lack approvals, and what they lack.
    unapproved: BTreeMap<Name, String>,
    errors: Vec<String>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let view = arguments.branch.view(Depth::Tip).await?;
    let (branch, root) = view.verified()?;
    // An agent refuses the branch at the first entry that does not belong there. Here all of them are named.
    let to_repair = Branch::to_repair(&view.snapshot, root, view.name());
    let mut index = to_repair.index()?;
    let mut errors = Vec::new();
    for bin in index.index().bins.count().bins() {
        errors.extend(to_repair.read_bin(&mut index, bin).err().map(|error| describe_error(&error)));
    }
    let foreign = to_repair.foreign_entries(&index)?;
    let why = "it is not what the index and the root account for, and the next publication removes it";
    errors.extend(foreign.iter().map(|entry| format!("`{entry}` does not belong on the branch: {why}")));
    if errors.is_empty() {
        errors.extend(read_strictly(&branch).err().map(|error| describe_error(&error)));
    }
    let deployments = verify_all::<DeploymentSpecification, _>(&branch, &mut index, &mut errors);
    let units = verify_all::<UnitSpecification, _>(&branch, &mut index, &mut errors);
    let agents = verify_all::<AgentSpecification, _>(&branch, &mut index, &mut errors);
    let unapproved = find_unapproved(&branch, &mut index, &mut errors);
    let now = Timestamp::from(SystemTime::now());
    if now >= index.index().expires {
        errors.push(format!("the index expired at {}", index.index().expires));
    }
    if root.is_expired(now) {
        errors.push(format!("the root expired at {}", root.root().expires));
    }
    let is_good = errors.is_empty();
    let (version, expires) = (index.index().version, index.index().expires);
    if arguments.json {
        let (fleet, root) = (root.fleet(), root.root().version);
        output::json(&VerifyOutput { fleet, root, version, expires, deployments, units, agents, unapproved, errors })?;
    } else {
        errors.iter().for_each(output::error);
        unapproved.iter().try_for_each(|(name, lack)| output::line(format_args!("waits  {name}: {lack}")))?;
        output::line(format_args!(
            "fleet {}…, root version {}, index version {version} until {expires}: {deployments} deployments, {units} units and {agents} agents verified",
            root.fleet().short(),
            root.root().version
        ))?;
    }
    if is_good { Ok(()) } else { Err(Exit::silent(Code::Refused)) }
}

/// Reads the index and all of its bins as an agent does.
fn read_strictly<F: Files>(branch: &Branch<'_, F>) -> Result<(), BranchError> {
    let mut index = branch.index()?;
    index.index().bins.count().bins().try_for_each(|bin| branch.read_bin(&mut index, bin))
}

/// Finds the deployments that lack approvals, and describes what they lack.
fn find_unapproved<F: Files>(
    branch: &Branch<'_, F>,
    index: &mut VerifiedIndex,
    errors: &mut Vec<String>,
) -> BTreeMap<Name, String> {
    let takers = branch.agents_by_deployment(index);
    let mut unapproved = BTreeMap::new();
    for name in index.names(Folder::Deployments) {
        let Ok(deployment) = branch.document::<DeploymentSpecification>(index, &name) else { continue };
        match branch.approvals(index, &deployment, takers.of(&name)) {
            Ok(Some(approvals)) if !approvals.suffice() => drop(unapproved.insert(name, approvals.to_string())),
            Ok(_) => {}
            Err(error) => errors.push(describe_error(&error)),
        }
    }
    unapproved
}

/// Verifies all documents of one kind, adds the errors to `errors`, and returns the number of good documents.
fn verify_all<S: Specification, F: Files>(
    branch: &Branch<'_, F>,
    index: &mut VerifiedIndex,
    errors: &mut Vec<String>,
) -> usize {
    let mut good = 0;
    for name in index.names(S::FOLDER) {
        match branch.document::<S>(index, &name) {
            Ok(_) => good += 1,
            Err(error) => errors.push(describe_error(&error)),
        }
    }
    good
}
