//! Files as data: the templates, and the change of a folder from one tree to the next.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// The content of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileContent {
    File(String),
    Executable(String),
    Link(String),
}

/// The content of each path below a folder.
pub(crate) type Tree = BTreeMap<String, FileContent>;

/// The files of `fixtures/fleets`, by their paths there.
#[derive(Debug)]
pub(crate) struct Templates(BTreeMap<String, String>);

impl Templates {
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fleets");
        let mut found = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        Self(found)
    }

    /// A template with `@KEY@` replaced by its value, for each of `values`.
    pub(crate) fn rendered(&self, name: &str, values: &[(&str, &str)]) -> String {
        let text = self.0.get(name).unwrap_or_else(|| panic!("fixtures/fleets has no {name}"));
        values.iter().fold(text.clone(), |text, (key, value)| text.replace(&format!("@{key}@"), value))
    }

    /// The names of all templates in a folder, without the folder.
    pub(crate) fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().filter_map(move |name| name.strip_prefix(folder)?.strip_prefix('/'))
    }
}

/// Changes the files below `root` from the tree `old` to the tree `new`. Other files stay as they are.
pub(crate) fn change(root: &Path, old: &Tree, new: &Tree) {
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        let path = root.join(path);
        std::fs::remove_file(&path).unwrap();
        remove_empty(path.parent().unwrap());
    }
    for (path, content) in new.iter().filter(|(path, content)| old.get(*path) != Some(content)) {
        put(root.join(path), content);
    }
}

fn remove_empty(folder: &Path) {
    // A folder that is not empty stays, and so do those above it.
    if std::fs::remove_dir(folder).is_ok() {
        remove_empty(folder.parent().unwrap());
    }
}

fn put(path: PathBuf, content: &FileContent) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Writing to a link would change its target.
    if path.symlink_metadata().is_ok() {
        std::fs::remove_file(&path).unwrap();
    }
    let (text, mode) = match content {
        FileContent::Link(to) => return symlink(to, path).unwrap(),
        FileContent::File(text) => (text, 0o644),
        FileContent::Executable(text) => (text, 0o755),
    };
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
