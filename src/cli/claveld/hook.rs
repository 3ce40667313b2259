//! `claveld hook post-receive`

use std::io::Read as _;
use std::path::PathBuf;

use clap::ValueEnum;

use super::ConfigArgument;
use super::once::{announced, report, told_reasons, trouble, verdict};
use super::progress::Board;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::evaluate::Demand;
use crate::publish::{Round, pushed_refs, pushed_sources};

/// The most that git may say of one push: ten thousand refs are 1 MiB.
const LARGEST_PUSH: u64 = 16 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which of git's hooks this is.
    hook: Hook,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Hook {
    /// After a push was received.
    PostReceive,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let Hook::PostReceive = arguments.hook;
    let config = arguments.config.read()?;
    let mut input = String::new();
    let read = std::io::stdin().take(LARGEST_PUSH).read_to_string(&mut input);
    read.map_err(|error| Exit::machine(&format!("cannot read what git gives its hook: {error}")))?;
    // Git tells its hooks where they are.
    let git_dir = std::env::var_os("GIT_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let targets = pushed_sources(&git_dir, &pushed_refs(&input)?, &config.sources)?;
    if targets.is_empty() {
        return Ok(());
    }
    let round = Round::new(&config, Demand::Changed)?;
    let board = Board::lines();
    let outcome = round.run(&targets, &|announcement| announced(&board, &announcement)).await?;
    told_reasons(&outcome);
    for line in report(&outcome.report) {
        output::remark(line);
    }
    trouble(&outcome);
    verdict(&outcome)
}
