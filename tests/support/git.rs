//! A fleet's repository: a bare one, as a git host has it, and a clone that somebody works in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{hermetic_git, output, program, run};

/// A bare repository with a branch `main`, and a clone of it.
#[derive(Debug)]
pub(crate) struct GitFleet {
    directory: TempDir,
}

/// A file of a commit that need not be one that git would make: any mode, any path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFile {
    /// As git writes it: `100644`, `100755`, `120000` for a symbolic link.
    pub(crate) mode: String,
    /// Parts between slashes, which may be `..` or `.git`.
    pub(crate) path: String,
    /// The bytes, or a link's target.
    pub(crate) content: Vec<u8>,
}

/// What a raw commit comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// The branch's tip: the branch moves forward.
    Tip,
    /// Nothing: the branch's history is replaced.
    None,
}

impl RawFile {
    /// A regular file.
    pub(crate) fn plain(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self::with_mode("100644", path, content)
    }

    /// A file of any mode.
    pub(crate) fn with_mode(mode: &str, path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { mode: mode.to_owned(), path: path.to_owned(), content: content.into() }
    }
}

impl GitFleet {
    /// A repository whose first commit on `main` has the files below `fixture`.
    pub(crate) fn from_dir(fixture: &Path) -> Self {
        let fleet = Self { directory: TempDir::new().unwrap() };
        fs::create_dir(fleet.root()).unwrap();
        run(fleet.git(&fleet.root()).args(["init", "--quiet", "--bare", "--initial-branch=main", "fleet.git"]));
        run(fleet.git(&fleet.root()).args(["init", "--quiet", "--initial-branch=main", "../work"]));
        run(fleet.work_git().args(["remote", "add", "origin"]).arg(fleet.bare()));
        // The trailing dot copies what is in the folder, not the folder.
        run(program("cp").arg("-R").arg(fixture.join(".")).arg(fleet.work()));
        // Fixtures in a read-only store are to be edited all the same.
        run(program("chmod").args(["-R", "u+w"]).arg(fleet.work()));
        fleet.commit("fleet: begin");
        fleet.push();
        fleet
    }

    /// The folder that has the bare repository `fleet.git`: what a server serves.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("srv")
    }

    /// The bare repository.
    pub(crate) fn bare(&self) -> PathBuf {
        self.root().join("fleet.git")
    }

    /// The clone that is worked in.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// `git` in the bare repository, with nothing of this machine's settings.
    pub(crate) fn bare_git(&self) -> Command {
        self.git(&self.bare())
    }

    /// `git` in the clone.
    pub(crate) fn work_git(&self) -> Command {
        self.git(&self.work())
    }

    /// Writes a file of the clone, with the folders above it.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let file = self.work().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// Changes a file of the clone, which has to have `from`.
    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let file = self.work().join(path);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{path} has no {from:?}:\n{text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Commits all that the clone has, even where nothing changed. Gives the commit's id.
    pub(crate) fn commit(&self, message: &str) -> String {
        run(self.work_git().args(["add", "--all"]));
        run(self.work_git().args(["commit", "--quiet", "--allow-empty", "--message", message]));
        run(self.work_git().args(["rev-parse", "HEAD"])).trim_end().to_owned()
    }

    /// Pushes `main`, and gives what git and the repository's hooks said of it.
    pub(crate) fn push(&self) -> String {
        let pushed = output(self.work_git().args(["push", "origin", "HEAD:refs/heads/main"]));
        String::from_utf8(pushed.stderr).unwrap()
    }

    /// A branch's tip, where there is such a branch.
    pub(crate) fn tip(&self, branch: &str) -> Option<String> {
        let format = ["for-each-ref", "--format=%(objectname)"];
        let tip = run(self.bare_git().args(format).arg(format!("refs/heads/{branch}")));
        (!tip.is_empty()).then(|| tip.trim_end().to_owned())
    }

    /// The files of a branch's tip, by their paths. Panics where one is not text.
    pub(crate) fn files(&self, branch: &str) -> BTreeMap<String, String> {
        let text = |file: RawFile| (file.path, String::from_utf8(file.content).unwrap());
        self.raw_files(branch).into_iter().map(text).collect()
    }

    /// The files of a branch's tip as they are: what a thief has, to change and commit by [`Self::raw_commit`].
    pub(crate) fn raw_files(&self, branch: &str) -> Vec<RawFile> {
        let listing = run(self.bare_git().args(["ls-tree", "-r", "-z", &format!("refs/heads/{branch}")]));
        let entry = |line: &str| {
            let (head, path) = line.split_once('\t').unwrap();
            let [mode, kind, id] = head.split(' ').collect::<Vec<_>>().try_into().unwrap();
            RawFile::with_mode(mode, path, output(self.bare_git().args(["cat-file", kind, id])).stdout)
        };
        listing.split_terminator('\0').map(entry).collect()
    }

    /// Commits exactly `files` to a branch of the bare repository, past all hooks and past the checks that git makes of
    /// what it adds itself. Gives the commit's id.
    pub(crate) fn raw_commit(&self, branch: &str, files: &[RawFile], parent: Parent) -> String {
        let entries: Vec<_> = files.iter().map(|file| (file.path.as_str(), file)).collect();
        let tree = self.raw_tree(&entries);
        let mut commit = self.bare_git();
        commit.args(["commit-tree", "-m", "raw", &tree]);
        if let (Parent::Tip, Some(tip)) = (parent, self.tip(branch)) {
            commit.args(["-p", &tip]);
        }
        let commit = run(&mut commit).trim_end().to_owned();
        run(self.bare_git().args(["update-ref", &format!("refs/heads/{branch}"), &commit]));
        commit
    }

    /// Writes the tree of files by their paths below it.
    fn raw_tree(&self, files: &[(&str, &RawFile)]) -> String {
        let mut listing = String::new();
        let mut folders: BTreeMap<&str, Vec<(&str, &RawFile)>> = BTreeMap::new();
        for (path, file) in files {
            if let Some((folder, rest)) = path.split_once('/') {
                folders.entry(folder).or_default().push((rest, file));
            } else {
                let id = feed(self.bare_git().args(["hash-object", "-w", "--stdin"]), &file.content);
                write!(listing, "{} blob {id}\t{path}\0", file.mode).unwrap();
            }
        }
        for (folder, files) in folders {
            write!(listing, "040000 tree {}\t{folder}\0", self.raw_tree(&files)).unwrap();
        }
        feed(self.bare_git().args(["mktree", "-z"]), listing.as_bytes())
    }

    fn git(&self, directory: &Path) -> Command {
        let mut git = program("git");
        hermetic_git(&mut git, self.directory.path()).arg("-C").arg(directory);
        git
    }
}

/// Runs `command` with `input` and gives the one line that it answers.
fn feed(command: &mut Command, input: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Taken, so that it is closed and the program sees the end of its input.
    child.stdin.take().unwrap().write_all(input).unwrap();
    let answer = child.wait_with_output().unwrap();
    assert!(answer.status.success(), "{command:?} failed, {}", answer.status);
    String::from_utf8(answer.stdout).unwrap().trim_end().to_owned()
}
