//! Reads the bundles that a path or a pattern names, for example those of a stick. Each is a candidate of its own.
//!
//! They share one copy, because a bundle may build on an earlier one.

use std::path::Path;
use std::time::{Duration, Instant};

use super::mirror_fetch::{BranchFetchError, FetchedMirror, MirrorFetch, short_digest};
use crate::config::AgentConfig;
use crate::git::{BundleFiles, Remote, on_medium};
use crate::model::BranchPart;

/// Takes what each of the bundles has into the copy at `path`.
pub(super) async fn fetch_bundles(
    config: &AgentConfig,
    files: &BundleFiles,
    path: &Path,
    rescue: &dyn Fn(&Path),
) -> Vec<FetchedMirror> {
    let begun = Instant::now();
    let found = match find(config, files).await {
        Ok(found) => found,
        Err(error) => return vec![FetchedMirror { mirror: files.to_string(), tip: Err(error) }],
    };
    let fetch = async |bundle: &Remote| {
        // All of them have the time of one mirror.
        let within = config.fetch_deadline.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        let fetch = MirrorFetch {
            mirror: bundle,
            branch: &config.branch,
            part: &BranchPart::Whole,
            path,
            into: ref_of(bundle),
            within,
        };
        FetchedMirror { mirror: bundle.to_string(), tip: fetch.run(rescue).await }
    };
    let (mut fetched, mut any) = (Vec::new(), false);
    for bundle in found.into_iter().map(Remote::Bundle) {
        let one = fetch(&bundle).await;
        any |= one.tip.is_ok();
        fetched.push((bundle, one));
    }
    // A bundle may build on one that was written to the stick after it.
    for (bundle, one) in fetched.iter_mut().filter(|(_, one)| any && one.tip.is_err()) {
        *one = fetch(bundle).await;
    }
    fetched.into_iter().map(|(_, one)| one).collect()
}

/// Looks for the bundles, until the deadline.
async fn find(config: &AgentConfig, files: &BundleFiles) -> Result<Vec<BundleFiles>, BranchFetchError> {
    let pattern = files.clone();
    let found = on_medium("bundles", config.fetch_deadline, move || pattern.find()).await.map_err(|source| {
        BranchFetchError::Machine { act: format!("start a thread that looks for {files}"), source }
    })?;
    let too_slow = || BranchFetchError::TooSlow {
        repository: files.to_string(),
        branch: config.branch.to_string(),
        limit: config.fetch_deadline,
    };
    Ok(found.ok_or_else(too_slow)??)
}

/// The ref that follows the branch of one bundle. With it, a bundle that was read is not read again.
fn ref_of(bundle: &Remote) -> String {
    format!("refs/clavel/bundles/{}", short_digest(bundle))
}
