//! `clavel verify`

use std::time::SystemTime;

use serde::Serialize;

use super::view::BranchArguments;
use crate::cli::exit::{Code, Exit, error};
use crate::cli::output;
use crate::model::{
    AgentSpecification, DeploymentSpecification, FleetId, IndexVersion, RootVersion, Specification, Timestamp,
    UnitSpecification,
};
use crate::repository::{Branch, Depth, Files, VerifiedIndex};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    branch: BranchArguments,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    fleet: FleetId,
    root: RootVersion,
    version: IndexVersion,
    expires: Timestamp,
    deployments: usize,
    units: usize,
    agents: usize,
    errors: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let view = arguments.branch.view(Depth::Tip)?;
    let nobody = || Exit::new(Code::Configuration, "say whom to believe: --root FILE, or --root DIGEST");
    let root = &view.roots.as_ref().ok_or_else(nobody)?.newest;
    let branch = Branch::new(&view.snapshot, root, view.name());
    let index = branch.index()?;
    let mut bad = Vec::new();
    if let Err(error) = view.repository.check_layout(view.snapshot.commit()) {
        bad.push(error.to_string());
    }
    let deployments = check::<DeploymentSpecification, _>(&branch, &index, &mut bad);
    let units = check::<UnitSpecification, _>(&branch, &index, &mut bad);
    let agents = check::<AgentSpecification, _>(&branch, &index, &mut bad);
    let now = Timestamp::from(SystemTime::now());
    if now >= index.index.expires {
        bad.push(format!("the index expired at {}", index.index.expires));
    }
    if root.is_expired(now) {
        bad.push(format!("the root expired at {}", root.root().expires));
    }
    let is_good = bad.is_empty();
    let (version, expires) = (index.index.version, index.index.expires);
    if arguments.json {
        let (fleet, root) = (root.fleet(), root.root().version);
        output::json(&Printed { fleet, root, version, expires, deployments, units, agents, errors: bad })?;
    } else {
        bad.iter().for_each(error);
        output::line(format_args!(
            "fleet {}…, root version {}, index version {version} until {expires}: {deployments} deployments, {units} units and {agents} agents verified",
            root.fleet().short(),
            root.root().version
        ))?;
    }
    if is_good { Ok(()) } else { Err(Exit::silent(Code::Refused)) }
}

/// Verifies all documents of one kind; how many are good.
fn check<S: Specification, F: Files>(branch: &Branch<'_, F>, index: &VerifiedIndex, bad: &mut Vec<String>) -> usize {
    let mut good = 0;
    for name in index.names(S::FOLDER) {
        match branch.document::<S>(index, &name) {
            Ok(_) => good += 1,
            Err(error) => bad.push(error.to_string()),
        }
    }
    good
}
