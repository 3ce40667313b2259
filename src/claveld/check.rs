//! Looks at claveld's set-up: what a round needs, before a round needs it. It publishes nothing and records nothing.
//!
//! It calls what a round calls, so that it finds the errors that a round would meet. The programs and folders of the machine
//! belong to `host`, and printing to `cli`.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::isolation::{IsolationState, isolation_state};
use super::key_holder::KeyHolder;
use super::push_on::describe_rewritten;
use super::{round, setup};
use crate::branch::{BranchWriter, Rehearsal, Remote, WriteError, rehearse, rehearse_mirror};
use crate::config::{ClaveldConfig, PublishConfig};
use crate::evaluate::EvalMode;
use crate::git::{PushError, StaticUrl};
use crate::host::{check_folder, within};
use crate::model::{
    CheckFinding, CheckOutcome, PublicKey, RootValidity, Source, SourceRevision, Timestamp, describe_error,
};
use crate::nix::{Nix, SourceAnswer};
use crate::publish::{BranchInspection, PublishError, PublishSettings, check_keys, check_note, inspect};
use crate::signers::Signers;
use crate::trust::{Anchor, KeyLocation, TrustedRoot};

/// How long the cage, strace or a source may take.
const DEADLINE: Duration = Duration::from_mins(2);
/// How long the branch may take, which is fetched with its history where the repository is elsewhere.
const BRANCH_DEADLINE: Duration = Duration::from_mins(5);
/// How far the clock may be behind that of the last publication. A clock is never exact.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// Looks at everything that `config` names.
pub async fn check(config: &ClaveldConfig) -> Vec<CheckFinding> {
    let nix = round::evaluator(&config.evaluate, EvalMode::Changed).nix;
    let mut findings = within("isolation", DEADLINE, async { vec![check_isolation(config).await] }).await;
    findings.extend(within("strace", DEADLINE, async { vec![check_strace(&nix).await] }).await);
    findings.push(check_state(&config.publish));
    let sources = config.sources.iter().map(|source| check_source(&nix, source));
    findings.extend(join_all(sources).await.into_iter().flatten());
    findings.extend(check_publishing(&config.publish).await);
    findings
}

fn check_state(config: &PublishConfig) -> CheckFinding {
    let finding = check_folder("state folder", &config.state_directory);
    if finding.outcome == CheckOutcome::Problem {
        return finding;
    }
    match check_note(&setup::settings(config)) {
        Ok(()) => finding,
        Err(error) => CheckFinding::problem("state folder", describe_error(&error)),
    }
}

async fn check_isolation(config: &ClaveldConfig) -> CheckFinding {
    const SUBJECT: &str = "isolation";
    match isolation_state(&config.evaluate).await {
        state @ IsolationState::Cage => CheckFinding::ok(SUBJECT, state),
        state @ IsolationState::Impossible { .. } => CheckFinding::problem(SUBJECT, state),
        state @ IsolationState::None => CheckFinding::warning(SUBJECT, state)
            .advise("remove `isolation` from [evaluate], unless nobody else can push to a source"),
    }
}

async fn check_strace(nix: &Nix) -> CheckFinding {
    const SUBJECT: &str = "strace";
    match nix.can_watch().await {
        Ok(()) => CheckFinding::ok(SUBJECT, "it can watch which files an evaluation reads"),
        Err(why) => {
            let message = format!("{why}; without it, claveld evaluates hosts that a change does not affect");
            CheckFinding::warning(SUBJECT, message).advise("install strace, and put it on the PATH of the service")
        }
    }
}

async fn check_source(nix: &Nix, source: &Source) -> Vec<CheckFinding> {
    let subject = format!("source {}", source.flake);
    let mut findings = within(&subject, DEADLINE, async {
        vec![match nix.ask_source(&source.flake).await {
            Ok(SourceAnswer::Answers(Some(revision))) => {
                CheckFinding::ok(&subject, format!("its repository answers: {}", SourceRevision::short(&revision)))
            }
            Ok(SourceAnswer::Answers(None)) => CheckFinding::ok(&subject, "its repository answers"),
            Ok(SourceAnswer::NotAsked) => CheckFinding::skipped(&subject, "only an evaluation reads a source of this kind"),
            Err(error) => CheckFinding::problem(&subject, describe_error(&error))
                .advise("correct `flake` of the [[source]], or the [[credentials]] for its URL, and see whether its server is up"),
        }]
    })
    .await;
    findings.extend(source.flake.local_repository().map(|folder| check_hooks(&subject, &folder)));
    findings
}

/// Looks at the hooks of git in a source's repository. None is needed: `claveld run` watches the repository.
fn check_hooks(source: &str, repository: &Path) -> CheckFinding {
    let subject = format!("hooks of {source}");
    let hooks = [repository.join("hooks"), repository.join(".git/hooks")];
    let mut installed = Vec::new();
    for hook in hooks.iter().flat_map(|folder| ["pre-receive", "post-receive"].map(|hook| folder.join(hook))) {
        let calls_claveld = std::fs::read_to_string(&hook).is_ok_and(|text| text.contains("claveld"));
        if !calls_claveld {
            continue;
        }
        let is_executable = std::fs::metadata(&hook).is_ok_and(|about| about.permissions().mode() & 0o111 != 0);
        if !is_executable {
            let shown = hook.display();
            return CheckFinding::problem(subject, format!("{shown} is not executable, so git does not run it"))
                .advise(format!("run `chmod +x {shown}`"));
        }
        installed.extend(hook.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    match &installed[..] {
        [] => CheckFinding::ok(subject, "none calls claveld: only `claveld run` and `claveld once` notice a push"),
        installed => CheckFinding::ok(subject, format!("installed: {}", installed.join(", "))),
    }
}

/// Looks at the keys, the root, and the branch.
async fn check_publishing(config: &PublishConfig) -> Vec<CheckFinding> {
    let (mut findings, keys) = check_signing_keys(config);
    let anchor = Anchor::read(&config.root);
    findings.push(match &anchor {
        Ok(anchor) => CheckFinding::ok("trusted root", format!("of the fleet {}…", anchor.fleet().short())),
        Err(error) => CheckFinding::problem("trusted root", describe_error(error))
            .advise("name in `publish.root` the fleet's root, or its digest; `clavel init` makes a first one"),
    });
    let anchor = anchor.ok();
    let branch = within("repository", BRANCH_DEADLINE, check_branch(config, keys.as_deref(), anchor.as_ref()));
    findings.extend(branch.await);
    findings
}

/// Looks at each key; gives the public halves if all can be read.
fn check_signing_keys(config: &PublishConfig) -> (Vec<CheckFinding>, Option<Vec<PublicKey>>) {
    let mut findings: Vec<_> = config.secret_keys.iter().map(check_signing_key).collect();
    match Signers::read(&config.secret_keys) {
        Ok(signers) => (findings, Some(signers.public())),
        Err(error) => {
            let message = describe_error(&error);
            // The keys may be good one by one, and not together.
            if findings.iter().all(|finding| finding.message != message) {
                findings.push(CheckFinding::problem("signing keys", message));
            }
            (findings, None)
        }
    }
}

fn check_signing_key(location: &KeyLocation) -> CheckFinding {
    let subject = match location {
        KeyLocation::File(path) => format!("signing key {}", path.display()),
        KeyLocation::Credential(name) => format!("signing key {name}"),
        KeyLocation::Signer(socket) | KeyLocation::SshAgent { socket, .. } => {
            format!("signing key at {}", socket.display())
        }
    };
    if let KeyLocation::SshAgent { socket, key } = location {
        return match UnixStream::connect(socket) {
            Ok(_) => {
                CheckFinding::ok(subject, format!("the ssh-agent answers; whether it has `{}` was not asked", key.id()))
            }
            Err(error) => CheckFinding::problem(subject, format!("the ssh-agent does not answer: {error}"))
                .advise("start the ssh-agent, and let the user of the service use its socket"),
        };
    }
    match Signers::read(std::slice::from_ref(location)) {
        Ok(signers) => {
            let holder = KeyHolder::from(location);
            CheckFinding::ok(subject, format!("`{}` can be used; it is {holder}", signers.first()))
        }
        Err(error) => CheckFinding::problem(subject, describe_error(&error)).advise(match location {
            KeyLocation::Signer(_) => "see whether the signer runs: `systemctl status claveld-signer`",
            KeyLocation::File(_) | KeyLocation::Credential(_) | KeyLocation::SshAgent { .. } => {
                "name the key in [publish]; `clavel key generate` makes one, which the next root has to name"
            }
        }),
    }
}

/// Looks at the branch in a copy of its own.
async fn check_branch(
    config: &PublishConfig,
    keys: Option<&[PublicKey]>,
    anchor: Option<&Anchor>,
) -> Vec<CheckFinding> {
    let settings = setup::settings(config);
    let scratch = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            return vec![CheckFinding::problem("temporary folder", error).advise("make space, or set TMPDIR")];
        }
    };
    let copy = scratch.path().join("branch.git");
    let inspection = match inspect(&settings, anchor, &copy).await {
        Ok(inspection) => inspection,
        Err(error) => {
            let unread = |subject| CheckFinding::skipped(subject, "the repository of the branch cannot be read");
            let problem = CheckFinding::problem("repository", describe_error(&error))
                .advise("correct `publish.repository` or the [[credentials]] for it, and see whether its server is up");
            let mut findings = vec![problem, unread("pushing"), unread("root"), unread("role of the keys")];
            let mirrors = config.mirrors.iter().map(|mirror| format!("mirror {mirror}"));
            findings.extend(
                mirrors.map(|mirror| CheckFinding::skipped(mirror, "the repository of the branch cannot be read")),
            );
            return findings;
        }
    };
    let BranchInspection { on, root, issued } = inspection;
    let tip = match on.tip() {
        Some(tip) => format!("the branch `{}` is at {}", config.branch, &tip.to_string()[..10]),
        None => format!("there is no branch `{}` yet, and the first publication makes it", config.branch),
    };
    let mut findings = vec![CheckFinding::ok("repository", format!("{}: {tip}", config.repository))];
    let writer = BranchWriter { remote: &config.repository, branch: &config.branch, copy: &copy };
    findings.push(describe_rehearsal(rehearse(&writer, &on).await));
    let mirrors = config.mirrors.iter().enumerate().map(|(place, mirror)| {
        let folder = scratch.path().join(format!("mirror-{place}.git"));
        let on = &on;
        async move {
            if let Some(folder) = mirror.static_url().and_then(StaticUrl::folder) {
                return check_folder(&format!("mirror {mirror}"), &folder);
            }
            describe_mirror(config, mirror, rehearse_mirror(mirror, &config.branch, on, &folder).await)
        }
    });
    findings.extend(join_all(mirrors).await);
    findings.extend(check_root(&settings, root, keys));
    findings.extend(issued.and_then(|issued| check_clock(issued, SystemTime::now().into())));
    findings
}

fn describe_rehearsal(rehearsed: Result<Rehearsal, WriteError>) -> CheckFinding {
    const SUBJECT: &str = "pushing";
    match rehearsed {
        Ok(Rehearsal::Folders) => CheckFinding::ok(SUBJECT, "this user may write to the folders of the repository"),
        Ok(Rehearsal::DryRun) => CheckFinding::ok(
            SUBJECT,
            "the remote accepts the login of a push (`git push --dry-run`); its hooks and its rules for branches were not tried",
        ),
        Err(error) => CheckFinding::problem(SUBJECT, describe_error(&error))
            .advise("give claveld's user or its [[credentials]] the right to write to the repository"),
    }
}

fn describe_mirror(config: &PublishConfig, mirror: &Remote, rehearsed: Result<(), WriteError>) -> CheckFinding {
    let subject = format!("mirror {mirror}");
    match rehearsed {
        Ok(()) => {
            CheckFinding::ok(subject, "it accepts the login of a push (`git push --dry-run`), and has no other history")
        }
        Err(WriteError::Push(PushError::Diverged { .. })) => CheckFinding::problem(
            subject,
            describe_rewritten(&config.branch, &config.repository),
        )
        .advise(
            "delete the branch of the mirror, once you know whose commits it has, or take it out of `publish.mirrors`",
        ),
        Err(error) => CheckFinding::problem(subject, describe_error(&error))
            .advise("correct `publish.mirrors` or the [[credentials]] for it, and see whether its server is up"),
    }
}

fn check_root(
    settings: &PublishSettings,
    root: Option<Result<TrustedRoot, PublishError>>,
    keys: Option<&[PublicKey]>,
) -> Vec<CheckFinding> {
    let unknown = |why| CheckFinding::skipped("role of the keys", why);
    let root = match root {
        Some(Ok(root)) => root,
        Some(Err(error)) => {
            let problem = CheckFinding::problem("root", describe_error(&error))
                .advise("see what `clavel verify` says about the branch");
            return vec![problem, unknown("the root of the branch is not trusted")];
        }
        None => {
            let skipped =
                CheckFinding::skipped("root", "without a trusted root, nothing on the branch can be verified");
            return vec![skipped, unknown("the root of the branch is not trusted")];
        }
    };
    let finding = CheckFinding::about_root(RootValidity::of(root.root()), SystemTime::now().into());
    let role = match keys.map(|keys| check_keys(settings, keys, &root)) {
        Some(Ok(())) => {
            CheckFinding::ok("role of the keys", "agents believe what they sign: they are publishers of the root")
        }
        Some(Err(error)) => CheckFinding::problem("role of the keys", describe_error(&error))
            .advise("sign with a publisher's key, or make a root that names this one: `clavel root next`"),
        None => unknown("not every signing key can be read"),
    };
    vec![finding, role]
}

/// The finding about a clock that is behind the last publication; none where nothing is wrong with it.
fn check_clock(issued: Timestamp, now: Timestamp) -> Option<CheckFinding> {
    (issued > now.plus(CLOCK_TOLERANCE)).then(|| {
        let message = format!("this machine's clock says {now}, and the index on the branch was signed at {issued}");
        CheckFinding::warning("clock", message).advise("set the clock, or see whose clock was ahead")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_is_far_behind_the_branch_is_told() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let trouble = |issued: &str| check_clock(at(issued), at("2026-01-01T12:00:00Z"));
        assert_eq!(trouble("2026-01-01T11:00:00Z"), None);
        assert_eq!(trouble("2026-01-01T12:04:59Z"), None);
        assert!(trouble("2026-01-01T12:05:01Z").unwrap().message.contains("2026-01-01T12:05:01Z"));
    }
}
