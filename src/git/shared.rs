//! Keeps a repository writable for everybody who could push to it before: the modes of `core.sharedRepository`, and its owner.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use gix::config::tree::Core;

use super::repository::GitError;

/// Whether a path is a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
}

/// What `core.sharedRepository` of a repository says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// The umask alone decides.
    Umask,
    /// Everybody of these bits gets at least this much.
    AtLeast(u32),
    /// These bits and no others count.
    Exactly(u32),
}

impl Sharing {
    /// What the configuration of the repository says.
    pub(super) fn of(repository: &gix::Repository) -> Result<Self, GitError> {
        let Some(value) = repository.config_snapshot().string("core.sharedRepository") else { return Ok(Self::Umask) };
        let bits = Core::SHARED_REPOSITORY.try_into_shared_repository(Some(value));
        let bits = bits.map_err(|error| GitError::new("read core.sharedRepository", &error))?;
        Ok(match bits {
            0 => Self::Umask,
            1.. => Self::AtLeast(bits.unsigned_abs()),
            _ => Self::Exactly(bits.unsigned_abs()),
        })
    }

    /// The mode that git gives to what has `mode` after the umask (`adjust_shared_perm` in git's `path.c`).
    fn mode(self, mode: u32, kind: Kind) -> u32 {
        let (wanted, kept) = match self {
            Self::Umask => return mode,
            Self::AtLeast(bits) => (bits, mode),
            Self::Exactly(bits) => (bits, mode & !0o777),
        };
        // An object that nobody may change stays so, and what its owner may run others may as well.
        let wanted = if mode & 0o200 == 0 { wanted & !0o222 } else { wanted };
        let wanted = if mode & 0o100 == 0 { wanted } else { wanted | ((wanted & 0o444) >> 2) };
        let mode = kept | wanted;
        match kind {
            Kind::File => mode,
            // What is made in the folder belongs to the group of the folder.
            Kind::Folder => mode | ((mode & 0o444) >> 2) | if mode & 0o060 == 0 { 0 } else { 0o2000 },
        }
    }

    /// Gives the mode to what was written at `path`. Nothing happens to what belongs to another user, who did so already.
    pub(super) fn apply(self, path: &Path) -> io::Result<()> {
        if self == Self::Umask {
            return Ok(());
        }
        let about = fs::symlink_metadata(path)?;
        let kind = if about.is_dir() { Kind::Folder } else { Kind::File };
        let (before, ours) = (about.mode() & 0o7777, rustix::process::geteuid().as_raw());
        let after = self.mode(before, kind);
        if before == after || about.is_symlink() || about.uid() != ours {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(after))
    }

    /// Does so for `path` and the folders above it, up to `top`, which stays as it is.
    pub(super) fn apply_below(self, top: &Path, path: &Path) -> io::Result<()> {
        path.ancestors().take_while(|path| *path != top && path.starts_with(top)).try_for_each(|path| self.apply(path))
    }
}

/// The files of these loose objects, and their folders.
pub(super) fn paths_of_loose<'a>(objects: &Path, ids: impl IntoIterator<Item = &'a gix::ObjectId>) -> Vec<PathBuf> {
    let path = |id: &gix::ObjectId| {
        let hex = id.to_string();
        objects.join(&hex[..2]).join(&hex[2..])
    };
    ids.into_iter().map(path).collect()
}

/// The user whom the superuser would shut out by writing to the repository at `folder`: its owner, where it is another user and
/// the repository is not shared.
pub(super) fn shut_out(folder: &Path, sharing: Sharing) -> io::Result<Option<String>> {
    let (owner, ours) = (fs::metadata(folder)?.uid(), rustix::process::geteuid().as_raw());
    // The system itself keeps every other user from writing what is not theirs.
    if ours != 0 || owner == 0 || sharing != Sharing::Umask {
        return Ok(None);
    }
    Ok(Some(name_of(owner)))
}

/// The name of a user, or its number, as `sudo -u` takes them.
fn name_of(id: u32) -> String {
    uzers::get_user_by_uid(id).map_or_else(|| format!("'#{id}'"), |user| user.name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modes_are_those_of_git() {
        let group = Sharing::AtLeast(0o660);
        assert_eq!(group.mode(0o755, Kind::Folder), 0o2775);
        assert_eq!(group.mode(0o644, Kind::File), 0o664);
        assert_eq!(group.mode(0o444, Kind::File), 0o444);
        assert_eq!(group.mode(0o400, Kind::File), 0o440);
        assert_eq!(Sharing::AtLeast(0o664).mode(0o700, Kind::Folder), 0o2775);
        assert_eq!(Sharing::Exactly(0o640).mode(0o755, Kind::Folder), 0o2750);
        assert_eq!(Sharing::Exactly(0o640).mode(0o644, Kind::File), 0o640);
        assert_eq!(Sharing::Exactly(0o600).mode(0o755, Kind::Folder), 0o700);
        assert_eq!(Sharing::Umask.mode(0o755, Kind::Folder), 0o755);
    }

    #[test]
    fn a_user_has_a_name_or_a_number() {
        assert_eq!((name_of(0).as_str(), name_of(54321).as_str()), ("root", "'#54321'"));
    }
}
