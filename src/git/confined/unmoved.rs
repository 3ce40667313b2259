//! A branch of a repository on this machine that is where the last fetch found it. The file of its ref says so, and no process is
//! started to ask git.
//!
//! A ref that git has packed, or keeps in another form, has no such file (gitrepository-layout(5)); then git is asked.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::git::address::{CommitId, RefName};
use crate::git::medium::on_medium;
use crate::git::remote::Remote;
use crate::model::BranchName;

/// The most bytes of the file of a ref: an id of SHA-256, and the end of the line.
const MAX_BYTES: u64 = 65;

/// What the files of the refs say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RefFiles {
    /// Both refs are at this commit.
    Level(CommitId),
    /// git has to be asked.
    AskGit,
    /// The disk did not answer in time.
    Silent,
}

/// Compares the branch of `remote`, where that is a repository on this machine, with the ref of `copy` that follows it.
pub(super) async fn compare(
    remote: &Remote,
    branch: &BranchName,
    (copy, into): (&Path, &RefName),
    within: Duration,
) -> RefFiles {
    let Remote::Url(url) = remote else { return RefFiles::AskGit };
    let Some(repository) = url.local_path() else { return RefFiles::AskGit };
    let Some(known) = tip(copy, into) else { return RefFiles::AskGit };
    let name = RefName::of(branch);
    // It may be on the network or on a stick.
    let read = move || {
        let checked_out = repository.join(".git");
        tip(if checked_out.is_dir() { &checked_out } else { &repository }, &name)
    };
    match on_medium("ref", within, read).await {
        Ok(Some(Some(tip))) if tip == known => RefFiles::Level(tip),
        Ok(None) => RefFiles::Silent,
        Ok(Some(_)) | Err(_) => RefFiles::AskGit,
    }
}

/// The commit that the file of a ref names.
fn tip(git_dir: &Path, name: &RefName) -> Option<CommitId> {
    // A pipe in its place is not waited for.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(git_dir.join(name.as_str())).ok()?;
    let mut text = String::new();
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).ok()?;
    text.strip_suffix('\n')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::fixture::{TestFolder, git};

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(flavor = "current_thread")]
    async fn the_files_of_both_refs_tell_whether_the_branch_moved() {
        let dir = TestFolder::new();
        let at = |name: &str| dir.path().join(name);
        let (branch, into): (BranchName, RefName) = ("deployments".parse().unwrap(), "refs/copy/it".parse().unwrap());
        let commit = |message: &str| {
            let tree = git(&at("work"), &["write-tree"]);
            let made = git(&at("work"), &["commit-tree", "-m", message, tree.trim()]);
            git(&at("work"), &["update-ref", "refs/heads/deployments", made.trim()]);
            made.trim().to_owned()
        };
        for name in ["work", "copy"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        git(&at("work"), &["init", "-q", "."]);
        git(&at("copy"), &["init", "-q", "--bare", "."]);
        let first = commit("one");
        git(&at("copy"), &["fetch", "-q", at("work").to_str().unwrap(), "refs/heads/deployments:refs/copy/it"]);
        let remote = |name: &str| -> Remote { format!("file://{}", at(name).display()).parse().unwrap() };
        let compared = async |name: &str| compare(&remote(name), &branch, (&at("copy"), &into), MINUTE).await;
        let level = RefFiles::Level(first.parse().unwrap());
        assert_eq!(compared("work").await, level);
        assert_eq!(compared("work/.git").await, level);
        assert_eq!(compared("elsewhere").await, RefFiles::AskGit);
        commit("two");
        assert_eq!(compared("work").await, RefFiles::AskGit, "it moved");
        git(&at("work"), &["update-ref", "refs/heads/deployments", &first]);
        assert_eq!(compared("work").await, level);
        git(&at("work"), &["pack-refs", "--all"]);
        assert_eq!(compared("work").await, RefFiles::AskGit, "there is no file");
        let file = at("work/.git/refs/heads/deployments");
        for other in [first.clone(), format!("{first}\n\n"), "ref: refs/heads/x\n".to_owned(), String::new()] {
            std::fs::write(&file, &other).unwrap();
            assert_eq!(compared("work").await, RefFiles::AskGit, "{other:?}");
        }
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(compared("work").await, RefFiles::AskGit, "a pipe");
    }
}
