//! What is checked before anything of a fetch is believed. Pure: files, memory and time go in.
//!
//! In this order, once the roots have led to the newest: its expiry; the index (signatures, fleet, branch, epoch, version
//! never lower than the last one seen, the same version never with other content, expiry); the agent's own document and
//! the deployments it names (in the index by hash, signed, named as asked for, revision never lower than the last one
//! seen, the same revision never with other content); their units (this machine's arch and type). Last,
//! who has approved them: that refuses nothing, and is decided on later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::freshness::{ClockTrouble, Clocks, Validity, judge};
use crate::branch::{Branch, BranchError, VerifiedIndex};
use crate::git::Files;
use crate::model::{
    AgentSpecification, BranchName, Deployment, DeploymentSpecification, Document, DocumentPath, Epoch, Index,
    IndexVersion, Name, Revision, Sha256Digest, Specification, System, Timestamp, Unit, UnitSpecification,
};
use crate::trust::{Approvals, ListedError, TrustedRoot, Verified};

mod refusal;

pub use refusal::Refusal;

/// The most documents that are remembered: some megabytes, which a router has.
const MOST_DOCUMENTS: usize = 10_000;

/// An index that was believed once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenIndex {
    /// The epoch of the root that it was signed under.
    pub epoch: Epoch,
    /// Its version.
    pub version: IndexVersion,
    /// The digest of what it says, whoever signed it.
    pub content: Sha256Digest,
    /// When it was signed.
    pub issued: Timestamp,
    /// When it stops being believed to be the newest.
    pub expires: Timestamp,
}

/// A document that was believed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenDocument {
    /// Its revision.
    pub revision: Revision,
    /// The digest of what it says, whoever signed it.
    pub content: Sha256Digest,
}

/// What is remembered as trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trusted {
    /// The newest index.
    pub index: Option<SeenIndex>,
    /// The newest of each document that concerned this agent.
    pub documents: BTreeMap<DocumentPath, SeenDocument>,
}

/// Who asks.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    /// The agent's name.
    pub(super) agent: &'a Name,
    /// The deployments that it wants of those that it may have; all of them where none is named.
    pub(super) wanted: Option<&'a [Name]>,
    /// What this machine is.
    pub(super) system: &'a System,
    /// The branch that was asked for.
    pub(super) branch: &'a BranchName,
    /// The newest root, whose roles say whose signatures count.
    pub(super) root: &'a TrustedRoot,
}

/// A deployment that this unit is to run, with everything about it verified.
#[derive(Debug, Clone)]
pub struct Order {
    /// The deployment.
    pub deployment: Verified<Deployment>,
    /// The digest of what it says, whoever signed it.
    pub content: Sha256Digest,
    /// The unit it is for.
    pub unit: Verified<Unit>,
    /// Who has approved it, where somebody has to.
    pub approvals: Option<Approvals>,
}

/// What a branch says to this agent, once it is believed.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What to remember as trusted from now on.
    pub trusted: Trusted,
    /// What to run, in the order of the agent's document.
    pub orders: Vec<Order>,
    /// Deployments of the agent that were withdrawn, or the agent itself. What runs goes on running.
    pub withdrawn: Vec<Name>,
    /// What is wrong with this machine's clock.
    pub clock: Option<ClockTrouble>,
}

/// When it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time<'a> {
    /// What the clocks say.
    pub(super) clocks: &'a Clocks,
    /// What they are measured by.
    pub(super) before: Option<&'a Clocks>,
}

impl Time<'_> {
    fn judge(self, validity: &Validity) -> Result<Option<ClockTrouble>, Refusal> {
        judge(validity, self.clocks, self.before).map_err(Refusal::Stale)
    }

    /// Whether the root may still be believed.
    pub(super) fn check_root(self, root: &TrustedRoot) -> Result<(), Refusal> {
        let (version, expires) = (root.root().version, root.root().expires);
        self.judge(&Validity { what: format!("the root (version {version})"), issued: None, expires }).map(drop)
    }

    /// Whether the index may still be believed to be the newest; what is wrong with the clock, where it may.
    pub(super) fn check_index(self, index: &SeenIndex) -> Result<Option<ClockTrouble>, Refusal> {
        let SeenIndex { version, issued, expires, .. } = *index;
        self.judge(&Validity { what: format!("the index (version {version})"), issued: Some(issued), expires })
    }
}

/// Checks a branch for `asker`, who remembers `trusted`, at that time.
pub(super) fn verify<F: Files>(
    files: &F,
    asker: &Asker<'_>,
    trusted: &Trusted,
    time: Time<'_>,
) -> Result<Verdict, Refusal> {
    time.check_root(asker.root)?;
    let branch = Branch::new(files, asker.root, asker.branch);
    let index = branch.index()?;
    let seen = of_this_epoch(trusted, asker.root.root().epoch)?;
    never_back(&index, seen.index.as_ref())?;
    let clock = time.check_index(&index.seen())?;
    let mut check = Check { branch, index, trusted: &seen, documents: BTreeMap::new() };
    let Some((agent, _)) = check.unless_withdrawn::<AgentSpecification>(asker.agent)? else {
        let withdrawn = vec![asker.agent.clone()];
        return Ok(Verdict { trusted: check.remembered()?, orders: Vec::new(), withdrawn, clock });
    };
    let wanted = chosen(asker, &agent.specification)?;
    let (mut orders, mut withdrawn) = (Vec::<Order>::new(), Vec::new());
    for name in wanted {
        let Some((deployment, content)) = check.unless_withdrawn::<DeploymentSpecification>(&name)? else {
            withdrawn.push(name);
            continue;
        };
        let (unit, _) = check.document::<UnitSpecification>(&deployment.specification.unit)?;
        if unit.specification.arch != *asker.system {
            let (arch, machine) = (unit.specification.arch.clone(), asker.system.clone());
            return Err(Refusal::OtherArch { deployment: name, unit: unit.name.clone(), arch, machine });
        }
        let unit_type = unit.specification.unit_type;
        if !unit_type.is_for(asker.system) {
            let machine = asker.system.clone();
            return Err(Refusal::OtherType { deployment: name, unit: unit.name.clone(), unit_type, machine });
        }
        if let Some(other) = orders.iter().find(|order| order.unit.name == unit.name) {
            let first = other.deployment.name.clone();
            return Err(Refusal::SharedUnit { unit: unit.name.clone(), first, second: name });
        }
        let approvals = check.branch.approvals(&deployment, std::slice::from_ref(asker.agent));
        orders.push(Order { deployment, content, unit, approvals });
    }
    Ok(Verdict { trusted: check.remembered()?, orders, withdrawn, clock })
}

/// What was seen in the root's epoch. A later one begins to count anew: that is how a fleet comes back whose numbers a
/// thief drove to their end.
fn of_this_epoch(trusted: &Trusted, epoch: Epoch) -> Result<Trusted, Refusal> {
    match &trusted.index {
        Some(seen) if seen.epoch > epoch => Err(Refusal::EpochRollback { seen: seen.epoch, found: epoch }),
        Some(seen) if seen.epoch < epoch => Ok(Trusted::default()),
        _ => Ok(trusted.clone()),
    }
}

fn never_back(found: &VerifiedIndex, seen: Option<&SeenIndex>) -> Result<(), Refusal> {
    let version = found.index.version;
    if let Some(seen) = seen {
        if version < seen.version {
            return Err(Refusal::IndexRollback { seen: seen.version, found: version });
        }
        if version == seen.version && found.content != seen.content {
            return Err(Refusal::IndexFork { version, seen: seen.content, found: found.content });
        }
    }
    Ok(())
}

impl VerifiedIndex {
    fn seen(&self) -> SeenIndex {
        let Index { epoch, version, issued, expires, .. } = *self.index;
        SeenIndex { epoch, version, content: self.content, issued, expires }
    }
}

fn chosen(asker: &Asker<'_>, agent: &AgentSpecification) -> Result<Vec<Name>, Refusal> {
    let allowed = &agent.deployments;
    let Some(wanted) = asker.wanted else { return Ok(allowed.to_vec()) };
    match wanted.iter().find(|name| !allowed.contains(name)) {
        None => Ok(wanted.to_vec()),
        Some(refused) => Err(Refusal::NotAllowed {
            agent: asker.agent.clone(),
            deployment: refused.clone(),
            allowed: allowed.to_vec(),
        }),
    }
}

/// A document that passed, and the digest of what it says.
type Checked<S> = (Verified<Document<S>>, Sha256Digest);

struct Check<'a, F> {
    branch: Branch<'a, F>,
    index: VerifiedIndex,
    trusted: &'a Trusted,
    documents: BTreeMap<DocumentPath, SeenDocument>,
}

impl<F: Files> Check<'_, F> {
    fn document<S: Specification>(&mut self, name: &Name) -> Result<Checked<S>, Refusal> {
        let document = self.branch.document::<S>(&self.index, name)?;
        let path = DocumentPath::new(S::FOLDER, name.clone());
        let content = document.content();
        let found = SeenDocument { revision: document.revision, content };
        self.never_back(&path, found)?;
        self.documents.insert(path, found);
        Ok((document, content))
    }

    fn never_back(&self, path: &DocumentPath, found: SeenDocument) -> Result<(), Refusal> {
        let Some(seen) = self.trusted.documents.get(path) else { return Ok(()) };
        let path = || path.clone();
        if found.revision < seen.revision {
            return Err(Refusal::Rollback { path: path(), seen: seen.revision, found: found.revision });
        }
        if found.revision == seen.revision && found.content != seen.content {
            let SeenDocument { revision, content: found } = found;
            return Err(Refusal::Fork { path: path(), revision, seen: seen.content, found });
        }
        Ok(())
    }

    /// A document; `None` where it was withdrawn with a tombstone. One that is merely gone is refused.
    fn unless_withdrawn<S: Specification>(&mut self, name: &Name) -> Result<Option<Checked<S>>, Refusal> {
        match self.document::<S>(name) {
            Ok(found) => Ok(Some(found)),
            Err(Refusal::Branch(BranchError::Document(ListedError::Withdrawn { .. }))) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// What was seen before, with what is seen now over it.
    fn remembered(self) -> Result<Trusted, Refusal> {
        let seen = self.index.seen();
        let mut documents = self.trusted.documents.clone();
        documents.extend(self.documents);
        // Nothing of it may be forgotten, and whoever has a publisher's key could fill the disk with it.
        if documents.len() > MOST_DOCUMENTS {
            return Err(Refusal::TooManyDocuments { limit: MOST_DOCUMENTS });
        }
        Ok(Trusted { index: Some(seen), documents })
    }
}

#[cfg(test)]
mod tests;
