//! The command line of `clavel`, the operator's tool.

mod amendment;
mod approve;
pub(super) mod bundle;
mod check;
mod closures;
pub(super) mod diff;
mod export;
mod guide;
pub(super) mod history;
mod init;
mod key;
mod keys;
pub(super) mod list;
pub(super) mod machines;
mod operate;
mod root;
mod root_file;
mod setup;
mod show;
pub(super) mod verify;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line of `clavel`.
#[derive(Debug, Parser)]
#[command(
    name = "clavel",
    version,
    about = "Makes fleets and keys, shows and verifies the deployments branch, and approves, holds and rolls back deployments",
    after_help = "Exit codes: 0 done; 1 `check` found a problem; 2 a usage error; 3 the configuration, a key file or an argument is not right; 4 a repository \
                  cannot be reached, read or written; 5 refused a branch, or something on it; 8 this machine: its disk, its \
                  system, its state folder."
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
    /// Make a fleet: its first root, and the keys that no argument names.
    ///
    /// The root says whose signatures count, and every agent begins with it. Its keys may be made elsewhere, on other
    /// machines or in hardware: give their public halves, and let each owner sign with `clavel root sign`.
    #[command(
        after_help = "Examples:\n  clavel init /etc/clavel\n  clavel init --root-key alice:… --root-key bob:… --root-threshold 2 --approver-key alice:… --approvals 'db-*=1'"
    )]
    Init(init::Arguments),
    /// Make, sign, show and publish roots.
    #[command(subcommand)]
    Root(root::Command),
    /// Make keys, show their public halves, and convert them for OpenSSH.
    #[command(subcommand)]
    Key(key::Command),
    /// Make, show and verify git bundles: a branch in one file, which travels without a network.
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Write a branch as plain files, which any HTTP server, object store or CDN can serve.
    ///
    /// Every file is named by its digest but one, the tip, which is replaced last. Agents read the folder by a URL that begins with
    /// static+. A folder that has this state already is left as it is.
    #[command(
        after_help = "Examples:\n  clavel export --static /srv/www/fleet --repository /srv/git/fleet.git --root root.json\n  clavel export --static /srv/www/fleet --root root.json --remove-unnamed-after 1d"
    )]
    Export(export::Arguments),
    /// List the deployments on a branch.
    #[command(
        after_help = "Examples:\n  clavel list\n  clavel list --repository https://git.example.org/fleet.git --json"
    )]
    List(list::Arguments),
    /// Show the differences between two revisions of a deployment, down to packages and files.
    ///
    /// Of several deployments, each is compared with the revision before its newest, and what they share is shown once.
    ///
    /// Packages and files are shown only where this machine has the derivations of both systems, as the machine that evaluated
    /// them does.
    #[command(
        after_help = "Examples:\n  clavel diff web-1\n  clavel diff web-1 web-2\n  clavel diff web-1 --from 3 --to 5 --json\n  clavel diff /nix/store/…-a.drv /nix/store/…-b.drv"
    )]
    Diff(diff::Arguments),
    /// List the revisions of a deployment, the newest first.
    ///
    /// They come from the branch's history: when each was published, in which commit, and from which revision of its source.
    #[command(after_help = "Examples:\n  clavel history web-1\n  clavel history web-1 --json | jq '.[0].commit'")]
    History(history::Arguments),
    /// Show one document of a branch.
    #[command(after_help = "Examples:\n  clavel show web-1\n  clavel show web-1 --json | jq .specification.template")]
    Show(show::Arguments),
    /// Publish the content of an earlier revision of a deployment again, as a new revision, and hold the deployment there.
    ///
    /// Clavel finds the earlier revision in the branch's history, and refuses it where no present publisher signed it. Claveld's
    /// next evaluation would undo the rollback, so the deployment is held until `clavel release`.
    #[command(
        name = "rollback",
        after_help = "Example:\n  clavel rollback web-1 --to 6 --why 'revision 7 does not reach the database'"
    )]
    RollBack(operate::RollBackArguments),
    /// Hold a deployment at its revision, whatever its source gives, until `clavel release`.
    #[command(after_help = "Example:\n  clavel hold web-1 --why 'frozen over the holidays'")]
    Hold(operate::HoldArguments),
    /// Let a deployment that is held follow its source again, from claveld's next round on.
    #[command(after_help = "Example:\n  clavel release web-1")]
    Release(operate::ReleaseArguments),
    /// Show what the newest revision of a deployment changes, and approve it.
    ///
    /// The root says which deployments have to be approved, by how many, and who may. Clavel puts the approval on the
    /// branch, or in a file for a pull request.
    ///
    /// It shows the changes since the revision that the approver approved last, or the whole revision where there is none or the
    /// branch does not have it any more.
    #[command(
        after_help = "Examples:\n  clavel approve db-1 --root root.json --key alice.secret\n  clavel approve db-1 --root root.json --ssh-key ~/.ssh/id_ed25519_sk --repository ssh://git@git.example.org/fleet.git"
    )]
    Approve(approve::Arguments),
    /// Look at what these commands need: the repository, the root, and the keys that are given. Nothing is written.
    #[command(
        after_help = "Examples:\n  clavel check --root root.json\n  clavel check --repository https://git.example.org/fleet.git --root root.json --key alice.secret"
    )]
    Check(check::Arguments),
    /// Verify everything on a branch, as an agent would.
    #[command(after_help = "Example:\n  clavel verify --root root.json")]
    Verify(verify::Arguments),
}

/// Runs `clavel` with the arguments of this process.
pub fn main() -> ExitCode {
    super::forbid_core_dumps();
    super::main(
        |arguments: &Arguments| arguments.verbose,
        async |Arguments { verbose, command }: Arguments| match command {
            Command::Init(arguments) => init::run(&arguments).await,
            Command::Root(command) => root::run(&command).await,
            Command::Key(command) => key::run(&command),
            Command::Bundle(command) => bundle::run(&command).await,
            Command::Export(arguments) => export::run(&arguments).await,
            Command::List(arguments) => list::run(&arguments).await,
            Command::Diff(arguments) => diff::run(&arguments, verbose).await,
            Command::Approve(arguments) => approve::run(&arguments, verbose).await,
            Command::History(arguments) => history::run(&arguments).await,
            Command::Show(arguments) => show::run(&arguments).await,
            Command::RollBack(arguments) => operate::roll_back(arguments).await,
            Command::Hold(arguments) => operate::hold(arguments).await,
            Command::Release(arguments) => operate::release(arguments).await,
            Command::Check(arguments) => check::run(&arguments).await,
            Command::Verify(arguments) => verify::run(&arguments).await,
        },
    )
}
