//! `clavel bundle`: a branch in one file. `create` makes it, `inspect` shows what is in it, and `verify` verifies it.

use std::collections::BTreeSet;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use bytesize::ByteSize;
use serde::Serialize;

use super::closures::{self, CarriedClosures, Readers, not_written};
use super::machines::{self, Machines, SeenArgument, StatusArguments};
use super::verify;
use super::view::{BundleArguments, RepositoryArguments, bundle};
use crate::branch::RootChain;
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::disk;
use crate::git::{BundleFiles, BundleHeader, CommitId, Depth};
use crate::model::{BranchName, FleetId, IndexVersion, Name, Timestamp, describe_error};
use crate::trust::{Anchor, AnchorLocation};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write a branch to a git bundle: one file, which a stick carries to machines without a network.
    ///
    /// Without --since, the bundle has the whole history of the branch, as `git clone` needs it. With --since, it has what is new, and
    /// a machine can read it that has read the earlier bundle. The file appears once it is complete.
    ///
    /// With --closures, the file also has the store paths that the deployments name, with all that these need, for machines that reach
    /// no cache. It is a tar file; extracted, it is a binary cache. A run that was ended is resumed by the same command.
    #[command(
        after_help = "Examples:\n  clavel bundle create /media/usb/clavel.bundle --repository /srv/git/fleet.git\n  clavel bundle create /media/usb/clavel-2.bundle --since clavel-1.bundle\n  clavel bundle create /media/usb/clavel.bundle --root root.json --closures web-1 web-2 --for /media/usb\n  clavel bundle create /media/usb/clavel.bundle --root root.json --closures web-1 web-2"
    )]
    Create(Box<CreateArguments>),
    /// Show what a bundle has, without verifying it.
    ///
    /// Where it builds on others, its content can be read only with those before it; without them, its beginning is shown.
    #[command(
        after_help = "Examples:\n  clavel bundle inspect /media/usb/clavel.bundle\n  clavel bundle inspect clavel-1.bundle clavel-2.bundle --json"
    )]
    Inspect(InspectArguments),
    /// Show the statuses that agents left beside the bundles on a stick.
    ///
    /// A status says what its machine runs, by its own word. A problem is told per machine: a signature that is not valid, another key
    /// than the first, another fleet, or a status that is older than one that was seen.
    #[command(after_help = "Example:\n  clavel bundle status /media/usb --root root.json")]
    Status(StatusArguments),
    /// Verify everything in a bundle, as an agent would.
    #[command(after_help = "Example:\n  clavel bundle verify /media/usb/clavel.bundle --root root.json")]
    Verify(VerifyArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArguments {
    /// The bundle to write. Its name ends in .bundle.
    #[arg(value_name = "FILE", value_parser = bundle)]
    file: BundleFiles,
    #[command(flatten)]
    place: RepositoryArguments,
    /// The commit that the readers have already, or the earlier bundle that they have read.
    #[arg(long, value_name = "COMMIT|FILE")]
    since: Option<Since>,
    /// Write only what the machines lack whose statuses are on this stick: the folder of the bundles there. Without --closures, it is for
    /// the agents that left a status; with it, for those that ask for the deployments. A machine without a status needs everything.
    #[arg(long = "for", value_name = "STICK", conflicts_with = "since", requires = "root")]
    stick: Option<PathBuf>,
    #[command(flatten)]
    seen: SeenArgument,
    /// Add the closures of these deployments; without names, of all deployments.
    #[arg(long, value_name = "NAME", num_args = 0.., requires = "root")]
    closures: Option<Vec<Name>>,
    /// The root that verifies the branch, before anything is fetched for --closures: a file with any root of the fleet, or the digest of
    /// its first root.
    #[arg(long, value_name = "FILE|DIGEST", env = "CLAVEL_ROOT")]
    root: Option<AnchorLocation>,
    /// The store to fetch the closures to: a folder that has, or gets, a nix/store below it. Without it, the machine's own store.
    #[arg(long, value_name = "FOLDER", requires = "closures")]
    store: Option<PathBuf>,
}

/// What the readers of a new bundle have already.
#[derive(Debug, Clone)]
enum Since {
    Commit(CommitId),
    Bundle(BundleFiles),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(commit) => Ok(Self::Commit(commit)),
            Err(_) => bundle(text).map(Self::Bundle).map_err(|error| format!("neither a commit nor a bundle: {error}")),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct InspectArguments {
    #[command(flatten)]
    bundles: BundleArguments,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    bundles: BundleArguments,
    /// The root that verifies it: a file with any root of the fleet, or the digest of its first root.
    #[arg(long, value_name = "FILE|DIGEST", env = "CLAVEL_ROOT")]
    root: AnchorLocation,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// The document that `clavel bundle inspect --json` prints. Nothing of it is verified.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct InspectOutput {
    file: String,
    /// Its size in bytes.
    size: u64,
    branch: BranchName,
    #[schemars(with = "String")]
    commit: CommitId,
    /// The commits that a reader has to have; none in a complete bundle.
    #[schemars(with = "Vec<String>")]
    prerequisites: Vec<CommitId>,
    /// What its index says; none where it builds on bundles that were not named.
    content: Option<BundleContent>,
    /// The closures in it; none in a git bundle alone.
    closures: Option<CarriedClosures>,
}

/// What the index in a bundle says.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct BundleContent {
    fleet: FleetId,
    index_version: IndexVersion,
    issued: Timestamp,
    expires: Timestamp,
    deployments: usize,
    /// The keys that signed the index.
    publishers: Vec<String>,
}

pub(super) async fn run(command: &Command) -> Result<(), Exit> {
    match command {
        Command::Create(arguments) => create(arguments).await,
        Command::Inspect(arguments) => inspect(arguments).await,
        Command::Status(arguments) => machines::print_status(arguments),
        Command::Verify(VerifyArguments { bundles, root, json }) => {
            let anchor = Anchor::read(root)?;
            let carried = closures::open(&bundles.last()?)?;
            verify::print(&bundles.view(Some(&anchor)).await?, carried.as_ref(), *json)
        }
    }
}

async fn create(arguments: &CreateArguments) -> Result<(), Exit> {
    let CreateArguments { file, place, since, stick, seen, closures, root, store } = arguments;
    let path =
        file.exact().ok_or_else(|| Exit::new(Code::Configuration, format!("{file} is a pattern; name one file")))?;
    let mut known = BTreeSet::new();
    let since = match since {
        Some(Since::Commit(commit)) => Some(*commit),
        Some(Since::Bundle(earlier)) => {
            if closures.is_some()
                && let Some(earlier) = closures::open(earlier)?
            {
                known = earlier.manifest().known_afterwards();
            }
            Some(header(earlier, place.name())?.1)
        }
        None => None,
    };
    let mut view = place.open(Depth::Full).await?;
    let anchor = root.as_ref().map(Anchor::read).transpose()?.filter(|_| closures.is_some() || stick.is_some());
    view.roots = anchor.as_ref().map(|anchor| RootChain::from_anchor(&view.snapshot, anchor)).transpose()?;
    let machines = match (stick, &anchor) {
        (Some(stick), Some(anchor)) => Some(Machines::for_bundle(stick, anchor.fleet(), seen)?),
        _ => None,
    };
    if let Some(names) = closures {
        let readers = match machines {
            Some(machines) => Readers::Machines(machines),
            None => Readers::Have { paths: known, since },
        };
        let request = closures::Request { file, names, store: store.clone(), readers };
        return closures::create(&view, request).await;
    }
    let since = match machines {
        Some(machines) => machines.prerequisite(&view, &machines.names())?,
        None => since,
    };
    let tip = view.snapshot.commit();
    let write =
        |file: &mut std::fs::File| view.repository.write_bundle(place.name(), tip, since, &mut BufWriter::new(file));
    disk::create_whole(path, write).map_err(|error| not_written(file, &error))?;
    let size = ByteSize(size_of(path)?);
    let kind = since.map_or_else(|| "complete".to_owned(), |since| format!("for readers that have commit {since}"));
    output::line(format_args!("{file}: branch {} at commit {tip}, {kind}, {size}", place.name()))
}

async fn inspect(InspectArguments { bundles, json }: &InspectArguments) -> Result<(), Exit> {
    let file = bundles.last()?;
    let (header, commit) = header(&file, bundles.name())?;
    let is_readable = header.prerequisites.is_empty() || bundles.has_earlier();
    let content = if is_readable {
        let view = bundles.view(None).await?;
        let index = view.unverified_index()?;
        let deployments = index.deployments().len();
        let publishers = view.unverified_publishers()?;
        let index = index.index();
        Some(BundleContent {
            fleet: index.fleet,
            index_version: index.version,
            issued: index.issued,
            expires: index.expires,
            deployments,
            publishers,
        })
    } else {
        None
    };
    let size = size_of(file.exact().unwrap_or(Path::new("")))?;
    let shown = InspectOutput {
        file: file.to_string(),
        size,
        branch: bundles.name().clone(),
        commit,
        prerequisites: header.prerequisites,
        content,
        closures: closures::open(&file)?.as_ref().map(CarriedClosures::of),
    };
    if *json { output::json(&shown) } else { print(&shown) }
}

fn print(shown: &InspectOutput) -> Result<(), Exit> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let builds_on = shown.prerequisites.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut rows = vec![
        row("file", shown.file.clone()),
        row("size", ByteSize(shown.size).to_string()),
        row("branch", shown.branch.to_string()),
        row("commit", shown.commit.to_string()),
        row("builds on", if builds_on.is_empty() { "nothing: it is complete".to_owned() } else { builds_on }),
    ];
    match &shown.content {
        Some(content) => {
            let now = Timestamp::from(SystemTime::now());
            let expired = if now >= content.expires { " (expired)" } else { "" };
            rows.extend([
                row("fleet", content.fleet.to_string()),
                row("index", format!("version {}", content.index_version)),
                row("signed", content.issued.to_string()),
                row("good until", format!("{}{expired}", content.expires)),
                row("deployments", content.deployments.to_string()),
                row("publishers", content.publishers.join(", ")),
            ]);
        }
        None => output::remark("to see its content, name the bundles that it builds on before it"),
    }
    let carried = shown.closures.iter().flat_map(CarriedClosures::rows);
    rows.extend(carried.map(|(name, value)| row(name, value)));
    output::remark("not verified, so this may be forged; `clavel bundle verify` verifies it");
    output::table(&["bundle", ""], rows)
}

/// The header of a bundle, and the commit of the branch in it.
fn header(file: &BundleFiles, branch: &BranchName) -> Result<(BundleHeader, CommitId), Exit> {
    let failed = |why: &dyn std::error::Error| {
        Exit::new(Code::Repository, format!("cannot read the bundle {file}: {}", describe_error(why)))
    };
    let header = BundleHeader::of_file(file).map_err(|error| failed(&error))?;
    let tip = header.tip(branch).ok_or_else(|| {
        let others = header.branches().join(", ");
        let why = format!("{file} has no branch `{branch}`; it has: {others}; name one with --branch");
        Exit::new(Code::Repository, why)
    })?;
    Ok((header, tip))
}

fn size_of(path: &Path) -> Result<u64, Exit> {
    Ok(std::fs::metadata(path).map_err(|error| Exit::machine(&error))?.len())
}
