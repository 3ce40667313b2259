//! `clavel diff NAME`

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::history::search;
use super::view::{BranchArguments, View};
use crate::branch::{Branch, BranchError};
use crate::changes::{Comparer, DeployedSystem, FactChange, SystemDiff, diff_facts};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::git::{Depth, Snapshot};
use crate::model::{Deployment, DeploymentSpecification, Invalid, Name, Provenance, Revision, StorePath};
use crate::store::{self, DerivationError, Output};
use crate::trust::Signed;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The deployment's name; or a system's derivation, to compare with another one.
    #[arg(value_name = "NAME|DERIVATION")]
    subject: Subject,
    /// The derivation to compare the first one with.
    other: Option<StorePath>,
    /// The revision to compare with; the one before the other, where none is named.
    #[arg(long, value_name = "REVISION", conflicts_with = "other")]
    from: Option<Revision>,
    /// The revision to look at; the newest, where none is named.
    #[arg(long, value_name = "REVISION", conflicts_with = "other")]
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

/// Which two revisions are asked for; where none is named, the newest and the one before the other.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    from: Option<Revision>,
    to: Option<Revision>,
}

/// What differs between two revisions, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Difference {
    name: Name,
    from: Revision,
    to: Revision,
    specification: Vec<FactChange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<SystemDiff>,
}

pub(super) fn run(arguments: &Arguments, verbosity: u8) -> Result<(), Exit> {
    match (&arguments.subject, &arguments.other) {
        (Subject::Deployment(name), None) => deployment(arguments, name, verbosity),
        (Subject::Derivation(old), Some(new)) => {
            let told = comparer().compare(Some(old), Some(new)).into();
            if arguments.json { output::json(&told) } else { show(&told, "", verbosity) }
        }
        _ => Err(Exit::new(Code::Configuration, "name one deployment, or two derivations")),
    }
}

fn deployment(arguments: &Arguments, name: &Name, verbosity: u8) -> Result<(), Exit> {
    let view = arguments.branch.view(Depth::Full)?;
    // Said where nobody was named.
    let _of_the_tip = view.believed();
    let (old, new) = revisions(&view, name, Wanted { from: arguments.from, to: arguments.to })?;
    let difference = Difference::between(&old, &new);
    if arguments.json { output::json(&difference) } else { difference.show(verbosity) }
}

impl Difference {
    /// What differs between two revisions of one deployment.
    pub(super) fn between(old: &Deployment, new: &Deployment) -> Self {
        let derivation = |of: &Deployment| Provenance::try_from(&of.metadata).ok().and_then(|p| p.drv_path);
        let path = |of: &Deployment| of.specification.template.nar_id.clone();
        let systems = || {
            let ((old_path, new_path), (old_drv, new_drv)) =
                ((path(old), path(new)), (derivation(old), derivation(new)));
            let old = DeployedSystem { path: &old_path, derivation: old_drv.as_ref() };
            let new = DeployedSystem { path: &new_path, derivation: new_drv.as_ref() };
            comparer().compare_systems(old, new).into()
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
    pub(super) fn show(&self, verbosity: u8) -> Result<(), Exit> {
        output::line(format_args!("{}: revision {} → {}", self.name, self.from, self.to))?;
        self.specification.iter().try_for_each(|fact| output::line(format_args!("  {fact}")))?;
        self.system.as_ref().map_or(Ok(()), |told| show(told, "  ", verbosity))
    }
}

fn comparer() -> Comparer<impl Fn(&StorePath) -> Result<Vec<u8>, DerivationError>> {
    // Files are read, and no program is run.
    let store = store::open(None, Duration::ZERO, Output::Capture);
    Comparer::new(move |path: &StorePath| store.derivation(path))
}

fn show(told: &SystemDiff, indent: &str, verbosity: u8) -> Result<(), Exit> {
    for line in told.lines(usize::MAX) {
        output::line(format_args!("{indent}{line}"))?;
    }
    match told {
        SystemDiff::Change(change) if verbosity > 0 => {
            change.rebuilt.iter().try_for_each(|package| output::line(format_args!("{indent}rebuilt: {package}")))
        }
        SystemDiff::Change(_) | SystemDiff::Unknown { .. } => Ok(()),
    }
}

/// The two revisions that are asked for, from the branch's history.
fn revisions(view: &View, name: &Name, wanted: Wanted) -> Result<(Deployment, Deployment), Exit> {
    let mut found = BTreeMap::new();
    let both = search(view, name, |here, bytes| {
        if let Some(deployment) = read(view, here, bytes, name)? {
            // Of a revision that was written twice, what is nearer to the tip counts.
            found.entry(deployment.revision).or_insert(deployment);
        }
        Ok(chosen(&found, wanted))
    })?;
    if let Some(both) = both {
        return Ok(both);
    }
    let missing = |wanted: Option<Revision>| wanted.filter(|wanted| !found.contains_key(wanted));
    let why = match (missing(wanted.to).or(missing(wanted.from)), found.len()) {
        (Some(revision), _) => format!("the branch has no revision {revision} of {name} in its history"),
        (None, 0) => format!("the branch has no deployment {name} in its history"),
        (None, _) => format!("{name} has no revision before that one: there is nothing to compare it with"),
    };
    Err(Exit::new(Code::Configuration, why))
}

/// The two that are asked for, where both have been found. They are found newest first.
fn chosen(found: &BTreeMap<Revision, Deployment>, wanted: Wanted) -> Option<(Deployment, Deployment)> {
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

/// The deployment as one commit has it; none where it is not to be believed there. What an older root's publisher signed
/// was to be believed then.
fn read(view: &View, snapshot: &Snapshot, bytes: &[u8], name: &Name) -> Result<Option<Deployment>, Exit> {
    let Some(roots) = &view.roots else {
        return Ok(Signed::<Deployment>::parse(bytes).ok().map(|signed| signed.unverified().clone()));
    };
    for root in std::iter::once(&roots.newest).chain(roots.before.iter().rev()) {
        let branch = Branch::new(snapshot, root, view.name());
        let document = branch.index().and_then(|index| branch.document::<DeploymentSpecification>(&index, name));
        match document {
            Ok(document) => return Ok(Some(document.into_inner())),
            Err(error @ BranchError::Read(_)) => return Err(error.into()),
            // Somebody altered it once; what a publisher signed is further back or nearer.
            Err(_) => {}
        }
    }
    Ok(None)
}
