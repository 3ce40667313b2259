//! `clavel-agent check`: looks at the set-up, and prints what is wrong with it.

use super::AgentConfigArgument;
use crate::agent;
use crate::cli::check::{CheckOutput, check_configuration};
use crate::cli::exit::Exit;
use crate::config::AgentConfig;
use crate::host::{check_git, check_nix};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: AgentConfigArgument,
    #[command(flatten)]
    output: CheckOutput,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let path = &arguments.config.config;
    let (mut findings, config) = check_configuration(AgentConfig::read(path), path);
    findings.extend(check_nix().await);
    if let Some(config) = config {
        // Over HTTP, libcurl fetches.
        if config.mirrors.iter().any(|mirror| mirror.is_ssh() || mirror.local_path().is_some()) {
            findings.push(check_git().await);
        }
        findings.extend(agent::check(&config).await);
    }
    arguments.output.print(findings)
}
