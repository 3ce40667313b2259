//! Whether there is room for what a fetch would bring.

use std::path::Path;

use super::error::RealiseError;
use crate::host::free_space;
use crate::model::{NarTemplateSpecification, StorePath};
use crate::store::{CacheEntries, Store};

/// How many bytes have to stay free: the store's database and other programs of the machine need some.
const LEAST_LEFT: u64 = 32 << 20;

/// Refuses to fetch what has no room. Where no cache says how much it is, or the disk says nothing, the fetch itself finds out.
pub(super) async fn check_space(store: &dyn Store, template: &NarTemplateSpecification) -> Result<(), RealiseError> {
    let path = &template.nar_id;
    let is_here = |path: &StorePath| std::fs::symlink_metadata(store.files_of(path)).is_ok();
    if is_here(path) {
        return Ok(());
    }
    let files = store.files_of(path);
    let Some((folder, free)) = files.ancestors().skip(1).find_map(|folder| Some((folder, free_space(folder)?))) else {
        return Ok(());
    };
    for cache in template.substituters.iter() {
        let Ok(entries) = store.look_up_closure(cache, std::slice::from_ref(path)).await else { continue };
        return refuse_excess(path, missing(&entries, is_here), free, folder);
    }
    Ok(())
}

/// The bytes of the paths that are not here.
fn missing(entries: &CacheEntries, is_here: impl Fn(&StorePath) -> bool) -> u64 {
    entries.iter().filter(|(path, _)| !is_here(path)).map(|(_, entry)| entry.content().nar_size).sum()
}

fn refuse_excess(path: &StorePath, needed: u64, free: u64, folder: &Path) -> Result<(), RealiseError> {
    if needed.saturating_add(LEAST_LEFT) <= free {
        return Ok(());
    }
    Err(RealiseError::NoRoom { path: path.clone(), needed, free, folder: folder.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::describe_error;

    #[test]
    fn what_has_no_room_is_refused_before_it_is_fetched() {
        let entry = |size: u64| {
            let hash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
            serde_json::from_value(serde_json::json!({ "narHash": hash, "narSize": size, "references": [] })).unwrap()
        };
        let path = |name: &str| -> StorePath {
            format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap()
        };
        let entries: CacheEntries = [(path("here"), entry(1 << 40)), (path("web"), entry(200 << 20))].into();
        let needed = missing(&entries, |path| path.name() == "here");
        assert_eq!(needed, 200 << 20);
        let refused = |free| refuse_excess(&path("web"), needed, free, Path::new("/nix/store"));
        assert!(refused(232 << 20).is_ok());
        let error = describe_error(&refused((232 << 20) - 1).unwrap_err());
        assert!(error.contains("needs 200.0 MiB more") && error.contains("the disk of /nix/store has 23"), "{error}");
    }
}
