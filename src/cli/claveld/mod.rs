//! The command line of `claveld`: its arguments, its output and its exit codes. Decisions and loops belong to the room
//! `claveld`.

mod check;
mod evaluate;
mod hook;
mod learn;
pub(super) mod once;
mod print;
mod progress;
mod run;
mod signer;
pub(super) mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ClaveldConfig;

use super::{Exit, wait_for_stop_signal};

/// The command line of `claveld`.
#[derive(Debug, Parser)]
#[command(
    name = "claveld",
    version,
    about = "Evaluates Nix flakes and publishes what each machine should run as signed documents on a git branch",
    after_help = "Exit codes: 0 done, or waiting for a cache; 1 something in a source is broken, claimed by two sources, or would wait \
                  for a cache for ever, and everything else was done; or the gate refused the push, or `check` found a problem; 2 a usage error; 3 the \
                  configuration, a key file or an argument is not right; 4 a repository cannot be reached, read or written; 5 \
                  refused a branch, or something on it; 8 this machine: its disk, its system, its state folder; or stopped \
                  before the work was done; 9 the server of a source does not answer, or for `status --check` a mirror, and everything else was done."
)]
pub struct Arguments {
    /// Log to standard error which programs are run; given twice, log more.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Evaluate and publish all sources, again whenever one changes, until SIGTERM or SIGINT; SIGHUP reads the configuration anew.
    #[command(after_help = "Example:\n  claveld run --config /etc/clavel/claveld.toml")]
    Run(ClaveldConfigArgument),
    /// Evaluate all sources once, and publish the changes.
    #[command(after_help = "Examples:\n  claveld once\n  claveld once --json | jq .report.changes")]
    Once(once::Arguments),
    /// Show the deployments of a flake, and publish nothing.
    #[command(
        after_help = "Examples:\n  claveld evaluate .\n  claveld evaluate git+https://git.example.org/fleet?ref=main --json"
    )]
    Evaluate(Box<evaluate::Arguments>),
    /// Show whether evaluations are isolated, where the key is, how each source was at its last round, and how each mirror is.
    #[command(after_help = "Examples:\n  claveld status\n  claveld status --check --json")]
    Status(status::Arguments),
    /// Look at the whole set-up, and say what is wrong with it. Nothing is published, and no state is written.
    #[command(
        after_help = "Examples:\n  claveld check\n  claveld check --quiet\n  claveld check --json | jq '.findings[] | select(.outcome == \"problem\")'"
    )]
    Check(check::Arguments),
    /// Run as a git hook: check a push before git accepts it, or evaluate and publish it afterwards.
    #[command(
        after_help = "Examples (hooks/pre-receive and hooks/post-receive in the flake's bare repository):\n  exec claveld hook pre-receive --config /etc/clavel/claveld.toml\n  exec claveld hook post-receive --config /etc/clavel/claveld.toml"
    )]
    Hook(hook::Arguments),
    /// Push the branch on to the mirrors, and make the checks that are open, for the next evaluation. The hooks leave this behind.
    #[command(hide = true)]
    Learn(learn::Arguments),
    /// Hold claveld's key in a process of its own, and sign with it the documents that claveld sends to a socket; nothing else.
    #[command(
        after_help = "It speaks the protocol of an ssh-agent: `ssh-add -L` shows the key. Run it as another user than claveld, as \
                      claveld-signer.service does, so that neither an evaluation nor claveld's user can read the key.\n\nExample:\n  \
                      claveld signer --secret-key-file /etc/clavel/claveld-1.secret --socket /run/clavel/signer.sock"
    )]
    Signer(signer::Arguments),
}

/// The configuration file of claveld.
#[derive(Debug, clap::Args)]
pub(super) struct ClaveldConfigArgument {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "CLAVELD_CONFIG", default_value = ClaveldConfig::DEFAULT_PATH)]
    config: PathBuf,
}

impl ClaveldConfigArgument {
    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.config
    }

    pub(super) fn read(&self) -> Result<ClaveldConfig, Exit> {
        Ok(ClaveldConfig::read(&self.config)?)
    }
}

/// Runs `claveld` with the arguments of this process.
pub fn main() -> ExitCode {
    super::forbid_core_dumps();
    super::main(
        |arguments: &Arguments| arguments.verbose,
        async |arguments: Arguments| match arguments.command {
            Command::Run(config) => Box::pin(run::run(&config)).await,
            Command::Once(arguments) => unless_stopped(Box::pin(once::run(&arguments))).await,
            Command::Evaluate(arguments) => Box::pin(unless_stopped(evaluate::run(&arguments))).await,
            Command::Status(arguments) => unless_stopped(status::run(&arguments)).await,
            Command::Learn(arguments) => unless_stopped(Box::pin(learn::run(&arguments))).await,
            Command::Signer(arguments) => Box::pin(signer::run(&arguments)).await,
            Command::Check(arguments) => unless_stopped(Box::pin(check::run(&arguments))).await,
            Command::Hook(arguments) => unless_stopped(Box::pin(hook::run(&arguments))).await,
        },
    )
}

/// Interrupts `work` when claveld has to stop. The evaluators run in process groups of their own, and end with it.
async fn unless_stopped(work: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    tokio::select! {
        done = work => done,
        stopped = wait_for_stop_signal() => {
            stopped?;
            Err(Exit::machine("stopped before the work was done"))
        }
    }
}
