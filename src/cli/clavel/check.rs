//! `clavel check`: looks at what an operator's commands need, and prints what is wrong with it.

use std::time::SystemTime;

use super::keys::{SigningArguments, SigningKey};
use super::view::{BranchArguments, View};
use crate::branch::{Branch, RootChain};
use crate::cli::check::CheckOutput;
use crate::cli::exit::Exit;
use crate::git::Depth;
use crate::host::{check_git, check_ssh};
use crate::model::{CheckFinding, Role, RoleKey, Root, RootValidity, Timestamp, describe_error};
use crate::trust::{Anchor, TrustedRoot};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    branch: BranchArguments,
    #[command(flatten)]
    keys: SigningArguments,
    #[command(flatten)]
    output: CheckOutput,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let Arguments { branch, keys, output } = arguments;
    let mut findings = vec![check_git().await];
    if branch.place().remote().is_ssh() {
        findings.push(check_ssh().await);
    }
    let (finding, anchor) = check_anchor(branch);
    findings.push(finding);
    let view = branch.open(Depth::Tip).await;
    let repository = branch.place().remote().to_string();
    findings.push(match &view {
        Ok(view) => {
            let tip = view.snapshot.commit().to_string();
            CheckFinding::ok("repository", format!("{repository}: the branch `{}` is at {}", view.name(), &tip[..10]))
        }
        Err(exit) => CheckFinding::problem("repository", exit.message())
            .advise("name it with --repository or CLAVEL_REPOSITORY, and its credentials with --credentials"),
    });
    let newest = match (&view, &anchor) {
        (Ok(view), Some(anchor)) => {
            let (branch, newest) = check_branch(view, anchor);
            findings.extend(branch);
            newest
        }
        (Err(_), Some(_)) => {
            findings.push(CheckFinding::skipped("branch", "its repository cannot be read"));
            None
        }
        (_, None) => {
            findings.push(CheckFinding::skipped("branch", "without a root, nothing can be verified"));
            None
        }
    };
    // Where the branch cannot be read, the root that was given says which keys it knows.
    let given = anchor.and_then(|anchor| match anchor {
        Anchor::Root(root) => Some(*root),
        Anchor::Digest(_) => None,
    });
    let root = newest.or(given);
    let keys = keys.read_each().into_iter();
    findings.extend(keys.map(|(name, key)| check_key(&name, key, root.as_ref().map(TrustedRoot::root))));
    output.print(findings)
}

fn check_anchor(branch: &BranchArguments) -> (CheckFinding, Option<Anchor>) {
    const SUBJECT: &str = "trusted root";
    const ADVICE: &str = "name the fleet's root, or its digest, with --root or CLAVEL_ROOT";
    match branch.anchor() {
        Ok(Some(anchor)) => {
            (CheckFinding::ok(SUBJECT, format!("of the fleet {}…", anchor.fleet().short())), Some(anchor))
        }
        Ok(None) => {
            (CheckFinding::warning(SUBJECT, "none is given, so these commands can verify nothing").advise(ADVICE), None)
        }
        Err(error) => (CheckFinding::problem(SUBJECT, describe_error(&error)).advise(ADVICE), None),
    }
}

/// Verifies the roots and the index of the branch. `clavel verify` verifies all the rest.
fn check_branch(view: &View, anchor: &Anchor) -> (Vec<CheckFinding>, Option<TrustedRoot>) {
    let newest = match RootChain::from_anchor(&view.snapshot, anchor) {
        Ok(roots) => roots.newest,
        Err(error) => {
            let problem = CheckFinding::problem("root", describe_error(&error))
                .advise("see that --root and --repository are of the same fleet");
            return (vec![problem, CheckFinding::skipped("branch", "its root is not trusted")], None);
        }
    };
    let now = Timestamp::from(SystemTime::now());
    let root = CheckFinding::about_root(RootValidity::of(newest.root()), now);
    let index = match Branch::new(&view.snapshot, &newest, view.name()).index() {
        Ok(index) if now >= index.index().expires => {
            CheckFinding::problem("branch", format!("the index expired at {}", index.index().expires))
                .advise("see whether claveld runs: `claveld check`")
        }
        Ok(index) => {
            let (version, expires) = (index.index().version, index.index().expires);
            CheckFinding::ok("branch", format!("index version {version}, until {expires}"))
        }
        Err(error) => CheckFinding::problem("branch", describe_error(&error)).advise("see what `clavel verify` says"),
    };
    (vec![root, index], Some(newest))
}

/// Says which roles a root gives to a key.
fn check_key(name: &str, key: Result<SigningKey, Exit>, root: Option<&Root>) -> CheckFinding {
    let subject = format!("key {name}");
    let public = match key {
        Ok(key) => key.public(),
        Err(exit) => {
            return CheckFinding::problem(subject, exit.message()).advise("name a key that this user can read");
        }
    };
    let Some(root) = root else {
        return CheckFinding::skipped(
            subject,
            format!("`{}` can be read; its roles are not known without a root", public.id()),
        );
    };
    match &roles_of(&public, root)[..] {
        [] => CheckFinding::problem(
            subject,
            format!("`{}` has no role in the root's version {}", public.id(), root.version),
        )
        .advise("name another key, or make a root that names this one: `clavel root next`"),
        roles => CheckFinding::ok(subject, format!("`{}` is a key of these roles: {}", public.id(), roles.join(", "))),
    }
}

fn roles_of(key: &RoleKey, root: &Root) -> Vec<&'static str> {
    let roles = [("root", &root.roles.root), ("publisher", &root.roles.publisher), ("approver", &root.roles.approver)];
    let has = |role: &Role| role.keys.iter().any(|known| known.bytes() == key.bytes());
    roles.into_iter().filter(|(_, role)| has(role)).map(|(name, _)| name).collect()
}
