//! The metrics of an agent: from its state and its last pass to a text. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::lifecycle::Lifecycle;
use super::mirrors::MirrorStatus;
use super::state::{LastPass, State};
use crate::metrics::Metrics;
use crate::model::{DocumentPath, Folder, Name, RootValidity};

/// The states of a deployment, each with the outcomes of a pass that it stands for.
const STATES: [(&str, &[&str]); 7] = [
    ("running", &["up-to-date", "adopted", "switched"]),
    ("waiting", &["waiting"]),
    ("awaiting-reboot", &["awaiting-reboot"]),
    ("failed", &["failed"]),
    ("moved", &["moved"]),
    ("withdrawn", &["withdrawn"]),
    ("dropped", &["dropped"]),
];
/// The state of a deployment about which the last pass said nothing, because it ended before.
const UNKNOWN: &str = "unknown";

/// The metrics after a pass.
pub(super) fn metrics(state: &State, last: &LastPass, root: Option<RootValidity>) -> String {
    let mut metrics = Metrics::default();
    metrics
        .gauge("clavel_agent_build_info", "The version of clavel-agent.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    metrics
        .gauge("clavel_agent_last_pass_timestamp_seconds", "When the last pass ended.")
        .sample(&[], last.at.seconds());
    let help =
        "Whether the last pass believed a branch, and every unit runs what the branch or the agent gave it last.";
    metrics.gauge("clavel_agent_last_pass_success", help).sample(&[], u64::from(last.ok));
    if let Some(index) = &state.trusted.index {
        let help = "Until when the newest index is valid.";
        metrics.gauge("clavel_agent_index_expiry_timestamp_seconds", help).sample(&[], index.expires.seconds());
    }
    if let Some(root) = root {
        let help = "Until when the newest root is valid.";
        metrics.gauge("clavel_agent_root_expiry_timestamp_seconds", help).sample(&[], root.expires.seconds());
    }
    let help = "Whether a deployment waits for the machine to reboot.";
    let waits = state.deployments.values().any(|known| known.next_boot().is_some());
    metrics.gauge("clavel_agent_need_to_reboot", help).sample(&[], u64::from(waits));
    add_mirrors(&mut metrics, last);
    add_deployments(&mut metrics, state, last);
    metrics.into_text()
}

fn add_mirrors(metrics: &mut Metrics, last: &LastPass) {
    let help =
        "Whether the mirror at this place of the configuration, from 0 on, shows a branch that the agent believes.";
    let mut up = metrics.gauge("clavel_agent_mirror_up", help);
    for (mirror, position) in last.mirrors.iter().zip(0..) {
        let is_up = match mirror.status {
            MirrorStatus::Taken | MirrorStatus::Level | MirrorStatus::Behind => true,
            MirrorStatus::Refused | MirrorStatus::Unreachable => false,
        };
        let position = position.to_string();
        up.sample(&[("position", &position), ("host", host(&mirror.repository))], u64::from(is_up));
    }
}

fn add_deployments(metrics: &mut Metrics, state: &State, last: &LastPass) {
    let outcomes: BTreeMap<&Name, &str> =
        last.deployments.iter().map(|recorded| (&recorded.deployment, recorded.outcome.as_str())).collect();
    let names: BTreeSet<&Name> = state.deployments.keys().chain(outcomes.keys().copied()).collect();
    let mut wanted = metrics
        .gauge("clavel_agent_deployment_wanted_revision", "The revision that the branch has for the deployment.");
    for name in &names {
        let path = DocumentPath::new(Folder::Deployments, Name::clone(name));
        if let Some(document) = state.trusted.documents.get(&path) {
            wanted.sample(&[("deployment", name.as_str())], document.revision.get());
        }
    }
    let mut running =
        metrics.gauge("clavel_agent_deployment_running_revision", "The revision that runs, where that is certain.");
    for name in &names {
        if let Some(known) = state.deployments.get(*name).and_then(Lifecycle::certainly_running) {
            running.sample(&[("deployment", name.as_str())], known.revision.get());
        }
    }
    let mut states =
        metrics.gauge("clavel_agent_deployment_state", "Whether the deployment is in this state, by the last pass.");
    for name in &names {
        let outcome = outcomes.get(name);
        let is_in = |(_, words): &&(&str, &[&str])| outcome.is_some_and(|outcome| words.contains(outcome));
        let state = STATES.iter().find(is_in).map_or(UNKNOWN, |(state, _)| *state);
        for word in STATES.iter().map(|(word, _)| *word).chain([UNKNOWN]) {
            states.sample(&[("deployment", name.as_str()), ("state", word)], u64::from(word == state));
        }
    }
}

/// The host of a repository, without its user; empty where it is a path.
fn host(repository: &str) -> &str {
    let Some((_, rest)) = repository.split_once("://") else { return "" };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_repository_has_no_user() {
        for (repository, expected) in [
            ("https://git.example.org:8443/fleet.git", "git.example.org:8443"),
            ("ssh://git@git.example.org/fleet.git", "git.example.org"),
            ("/srv/fleet.git", ""),
            ("file:///srv/fleet.git", ""),
        ] {
            assert_eq!(host(repository), expected);
        }
    }
}
