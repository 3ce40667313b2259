//! The command line of `clavel-agent`, which brings the units of this machine to the state of the branch.

mod check;
mod confirm;
mod messages;
pub(super) mod once;
mod plan;
mod retry;
mod run;
pub(super) mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::Exit;
use super::output::DataForm;
use crate::agent;
use crate::config::AgentConfig;

/// The exit code for a program that could not be run, as the shell has it (POSIX, 2.8.2).
const NOT_RUN: u8 = 127;

/// The command line of `clavel-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "clavel-agent",
    version,
    about = "Fetches, verifies and activates what this machine should run",
    after_help = "Exit codes: 0 done, or waiting for a cache or for approvals; 1 `check` found a problem; 2 a usage error; 3 the configuration, a key file or an \
                  argument is not right; 4 a repository cannot be reached, read or written; 5 refused a branch, or something on \
                  it; 6 could not fetch a deployment from its caches, or it is not what is pinned; 7 a unit did not switch; 8 \
                  this machine: its disk, its system, its state folder. After an error a unit runs what it ran before: nothing \
                  was switched, or the agent went back. Where going back fails as well, the agent says so, and tries it again \
                  at every pass."
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
    /// Run one pass after another until SIGTERM or SIGINT; SIGHUP reads the configuration anew.
    #[command(after_help = "Example:\n  clavel-agent run --config /etc/clavel/clavel-agent.toml")]
    Run(AgentConfigArgument),
    /// Run one pass.
    #[command(after_help = "Example:\n  clavel-agent once")]
    Once(once::Arguments),
    /// Show what runs, and the result of the last pass.
    #[command(
        after_help = "Examples:\n  clavel-agent status\n  clavel-agent status --oneline\n  clavel-agent status --json | jq .deployments"
    )]
    Status(status::Arguments),
    /// Confirm the revision that is on probation, where its deployment or this machine asks a person to.
    #[command(after_help = "Examples:\n  clavel-agent confirm\n  clavel-agent confirm web-1")]
    Confirm(confirm::Arguments),
    /// Let revisions that are held because they failed begin again, with the next pass of the agent.
    #[command(after_help = "Examples:\n  clavel-agent retry\n  clavel-agent retry web-1 && clavel-agent once")]
    Retry(retry::Arguments),
    /// Say what the next pass would do: which revisions, packages and units change, and whether the machine has to boot. Nothing is fetched
    /// into the store or activated, and no state is written.
    #[command(after_help = "Examples:\n  clavel-agent plan\n  clavel-agent plan --json | jq '.[].changes.packages'")]
    Plan(plan::Arguments),
    /// Look at the whole set-up, and say what is wrong with it. Nothing is fetched into the store or activated, and no state is
    /// written.
    #[command(
        after_help = "Examples:\n  clavel-agent check\n  clavel-agent check --quiet\n  clavel-agent check --json | jq '.findings[] | select(.outcome == \"problem\")'"
    )]
    Check(check::Arguments),
}

/// The configuration file of the agent.
#[derive(Debug, clap::Args)]
struct AgentConfigArgument {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "CLAVEL_AGENT_CONFIG", default_value = AgentConfig::DEFAULT_PATH)]
    config: PathBuf,
}

impl AgentConfigArgument {
    fn read(&self) -> Result<AgentConfig, Exit> {
        Ok(AgentConfig::read(&self.config)?)
    }
}

/// Runs `clavel-agent` with the arguments of this process.
pub fn main() -> ExitCode {
    // Only the agent itself uses these subcommands, so no help and no completion shows them.
    let own: Vec<_> = std::env::args_os().skip(1).take(3).collect();
    let is_in_unit = own == [agent::ACTIVATE_COMMAND, agent::IN_UNIT];
    if is_in_unit || own == [agent::ACTIVATE_COMMAND] {
        super::start_log(0);
        let carry_out = async { agent::carry_out(is_in_unit).await.map_err(Exit::machine) };
        return super::run_to_exit_code(carry_out, DataForm::Text);
    }
    if std::env::args_os().nth(1).is_some_and(|command| command == agent::BECOME_COMMAND) {
        super::start_log(0);
        let Err(error) = agent::become_program(std::env::args_os().skip(2));
        super::output::report(&Exit::machine(error), DataForm::Text);
        crate::stderr::flush(super::LAST_OUTPUT);
        return ExitCode::from(NOT_RUN);
    }
    super::main(
        |arguments: &Arguments| arguments.verbose,
        async |arguments: Arguments| match arguments.command {
            Command::Run(config) => run::run(&config).await,
            Command::Once(arguments) => once::run(&arguments).await,
            Command::Status(arguments) => status::run(&arguments),
            Command::Confirm(arguments) => confirm::run(&arguments),
            Command::Plan(arguments) => plan::run(&arguments).await,
            Command::Retry(arguments) => retry::run(&arguments),
            Command::Check(arguments) => check::run(&arguments).await,
        },
    )
}
