//! The folders of a service: whether this user can write to them, and how much space they have. Nothing is written to find out.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::Access;

use crate::model::CheckFinding;

/// The free space below which a folder is warned about, in bytes: 1 GiB.
const LITTLE_SPACE: u64 = 1 << 30;

/// Checks that this user can write to the folder at `path`, or can make it, and that it has space.
pub fn check_folder(subject: &str, path: &Path) -> CheckFinding {
    let own = rustix::process::geteuid().as_raw();
    match fs::metadata(path) {
        Ok(about) => check_existing(subject, path, &about, own),
        Err(error) if error.kind() == ErrorKind::NotFound => check_to_be_made(subject, path),
        Err(error) => CheckFinding::problem(subject, format!("cannot look at {}: {error}", path.display()))
            .advise("let the user of the service reach the folder"),
    }
}

fn check_existing(subject: &str, path: &Path, about: &Metadata, own: u32) -> CheckFinding {
    let shown = path.display();
    if !about.is_dir() {
        let advice = "move it away, or name another folder in the configuration";
        return CheckFinding::problem(subject, format!("{shown} is not a folder")).advise(advice);
    }
    if !is_writable(path) {
        return CheckFinding::problem(subject, format!("the user {own} cannot read and write {shown}")).advise(
            format!("run the service as its owner, the user {}, or run `chown -R {own} {shown}`", about.uid()),
        );
    }
    if about.uid() != own {
        let owner = about.uid();
        let message = format!("{shown} belongs to the user {owner}, and this check runs as the user {own}");
        return CheckFinding::warning(subject, message)
            .advise("run the check as the user that the service runs as: only then does it see what the service sees");
    }
    match free_space(path) {
        Some(free) if free < LITTLE_SPACE => {
            CheckFinding::warning(subject, format!("{shown} has only {} of free space", bytesize::ByteSize(free)))
                .advise("make space on its disk")
        }
        Some(free) => CheckFinding::ok(subject, format!("{shown}, with {} of free space", bytesize::ByteSize(free))),
        None => CheckFinding::ok(subject, shown),
    }
}

/// A folder that is not there yet is made at the first use, if the nearest folder above it can be written to.
fn check_to_be_made(subject: &str, path: &Path) -> CheckFinding {
    let shown = path.display();
    match path.ancestors().skip(1).find(|above| above.exists()) {
        Some(above) if above.is_dir() && is_writable(above) => {
            CheckFinding::ok(subject, format!("{shown} does not exist yet, and is made at the first use"))
        }
        above => {
            let above = above.unwrap_or(Path::new("/")).display();
            CheckFinding::problem(subject, format!("{shown} does not exist, and this user cannot make it in {above}"))
                .advise(format!("make {shown}, owned by the user of the service"))
        }
    }
}

fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// How many bytes are free for this user on the disk of a folder; `None` where the disk does not say.
pub fn free_space(folder: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(folder).ok().filter(|about| about.f_blocks > 0)?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CheckOutcome;

    #[test]
    fn a_folder_has_to_be_one_or_to_be_possible() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let outcome = |path: &Path| check_folder("state", path).outcome;
        assert_ne!(outcome(folder.path()), CheckOutcome::Problem);
        assert_eq!(outcome(&folder.path().join("a/b")), CheckOutcome::Ok);
        assert!(!folder.path().join("a").exists());
        assert_eq!(outcome(&file), CheckOutcome::Problem);
        assert_eq!(outcome(&file.join("below")), CheckOutcome::Problem);
    }
}
