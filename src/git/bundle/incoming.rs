//! A place below a repository where objects are complete or nothing: those of a bundle that is being read, or of a pack in the making.
//!
//! It is a repository by itself, which borrows the objects of the one that it is in. Whatever a process that is ended leaves in it is
//! deleted with it, and no reader of the repository ever sees a part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gix::odb::pack::bundle::write::Outcome;

use crate::git::commit::sync_file;
use crate::git::repository::{OpenError, Repository};

/// The folder in the repository.
const FOLDER: &str = "clavel-incoming";

/// The place. It is deleted when this is dropped.
#[derive(Debug)]
pub(in crate::git) struct Incoming {
    git_dir: PathBuf,
}

impl Incoming {
    /// An empty place in the repository at `git_dir`. Only one process may work there.
    pub(super) fn new(git_dir: &Path) -> io::Result<Self> {
        Self::remove_leftover(git_dir)?;
        let place = Self { git_dir: git_dir.to_owned() };
        let folder = place.folder();
        fs::create_dir_all(place.packs())?;
        fs::create_dir_all(folder.join("objects/info"))?;
        fs::create_dir_all(folder.join("refs"))?;
        // It is relative to the folder `objects`.
        fs::write(folder.join("objects/info/alternates"), "../../objects\n")?;
        fs::write(folder.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = true\n")?;
        fs::write(folder.join("HEAD"), "ref: refs/heads/none\n")?;
        Ok(place)
    }

    /// Deletes what an interrupted process left in the repository at `git_dir`.
    pub(in crate::git) fn remove_leftover(git_dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(git_dir.join(FOLDER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The folder of packs in the place of the repository at `git_dir`.
    pub(in crate::git) fn packs_below(git_dir: &Path) -> PathBuf {
        git_dir.join(FOLDER).join("objects/pack")
    }

    /// The folder that a pack is written to.
    pub(super) fn packs(&self) -> PathBuf {
        Self::packs_below(&self.git_dir)
    }

    /// A repository with the objects that came in and those that were there.
    pub(super) fn repository(&self) -> Result<Repository, OpenError> {
        Repository::open(&self.folder())
    }

    /// Gives the pack to the repository. It is on the disk when this returns. The index comes last, because a pack counts from then on.
    pub(super) fn keep(&self, pack: &Outcome) -> io::Result<()> {
        let packs = self.git_dir.join("objects/pack");
        for file in [&pack.data_path, &pack.index_path].into_iter().flatten() {
            fs::File::open(file)?.sync_all()?;
            let Some(name) = file.file_name() else { continue };
            fs::rename(file, packs.join(name))?;
            sync_file(&packs.join(name))?;
        }
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.git_dir.join(FOLDER)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Err(error) = Self::remove_leftover(&self.git_dir) {
            tracing::warn!(repository = %self.git_dir.display(), %error, "cannot delete the folder of incoming objects");
        }
    }
}
