//! `claveld check`: looks at the set-up, and prints what is wrong with it.

use super::ClaveldConfigArgument;
use crate::claveld;
use crate::cli::check::{CheckOutput, check_configuration};
use crate::cli::exit::Exit;
use crate::config::ClaveldConfig;
use crate::host::{check_git, check_nix};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ClaveldConfigArgument,
    #[command(flatten)]
    output: CheckOutput,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let path = &arguments.config.config;
    let (mut findings, config) = check_configuration(ClaveldConfig::read(path), path);
    findings.extend(check_nix().await);
    findings.push(check_git().await);
    if let Some(config) = config {
        findings.extend(claveld::check(&config).await);
    }
    arguments.output.print(findings)
}
