//! The paths of documents on the branch: `FOLDER/NAME.json`.

use std::fmt;
use std::str::FromStr;

use super::text::as_text;
use super::{Invalid, Name};

/// The folders of the branch that hold documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// `agents/`
    Agents,
    /// `deployments/`
    Deployments,
    /// `units/`
    Units,
}

impl Folder {
    /// Every folder, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Agents, Self::Deployments, Self::Units];

    /// Its name on the branch.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Deployments => "deployments",
            Self::Units => "units",
        }
    }
}

/// The path of a document on the branch, such as `deployments/NAME.json`.
///
/// Paths are ordered by their text, which is the order of the index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DocumentPath {
    folder: Folder,
    name: Name,
}

impl DocumentPath {
    /// The path of the document `name` in `folder`.
    pub fn new(folder: Folder, name: Name) -> Self {
        Self { folder, name }
    }

    /// Its folder.
    pub fn folder(&self) -> Folder {
        self.folder
    }

    /// The name of the document.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl Ord for DocumentPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (name, others) = (self.name.as_str().as_bytes(), other.name.as_str().as_bytes());
        let common = name.len().min(others.len());
        let beginning = || name[..common].cmp(&others[..common]);
        // The ending `.json` counts too: `a-b.json` stands before `a.json`.
        let rest = || name[common..].iter().chain(b".json").cmp(others[common..].iter().chain(b".json"));
        self.folder.cmp(&other.folder).then_with(beginning).then_with(rest)
    }
}

impl PartialOrd for DocumentPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for DocumentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&[self.folder.as_str(), "/", self.name.as_str(), ".json"].concat())
    }
}

impl FromStr for DocumentPath {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            let why = "it has to be deployments/NAME.json, agents/NAME.json or units/NAME.json";
            Invalid::new("the path of a document", text, why)
        };
        let (folder, file) = text.split_once('/').ok_or_else(bad)?;
        let folder = Folder::ALL.into_iter().find(|f| f.as_str() == folder).ok_or_else(bad)?;
        Ok(Self::new(folder, file.strip_suffix(".json").ok_or_else(bad)?.parse()?))
    }
}

as_text!(
    DocumentPath,
    pattern: r"^(agents|deployments|units)/[A-Za-z0-9_@][A-Za-z0-9._@-]{0,127}\.json$",
    about: "The path of a document on the branch"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_layout_are_accepted() {
        let path: DocumentPath = "deployments/a.b.json".parse().unwrap();
        assert_eq!((path.folder(), path.name().as_str()), (Folder::Deployments, "a.b"));
        for bad in ["deployments/../x.json", "other/x.json", "deployments/x", "x.json", "deployments/a/b.json", ""] {
            assert!(bad.parse::<DocumentPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_ordered_by_their_text() {
        let mut paths: Vec<DocumentPath> = ["units/a.json", "agents/a.json", "agents/a.b.json", "agents/a-1.json"]
            .map(|path| path.parse().unwrap())
            .into();
        paths.sort();
        let texts: Vec<String> = paths.iter().map(DocumentPath::to_string).collect();
        assert_eq!(texts, ["agents/a-1.json", "agents/a.b.json", "agents/a.json", "units/a.json"]);
    }
}
