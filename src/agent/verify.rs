//! The checks before the agent believes anything of a fetch. No I/O: it takes files, the remembered state and the time.
//!
//! The checks run in this order, once the root chain has led to the newest root:
//!
//! 1. the root's expiry;
//! 2. the index: signatures, fleet, branch, epoch, no lower version, no other content of the same version, expiry;
//! 3. the bins of the agent's names, and in them the agent's own document and the deployments that it names: listed by hash,
//!    signed, the right name, no lower revision, no other content of the same revision, none back behind its tombstone;
//! 4. their units: served by this agent and of the type that it serves, one deployment for each, this machine's arch, a type
//!    that it can be; a deployment whose unit the index does not have, or that fits this machine or
//!    this Clavel in none of these ways is left out, and harms no other;
//! 5. the approvals, which refuse nothing here: `decide` waits for them.
//!
//! The root chain and the layout of a branch belong to `branch`, and the clocks to `freshness`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::freshness::{ClockTrouble, Clocks, IndexAges, Validity, check_validity};
use super::lifecycle::{Candidate, UnitReference};
use crate::branch::{Branch, BranchError, VerifiedIndex};
use crate::config::UnitConfig;
use crate::git::Files;
use crate::model::{
    AgentSpecification, BranchName, Deployment, DeploymentSpecification, Document, DocumentPath, Epoch, Index,
    IndexAge, IndexAgePolicy, IndexVersion, Name, Revision, Sha256Digest, Specification, System, Timestamp, Unit,
    UnitSpecification, UnitType, how_to_renew,
};
use crate::trust::{Approvals, DocumentError, TrustedRoot, Verified};

mod refusal;

pub use refusal::{Absence, Refusal, Unfit};

/// The most documents that the agent remembers. They take a few megabytes, which even a router has.
const MAX_DOCUMENTS: usize = 10_000;

/// An index that the agent believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenIndex {
    /// The epoch of the root under which it was signed.
    pub epoch: Epoch,
    /// Its version.
    pub version: IndexVersion,
    /// The digest of its content without the signatures.
    #[serde(rename = "content")]
    pub content_digest: Sha256Digest,
    /// When it was issued.
    pub issued: Timestamp,
    /// Until when it counts as the newest for this agent.
    pub expires: Timestamp,
}

/// A document that the agent believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenDocument {
    /// Its revision.
    pub revision: Revision,
    /// The digest of its content without the signatures.
    #[serde(rename = "content")]
    pub content_digest: Sha256Digest,
}

/// The versions and revisions that the agent trusts. It never goes back behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trusted {
    /// The newest index.
    pub index: Option<SeenIndex>,
    /// The newest revision of each document that concerned this agent.
    pub documents: BTreeMap<DocumentPath, SeenDocument>,
    /// The last revision of each document that concerned this agent and is withdrawn. One that comes back counts on from there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub withdrawn: BTreeMap<DocumentPath, Revision>,
    /// The type of each unit that the agent has served. It stays until the configuration names another one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unit_types: BTreeMap<Name, UnitType>,
}

/// An agent that asks, and for what.
#[derive(Debug)]
pub struct Requester<'a> {
    /// The agent's name.
    pub agent: &'a Name,
    /// The deployments that it wants, of those that it may have; `None` for all.
    pub wanted: Option<&'a [Name]>,
    /// The units that it serves; where there is none, the one of its own name.
    pub units: &'a BTreeMap<Name, UnitConfig>,
    /// The system of this machine.
    pub system: &'a System,
    /// The branch.
    pub branch: &'a BranchName,
    /// The newest root. Its roles decide whose signatures count.
    pub root: &'a TrustedRoot,
    /// How old an index may be at most, by the configuration of this machine.
    pub max_index_age: Option<IndexAge>,
}

impl Requester<'_> {
    fn index_ages(&self) -> IndexAges {
        index_ages(self.root, self.agent, self.max_index_age)
    }
}

/// How old an index may be for `agent`, by the root and by the configuration of its machine.
pub(super) fn index_ages(root: &TrustedRoot, agent: &Name, own: Option<IndexAge>) -> IndexAges {
    IndexAges { signed: IndexAgePolicy::for_agent(&root.root().index_ages, agent), own }
}

/// A deployment that a unit of this machine should run, completely verified.
#[derive(Debug, Clone)]
pub struct Order {
    /// The deployment.
    pub deployment: Verified<Deployment>,
    /// The digest of its content without the signatures.
    pub content_digest: Sha256Digest,
    /// The unit that it is for.
    pub unit: Verified<Unit>,
    /// Its approvals, where the root asks for any.
    pub approvals: Option<Approvals>,
}

/// The meaning of a believed branch for this agent.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The versions and revisions that the agent trusts from now on.
    pub trusted: Trusted,
    /// The deployments to run, in the order of the agent's document.
    pub orders: Vec<Order>,
    /// The agent's deployments that were withdrawn, or the agent itself. The units keep what they run.
    pub withdrawn: Vec<Name>,
    /// The agent's deployments that this machine cannot run. The units keep what they run.
    pub unfit: Vec<(Name, Unfit)>,
    /// The error of this machine's clock, if there is one.
    pub clock: Option<ClockTrouble>,
}

/// The time, and how far it can be relied on.
#[derive(Debug, Clone, Copy)]
pub struct Time<'a> {
    /// The readings of the clocks.
    pub clocks: &'a Clocks,
    /// The readings that they are measured by.
    pub baseline: Option<&'a Clocks>,
}

impl Time<'_> {
    fn check(self, validity: &Validity) -> Result<Option<ClockTrouble>, Refusal> {
        check_validity(validity, self.clocks, self.baseline).map_err(Refusal::Stale)
    }

    /// Checks that the root has not expired.
    pub(super) fn check_root(self, root: &TrustedRoot) -> Result<(), Refusal> {
        let (version, expires) = (root.root().version, root.root().expires);
        let (what, remedy) = (format!("the root (version {version})"), how_to_renew(version));
        self.check(&Validity { what, remedy, issued: None, expires }).map(drop)
    }

    /// Checks that the index is not too old. Returns what is wrong with the clock, where it is fresh all the same.
    pub(super) fn check_index(self, index: &SeenIndex, ages: IndexAges) -> Result<Option<ClockTrouble>, Refusal> {
        let SeenIndex { version, issued, expires, .. } = *index;
        let remedy = ages.remedy();
        self.check(&Validity { what: format!("the index (version {version})"), remedy, issued: Some(issued), expires })
    }
}

/// Checks a branch for `requester`, who has trusted `trusted`, at that time.
pub fn verify<F: Files>(
    files: &F,
    requester: &Requester<'_>,
    trusted: &Trusted,
    time: Time<'_>,
) -> Result<Verdict, Refusal> {
    time.check_root(requester.root)?;
    let branch = Branch::new(files, requester.root, requester.branch);
    let index = branch.index()?;
    let seen = trusted_in_epoch(trusted, requester.root.root().epoch)?;
    check_index_goes_forward(&index, seen.index.as_ref())?;
    let ages = requester.index_ages();
    let found = index.seen(ages);
    let clock = time.check_index(&found, ages)?;
    let unit_types = seen.unit_types.clone();
    let (documents, withdrawn) = (BTreeMap::new(), BTreeMap::new());
    let mut check = DocumentCheck { branch, index, found, trusted: &seen, documents, withdrawn, unit_types };
    let Some((agent, _)) = check.agent(requester.agent)? else {
        let withdrawn = vec![requester.agent.clone()];
        return Ok(Verdict { trusted: check.remembered()?, orders: Vec::new(), withdrawn, unfit: Vec::new(), clock });
    };
    let wanted = wanted_deployments(requester, &agent.specification)?;
    let (mut orders, mut withdrawn, mut not_for_here) = (Vec::<Order>::new(), Vec::new(), Vec::new());
    for name in wanted {
        let (deployment, content_digest, unit) = match check.deployment(&name, requester) {
            Ok(Some(found)) => found,
            Ok(None) => {
                withdrawn.push(name);
                continue;
            }
            Err(DeploymentRefusal::Unfit(why)) => {
                not_for_here.push((name, why));
                continue;
            }
            Err(DeploymentRefusal::Branch(refusal)) => return Err(refusal),
        };
        if let Some(other) = orders.iter().find(|order| order.unit.name == unit.name) {
            let first = other.deployment.name.clone();
            return Err(Refusal::SharedUnit { unit: unit.name.clone(), first, second: name });
        }
        let approvals = check
            .branch
            .approvals(&check.index, &deployment, std::slice::from_ref(requester.agent))
            .map_err(BranchError::from)?;
        orders.push(Order { deployment, content_digest, unit, approvals });
    }
    Ok(Verdict { trusted: check.remembered()?, orders, withdrawn, unfit: not_for_here, clock })
}

/// The part of `trusted` that counts in the root's epoch. In a later epoch all numbers begin anew: so a fleet recovers after a
/// thief has used up its numbers.
fn trusted_in_epoch(trusted: &Trusted, epoch: Epoch) -> Result<Trusted, Refusal> {
    match &trusted.index {
        Some(seen) if seen.epoch > epoch => Err(Refusal::EpochRollback { seen: seen.epoch, found: epoch }),
        Some(seen) if seen.epoch < epoch => {
            Ok(Trusted { unit_types: trusted.unit_types.clone(), ..Trusted::default() })
        }
        _ => Ok(trusted.clone()),
    }
}

fn check_index_goes_forward(found: &VerifiedIndex, seen: Option<&SeenIndex>) -> Result<(), Refusal> {
    let version = found.index().version;
    if let Some(seen) = seen {
        if version < seen.version {
            return Err(Refusal::IndexRollback { seen: seen.version, found: version });
        }
        if version == seen.version && found.index().content_digest() != seen.content_digest {
            return Err(Refusal::IndexFork {
                version,
                seen: seen.content_digest,
                found: found.index().content_digest(),
            });
        }
    }
    Ok(())
}

impl From<&Order> for Candidate {
    fn from(Order { deployment, content_digest, .. }: &Order) -> Self {
        let nar_id = deployment.specification.template.nar_id.clone();
        Self { revision: deployment.revision, content_digest: *content_digest, nar_id }
    }
}

impl From<&Order> for UnitReference {
    fn from(Order { unit, .. }: &Order) -> Self {
        Self { name: unit.name.clone(), unit_type: unit.specification.unit_type }
    }
}

impl VerifiedIndex {
    fn seen(&self, ages: IndexAges) -> SeenIndex {
        let Index { epoch, version, issued, expires, .. } = **self.index();
        let expires = ages.good_until(issued, expires);
        SeenIndex { epoch, version, content_digest: self.index().content_digest(), issued, expires }
    }
}

fn wanted_deployments(requester: &Requester<'_>, agent: &AgentSpecification) -> Result<Vec<Name>, Refusal> {
    let allowed = &agent.deployments;
    let Some(wanted) = requester.wanted else { return Ok(allowed.to_vec()) };
    match wanted.iter().find(|name| !allowed.contains(name)) {
        None => Ok(wanted.to_vec()),
        Some(refused) => Err(Refusal::NotAllowed {
            agent: requester.agent.clone(),
            deployment: refused.clone(),
            allowed: allowed.to_vec(),
        }),
    }
}

/// A document that passed the checks, and the digest of its content.
type Checked<S> = (Verified<Document<S>>, Sha256Digest);

/// A deployment, the digest of its content, and its unit.
type CheckedDeployment = (Verified<Deployment>, Sha256Digest, Verified<Unit>);

/// Why a deployment is not one to run.
enum DeploymentRefusal {
    /// This machine cannot run it, which harms no other.
    Unfit(Unfit),
    /// The branch is not believed.
    Branch(Refusal),
}

impl From<Unfit> for DeploymentRefusal {
    fn from(why: Unfit) -> Self {
        Self::Unfit(why)
    }
}

impl From<Refusal> for DeploymentRefusal {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Branch(BranchError::Document(DocumentError::Signed { path, source }))
                if source.is_of_a_newer_clavel() =>
            {
                Self::Unfit(Unfit::NewerClavel { path, source })
            }
            refusal => Self::Branch(refusal),
        }
    }
}

struct DocumentCheck<'a, F> {
    branch: Branch<'a, F>,
    index: VerifiedIndex,
    /// What is remembered of the index.
    found: SeenIndex,
    trusted: &'a Trusted,
    documents: BTreeMap<DocumentPath, SeenDocument>,
    withdrawn: BTreeMap<DocumentPath, Revision>,
    unit_types: BTreeMap<Name, UnitType>,
}

impl<F: Files> DocumentCheck<'_, F> {
    fn document<S: Specification>(&mut self, name: &Name) -> Result<Checked<S>, Refusal> {
        let document = self.branch.document::<S>(&mut self.index, name)?;
        let path = DocumentPath::new(S::FOLDER, name.clone());
        let content_digest = document.content_digest();
        let found = SeenDocument { revision: document.revision, content_digest };
        self.check_goes_forward(&path, found)?;
        self.documents.insert(path, found);
        Ok((document, content_digest))
    }

    fn check_goes_forward(&self, path: &DocumentPath, found: SeenDocument) -> Result<(), Refusal> {
        let path = || path.clone();
        if let Some(withdrawn) = self.trusted.withdrawn.get(&path()).copied().filter(|last| found.revision <= *last) {
            return Err(Refusal::CameBack { path: path(), withdrawn, found: found.revision });
        }
        let Some(seen) = self.trusted.documents.get(&path()) else { return Ok(()) };
        if found.revision < seen.revision {
            return Err(Refusal::Rollback { path: path(), seen: seen.revision, found: found.revision });
        }
        if found.revision == seen.revision && found.content_digest != seen.content_digest {
            let SeenDocument { revision, content_digest: found } = found;
            return Err(Refusal::Fork { path: path(), revision, seen: seen.content_digest, found });
        }
        Ok(())
    }

    /// Checks that a tombstone of this revision is of nothing older than what was believed.
    fn check_tombstone(&self, path: &DocumentPath, found: Revision) -> Result<(), Refusal> {
        let listed = self.trusted.documents.get(path).map(|seen| seen.revision);
        match listed.max(self.trusted.withdrawn.get(path).copied()) {
            Some(seen) if found < seen => Err(Refusal::Rollback { path: path.clone(), seen, found }),
            _ => Ok(()),
        }
    }

    /// Reads and checks a document. `None` where a tombstone withdraws it; without one, a missing document is refused.
    fn unless_withdrawn<S: Specification>(&mut self, name: &Name) -> Result<Option<Checked<S>>, Refusal> {
        match self.document::<S>(name) {
            Ok(found) => Ok(Some(found)),
            Err(Refusal::Branch(BranchError::Document(DocumentError::Withdrawn { path, revision }))) => {
                self.check_tombstone(&path, revision)?;
                self.withdrawn.insert(path, revision);
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Reads and checks the agent's own document. One that was never seen and is not listed has most likely another name.
    fn agent(&mut self, name: &Name) -> Result<Option<Checked<AgentSpecification>>, Refusal> {
        self.unless_withdrawn(name).map_err(|refusal| match refusal {
            Refusal::Branch(BranchError::Document(DocumentError::NotListed { path }))
                if !self.trusted.documents.contains_key(&path) =>
            {
                Refusal::UnknownAgent { agent: name.clone() }
            }
            refusal => refusal,
        })
    }

    /// Reads and checks a deployment and its unit. `None` where a tombstone withdraws the deployment.
    fn deployment(
        &mut self,
        name: &Name,
        requester: &Requester<'_>,
    ) -> Result<Option<CheckedDeployment>, DeploymentRefusal> {
        let machine = requester.system;
        let Some((deployment, content_digest)) = self.unless_withdrawn::<DeploymentSpecification>(name)? else {
            return Ok(None);
        };
        let unit = self.unit(&deployment.specification.unit)?;
        let UnitSpecification { arch, unit_type } = unit.specification.clone();
        let expected = self.served_type(&unit.name, requester)?;
        if arch != *machine {
            return Err(Unfit::OtherArch { unit: unit.name.clone(), arch, machine: machine.clone() }.into());
        }
        if !unit_type.is_for(machine) {
            return Err(Unfit::OtherType { unit: unit.name.clone(), unit_type, machine: machine.clone() }.into());
        }
        if let Some(expected) = expected.filter(|expected| *expected != unit_type) {
            return Err(Unfit::OtherTypeThanServed { unit: unit.name.clone(), unit_type, expected }.into());
        }
        self.unit_types.insert(unit.name.clone(), unit_type);
        Ok(Some((deployment, content_digest, unit)))
    }

    /// Reads and checks a unit. One that the index does not list harms no deployment for another unit; one that it lists and that
    /// is not there, or that was seen before, was taken away by somebody.
    fn unit(&mut self, name: &Name) -> Result<Verified<Unit>, DeploymentRefusal> {
        let absent = |absence| Err(Unfit::NoUnit { unit: name.clone(), absence }.into());
        match self.unless_withdrawn::<UnitSpecification>(name) {
            Ok(Some((unit, _))) => Ok(unit),
            Ok(None) => absent(Absence::Withdrawn),
            Err(Refusal::Branch(BranchError::Document(DocumentError::NotListed { path })))
                if !self.trusted.documents.contains_key(&path) =>
            {
                absent(Absence::NotListed)
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The type that a unit has to be of: the one in the configuration, or the first that the agent saw. An error if the agent
    /// does not serve the unit: whoever writes the flake must not choose what else runs here, as the superuser.
    fn served_type(&self, unit: &Name, requester: &Requester<'_>) -> Result<Option<UnitType>, Unfit> {
        let Requester { agent, units, .. } = requester;
        let config = units.get(unit);
        if config.is_none() && !(units.is_empty() && unit == *agent) {
            let served = if units.is_empty() { vec![(*agent).clone()] } else { units.keys().cloned().collect() };
            return Err(Unfit::NotServed { unit: unit.clone(), served });
        }
        Ok(config.and_then(|config| config.unit_type).or_else(|| self.unit_types.get(unit).copied()))
    }

    /// Everything that the agent trusted before, and everything that it has just checked.
    fn remembered(self) -> Result<Trusted, Refusal> {
        let seen = self.found.clone();
        let (mut documents, mut withdrawn) = (self.trusted.documents.clone(), self.trusted.withdrawn.clone());
        withdrawn.retain(|path, _| !self.documents.contains_key(path));
        documents.extend(self.documents);
        withdrawn.extend(self.withdrawn);
        // The agent must not forget any of them, and a publisher's key alone must not be able to fill the disk.
        let only_withdrawn = withdrawn.keys().filter(|path| !documents.contains_key(*path)).count();
        if documents.len() + only_withdrawn > MAX_DOCUMENTS {
            return Err(Refusal::TooManyDocuments { limit: MAX_DOCUMENTS });
        }
        Ok(Trusted { index: Some(seen), documents, withdrawn, unit_types: self.unit_types })
    }
}

#[cfg(test)]
mod tests;
