//! `clavel verify`: verifies everything on a branch, as an agent would, and prints each error.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::Serialize;

use super::closures::{self, CarriedClosures};
use super::view::{BranchArguments, View};
use crate::branch::{Branch, BranchError, VerifiedIndex};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::closures::ClosureBundle;
use crate::git::{Depth, Files};
use crate::model::{
    AgentSpecification, DeploymentSpecification, FleetId, Folder, IndexVersion, Name, RootValidity, RootVersion,
    Specification, Timestamp, UnitSpecification, describe_error,
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
#[derive(Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct VerifyOutput {
    fleet: FleetId,
    root: RootVersion,
    version: IndexVersion,
    expires: Timestamp,
    deployments: usize,
    units: usize,
    agents: usize,
    /// The deployments that lack approvals, and what they lack.
    unapproved: BTreeMap<Name, String>,
    /// What is to be done soon, although nothing is wrong yet.
    warnings: Vec<String>,
    errors: Vec<String>,
    /// The closures in a bundle; none elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    closures: Option<CarriedClosures>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    print(&arguments.branch.view(Depth::Tip).await?, None, arguments.json)
}

/// Verifies everything that the view has, and the closures that came with it, and prints the result.
pub(super) fn print(view: &View, carried: Option<&ClosureBundle>, json: bool) -> Result<(), Exit> {
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
    let listed = Listed {
        deployments: index.names(Folder::Deployments).into_iter().collect(),
        units: index.names(Folder::Units).into_iter().collect(),
    };
    errors.extend(find_gaps(&listed, &deployments, &agents));
    let (deployments, units, agents) = (deployments.len(), units.len(), agents.len());
    let unapproved = find_unapproved(&branch, &mut index, &mut errors);
    let now = Timestamp::from(SystemTime::now());
    if now >= index.index().expires {
        errors.push(format!("the index expired at {}", index.index().expires));
    }
    let mut warnings = Vec::new();
    if let Some(warning) = RootValidity::of(root.root()).warning(now) {
        let list = if warning.is_expired() { &mut errors } else { &mut warnings };
        list.push(warning.to_string());
    }
    if let Some(carried) = carried {
        errors.extend(closures::verify(carried, view, &mut index)?);
    }
    let carried = carried.map(CarriedClosures::of);
    let is_good = errors.is_empty();
    let (version, expires) = (index.index().version, index.index().expires);
    if json {
        let (fleet, root) = (root.fleet(), root.root().version);
        output::json(&VerifyOutput {
            fleet,
            root,
            version,
            expires,
            deployments,
            units,
            agents,
            unapproved,
            warnings,
            errors,
            closures: carried,
        })?;
    } else {
        errors.iter().for_each(output::error);
        for warning in &warnings {
            output::remark(format_args!("warning: {warning}"));
        }
        unapproved.iter().try_for_each(|(name, lack)| output::line(format_args!("waits  {name}: {lack}")))?;
        output::line(format_args!(
            "fleet {}…, root version {}, index version {version} until {expires}: {deployments} deployments, {units} units and {agents} agents verified",
            root.fleet().short(),
            root.root().version
        ))?;
        if let Some(carried) = &carried {
            carried.rows().into_iter().try_for_each(|(name, value)| output::line(format_args!("{name}: {value}")))?;
        }
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

/// Verifies all documents of one kind, adds the errors to `errors`, and returns what the good documents say.
fn verify_all<S: Specification, F: Files>(
    branch: &Branch<'_, F>,
    index: &mut VerifiedIndex,
    errors: &mut Vec<String>,
) -> BTreeMap<Name, S> {
    let mut good = BTreeMap::new();
    for name in index.names(S::FOLDER) {
        match branch.document::<S>(index, &name) {
            Ok(document) => drop(good.insert(name, document.specification.clone())),
            Err(error) => errors.push(describe_error(&error)),
        }
    }
    good
}

/// The names in each folder of the branch, whether their documents are good or not.
struct Listed {
    deployments: BTreeSet<Name>,
    units: BTreeSet<Name>,
}

/// Finds the documents that need another one which the branch does not have.
fn find_gaps(
    listed: &Listed,
    deployments: &BTreeMap<Name, DeploymentSpecification>,
    agents: &BTreeMap<Name, AgentSpecification>,
) -> Vec<String> {
    let mut gaps = Vec::new();
    let taken: BTreeSet<&Name> = agents.values().flat_map(|agent| agent.deployments.iter()).collect();
    for (name, DeploymentSpecification { unit, .. }) in deployments {
        if !listed.units.contains(unit) {
            gaps.push(format!(
                "the deployment `{name}` is for the unit `{unit}`, which is not on the branch, so no agent can run it; run `claveld once`"
            ));
        }
        if !taken.contains(name) {
            gaps.push(format!(
                "no agent on the branch has the deployment `{name}`, so no machine runs it; add it to an agent in the flake's \
                 `clavel.agents`, or run `claveld once`"
            ));
        }
    }
    for (agent, AgentSpecification { deployments }) in agents {
        let missing = deployments.iter().filter(|name| !listed.deployments.contains(*name));
        gaps.extend(missing.map(|name| {
            format!("the agent `{agent}` has the deployment `{name}`, which is not on the branch; run `claveld once`")
        }));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_document_that_is_not_there_is_told() {
        let name = |text: &str| -> Name { text.parse().unwrap() };
        let names = |texts: &[&str]| -> Vec<Name> { texts.iter().map(|text| name(text)).collect() };
        let deployment = |unit: &str| -> DeploymentSpecification {
            let template = serde_json::json!({
                "metadata": {}, "narId": "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x", "substituters": [],
                "substituters-public-keys": [], "type": "nar"
            });
            serde_json::from_value(serde_json::json!({ "template": template, "unit": unit })).unwrap()
        };
        let agent = |of: &[&str]| AgentSpecification { deployments: names(of).try_into().unwrap() };
        let gaps = |units: &[&str], deployments: &[(&str, &str)], agents: &[(&str, &[&str])]| {
            let deployments: BTreeMap<Name, _> =
                deployments.iter().map(|(of, unit)| (name(of), deployment(unit))).collect();
            let agents = agents.iter().map(|(of, names)| (name(of), agent(names))).collect();
            let listed = Listed {
                deployments: deployments.keys().cloned().collect(),
                units: names(units).into_iter().collect(),
            };
            find_gaps(&listed, &deployments, &agents)
        };
        let whole = gaps(&["u"], &[("a", "u"), ("b", "u")], &[("one", &["a"]), ("two", &["a", "b"])]);
        assert_eq!(whole, Vec::<String>::new());
        let found = gaps(&["u"], &[("a", "u"), ("b", "v")], &[("one", &["b", "c"])]);
        let expected = [
            "no agent on the branch has the deployment `a`",
            "the deployment `b` is for the unit `v`",
            "the agent `one` has the deployment `c`",
        ];
        assert_eq!(found.len(), 3, "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
