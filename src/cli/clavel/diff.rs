//! `clavel diff`: prints the differences between two revisions of one or more deployments, or between two derivations.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::view::{BranchArguments, View};
use crate::branch::{Branch, BranchError, search_files};
use crate::changes::{ChangeGroup, Comparer, DeployedSystem, FactChange, SystemDiff, diff_facts, group_changes};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::git::{Depth, Snapshot};
use crate::model::{Deployment, DeploymentSpecification, Invalid, Name, Revision, StorePath};
use crate::store::{self, DerivationError, Output};
use crate::trust::Signed;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The names of deployments; or the derivations of two systems.
    #[arg(value_name = "NAME|DERIVATION", required = true)]
    subjects: Vec<Subject>,
    /// The older revision [default: the one before the newer revision].
    #[arg(long, value_name = "REVISION")]
    from: Option<Revision>,
    /// The newer revision [default: the newest on the branch].
    #[arg(long, value_name = "REVISION")]
    to: Option<Revision>,
    #[command(flatten)]
    branch: BranchArguments,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone)]
enum Subject {
    Deployment(Name),
    Derivation(StorePath),
}

impl FromStr for Subject {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.starts_with('/') { text.parse().map(Self::Derivation) } else { text.parse().map(Self::Deployment) }
    }
}

impl Subject {
    fn name(&self) -> Option<&Name> {
        match self {
            Self::Deployment(name) => Some(name),
            Self::Derivation(_) => None,
        }
    }
}

/// The two revisions that are asked for. Without `to` it is the newest, and without `from` the one before `to`.
#[derive(Debug, Clone, Copy, Default)]
struct RevisionRange {
    from: Option<Revision>,
    to: Option<Revision>,
}

/// The differences between two revisions, as `--json` prints them.
#[derive(Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct Difference {
    name: Name,
    from: Revision,
    to: Revision,
    specification: Vec<FactChange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<SystemDiff>,
}

/// The differences of several deployments, as `--json` prints them.
#[derive(Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct Differences {
    deployments: Vec<Difference>,
    /// The differences inside systems once more, each with all deployments that share it. The largest group comes first.
    groups: Vec<ChangeGroup>,
}

pub(super) async fn run(arguments: &Arguments, verbosity: u8) -> Result<(), Exit> {
    let Arguments { subjects, from, to, json, .. } = arguments;
    let names: Option<Vec<&Name>> = subjects.iter().map(Subject::name).collect();
    match (&subjects[..], names) {
        ([Subject::Derivation(old), Subject::Derivation(new)], _) if from.or(*to).is_none() => {
            let diff = comparer().compare(Some(old), Some(new)).into();
            if *json { output::json(&diff) } else { print_diff(&diff, "", verbosity) }
        }
        ([_], Some(names)) => {
            let differences = compare_revisions(arguments, &names).await?;
            let print = |difference: &Difference| {
                if *json { output::json(difference) } else { difference.print(verbosity) }
            };
            differences.iter().try_for_each(print)
        }
        (_, Some(names)) if from.or(*to).is_none() => {
            let differences = Differences::grouped(compare_revisions(arguments, &names).await?);
            if *json { output::json(&differences) } else { differences.print(verbosity) }
        }
        (_, Some(_)) => Err(Exit::new(Code::Configuration, "`--from` and `--to` are for one deployment")),
        (_, None) => Err(Exit::new(Code::Configuration, "name deployments, or two derivations")),
    }
}

async fn compare_revisions(arguments: &Arguments, names: &[&Name]) -> Result<Vec<Difference>, Exit> {
    let view = arguments.branch.view(Depth::Full).await?;
    // This warns where no root was named. The branch at its tip is not needed.
    let _ = view.verified_or_warn();
    let (range, mut comparer) = (RevisionRange { from: arguments.from, to: arguments.to }, comparer());
    let compare = |name: &&Name| {
        let (old, new) = find_revisions(&view, name, range)?;
        Ok(Difference::compared(&mut comparer, &old, &new))
    };
    names.iter().map(compare).collect()
}

impl Differences {
    fn grouped(deployments: Vec<Difference>) -> Self {
        let systems = deployments.iter().filter_map(|of| Some((&of.name, of.system.as_ref()?)));
        let groups = group_changes(&systems.collect::<Vec<_>>());
        Self { deployments, groups }
    }

    /// Prints them for people: what several deployments share, then each deployment.
    fn print(&self, verbosity: u8) -> Result<(), Exit> {
        let compared = self.deployments.iter().filter(|of| of.system.is_some()).count();
        let mut own = HashMap::new();
        for ChangeGroup { deployments, system } in &self.groups {
            if let [name] = &deployments[..] {
                own.insert(name, system);
            }
        }
        for group in self.groups.iter().filter(|group| group.deployments.len() > 1) {
            output::line(format_args!("{}:", group.title(compared)))?;
            print_diff(&group.system, "  ", verbosity)?;
        }
        for difference in &self.deployments {
            difference.print_facts()?;
            own.get(&difference.name).map_or(Ok(()), |diff| print_diff(diff, "  ", verbosity))?;
        }
        Ok(())
    }
}

impl Difference {
    /// Compares two revisions of one deployment.
    pub(super) fn between(old: &Deployment, new: &Deployment) -> Self {
        Self::compared(&mut comparer(), old, new)
    }

    fn compared(comparer: &mut Comparer<Reader>, old: &Deployment, new: &Deployment) -> Self {
        let derivation = |of: &Deployment| of.provenance().and_then(|provenance| provenance.drv_path.clone());
        let path = |of: &Deployment| of.specification.template.nar_id.clone();
        let systems = || {
            let ((old_path, new_path), (old_drv, new_drv)) =
                ((path(old), path(new)), (derivation(old), derivation(new)));
            let old = DeployedSystem { path: &old_path, derivation: old_drv.as_ref() };
            let new = DeployedSystem { path: &new_path, derivation: new_drv.as_ref() };
            comparer.compare_systems(old, new).into()
        };
        Self {
            name: new.name.clone(),
            from: old.revision,
            to: new.revision,
            specification: diff_facts(&old.specification, &new.specification),
            system: (path(old) != path(new)).then(systems),
        }
    }

    /// Prints it for people.
    pub(super) fn print(&self, verbosity: u8) -> Result<(), Exit> {
        self.print_facts()?;
        self.system.as_ref().map_or(Ok(()), |diff| print_diff(diff, "  ", verbosity))
    }

    /// Prints the revisions and what differs in the specification.
    fn print_facts(&self) -> Result<(), Exit> {
        output::line(format_args!("{}: revision {} → {}", self.name, self.from, self.to))?;
        self.specification.iter().try_for_each(|fact| output::line(format_args!("  {fact}")))
    }
}

/// Reads the file of a derivation.
type Reader = Box<dyn Fn(&StorePath) -> Result<Vec<u8>, DerivationError>>;

fn comparer() -> Comparer<Reader> {
    // Comparing reads files and runs no program, so there is no deadline to set.
    let store = store::open(None, Duration::ZERO, Output::Capture);
    Comparer::new(Box::new(move |path: &StorePath| store.derivation(path)))
}

fn print_diff(diff: &SystemDiff, indent: &str, verbosity: u8) -> Result<(), Exit> {
    for line in diff.lines(usize::MAX) {
        output::line(format_args!("{indent}{line}"))?;
    }
    match diff {
        SystemDiff::Change(change) if verbosity > 0 => {
            change.rebuilt.iter().try_for_each(|package| output::line(format_args!("{indent}rebuilt: {package}")))
        }
        SystemDiff::Change(_) | SystemDiff::Unknown { .. } => Ok(()),
    }
}

/// Finds the two revisions in the branch's history.
fn find_revisions(view: &View, name: &Name, wanted: RevisionRange) -> Result<(Deployment, Deployment), Exit> {
    let mut found = BTreeMap::new();
    let look = |here: &Snapshot, bytes: &[u8]| -> Result<_, Exit> {
        if let Some(deployment) = verify(view, here, bytes, name)? {
            // Where the history has two contents of a revision, the one nearer to the tip counts.
            found.entry(deployment.revision).or_insert(deployment);
        }
        Ok(choose(&found, wanted))
    };
    let both = search_files(&view.repository, view.snapshot.commit(), name, look)?;
    if let Some(both) = both {
        return Ok(both);
    }
    let missing = |wanted: Option<Revision>| wanted.filter(|wanted| !found.contains_key(wanted));
    let why = match (missing(wanted.to).or(missing(wanted.from)), found.len()) {
        (Some(revision), _) => format!("the branch has no revision {revision} of {name} in its history"),
        (None, 0) => format!("the branch has no deployment {name} in its history"),
        (None, _) => format!("{name} has no earlier revision to compare with"),
    };
    Err(Exit::new(Code::Configuration, why))
}

/// Chooses the two revisions from those found so far; `None` where one of them is not found yet. The search finds the newest
/// first.
fn choose(found: &BTreeMap<Revision, Deployment>, wanted: RevisionRange) -> Option<(Deployment, Deployment)> {
    let to = match wanted.to {
        Some(revision) => found.get(&revision),
        None => found.values().next_back(),
    }?;
    let from = match wanted.from {
        Some(revision) => found.get(&revision),
        None => found.range(..to.revision).next_back().map(|(_, deployment)| deployment),
    }?;
    Some((from.clone(), to.clone()))
}

/// Verifies the deployment as one commit has it; `None` where no root on the branch vouches for it. An older root counts here as
/// well, because its publishers signed the older revisions.
pub(super) fn verify(view: &View, snapshot: &Snapshot, bytes: &[u8], name: &Name) -> Result<Option<Deployment>, Exit> {
    let Some(roots) = &view.roots else {
        return Ok(Signed::<Deployment>::parse(bytes).ok().map(|signed| signed.unverified().clone()));
    };
    for root in std::iter::once(&roots.newest).chain(roots.before.iter().rev()) {
        let branch = Branch::new(snapshot, root, view.name());
        let document =
            branch.index().and_then(|mut index| branch.document::<DeploymentSpecification>(&mut index, name));
        match document {
            Ok(document) => return Ok(Some(document.into_inner())),
            Err(error @ BranchError::Read(_)) => return Err(error.into()),
            // The file was altered in this commit. Another commit may have what a publisher signed.
            Err(_) => {}
        }
    }
    Ok(None)
}
