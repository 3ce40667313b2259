//! `clavel`: the operator's tool.

mod amendment;
mod approve;
mod diff;
mod guide;
mod history;
mod init;
mod key;
mod keys;
mod list;
mod operate;
mod root;
mod show;
mod verify;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line of `clavel`.
#[derive(Debug, Parser)]
#[command(
    name = "clavel",
    version,
    about = "Fleets and their keys, and the deployments branch: a look at it, going back, and holding still",
    after_help = "Exit codes: 0 done; 2 usage; 3 key or argument; 4 repository; 5 a branch that is not to be believed; \
                  8 this machine."
)]
pub struct Arguments {
    /// Say on standard error which programs are run; twice, say more.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a fleet: its first root, and the keys that nobody named.
    ///
    /// The root says whose signatures count, and every agent begins with it. Its keys may be made elsewhere, on other
    /// machines or in hardware: name their public halves, and let each sign with `clavel root sign`.
    #[command(
        after_help = "Examples:\n  clavel init /etc/clavel\n  clavel init --root-key alice:… --root-key bob:… --root-threshold 2 --approver-key alice:… --approvals 'db-*=1'"
    )]
    Init(init::Arguments),
    /// Make, sign, show and publish roots.
    #[command(subcommand)]
    Root(root::Command),
    /// Make keys, and show their public half.
    #[command(subcommand)]
    Key(key::Command),
    /// List the deployments on a branch.
    #[command(
        after_help = "Examples:\n  clavel list\n  clavel list --repository https://git.example.org/fleet.git --json"
    )]
    List(list::Arguments),
    /// Tell what differs between two revisions of a deployment, down to packages and files.
    ///
    /// Packages and files are told where the derivations of both systems are on this machine: where they were evaluated.
    #[command(
        after_help = "Examples:\n  clavel diff web-1\n  clavel diff web-1 --from 3 --to 5 --json\n  clavel diff /nix/store/…-a.drv /nix/store/…-b.drv"
    )]
    Diff(diff::Arguments),
    /// Show one document of a branch.
    #[command(after_help = "Examples:\n  clavel show web-1\n  clavel show web-1 --json | jq .specification.template")]
    Show(show::Arguments),
    /// Publish again what an earlier revision of a deployment said, and hold it there.
    ///
    /// It is found in the branch's history, and believed only where one who still publishes signed it. Claveld's next
    /// evaluation would undo it at once, so the deployment is held until `clavel release`.
    #[command(
        name = "rollback",
        after_help = "Example:\n  clavel rollback web-1 --to 6 --why 'revision 7 does not reach the database'"
    )]
    RollBack(operate::RollBackArguments),
    /// Freeze a deployment at its revision, whatever its source gives, until `clavel release`.
    #[command(after_help = "Example:\n  clavel hold web-1 --why 'frozen over the holidays'")]
    Hold(operate::HoldArguments),
    /// Let a deployment that is held follow its source again, from claveld's next round on.
    #[command(after_help = "Example:\n  clavel release web-1")]
    Release(operate::ReleaseArguments),
    /// Approve the newest revision of a deployment, after a look at what it changes.
    ///
    /// The root says which deployments have to be approved, by how many, and who may. The approval is put on the branch, or
    /// in a file for a pull request.
    ///
    /// What is shown is what changes since the revision that the approver approved last; all of it, where there is none or the
    /// branch does not have it any more.
    #[command(
        after_help = "Examples:\n  clavel approve db-1 --root root.json --key alice.secret\n  clavel approve db-1 --root root.json --ssh-key ~/.ssh/id_ed25519_sk --repository ssh://git@git.example.org/fleet.git"
    )]
    Approve(approve::Arguments),
    /// Verify everything on a branch, as an agent would.
    #[command(after_help = "Example:\n  clavel verify --root root.json")]
    Verify(verify::Arguments),
}

/// Runs `clavel` with the arguments of this process.
pub fn main() -> ExitCode {
    super::leave_no_core_dump();
    super::main(
        |arguments: &Arguments| arguments.verbose,
        async |Arguments { verbose, command }: Arguments| match command {
            Command::Init(arguments) => init::run(&arguments),
            Command::Root(command) => root::run(&command).await,
            Command::Key(command) => key::run(&command),
            Command::List(arguments) => list::run(&arguments),
            Command::Diff(arguments) => diff::run(&arguments, verbose),
            Command::Approve(arguments) => approve::run(&arguments, verbose).await,
            Command::Show(arguments) => show::run(&arguments),
            Command::RollBack(arguments) => operate::roll_back(arguments).await,
            Command::Hold(arguments) => operate::hold(arguments).await,
            Command::Release(arguments) => operate::release(arguments).await,
            Command::Verify(arguments) => verify::run(&arguments),
        },
    )
}
