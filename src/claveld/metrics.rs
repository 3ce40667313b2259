//! The metrics of claveld: from what it remembers of its rounds and its mirrors to a text.

use std::io;
use std::path::Path;

use super::mirror_state::{MirrorReport, MirrorState};
use super::source_state::{BranchTimes, DocumentCounts, SourceState, SourceStatesFile};
use crate::disk::{self, Access, Durability};
use crate::metrics::Metrics;

/// Replaces the file of metrics.
pub(super) fn write_metrics(path: &Path, remembered: &SourceStatesFile, mirrors: &[MirrorReport]) -> io::Result<()> {
    disk::replace(path, metrics(remembered, mirrors).as_bytes(), Access::Everyone, Durability::Unsynced)
}

/// The metrics after a round. A hook's round is about some sources; the numbers of the others are those of their last round.
fn metrics(remembered: &SourceStatesFile, mirrors: &[MirrorReport]) -> String {
    let SourceStatesFile { branch, round, sources, .. } = remembered;
    let mut metrics = Metrics::default();
    metrics.gauge("claveld_build_info", "The version of claveld.").sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    if let Some(round) = round {
        let help = "When the last round ended.";
        metrics.gauge("claveld_last_round_timestamp_seconds", help).sample(&[], round.at.seconds());
        let help = "Whether the branch has what the sources of the last round gave, as far as they could be read.";
        metrics.gauge("claveld_last_round_success", help).sample(&[], u64::from(round.ok));
    }
    if let Some(BranchTimes { index, root, held }) = branch {
        let help = "When the last publication signed the index.";
        metrics.gauge("claveld_last_publication_timestamp_seconds", help).sample(&[], index.issued.seconds());
        let help = "Until when the index is valid.";
        metrics.gauge("claveld_index_expiry_timestamp_seconds", help).sample(&[], index.expires.seconds());
        let help = "Until when the root is valid.";
        metrics.gauge("claveld_root_expiry_timestamp_seconds", help).sample(&[], root.expires.seconds());
        metrics.gauge("claveld_held_deployments", "The deployments that operators hold.").sample(&[], *held as u64);
    }
    let each: Vec<(&str, &SourceState)> = sources.iter().map(|(source, state)| (source.as_str(), state)).collect();
    add_sources(&mut metrics, &each);
    add_mirrors(&mut metrics, mirrors);
    metrics.into_text()
}

fn add_mirrors(metrics: &mut Metrics, mirrors: &[MirrorReport]) {
    let mut level = metrics.gauge("claveld_mirror_level", "Whether the mirror has the newest commit of the branch.");
    for MirrorReport { mirror, state } in mirrors {
        level.sample(&[("mirror", mirror)], u64::from(matches!(state, MirrorState::Level { .. })));
    }
    let help = "Since when the mirror does not have the newest commit; absent where it has.";
    let mut behind = metrics.gauge("claveld_mirror_behind_since_timestamp_seconds", help);
    for MirrorReport { mirror, state } in mirrors {
        if let Some(since) = state.behind_since() {
            behind.sample(&[("mirror", mirror)], since.seconds());
        }
    }
    let help = "Whether the mirror has another history, so that somebody has to repair it.";
    let mut rewritten = metrics.gauge("claveld_mirror_rewritten", help);
    for MirrorReport { mirror, state } in mirrors {
        rewritten.sample(&[("mirror", mirror)], u64::from(matches!(state, MirrorState::Rewritten { .. })));
    }
}

fn add_sources(metrics: &mut Metrics, sources: &[(&str, &SourceState)]) {
    let mut read = metrics.gauge("claveld_source_last_read_timestamp_seconds", "When the source was read last.");
    for (source, state) in sources {
        if let Some(at) = state.read_at {
            read.sample(&[("source", source)], at.seconds());
        }
    }
    let mut up = metrics.gauge("claveld_source_up", "Whether the last round about the source could read it.");
    for (source, state) in sources {
        up.sample(&[("source", source)], u64::from(state.trouble.is_none()));
    }
    let help = "Since when the server of the source does not answer; absent where it does.";
    let mut unreachable = metrics.gauge("claveld_source_unreachable_since_timestamp_seconds", help);
    for (source, state) in sources {
        if let Some(since) = state.unreachable_since() {
            unreachable.sample(&[("source", source)], since.seconds());
        }
    }
    let help = "The attributes of the source that gave no document when it was read last.";
    let mut broken = metrics.gauge("claveld_source_broken_attributes", help);
    for (source, state) in sources {
        broken.sample(&[("source", source)], state.broken.len() as u64);
    }
    let mut documents =
        metrics.gauge("claveld_source_documents", "The documents that the source gave when it was read last.");
    for (source, state) in sources {
        let DocumentCounts { agents, deployments, units } = state.documents;
        for (kind, count) in [("agent", agents), ("deployment", deployments), ("unit", units)] {
            documents.sample(&[("source", source), ("kind", kind)], count as u64);
        }
    }
    let help = "The deployments of the source that wait for a cache.";
    let mut waiting = metrics.gauge("claveld_source_waiting_deployments", help);
    for (source, state) in sources {
        waiting.sample(&[("source", source)], state.waiting as u64);
    }
}
