//! Writes the objects of a commit to the disk: a few as loose objects, and many as one pack.
//!
//! A first publication of 10,000 units has 30,000 objects. As loose objects they would be as many files, each of which takes a
//! block of the disk and a call of its own.

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use gix::odb::memory::Storage;
use gix::odb::pack;
use gix::odb::pack::data::output::{Count, Entry, bytes::FromEntriesIter};
use gix::prelude::Write as _;

use super::shared::paths_of_loose;

/// From so many objects on, a pack is written.
const MANY: usize = 256;

/// Writes those of `objects` that the repository does not have, and returns their files. The caller syncs the disk.
pub(super) fn persist(repository: &mut gix::Repository, mut objects: Storage) -> Result<Vec<PathBuf>, gix::Error> {
    // Nearly all of them are new, and for each of those the repository would list its packs again, in case another process made one
    // meanwhile. An object that such a pack has as well is written twice, which does no harm.
    repository.objects.refresh_never();
    let mut new: Vec<_> = objects.drain().filter(|(id, _)| !repository.has_object(id)).collect();
    if new.len() < MANY {
        for (_, (kind, data)) in &new {
            repository.objects.write_buf(*kind, data)?;
        }
        return Ok(paths_of_loose(repository.objects.store_ref().path(), new.iter().map(|(id, _)| id)));
    }
    // The same objects give the same pack.
    new.sort_by_key(|(id, _)| *id);
    write_pack(repository, new.iter().map(|(id, (kind, data))| (*id, *kind, data.as_slice())))
}

fn write_pack<'o>(
    repository: &gix::Repository,
    objects: impl ExactSizeIterator<Item = (gix::ObjectId, gix::objs::Kind, &'o [u8])>,
) -> Result<Vec<PathBuf>, gix::Error> {
    let (hash, version) = (repository.object_hash(), pack::data::Version::V2);
    let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
    let entries = objects.map(|(id, kind, data)| {
        let object = gix::objs::Data { kind, object_hash: hash, data };
        Entry::from_data(&Count::from_data(id, None), &object, gix::zlib::Compression::BEST_SPEED)
            .map(|entry| vec![entry])
    });
    let mut file = tempfile::tempfile().map_err(gix::Error::from_error)?;
    for written in FromEntriesIter::new(entries, std::io::BufWriter::new(&mut file), count, version, hash) {
        written?;
    }
    std::io::Seek::rewind(&mut file).map_err(gix::Error::from_error)?;
    let folder = repository.objects.store_ref().path().join("pack");
    // Indexing the pack checks every object in it.
    let written = pack::Bundle::write_to_directory(
        &mut BufReader::new(file),
        Some(&folder),
        &mut gix::progress::Discard,
        &AtomicBool::new(false),
        None::<gix::OdbHandle>,
        hash,
        pack::bundle::write::Options::default(),
    )?;
    Ok([written.data_path, written.index_path].into_iter().flatten().collect())
}
