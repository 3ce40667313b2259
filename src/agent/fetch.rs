//! The agent's copies of the branch: one bare repository for each mirror. A copy is a cache.
//!
//! Each mirror has its own repository: git tells a server which objects it has already, and objects of a lying server must not make
//! it leave out those of an honest one.
//!
//! Nothing here is believed yet; `verify` decides that.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::stream::{self, StreamExt as _};

use super::bundles::fetch_bundles;
pub use super::mirror_fetch::BranchFetchError;
pub(super) use super::mirror_fetch::FetchedMirror;
use super::mirror_fetch::{MirrorFetch, short_digest};
use crate::config::AgentConfig;
use crate::git::Remote;
use crate::model::BranchPart;

/// How many mirrors are asked at the same time. Each may use all the memory of its limit.
const AT_A_TIME: usize = 4;
/// The ref that follows the branch in the copy of a repository.
const FETCHED: &str = "refs/clavel/fetched";

/// Fetches from every mirror of `config`, several at a time; the results are in the configuration's order. The copies are
/// below `folder`. `rescue` is called with each copy before it is deleted.
pub(super) async fn fetch(config: &AgentConfig, folder: &Path, rescue: &dyn Fn(&Path)) -> Vec<FetchedMirror> {
    if let Err(error) = delete_former(config, folder, rescue) {
        // They only take space.
        tracing::warn!(%error, folder = %folder.display(), "cannot delete the copies of former mirrors");
    }
    let fetches = config.mirrors.iter().map(|mirror| fetch_from(config, mirror, folder, rescue));
    stream::iter(fetches).buffered(AT_A_TIME).collect::<Vec<_>>().await.into_iter().flatten().collect()
}

/// Fetches from one mirror. A pattern of bundles may be several.
pub(super) async fn fetch_from(
    config: &AgentConfig,
    mirror: &Remote,
    folder: &Path,
    rescue: &dyn Fn(&Path),
) -> Vec<FetchedMirror> {
    let part = &BranchPart::OfAgent {
        agent: config.name.clone(),
        deployments: config.deployments.as_ref().map(|wanted| wanted.to_vec()),
    };
    let path = copy_of(folder, mirror);
    if let Some(files) = mirror.bundle() {
        return fetch_bundles(config, files, &path, rescue).await;
    }
    let (into, within) = (FETCHED.to_owned(), config.fetch_deadline);
    let tip = MirrorFetch { mirror, branch: &config.branch, part, path: &path, into, within }.run(rescue).await;
    vec![FetchedMirror { mirror: mirror.to_string(), tip }]
}

/// The path of a mirror's copy. Secrets in the URL do not change the name.
fn copy_of(folder: &Path, mirror: &Remote) -> PathBuf {
    folder.join(format!("{}.git", short_digest(mirror)))
}

/// Deletes the copies of mirrors that the configuration no longer names.
fn delete_former(config: &AgentConfig, folder: &Path, rescue: &dyn Fn(&Path)) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let ours: BTreeSet<PathBuf> = config.mirrors.iter().map(|mirror| copy_of(folder, mirror)).collect();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if ours.contains(&path.with_extension("git")) {
            continue;
        }
        rescue(&path);
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}
