//! Writes a branch into a folder of plain files, for any HTTP server (docs/static-export.md).
//!
//! The tip is replaced last, and everything that it names is on the disk by then. So the tip that is there says what need not be written
//! again: of the bins that it names, and of the documents in them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::branch::{
    Branch, BranchError, CommitReadError, Layout, RootChain, STATIC_TIP, Snapshot, StaticApprovals, StaticHead,
    StaticRoots, StaticTip, StaticTipError, VerifiedIndex, static_object_path, static_roots,
};
use crate::disk::{self, Access, Durability, FileLock};
use crate::model::{
    Approval, Bin, BinId, BranchFile as _, BranchName, Deployment, FileDigest, Index, IndexVersion, Map, Name, Root,
    Sha256Digest, json,
};
use crate::trust::{Signed, parse_bin};

/// The most bytes of a file in the folder, as readers have it.
const MAX_FILE_BYTES: u64 = 2 << 20;

/// A branch to export, and where to.
#[derive(Debug, Clone, Copy)]
pub struct StaticExport<'a> {
    /// The folder. It is made where it does not exist.
    pub folder: &'a Path,
    /// The name of the branch.
    pub branch: &'a BranchName,
    /// The roots that verify it.
    pub roots: &'a RootChain,
}

/// What an export did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exported {
    /// The folder had this state already, and nothing was written.
    Unchanged(IndexVersion),
    /// These files were written, and the tip.
    Written {
        /// The version of the index.
        version: IndexVersion,
        /// How many files beside the tip.
        files: usize,
        /// Their bytes, without those of the tip.
        bytes: u64,
    },
}

/// Why nothing was exported. The tip stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The branch cannot be verified.
    #[error(transparent)]
    Branch(#[from] BranchError),
    /// A document is not the one that its bin lists.
    #[error("`{0}` is not the file that the index lists; see what `clavel verify` says")]
    Document(String),
    /// A list would be larger than readers accept.
    #[error("{0} is longer than a reader accepts")]
    TooLong(String),
    /// Another process exports to the folder.
    #[error("another process exports to {} just now; try again", .0.display())]
    Busy(PathBuf),
    /// The folder has a newer state.
    #[error("{} has index version {found}, and the branch here is at version {ours}; it is left alone", folder.display())]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// The version there.
        found: IndexVersion,
        /// The version of the branch.
        ours: IndexVersion,
    },
    /// The folder has the branch of another fleet, another branch, or another history.
    #[error(
        "{} has another branch or another history than the one here, and is left alone; export to another folder, or empty this one",
        .0.display()
    )]
    OtherHistory(PathBuf),
    /// What is there is no tip.
    #[error("cannot read {}; if the folder is meant for this export, empty it", path.display())]
    Tip {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: StaticTipError,
    },
    /// A file or folder cannot be written or read.
    #[error("cannot write {}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl From<CommitReadError> for ExportError {
    fn from(error: CommitReadError) -> Self {
        Self::Branch(error.into())
    }
}

impl StaticExport<'_> {
    /// Brings the folder to the state of `files`, a commit of the branch.
    pub fn run(&self, files: &Snapshot) -> Result<Exported, ExportError> {
        let branch = Branch::new(files, &self.roots.newest, self.branch);
        let index = branch.index()?;
        let index_file = files.read(Layout::INDEX, Index::MAX_BYTES)?.ok_or(BranchError::NoIndex)?;
        let version = index.index().version;
        let folder = StaticFolder::lock(self.folder)?;
        let old_file = folder.read(STATIC_TIP)?;
        let old = old_file.as_deref().map(|bytes| folder.parse_tip(bytes)).transpose()?;
        if let Some((_, old)) = &old {
            self.check_forward(&index, old)?;
        }
        let mut writer = ObjectWriter { folder: &folder, new: BTreeMap::new(), former: BTreeSet::new() };
        let roots = writer.roots(files, old.as_ref().map(|(head, _)| &head.roots))?;
        for bin in index.layout().bins().bins() {
            writer.bin(files, &branch, &index, bin, old.as_ref().map(|(_, old)| old))?;
        }
        let approvals = self.approvals(files, index.layout(), old.as_ref().map(|(head, _)| head), &mut writer)?;
        let tip = StaticTip { head: StaticHead::new(roots, approvals), index: &index_file }.render();
        if old_file.as_ref() == Some(&tip) {
            return Ok(Exported::Unchanged(version));
        }
        let ObjectWriter { new, former, .. } = writer;
        folder.note_unnamed(former.iter().filter(|digest| !new.contains_key(digest)));
        folder.replace_tip(&tip)?;
        Ok(Exported::Written { version, files: new.len(), bytes: new.values().sum() })
    }

    /// Checks that the tip that is there is an earlier or the same state of this branch.
    fn check_forward(&self, index: &VerifiedIndex, old: &Signed<Index>) -> Result<(), ExportError> {
        let (new, folder) = (index.index(), self.folder.to_owned());
        let before = old.unverified();
        let (is_at, is_from) = ((new.epoch, new.version), (before.epoch, before.version));
        if before.fleet != new.fleet || before.branch != new.branch {
            return Err(ExportError::OtherHistory(folder));
        }
        if is_from > is_at {
            return Err(ExportError::Newer { folder, found: before.version, ours: new.version });
        }
        if is_from == is_at && old.content_digest() != new.content_digest() {
            return Err(ExportError::OtherHistory(folder));
        }
        Ok(())
    }

    /// Writes the approvals that count under the newest root, and the list of each bin that has any.
    fn approvals(
        &self,
        files: &Snapshot,
        layout: Layout,
        old: Option<&StaticHead>,
        writer: &mut ObjectWriter<'_>,
    ) -> Result<Map<BinId, FileDigest, 4096>, ExportError> {
        let mut lists = Vec::new();
        let root = self.roots.newest.root();
        let approvers: BTreeSet<String> = root.roles.approver.keys.iter().map(|key| key.id().to_string()).collect();
        for bin in layout.bins().bins().filter(|_| !root.approvals.is_empty()) {
            let folder = layout.approvals_of_bin(bin);
            let before = old.and_then(|old| old.approvals.get(&bin));
            let known: StaticApprovals = before.and_then(|list| writer.folder.list(list)).unwrap_or_default();
            let mut list = Vec::new();
            for name in files.entries(&folder)?.into_keys().filter_map(|name| name.parse::<Name>().ok()) {
                let of = format!("{folder}/{name}");
                let mut approvals = Vec::new();
                for file in files.entries(&of)?.into_keys() {
                    let approver = file.strip_suffix(".json").filter(|approver| approvers.contains(*approver));
                    let Some(approver) = approver.and_then(|approver| approver.parse::<Name>().ok()) else { continue };
                    // A file that is larger than an approval counts nothing.
                    let Ok(Some(bytes)) = files.read(&format!("{of}/{file}"), Approval::MAX_BYTES) else { continue };
                    let digest = FileDigest::of(&bytes);
                    if known.get(name.as_str()).and_then(|known| known.get(approver.as_str())) != Some(&digest) {
                        writer.object(&digest, &bytes)?;
                    }
                    approvals.push((approver, digest));
                }
                let approvals: Map<Name, FileDigest, 64> =
                    approvals.try_into().map_err(|_| ExportError::TooLong(of.clone()))?;
                if !approvals.is_empty() {
                    list.push((name, approvals));
                }
            }
            let list: StaticApprovals = list.try_into().map_err(|_| ExportError::TooLong(folder.clone()))?;
            if list != known {
                writer.former.extend(before.map(|before| before.sha256));
                writer.former.extend(known.iter().flat_map(|(_, files)| files.iter()).map(|(_, file)| file.sha256));
                let named = list.iter().flat_map(|(_, files)| files.iter()).map(|(_, file)| file.sha256);
                for digest in named {
                    writer.former.remove(&digest);
                }
            }
            if !list.is_empty() {
                lists.push((bin, writer.list(&list, before, &folder)?));
            }
        }
        lists.try_into().map_err(|_| ExportError::TooLong("approvals".to_owned()))
    }
}

/// The objects that were written, and those that the tip before named in their place.
struct ObjectWriter<'a> {
    folder: &'a StaticFolder,
    new: BTreeMap<Sha256Digest, u64>,
    former: BTreeSet<Sha256Digest>,
}

impl ObjectWriter<'_> {
    fn object(&mut self, digest: &FileDigest, bytes: &[u8]) -> Result<(), ExportError> {
        if self.new.insert(digest.sha256, digest.length).is_none() {
            self.folder.write_object(&digest.sha256, bytes)?;
        }
        Ok(())
    }

    /// Writes a list, unless `before` is it.
    fn list<T: serde::Serialize>(
        &mut self,
        list: &T,
        before: Option<&FileDigest>,
        what: &str,
    ) -> Result<FileDigest, ExportError> {
        let bytes = json::render(list);
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(ExportError::TooLong(format!("the list of {what}")));
        }
        let digest = FileDigest::of(&bytes);
        if before != Some(&digest) {
            self.object(&digest, &bytes)?;
        }
        Ok(digest)
    }

    fn roots(&mut self, files: &Snapshot, before: Option<&FileDigest>) -> Result<FileDigest, ExportError> {
        let read = |path: &str| files.read(path, Root::MAX_BYTES).ok().flatten();
        let roots: StaticRoots =
            static_roots(read).try_into().map_err(|_| ExportError::TooLong("the list of roots".to_owned()))?;
        let digest = self.list(&roots, before, "roots")?;
        if before != Some(&digest) {
            self.former.extend(before.map(|before| before.sha256));
            // Few roots, which seldom change: all of them are written.
            let mut result = Ok(());
            let write = |path: &str| {
                let bytes = read(path)?;
                result = self.object(&FileDigest::of(&bytes), &bytes);
                result.is_ok().then_some(bytes)
            };
            static_roots(write);
            result?;
        }
        Ok(digest)
    }

    /// Writes a bin and its documents, as far as the tip before does not name them.
    fn bin(
        &mut self,
        files: &Snapshot,
        branch: &Branch<'_, Snapshot>,
        index: &VerifiedIndex,
        bin: BinId,
        old: Option<&Signed<Index>>,
    ) -> Result<(), ExportError> {
        let before = old.and_then(|old| old.unverified().bins.get(bin));
        let listed = index.index().bins.get(bin);
        if before.is_some() && before == listed {
            return Ok(());
        }
        // One bin at a time: all of a large fleet's together take much memory.
        let mut index = index.clone();
        branch.read_bin(&mut index, bin)?;
        let Some(new) = index.bins().find(|read| read.id() == bin) else { return Ok(()) };
        let file = files.read(&Layout::bin(bin), Bin::MAX_BYTES)?.unwrap_or_default();
        let known = before.and_then(|before| self.folder.object(before)).and_then(|bytes| parse_bin(&bytes).ok());
        let known: HashSet<FileDigest> = known.iter().flat_map(files_of).collect();
        for (folder, names) in &new.documents {
            for (name, entry) in names.iter().filter(|(_, entry)| !known.contains(&entry.file())) {
                let path = index.layout().file(folder.as_str(), name);
                let bytes = files.read(&path, Deployment::MAX_BYTES)?.unwrap_or_default();
                if FileDigest::of(&bytes) != entry.file() {
                    return Err(ExportError::Document(path));
                }
                self.object(&entry.file(), &bytes)?;
            }
        }
        let named: HashSet<FileDigest> = files_of(new).collect();
        self.former.extend(known.difference(&named).map(|file| file.sha256));
        self.former.extend(before.map(|before| before.sha256));
        self.object(&FileDigest::of(&file), &file)
    }
}

/// The files of the documents that a bin lists.
fn files_of(bin: &Bin) -> impl Iterator<Item = FileDigest> {
    bin.documents.iter().flat_map(|(_, names)| names.iter()).map(|(_, entry)| entry.file())
}

/// The folder, locked against other exports.
struct StaticFolder {
    path: PathBuf,
    _lock: FileLock,
}

impl StaticFolder {
    fn lock(path: &Path) -> Result<Self, ExportError> {
        let objects = path.join("objects");
        fs::create_dir_all(&objects).map_err(|source| ExportError::Write { path: objects, source })?;
        let file = path.join(".clavel.lock");
        let lock = FileLock::try_take(&file).map_err(|error| match error {
            TryLockError::WouldBlock => ExportError::Busy(path.to_owned()),
            TryLockError::Error(source) => ExportError::Write { path: file, source },
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ExportError> {
        let path = self.path.join(name);
        match disk::read(&path, MAX_FILE_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ExportError::Write { path, source }),
        }
    }

    fn parse_tip(&self, bytes: &[u8]) -> Result<(StaticHead, Signed<Index>), ExportError> {
        let failed = |source| ExportError::Tip { path: self.path.join(STATIC_TIP), source };
        let tip = StaticTip::parse(bytes).map_err(failed)?;
        let index = tip.unverified_index().map_err(failed)?;
        // A newer Clavel exported what this one cannot even compare.
        Ok((tip.head, index.ok_or_else(|| ExportError::OtherHistory(self.path.clone()))?))
    }

    /// An object that is there and whole.
    fn object(&self, digest: &FileDigest) -> Option<Vec<u8>> {
        let bytes = disk::read(&self.path.join(static_object_path(&digest.sha256)), MAX_FILE_BYTES).ok()?;
        (FileDigest::of(&bytes) == *digest).then_some(bytes)
    }

    fn list<T: serde::de::DeserializeOwned>(&self, digest: &FileDigest) -> Option<T> {
        json::parse(&self.object(digest)?, MAX_FILE_BYTES).ok()
    }

    fn write_object(&self, digest: &Sha256Digest, bytes: &[u8]) -> Result<(), ExportError> {
        let path = self.path.join(static_object_path(digest));
        let write = || disk::replace(&path, bytes, Access::Everyone, Durability::Unsynced);
        let written = write().or_else(|error| match (error.kind(), path.parent()) {
            (io::ErrorKind::NotFound, Some(folder)) => fs::create_dir_all(folder).and_then(|()| write()),
            _ => Err(error),
        });
        written.map_err(|source| ExportError::Write { path, source })
    }

    /// Gives objects that the next tip does not name the time of now, from which their grace counts.
    fn note_unnamed<'a>(&self, digests: impl Iterator<Item = &'a Sha256Digest>) {
        let now = SystemTime::now();
        for path in digests.map(|digest| self.path.join(static_object_path(digest))) {
            // One that is gone already needs no time.
            if let Ok(file) = File::open(path) {
                let _ = file.set_modified(now);
            }
        }
    }

    /// Replaces the tip, once all that it names is on the disk.
    fn replace_tip(&self, tip: &[u8]) -> Result<(), ExportError> {
        let failed = |path: &Path, source| ExportError::Write { path: path.to_owned(), source };
        if tip.len() as u64 > MAX_FILE_BYTES {
            return Err(ExportError::TooLong("the tip".to_owned()));
        }
        disk::sync_file_system(&self.path).map_err(|source| failed(&self.path, source))?;
        let path = self.path.join(STATIC_TIP);
        disk::replace(&path, tip, Access::Everyone, Durability::Synced).map_err(|source| failed(&path, source))
    }

    /// Every object that the tip leads to.
    fn named(&self, tip: &[u8]) -> Result<HashSet<String>, ExportError> {
        let (head, index) = self.parse_tip(tip)?;
        let mut named = HashSet::new();
        let mut add = |digest: &FileDigest| {
            named.insert(static_object_path(&digest.sha256));
        };
        add(&head.roots);
        self.list::<StaticRoots>(&head.roots).unwrap_or_default().iter().for_each(&mut add);
        for (_, list) in &head.approvals {
            add(list);
            let approvals = self.list::<StaticApprovals>(list).unwrap_or_default();
            approvals.iter().flat_map(|(_, files)| files.iter()).for_each(|(_, file)| add(file));
        }
        let bins = &index.unverified().bins;
        for digest in bins.count().bins().filter_map(|bin| bins.get(bin)) {
            add(digest);
            // Whatever a bin names that is not there or not whole cannot be known, so nothing is removed then.
            let bytes = self.object(digest).ok_or_else(|| ExportError::Document(static_object_path(&digest.sha256)))?;
            let bin = parse_bin(&bytes).map_err(|_| ExportError::Document(static_object_path(&digest.sha256)))?;
            files_of(&bin).for_each(|file| add(&file));
        }
        Ok(named)
    }
}

/// Removes the objects that no tip has named for this long, and what interrupted exports left. Returns how many.
pub fn remove_unnamed(folder: &Path, grace: Duration) -> Result<usize, ExportError> {
    let folder = StaticFolder::lock(folder)?;
    let Some(tip) = folder.read(STATIC_TIP)? else { return Ok(0) };
    let named = folder.named(&tip)?;
    let (now, mut removed) = (SystemTime::now(), 0);
    let failed = |path: &Path, source: io::Error| ExportError::Write { path: path.to_owned(), source };
    let entries = |path: &Path| -> Result<Vec<fs::DirEntry>, ExportError> {
        let read = || fs::read_dir(path)?.collect::<io::Result<Vec<_>>>();
        read().map_err(|source| failed(path, source))
    };
    for below in entries(&folder.path.join("objects"))?.iter().filter(|entry| entry.path().is_dir()) {
        for entry in entries(&below.path())? {
            let path = entry.path();
            let shown = path.strip_prefix(&folder.path).unwrap_or(&path).to_string_lossy().into_owned();
            let about = entry.metadata().map_err(|source| failed(&path, source))?;
            let since = about.modified().ok().and_then(|at| now.duration_since(at).ok());
            if about.is_file() && !named.contains(&shown) && since.is_some_and(|since| since >= grace) {
                fs::remove_file(&path).map_err(|source| failed(&path, source))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
