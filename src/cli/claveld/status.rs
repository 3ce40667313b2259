//! `claveld status`: prints whether evaluations are isolated, which process has the key, how each source was at its last round, and how
//! each mirror is.
//! It reads nothing but the configuration and the state folder, and tries the cage.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::ClaveldConfigArgument;
use crate::claveld::{
    BrokenSince, FailedAttempt, IsolationState, KeyHolder, MirrorReport, MirrorState, MirrorTrouble, SourceState,
    SourceStates, SourceTrouble, TroubleKind, isolation_state, mirror_reports,
};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::git::CommitId;
use crate::model::{RootValidity, RootWarning};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ClaveldConfigArgument,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Exit with 1 if evaluations are not isolated as configured, a source or a part of one was broken at its last round, or a mirror has
    /// another history, and with 9 if the only trouble is that a source's server does not answer or a mirror is behind.
    #[arg(long)]
    check: bool,
}

/// The JSON of the status.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Status {
    repository: String,
    branch: String,
    isolation: IsolationState,
    /// The process that has each key.
    keys: Vec<KeyHolder>,
    /// Until when the root of the last publication is valid; none before the first.
    root: Option<RootValidity>,
    /// The root ends soon, or has ended.
    root_warning: Option<RootWarning>,
    /// The state of each source; none for one that no round was about yet.
    sources: BTreeMap<String, Option<SourceState>>,
    /// How each mirror was at the last attempt to push to it; without those of which nothing is known yet.
    mirrors: Vec<MirrorReport>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let memory = SourceStates::of(&config.publish.state_directory);
    let (mut known, root) = (memory.read(), memory.root());
    let sources = config.sources.iter().map(|source| source.flake.to_string());
    let status = Status {
        repository: config.publish.repository.to_string(),
        branch: config.publish.branch.to_string(),
        isolation: isolation_state(&config.evaluate).await,
        keys: config.publish.secret_keys.iter().map(KeyHolder::from).collect(),
        root,
        root_warning: root.and_then(|root| root.warning(SystemTime::now().into())),
        sources: sources.map(|source| (source.clone(), known.remove(&source))).collect(),
        mirrors: mirror_reports(&config),
    };
    if arguments.json {
        output::json(&status)?;
    } else {
        print(&status)?;
    }
    match code_of(&status).filter(|_| arguments.check) {
        None => Ok(()),
        Some(code) => Err(Exit::silent(code)),
    }
}

fn print(status: &Status) -> Result<(), Exit> {
    output::line(format_args!("repository  {} ({})", status.repository, status.branch))?;
    output::line(format_args!("isolation   {}", status.isolation))?;
    for key in &status.keys {
        output::line(format_args!("key         {key}"))?;
    }
    if let Some(RootValidity { expires, version }) = status.root {
        output::line(format_args!("root        version {version}, until {expires}"))?;
    }
    if let Some(warning) = status.root_warning {
        output::line(format_args!("warning     {warning}"))?;
    }
    for mirror in &status.mirrors {
        print_mirror(mirror)?;
    }
    for (source, state) in &status.sources {
        output::line(format_args!("source      {source}"))?;
        let Some(SourceState { read_at, revision, broken, trouble, .. }) = state else {
            output::line("            no round was about it yet")?;
            continue;
        };
        if let Some(at) = read_at {
            let revision = revision.as_ref().map(|revision| format!(" at {revision}")).unwrap_or_default();
            output::line(format_args!("            read {at}{revision}"))?;
        }
        for (attribute, BrokenSince { error, since }) in broken {
            output::line(format_args!("            broken since {since}: {attribute}: {error}"))?;
        }
        if let Some(SourceTrouble { kind, since, error }) = trouble {
            let word = match kind {
                TroubleKind::Unreachable => "out of reach",
                TroubleKind::Broken => "broken",
            };
            output::line(format_args!("            {word} since {since}:\n{}", output::indent(error)))?;
        }
    }
    Ok(())
}

fn print_mirror(MirrorReport { mirror, state }: &MirrorReport) -> Result<(), Exit> {
    output::line(format_args!("mirror      {mirror}"))?;
    let short = |commit: CommitId| commit.to_string()[..10].to_owned();
    let pushed = state.pushed().map(|commit| format!(", at {}", short(commit))).unwrap_or_default();
    match state {
        MirrorState::Level { at, .. } => output::line(format_args!("            level{pushed}, pushed {at}"))?,
        MirrorState::Behind { since, .. } => output::line(format_args!("            behind since {since}{pushed}"))?,
        MirrorState::Rewritten { since, .. } => {
            output::line(format_args!("            rewritten, found {since}{pushed}"))?;
        }
    }
    if let Some(FailedAttempt { error, attempts, next, not_before, .. }) = state.failed() {
        let asked_for = if not_before.as_ref() == Some(next) { ", because its server asked for that" } else { "" };
        output::line(format_args!(
            "            {attempts} attempts failed; the next is at {next}{asked_for}:\n{}",
            output::indent(error)
        ))?;
    }
    Ok(())
}

fn code_of(status: &Status) -> Option<Code> {
    let troubles = || status.sources.values().flatten().filter_map(|state| state.trouble.as_ref());
    let is_broken = |trouble: &SourceTrouble| trouble.kind == TroubleKind::Broken;
    let has_broken_part = status.sources.values().flatten().any(|state| !state.broken.is_empty());
    if matches!(status.isolation, IsolationState::Impossible { .. }) || has_broken_part || troubles().any(is_broken) {
        return Some(Code::Incomplete);
    }
    let now = SystemTime::now().into();
    let of_mirrors = || status.mirrors.iter().filter_map(|mirror| mirror.state.trouble(now));
    if of_mirrors().any(|trouble| trouble == MirrorTrouble::Rewritten) {
        return Some(Code::Incomplete);
    }
    (troubles().next().is_some() || of_mirrors().next().is_some()).then_some(Code::Unreachable)
}
