//! The files that Nix reads its settings from (Nix's manual, "nix.conf"). An answer depends on their content.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The most files that are read, so that the reading ends if files include each other.
const MAX_FILES: usize = 64;

/// The content of each file that the environment of this process names; `None` for a file that is missing.
pub(super) fn files() -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let system = env::var_os("NIX_CONF_DIR").map_or_else(|| PathBuf::from("/etc/nix"), PathBuf::from);
    let mut roots = vec![system.join("nix.conf")];
    match env::var_os("NIX_USER_CONF_FILES") {
        Some(files) => roots.extend(env::split_paths(&files)),
        None => roots.extend(user_folders().into_iter().map(|folder| folder.join("nix/nix.conf"))),
    }
    with_included(roots)
}

/// The folders with the settings of the user, as the XDG variables name them.
fn user_folders() -> Vec<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    let own = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let others = env::var_os("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    own.into_iter().chain(env::split_paths(&others)).collect()
}

/// The content of the files and of those that they include.
fn with_included(mut open: Vec<PathBuf>) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut files = BTreeMap::new();
    while let Some(path) = open.pop() {
        if files.len() == MAX_FILES || files.contains_key(&path) {
            continue;
        }
        let bytes = fs::read(&path).ok();
        let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
        let folder = path.parent().unwrap_or(Path::new("/"));
        open.extend(text.lines().filter_map(included).map(|file| folder.join(file)));
        files.insert(path, bytes);
    }
    files
}

/// The file that a line of settings includes.
fn included(line: &str) -> Option<&str> {
    let mut words = line.split('#').next()?.split_whitespace();
    words.next().filter(|word| ["include", "!include"].contains(word))?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_files_are_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("nix.conf"), "cores = 1\n!include more.conf # and so on\n").unwrap();
        fs::write(at("more.conf"), format!("include {}\n!include absent.conf\n", at("nix.conf").display())).unwrap();
        let files = with_included(vec![at("nix.conf")]);
        let expected = ["absent.conf", "more.conf", "nix.conf"].map(at);
        assert_eq!(files.keys().cloned().collect::<Vec<_>>(), expected);
        assert_eq!(files[&at("absent.conf")], None);
        assert!(files[&at("more.conf")].is_some());
    }
}
