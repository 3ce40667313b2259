//! Leaves the status of this machine beside the bundles that a pass read, for the operator who makes the next one.
//!
//! What it says is decided here without I/O, and `stick` writes it. It never fails a pass: a medium that cannot be written to is told in
//! the record of the pass.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lifecycle::Lifecycle;
use super::mirrors::MirrorReport;
use super::state::{LastPass, LeftStatus, State};
use crate::git::{BundleFiles, CommitId, on_medium};
use crate::model::{
    AgentStatus, BranchFile as _, DeploymentStatus, FleetId, Kind, Name, PublicKey, Schema, Timestamp, describe_error,
    excerpt, printable_line,
};
use crate::stick;
use crate::trust::{SecretKey, SecretKeyError, Signed, verify_status};

/// The most bytes of one error in a status.
const MAX_ERROR: usize = 300;
/// The most media that one pass leaves a status on.
const MAX_MEDIA: usize = 16;

/// A bundle that a pass found, and the commit that it read from it.
#[derive(Debug, Clone)]
pub(super) struct FoundBundle {
    pub(super) mirror: String,
    pub(super) path: PathBuf,
    pub(super) tip: Option<CommitId>,
}

impl FoundBundle {
    /// The bundle at the address of a mirror; `None` for a mirror that is no bundle.
    pub(super) fn of(mirror: &str, tip: Option<CommitId>) -> Option<Self> {
        let path = mirror.parse::<BundleFiles>().ok()?.exact()?.to_owned();
        Some(Self { mirror: mirror.to_owned(), path, tip })
    }
}

/// The folders of the bundles, each with the newest commit that is believed and came from a bundle there. A stick that has only bundles
/// that cannot be read gets a status without a commit, so that the next bundle is complete.
pub(super) fn media(found: &[FoundBundle], reports: &[MirrorReport]) -> BTreeMap<PathBuf, Option<CommitId>> {
    let mut media: BTreeMap<PathBuf, Option<(_, CommitId)>> = BTreeMap::new();
    for bundle in found {
        let Some(folder) = bundle.path.parent() else { continue };
        let report = reports.iter().find(|report| report.repository == bundle.mirror);
        let believed = report.and_then(|report| Some((report.index_version?, bundle.tip?)));
        let newest = media.entry(folder.to_owned()).or_default();
        *newest = (*newest).max(believed);
    }
    media.into_iter().take(MAX_MEDIA).map(|(folder, newest)| (folder, newest.map(|(_, tip)| tip))).collect()
}

/// The agent that a status is of.
pub(super) struct Identity<'a> {
    pub(super) agent: &'a Name,
    pub(super) fleet: FleetId,
    pub(super) key: PublicKey,
}

/// The status after a pass.
pub(super) fn status(of: &Identity<'_>, state: &State, last: &LastPass, commit: Option<CommitId>) -> AgentStatus {
    let Identity { agent, fleet, key } = of;
    let index = state.trusted.index.as_ref();
    let deployments: Vec<DeploymentStatus> =
        state.deployments.iter().map(|(name, lifecycle)| deployment_status(name, lifecycle, last)).collect();
    let mut status = AgentStatus {
        agent: (*agent).clone(),
        at: last.at,
        commit: commit.map(|commit| commit.to_string()),
        // An agent has no more of them than such a list.
        deployments: deployments.try_into().unwrap_or_default(),
        epoch: index.map(|index| index.epoch),
        error: (!last.ok && last.deployments.is_empty()).then(|| short(&last.message)),
        fleet: *fleet,
        index_version: index.map(|index| index.version),
        key: key.clone(),
        kind: Kind::THIS,
        schema: Schema::V1,
    };
    if Signed::unsigned(status.clone()).render().len() as u64 > AgentStatus::MAX_BYTES / 2 {
        let without = |deployment: &DeploymentStatus| DeploymentStatus { error: None, ..deployment.clone() };
        let deployments: Vec<DeploymentStatus> = status.deployments.iter().map(without).collect();
        status.deployments = deployments.try_into().unwrap_or_default();
    }
    status
}

fn deployment_status(name: &Name, lifecycle: &Lifecycle, last: &LastPass) -> DeploymentStatus {
    let recorded = last.deployments.iter().find(|recorded| recorded.deployment == *name);
    let is = |word: &str| recorded.is_some_and(|recorded| recorded.outcome == word);
    // The profile leads elsewhere, so nothing keeps what the record names.
    let running = lifecycle.certainly_running().filter(|_| !is("moved"));
    // The texts of a failure that is tried again differ at each pass, and a stick wears out.
    let error = match lifecycle {
        Lifecycle::RolledBack(failed) => Some(short(&failed.failure.error)),
        Lifecycle::RollingBack(rollback) => Some(short(&rollback.failure.error)),
        Lifecycle::Known(_)
        | Lifecycle::Realised(_)
        | Lifecycle::Activating(_)
        | Lifecycle::AwaitingReboot(_)
        | Lifecycle::Probation(_)
        | Lifecycle::Confirmed { .. } => recorded
            .filter(|_| ["failed", "waiting", "awaiting-reboot", "moved", "withdrawn"].into_iter().any(is))
            .map(|recorded| short(&recorded.message)),
    };
    DeploymentStatus {
        error,
        name: name.clone(),
        nar_id: running.map(|running| running.nar_id.clone()),
        revision: running.map(|running| running.revision),
        since: running.map(|running| running.since),
        state: lifecycle.name().to_owned(),
    }
}

fn short(text: &str) -> String {
    excerpt(&printable_line(text.lines().next().unwrap_or_default(), MAX_ERROR), MAX_ERROR)
}

/// Reads the agent's own key, or makes it.
pub(super) fn own_key(path: &Path, agent: &Name) -> Result<SecretKey, SecretKeyError> {
    if path.exists() {
        return SecretKey::read(path);
    }
    // The characters of an agent's name are among those of a key's.
    let malformed =
        |_| SecretKeyError::Malformed { path: path.to_owned(), why: "the agent's name is no name of a key" };
    let key = SecretKey::generate(agent.as_str().parse().map_err(malformed)?)?;
    key.write_new(path)?;
    Ok(key)
}

/// Writes each status to its medium, unless the one there says the same.
pub(super) async fn leave_all(
    statuses: Vec<(PathBuf, AgentStatus)>,
    key: SecretKey,
    within: Duration,
) -> Vec<LeftStatus> {
    let media: Vec<PathBuf> = statuses.iter().map(|(medium, _)| medium.clone()).collect();
    let write = move || {
        let leave = |(medium, status): &(PathBuf, AgentStatus)| {
            leave(medium, status, &key).map_err(|error| describe_error(&error))
        };
        statuses.iter().map(leave).collect::<Vec<_>>()
    };
    let results = on_medium("status", within, write).await.ok().flatten();
    let results = results.unwrap_or_else(|| vec![Err("the medium does not answer".to_owned()); media.len()]);
    let described = |(medium, result): (PathBuf, Result<Timestamp, String>)| {
        let (at, error) = result.map_or_else(|error| (None, Some(error)), |at| (Some(at), None));
        LeftStatus { medium: medium.display().to_string(), at, error }
    };
    media.into_iter().zip(results).map(described).collect()
}

/// Returns when the status on the medium was written.
fn leave(medium: &Path, status: &AgentStatus, key: &SecretKey) -> io::Result<Timestamp> {
    if let Some(there) = stick::read_own(medium, &status.agent).and_then(|bytes| verify_status(&bytes).ok())
        && status.says_the_same_as(&there)
    {
        return Ok(there.at);
    }
    let bytes = Signed::sign(status.clone(), key).render();
    crate::disk::check_length(&bytes, AgentStatus::MAX_BYTES)?;
    stick::leave(medium, &status.agent, &bytes)?;
    Ok(status.at)
}
