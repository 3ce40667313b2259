//! `clavel approve`: shows what a revision changes, asks, and signs an approval of it.

use std::error::Error;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::diff::Difference;
use super::keys::{SigningArguments, SigningKey};
use super::view::{BranchArguments, View};
use crate::branch::{Branch, BranchError, Layout, RootChain, search_files};
use crate::changes::list_facts;
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::git::{Change, Depth, Snapshot};
use crate::model::{Approval, Deployment, DeploymentSpecification, KeyId, Name, Revision, Timestamp, how_to_renew};
use crate::trust::{Approvals, EarlierApproval, Signed, TrustedRoot, Verified};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The deployment's name.
    name: Name,
    #[command(flatten)]
    branch: BranchArguments,
    #[command(flatten)]
    keys: SigningArguments,
    /// Approve without asking.
    #[arg(short, long)]
    yes: bool,
    /// Write the approval to this new file, for a pull request, and not to the branch. A file that exists already stays as it
    /// is.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(arguments: &Arguments, verbosity: u8) -> Result<(), Exit> {
    let Arguments { name, branch: place, keys, output, .. } = arguments;
    let keys: [SigningKey; 1] = keys
        .read_some()?
        .try_into()
        .map_err(|_| wrong("cannot approve with several keys at once: give one --key or --ssh-key"))?;
    let view = place.view(Depth::Full).await?;
    let (branch, root) = view.verified()?;
    let mut index = branch.whole_index()?;
    check_fresh(root, index.index().expires)?;
    let deployment = branch.document::<DeploymentSpecification>(&mut index, name)?;
    let takers = branch.agents_by_deployment(&mut index);
    let asked = branch
        .approvals(&index, &deployment, takers.of(name))
        .map_err(BranchError::from)?
        .ok_or_else(|| unasked(&deployment))?;
    let [key] = keys;
    let approver = find_approver(root, &key)?;
    if asked.is_approved_by(&approver) {
        return output::line(format_args!("{name}: {approver} has approved revision {} already", deployment.revision));
    }
    print_unapproved(&view, &deployment, &asked, &approver, verbosity)?;
    output::line(format_args!("{name}: {asked}"))?;
    confirm(arguments, deployment.revision, &approver)?;
    let approval = Approval::of(&deployment, deployment.content_digest(), root.root().epoch);
    let mut signed = Signed::unsigned(approval);
    key.named(approver.clone()).sign(&mut signed).await?;
    match output {
        Some(file) => write(file, &signed, &index.layout().approval(name, &approver)),
        None => commit(arguments, root, &deployment, &signed, &approver).await,
    }
}

fn wrong<'a>(error: impl Into<Box<dyn Error + 'a>>) -> Exit {
    Exit::new(Code::Configuration, error)
}

fn unasked(deployment: &Deployment) -> Exit {
    let (name, unit) = (&deployment.name, &deployment.specification.unit);
    wrong(format!(
        "the root asks for no approvals of `{name}`, of its unit `{unit}` or of an agent that takes it; `clavel root show FILE` \
         lists the patterns that it asks for"
    ))
}

/// Refuses an expired root or index. The branch may then be an old one, and its newest revision an old one too.
fn check_fresh(root: &TrustedRoot, expires: Timestamp) -> Result<(), Exit> {
    let now = Timestamp::from(SystemTime::now());
    let stale = |what: &str, since, remedy: &str| {
        let message = format!("cannot approve: the {what} expired at {since}, so this may be an old branch; {remedy}");
        Exit::new(Code::Refused, message)
    };
    if root.is_expired(now) {
        return Err(stale("root", root.root().expires, &how_to_renew(root.root().version)));
    }
    if now >= expires { Err(stale("index", expires, "claveld has to sign the index anew first")) } else { Ok(()) }
}

/// Finds the name that the root has for the key.
fn find_approver(root: &TrustedRoot, key: &SigningKey) -> Result<KeyId, Exit> {
    let public = key.public();
    let approvers = &root.root().roles.approver.keys;
    let known = approvers.iter().find(|known| known.bytes() == public.bytes());
    known.map(|known| known.id().clone()).ok_or_else(|| {
        let names: Vec<String> = approvers.iter().map(|key| key.id().to_string()).collect();
        wrong(format!("the key `{}` is no approver's; the approvers are: {}", public.id(), names.join(", ")))
    })
}

/// Prints what `approver` has not approved yet: the diff since the revision that they approved last, or the whole revision where
/// there is none to compare with. Revisions that only others approved do not count here, because `approver` may never have
/// seen them. Where such a revision may run, the diff from that revision is printed as well.
fn print_unapproved(
    view: &View,
    new: &Deployment,
    asked: &Approvals,
    approver: &KeyId,
    verbosity: u8,
) -> Result<(), Exit> {
    let tip = view.snapshot.commit();
    let find = |approved: EarlierApproval| -> Result<_, Exit> {
        search_files(&view.repository, tip, &new.name, |_, file| Ok(approved.deployment_in(file)))
    };
    let last = asked.last_approval_of(approver);
    match last {
        None => print_all(new, format_args!("{approver} has approved no revision before it"))?,
        Some(last) => {
            if let Some(old) = find(last)? {
                return Difference::between(&old, new).print(verbosity);
            }
            let revision = last.revision();
            print_all(
                new,
                format_args!("revision {revision}, which {approver} approved, is not on the branch any more"),
            )?;
        }
    }
    let Some(running) = asked.last_sufficient().map(find).transpose()?.flatten() else { return Ok(()) };
    output::line(format_args!(
        "{}: enough have approved revision {}, so it may run; since then:",
        new.name, running.revision
    ))?;
    Difference::between(&running, new).print(verbosity)
}

/// Prints all fields of a revision.
fn print_all(new: &Deployment, why: impl Display) -> Result<(), Exit> {
    output::line(format_args!("{}: revision {} in full: {why}", new.name, new.revision))?;
    list_facts(&new.specification)
        .iter()
        .try_for_each(|(field, value)| output::line(format_args!("  {field}: {value}")))?;
    new.metadata.iter().try_for_each(|(key, value)| output::line(format_args!("  {key}: {value}")))
}

fn confirm(arguments: &Arguments, revision: Revision, approver: &KeyId) -> Result<(), Exit> {
    if arguments.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(wrong(
            "cannot ask for confirmation, because standard input is no terminal; --yes approves without asking",
        ));
    }
    // Where the question cannot be printed, the answer is read all the same: nothing but a yes approves.
    let _ = write!(anstream::stderr(), "Approve revision {revision} of {} as {approver}? [y/N] ", arguments.name);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Exit::machine)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(wrong("not approved")),
    }
}

fn write(file: &Path, signed: &Signed<Approval>, path: &str) -> Result<(), Exit> {
    let written = std::fs::File::create_new(file).and_then(|mut file| file.write_all(&signed.render()));
    written.map_err(|error| Exit::machine(format!("cannot write the approval {}: {error}", file.display())))?;
    output::line(format_args!("{}: put it on the branch as {path}", file.display()))
}

async fn commit(
    arguments: &Arguments,
    root: &TrustedRoot,
    deployment: &Verified<Deployment>,
    signed: &Signed<Approval>,
    by: &KeyId,
) -> Result<(), Exit> {
    let place = arguments.branch.place();
    let (name, revision) = (&deployment.name, deployment.revision);
    let decide = |files: Option<&Snapshot>| {
        let gone =
            || Exit::new(Code::Repository, format!("{} has no branch `{}` any more", place.remote(), place.name()));
        let layout = check_unchanged(files.ok_or_else(gone)?, arguments, root, deployment)?;
        let approval = Change::Put { path: layout.approval(name, by), bytes: signed.render() };
        Ok((vec![approval], format!("approval: {name} revision {revision}, by {by}")))
    };
    match place.commit(decide).await? {
        Some(commit) => output::line(format_args!("{name}: {by} approved revision {revision}, at {commit}")),
        None => Ok(()),
    }
}

/// Checks that the branch still has the revision that was shown. Returns the branch's layout.
fn check_unchanged(
    snapshot: &Snapshot,
    arguments: &Arguments,
    root: &TrustedRoot,
    deployment: &Verified<Deployment>,
) -> Result<Layout, Exit> {
    let newest = RootChain::walk(snapshot, root)?.newest;
    let branch = Branch::new(snapshot, &newest, arguments.branch.place().name());
    let mut index = branch.index()?;
    let now = branch.document::<DeploymentSpecification>(&mut index, &deployment.name)?;
    if now.content_digest() == deployment.content_digest() && newest.root().epoch == root.root().epoch {
        return Ok(index.layout());
    }
    let message = format!(
        "cannot approve: {} is at revision {} by now; run `clavel approve` again to see and approve it",
        deployment.name, now.revision
    );
    Err(Exit::new(Code::Refused, message))
}
