//! The programs that Clavel runs: whether they are on the PATH, and which version they are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;

use crate::model::{CheckFinding, describe_error};
use crate::nix::check_daemon;
use crate::process::{Invocation, TraceDetail};

/// How long a program may take to say its version, and the Nix store to answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// The oldest Nix that Clavel works with.
const OLDEST_NIX: (u32, u32) = (2, 8);

/// Checks Nix, and whether this user can use its store.
pub async fn check_nix() -> Vec<CheckFinding> {
    let nix = match version_of("nix").await {
        Ok(text) => judge_nix(&text),
        Err(finding) => {
            let skipped = CheckFinding::skipped("nix store", "it is not asked without `nix`");
            return vec![finding.advise("install Nix 2.8 or newer, and put it on the PATH of the service"), skipped];
        }
    };
    vec![nix, check_store().await]
}

/// Checks git.
pub async fn check_git() -> CheckFinding {
    match version_of("git").await {
        Ok(text) => CheckFinding::ok("git", text.trim_start_matches("git version ")),
        Err(finding) => finding.advise("install git, and put it on the PATH of the service"),
    }
}

/// Checks the ssh client.
pub async fn check_ssh() -> CheckFinding {
    match Invocation::new("ssh").arg("-V").within(DEADLINE).run().await {
        // OpenSSH says its version on standard error.
        Ok(output) => CheckFinding::ok("ssh", output.stderr.trim()),
        Err(error) => CheckFinding::problem("ssh", describe_error(&error))
            .advise("install the ssh client, which the repository's URL needs"),
    }
}

/// The file of a program that this user can run: `program` is its absolute path, or a name to look up on the PATH. The error says why
/// there is none.
pub fn find_executable(program: &str) -> Result<PathBuf, String> {
    if program.contains('/') {
        return executable(Path::new(program)).map_err(|why| format!("{program} {why}"));
    }
    // As the system looks where there is no PATH.
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let found = std::env::split_paths(&path).find_map(|folder| executable(&folder.join(program)).ok());
    found.ok_or_else(|| format!("`{program}` is in no folder of the PATH, which is {}", path.display()))
}

fn executable(file: &Path) -> Result<PathBuf, String> {
    match std::fs::metadata(file) {
        Err(error) => Err(format!("cannot be used: {error}")),
        Ok(about) if !about.is_file() => Err("is not a file".to_owned()),
        Ok(_) if rustix::fs::access(file, Access::EXEC_OK).is_err() => {
            Err(format!("is not executable for the user {}", rustix::process::geteuid().as_raw()))
        }
        Ok(_) => Ok(file.to_owned()),
    }
}

async fn version_of(program: &str) -> Result<String, CheckFinding> {
    let output = Invocation::new(program).arg("--version").within(DEADLINE).run().await;
    let output = output.map_err(|error| CheckFinding::problem(program, describe_error(&error)))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

fn judge_nix(text: &str) -> CheckFinding {
    match version_in(text) {
        Some(version) if version >= OLDEST_NIX => CheckFinding::ok("nix", text),
        Some(_) => CheckFinding::problem("nix", format!("{text} is too old")).advise("install Nix 2.8 or newer"),
        None => CheckFinding::warning("nix", format!("the version is not known: `{text}`"))
            .advise("see that it is Nix 2.8 or newer"),
    }
}

/// The version at the end of what `nix --version` prints.
fn version_in(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split_whitespace().last()?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Asks Nix for its store: its daemon, or the store itself.
async fn check_store() -> CheckFinding {
    const SUBJECT: &str = "nix store";
    if let Err(forbidden) = check_daemon() {
        return CheckFinding::problem(SUBJECT, forbidden);
    }
    match Invocation::nix(&["store", "ping"], DEADLINE).run().await {
        Ok(_) => CheckFinding::ok(SUBJECT, "it answers"),
        Err(error) => {
            let message = format!("it does not answer: {}", error.nix_message(TraceDetail::Short));
            CheckFinding::problem(SUBJECT, message)
                .advise("see whether the Nix daemon runs: `systemctl status nix-daemon`")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_is_an_executable_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("notify");
        let find = |path: &Path| find_executable(path.to_str().unwrap());
        assert!(find(&file).unwrap_err().ends_with("cannot be used: No such file or directory (os error 2)"));
        std::fs::write(&file, "").unwrap();
        assert!(find(&file).unwrap_err().contains("is not executable for the user"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(&file).unwrap(), file);
        assert!(find(folder.path()).unwrap_err().ends_with("is not a file"));
        assert!(find_executable("sh").unwrap().ends_with("sh"));
        assert!(find_executable("no-such-program").unwrap_err().contains("is in no folder of the PATH, which is /"));
    }
    use crate::model::CheckOutcome;

    #[test]
    fn nix_has_to_be_as_new_as_2_8() {
        for (text, expected) in [
            ("nix (Nix) 2.8.1", CheckOutcome::Ok),
            ("nix (Nix) 2.34.0pre20260101_abc", CheckOutcome::Ok),
            ("nix (Lix, like Nix) 2.91.1", CheckOutcome::Ok),
            ("nix (Nix) 3.0", CheckOutcome::Ok),
            ("nix (Nix) 2.7.0", CheckOutcome::Problem),
            ("nix (Nix) 1.11", CheckOutcome::Problem),
            ("something else", CheckOutcome::Warning),
            ("", CheckOutcome::Warning),
        ] {
            assert_eq!(judge_nix(text).outcome, expected, "{text}");
        }
    }
}
