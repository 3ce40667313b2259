//! Takes a bundle into a repository: its objects are received in a place apart, and the ref moves once they are complete.
//!
//! A bundle asks for nothing and answers nothing: unlike a server, it cannot be told which objects are here already. So what came in
//! earlier bundles is what a later one builds on, and is kept, in few packs.

use std::fs::{self, File};
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Take};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use gix::odb::pack;
use rustix::fs::{Mode, OFlags};

use super::error::BundleError;
use super::files::BundleFiles;
use super::header::BundleHeader;
use super::incoming::Incoming;
use super::write::write_pack;
use crate::closures::git_bundle_in;
use crate::git::complete::{self, CheckedHistory};
use crate::git::fetch::{Depth, FetchRequest, Fetched};
use crate::git::fetch_error::FetchError;
use crate::git::repository::{GitError, MAX_OBJECT_BYTES, Repository, in_one_line};

/// The threads that check a pack.
const THREADS: usize = 2;
/// The number of packs after which they become one: every bundle adds one.
const MANY_PACKS: usize = 8;

impl BundleHeader {
    /// Reads the header of the bundle at the path.
    pub fn of_file(files: &BundleFiles) -> Result<Self, BundleError> {
        let mut input = BufReader::new(git_part(files.open()?)?);
        Ok(Self::read(&mut input)?)
    }
}

impl Repository {
    /// Moves the ref to the tip of the branch in the bundle. If it is there already, only the header is read.
    pub(in crate::git) fn fetch_bundle(
        &self,
        request: &FetchRequest<'_>,
        files: &BundleFiles,
    ) -> Result<Fetched, FetchError> {
        let failed = |source: BundleError| FetchError::Bundle {
            remote: request.remote.to_string(),
            branch: request.branch.clone(),
            source: Box::new(source),
        };
        let known = self.tip_of_ref(request.into)?;
        let file = files.open().and_then(git_part).map_err(failed)?;
        let mut input = BufReader::with_capacity(64 << 10, file);
        let header = BundleHeader::read(&mut input).map_err(|error| failed(error.into()))?;
        let Some(tip) = header.tip(request.branch) else { return Ok(Fetched::BranchMissing) };
        if known == Some(tip) {
            return Ok(Fetched::Unchanged(tip));
        }
        let here = self.separate_handle()?;
        for prerequisite in &header.prerequisites {
            // All of it has to be here, and not the commit alone, which another bundle may have brought without its files.
            complete::check(&here, *prerequisite, known, CheckedHistory::TipOnly)
                .map_err(|_| failed(BundleError::MissingPrerequisite(*prerequisite)))?;
        }
        let act = || format!("receive a bundle in {}", self.path().display());
        let incoming = Incoming::new(&self.git_dir()).map_err(|error| GitError::io(act(), &error))?;
        // git leaves out the bases of deltas that a reader has.
        let bases = (!header.prerequisites.is_empty()).then(|| here.objects.clone());
        let written = pack::Bundle::write_to_directory(
            &mut input,
            Some(&incoming.packs()),
            &mut gix::progress::Discard,
            request.interrupt,
            bases,
            here.object_hash(),
            pack::bundle::write::Options {
                thread_limit: Some(THREADS),
                alloc_limit_bytes: usize::try_from(MAX_OBJECT_BYTES).ok(),
                ..pack::bundle::write::Options::default()
            },
        );
        let received = written.map_err(|error| {
            let why = in_one_line(&error);
            if error.is_resource_exhausted() {
                let (remote, branch) = (request.remote.to_string(), request.branch.clone());
                return FetchError::TooMuchMemory { remote, branch, why };
            }
            failed(BundleError::Pack(why))
        })?;
        let opened = incoming.repository().map_err(|error| GitError { act: act(), why: error.to_string() })?;
        let history = match request.depth {
            Depth::Tip => CheckedHistory::TipOnly,
            Depth::Full => CheckedHistory::AllCommits,
        };
        complete::check(&opened.separate_handle()?, tip, known, history)
            .map_err(|source| failed(BundleError::Incomplete(Box::new(source))))?;
        incoming.keep(&received).map_err(|error| GitError::io(act(), &error))?;
        drop(incoming);
        self.move_ref(&self.separate_handle()?, request.into, known, tip)?;
        if let Err(error) = self.join_packs() {
            // It only takes space, and the next bundle tries again.
            tracing::warn!(repository = %self.path().display(), %error, "cannot join the packs of bundles");
        }
        Ok(Fetched::Moved(tip))
    }

    /// Makes one pack of many. It has all of their objects: a later bundle may build on a commit that no ref leads to any more.
    fn join_packs(&self) -> Result<(), GitError> {
        if self.pack_count()? <= MANY_PACKS {
            return Ok(());
        }
        let act = || format!("join the packs of {}", self.path().display());
        let failed = |error: &gix::Error| GitError::new(act(), error);
        let io = |error: std::io::Error| GitError::io(act(), &error);
        let here = self.separate_handle()?;
        let all = || -> gix::Result<Vec<gix::ObjectId>> {
            here.objects.iter()?.map(|id| id.map_err(gix::Error::from_error)).collect()
        };
        let mut objects = all().map_err(|error| failed(&error))?;
        objects.sort_unstable();
        objects.dedup();
        let packs = self.git_dir().join("objects/pack");
        let former: Vec<PathBuf> =
            fs::read_dir(&packs).map_err(io)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        let incoming = Incoming::new(&self.git_dir()).map_err(io)?;
        let mut file = tempfile::tempfile_in(incoming.packs()).map_err(io)?;
        write_pack(&here, objects, &mut file).map_err(|error| failed(&error))?;
        std::io::Seek::rewind(&mut file).map_err(io)?;
        let written = pack::Bundle::write_to_directory(
            &mut BufReader::new(file),
            Some(&incoming.packs()),
            &mut gix::progress::Discard,
            &std::sync::atomic::AtomicBool::new(false),
            None::<gix::OdbHandle>,
            here.object_hash(),
            pack::bundle::write::Options { thread_limit: Some(THREADS), ..pack::bundle::write::Options::default() },
        )
        .map_err(|error| failed(&error))?;
        incoming.keep(&written).map_err(io)?;
        let name = |path: &Option<PathBuf>| path.as_ref().and_then(|path| Some(packs.join(path.file_name()?)));
        let new = [name(&written.data_path), name(&written.index_path)];
        // The index goes first, because git ignores a pack without one.
        let is_index = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "idx");
        let (indexes, others): (Vec<_>, Vec<_>) = former.iter().partition(is_index);
        for file in indexes.into_iter().chain(others).filter(|file| !new.contains(&Some((*file).clone()))) {
            fs::remove_file(file).map_err(io)?;
        }
        Ok(())
    }
}

impl BundleFiles {
    /// Opens the bundle, which has to be a regular file.
    pub fn open(&self) -> Result<File, BundleError> {
        open(self.exact().ok_or(BundleError::Pattern)?)
    }
}

/// The git bundle in a file: a part of it where it has closures as well, and otherwise all of it.
fn git_part(mut file: File) -> Result<Take<File>, BundleError> {
    match git_bundle_in(&file).map_err(|error| BundleError::Closures(Box::new(error)))? {
        Some(span) => {
            file.seek(SeekFrom::Start(span.offset)).map_err(BundleError::Open)?;
            Ok(file.take(span.size))
        }
        None => Ok(file.take(u64::MAX)),
    }
}

/// Opens a regular file. Anything else is refused and not read: a stick may have a link to another file of this machine in the place of
/// a bundle, or a pipe on which a reader waits for ever.
fn open(path: &Path) -> Result<File, BundleError> {
    let no_file = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => BundleError::NoFile,
        _ => BundleError::Open(error),
    };
    check_kind(fs::symlink_metadata(path).map_err(no_file)?.file_type())?;
    // Another file may be there by now.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| no_file(error.into()))?);
    check_kind(file.metadata().map_err(BundleError::Open)?.file_type())?;
    Ok(file)
}

fn check_kind(kind: fs::FileType) -> Result<(), BundleError> {
    let found = if kind.is_file() {
        return Ok(());
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(BundleError::NotAFile(found))
}
