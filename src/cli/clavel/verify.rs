//! `clavel verify`

use std::time::SystemTime;

use serde::Serialize;

use super::view::BranchArguments;
use crate::cli::exit::{Code, Exit, error};
use crate::cli::output;
use crate::model::{
    AgentSpecification, DeploymentSpecification, IndexVersion, Specification, Timestamp, UnitSpecification,
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
    version: IndexVersion,
    expires: Timestamp,
    deployments: usize,
    units: usize,
    agents: usize,
    errors: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let nobody = || Exit::new(Code::Configuration, "name a key to verify with: --trusted-public-key NAME:BASE64");
    let authority = arguments.branch.authority()?.ok_or_else(nobody)?;
    let view = arguments.branch.view(Depth::Tip)?;
    let branch = Branch::new(&view.snapshot, &authority);
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
    let is_good = bad.is_empty();
    let (version, expires) = (index.index.version, index.index.expires);
    if arguments.json {
        output::json(&Printed { version, expires, deployments, units, agents, errors: bad })?;
    } else {
        bad.iter().for_each(error);
        output::line(format_args!(
            "index version {version}, until {expires}: {deployments} deployments, {units} units and {agents} agents verified"
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
