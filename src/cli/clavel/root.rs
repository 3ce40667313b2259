//! `clavel root`: shows, makes, signs and publishes roots. `root_file` reads and writes their files.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::amendment::{RemovalArguments, RoleArguments};
use super::guide::print_next_steps;
use super::keys::{SigningArguments, SigningKey};
use super::root_file::{RootFile, print_signers};
use super::view::RepositoryArguments;
use crate::branch::Layout;
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::git::{Change, Snapshot};
use crate::model::{BranchFile as _, Role, Root, RootVersion, describe_error};
use crate::trust::{Anchor, AnchorLocation, Signed, TrustedRoot};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show a root: its keys, their roles, and which deployments have to be approved.
    #[command(after_help = "Example:\n  clavel root show /etc/clavel/root.json")]
    Show {
        /// The file with the root.
        #[arg(default_value = "root.json")]
        file: PathBuf,
        /// Print one JSON document: the root without its signatures.
        #[arg(long)]
        json: bool,
    },
    /// Make the root after another one: with other keys, other thresholds, or a later expiry.
    #[command(
        after_help = "Examples:\n  clavel root next root.json -o root-2.json --key root-1.secret\n  clavel root next root.json -o root-2.json --key root-1.secret --remove-key claveld-1 --publisher-key claveld-2.public --raise-epoch"
    )]
    Next {
        /// The file with the root before it.
        before: PathBuf,
        /// The new file to write it to. A file that exists already stays as it is.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        roles: Box<RoleArguments>,
        #[command(flatten)]
        removals: RemovalArguments,
        // The keys that sign the new root at once.
        #[command(flatten)]
        keys: SigningArguments,
    },
    /// Add a signature to a root that was made before.
    #[command(
        after_help = "Examples:\n  clavel root sign root-2.json --key root-1.secret\n  clavel root sign root-2.json --ssh-key ~/.ssh/id_ed25519_sk"
    )]
    Sign {
        /// The file with the root.
        file: PathBuf,
        #[command(flatten)]
        keys: SigningArguments,
    },
    /// Put a root on the branch, where every agent finds it at its next pass.
    #[command(
        after_help = "Example:\n  clavel root publish root-2.json --repository https://git.example.org/fleet.git"
    )]
    Publish {
        /// The file with the root.
        file: PathBuf,
        #[command(flatten)]
        branch: RepositoryArguments,
    },
}

pub(super) async fn run(command: &Command) -> Result<(), Exit> {
    match command {
        Command::Show { file, json } => show(file, *json),
        Command::Next { before, output, roles, removals, keys } => {
            let before = read_trusted(before)?;
            let root = roles.amendment(Some(removals))?.next(&before, roles.expires());
            let mut signed = Signed::unsigned(root.map_err(|error| Exit::new(Code::Configuration, error))?);
            sign(&mut signed, &keys.read()?).await?;
            RootFile::at(output).write_new(&signed)?;
            print_next(&before, output, &signed.render())
        }
        Command::Sign { file, keys } => {
            let place = RootFile::at(file);
            let mut signed = place.read()?;
            sign(&mut signed, &keys.read_some()?).await?;
            place.replace(&signed)?;
            print_signers(&signed.render())?;
            match signed.unverified().version {
                RootVersion::FIRST => print_next_steps(file, &signed.render(), &[], &[]),
                _ => Ok(()),
            }
        }
        Command::Publish { file, branch } => publish(file, branch).await,
    }
}

/// Reads a root that enough of its own keys have signed.
fn read_trusted(path: &Path) -> Result<TrustedRoot, Exit> {
    match Anchor::read(&AnchorLocation::File(path.to_owned()))? {
        Anchor::Root(root) => Ok(*root),
        Anchor::Digest(_) => Err(Exit::new(Code::Configuration, "a digest is no root; give the file with the root")),
    }
}

async fn sign(signed: &mut Signed<Root>, keys: &[SigningKey]) -> Result<(), Exit> {
    for key in keys {
        key.sign(signed).await?;
    }
    Ok(())
}

/// Prints who has signed the next root, and what is still to do.
fn print_next(before: &TrustedRoot, place: &Path, file: &[u8]) -> Result<(), Exit> {
    print_signers(file)?;
    let place = place.display();
    match before.next(file) {
        Ok(root) => output::line(format_args!(
            "Version {} is ready: `clavel root publish {place}` puts it on the branch",
            root.root().version
        )),
        Err(missing) => output::line(format_args!(
            "The root does not count yet: {}\nNext, on each machine that has a root key of this root or of the one \
             before: clavel root sign {place} --key FILE, or --ssh-key FILE",
            describe_error(&missing)
        )),
    }
}

fn show(file: &Path, json: bool) -> Result<(), Exit> {
    let signed = RootFile::at(file).read()?;
    let root = signed.unverified();
    if json {
        return output::json(root);
    }
    output::line(format_args!("root      version {}, epoch {}, until {}", root.version, root.epoch, root.expires))?;
    match TrustedRoot::given(&signed.render()) {
        Ok(root) => output::line(format_args!("fleet     {}", root.fleet()))?,
        Err(why) => output::line(format_args!("not valid {}", describe_error(&why)))?,
    }
    print_signers(&signed.render())?;
    output::line("")?;
    let rows = |name: &str, role: &Role| {
        let of = format!("{} of {}", role.threshold, role.keys.len());
        let row = |key: &crate::model::RoleKey| vec![name.to_owned(), of.clone(), key.to_string()];
        role.keys.iter().map(row).collect::<Vec<_>>()
    };
    let roles = &root.roles;
    let all = [("root", &roles.root), ("publisher", &roles.publisher), ("approver", &roles.approver)];
    output::table(&["role", "takes", "key"], all.into_iter().flat_map(|(name, role)| rows(name, role)))?;
    if !root.approvals.is_empty() {
        output::line("")?;
    }
    let policies = root.approvals.iter().map(|policy| vec![policy.pattern.to_string(), policy.approvals.to_string()]);
    output::table(&["pattern", "approvals"], policies)?;
    if !root.index_ages.is_empty() {
        output::line("")?;
    }
    let ages = root.index_ages.iter().map(|policy| vec![policy.pattern.to_string(), policy.max_age.to_string()]);
    output::table(&["agents", "believe an index for"], ages)
}

async fn publish(file: &Path, branch: &RepositoryArguments) -> Result<(), Exit> {
    let root = read_trusted(file)?;
    let version = root.root().version;
    let decide = |files: Option<&Snapshot>| {
        let newest = files
            .map(|files| files.read(Layout::NEWEST_ROOT, Root::MAX_BYTES))
            .transpose()
            .map_err(|error| Exit::new(Code::Repository, error))?
            .flatten();
        check_follows(newest.as_deref(), &root)?;
        let put = |path: String| Change::Put { path, bytes: root.file().to_vec() };
        let changes = vec![put(Layout::NEWEST_ROOT.to_owned()), put(Layout::root(version))];
        Ok((changes, format!("root: version {version}, epoch {}", root.root().epoch)))
    };
    match branch.commit(decide).await? {
        Some(commit) => output::line(format_args!("{}: root version {version} at {commit}", branch.remote())),
        None => Ok(()),
    }
}

/// Refuses a root that no agent could follow from the newest root on the branch.
fn check_follows(newest: Option<&[u8]>, root: &TrustedRoot) -> Result<(), Exit> {
    let refused = |why: String| {
        Err(Exit::new(Code::Refused, format!("this root does not follow the roots on the branch: {why}")))
    };
    let Some(newest) = newest else {
        return match root.root().version {
            RootVersion::FIRST => Ok(()),
            version => refused(format!(
                "the branch has no root yet, and this is version {version}; publish the versions before it first"
            )),
        };
    };
    let before = TrustedRoot::given(newest).map_err(|error| Exit::new(Code::Refused, error))?;
    if before.file() == root.file() {
        return Ok(());
    }
    before.next(root.file()).map(drop).or_else(|error| refused(describe_error(&error)))
}
