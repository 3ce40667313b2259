//! The bundles that a path or a pattern names, for example `/media/*/clavel*.bundle`.
//!
//! A stick may hold any number of files and folders, so a search ends at a bound.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use wildmatch::WildMatch;

use crate::model::Invalid;

/// The suffix that tells a bundle from a repository.
const SUFFIX: &str = ".bundle";
/// The characters that make a pattern.
const WILD: [char; 2] = ['*', '?'];
/// The most bundles that a pattern names. Of more, those that were written last count.
const MAX_MATCHES: usize = 16;
/// The most names that one search reads.
const MAX_NAMES: usize = 10_000;
/// The most folders that may have to be watched for a bundle.
const MAX_FOLDERS: usize = 64;

/// A bundle, or a pattern of bundles. `*` stands for any characters of one name in the path, and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BundleFiles {
    text: String,
    path: PathBuf,
}

/// Why no bundle was found.
#[derive(Debug, thiserror::Error)]
pub enum BundleSearchError {
    /// No file matches the pattern.
    #[error("no file matches {0}: no stick with a bundle is plugged in")]
    NoMatch(BundleFiles),
    /// The folders hold too many names.
    #[error("cannot look for {0}: its folders hold more than {MAX_NAMES} files; name the folder of the bundle")]
    TooMany(BundleFiles),
    /// A folder cannot be read.
    #[error("cannot look for {pattern} in {}", folder.display())]
    Folder {
        /// The pattern.
        pattern: BundleFiles,
        /// The folder.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The pattern matches more than one file, where one is needed.
    #[error("{0} matches {1} and {2}; name one of them")]
    Ambiguous(BundleFiles, String, String),
}

/// What a search has found so far.
#[derive(Default)]
struct Search {
    names: usize,
    failed: Option<(PathBuf, io::Error)>,
}

impl BundleFiles {
    /// Whether the text is about bundles.
    pub(in crate::git) fn is_meant(text: &str) -> bool {
        path_of(text).starts_with('/') && text.ends_with(SUFFIX)
    }

    /// Whether it may name more than one file.
    pub fn is_pattern(&self) -> bool {
        self.text.contains(WILD)
    }

    /// The path; `None` for a pattern.
    pub fn exact(&self) -> Option<&Path> {
        (!self.is_pattern()).then_some(&self.path)
    }

    /// The bundles, those that were written first before the others. Something else than a file may have such a name.
    pub fn find(&self) -> Result<Vec<Self>, BundleSearchError> {
        if !self.is_pattern() {
            return Ok(vec![self.clone()]);
        }
        let mut search = Search::default();
        let mut found = vec![PathBuf::from("/")];
        for name in self.names() {
            found = search.below(found, name).ok_or_else(|| BundleSearchError::TooMany(self.clone()))?;
        }
        let mut dated: Vec<(SystemTime, PathBuf)> =
            found.into_iter().filter_map(|path| Some((modified(&path)?, path))).collect();
        if dated.is_empty() {
            return Err(match search.failed {
                Some((folder, source)) => BundleSearchError::Folder { pattern: self.clone(), folder, source },
                None => BundleSearchError::NoMatch(self.clone()),
            });
        }
        dated.sort();
        let surplus = dated.len().saturating_sub(MAX_MATCHES);
        Ok(dated.into_iter().skip(surplus).filter_map(|(_, path)| path.to_str()?.parse().ok()).collect())
    }

    /// The one bundle, for a reader who needs one.
    pub fn find_one(&self) -> Result<Self, BundleSearchError> {
        let mut found = self.find()?;
        if let [first, second, ..] = &found[..] {
            return Err(BundleSearchError::Ambiguous(self.clone(), first.to_string(), second.to_string()));
        }
        found.pop().ok_or_else(|| BundleSearchError::NoMatch(self.clone()))
    }

    /// The folders in which a bundle may appear, or a folder on the way to one. Where a folder does not exist, it is the nearest above.
    pub fn folders(&self) -> Vec<PathBuf> {
        let (mut search, mut folders) = (Search::default(), Vec::new());
        let mut found = vec![PathBuf::from("/")];
        let names: Vec<&OsStr> = self.names().collect();
        for (at, name) in names.iter().enumerate() {
            let is_last = at + 1 == names.len();
            let is_wild = is_wild(name);
            let mut next = Vec::new();
            for folder in found {
                let below: Vec<PathBuf> = search.below(vec![folder.clone()], name).unwrap_or_default();
                let below: Vec<PathBuf> = below.into_iter().filter(|path| path.is_dir()).collect();
                // A fixed name that is there needs no watch above it.
                if is_last || is_wild || below.is_empty() {
                    folders.push(folder);
                }
                next.extend(below);
            }
            found = next;
        }
        folders.truncate(MAX_FOLDERS);
        folders
    }

    /// Whether `path` may be a bundle, or a folder on the way to one.
    pub fn is_near(&self, path: &Path) -> bool {
        let matches = |(name, found): (&OsStr, Component<'_>)| match (name.to_str(), found.as_os_str().to_str()) {
            (Some(pattern), Some(found)) => WildMatch::new(pattern).matches(found),
            _ => name == found.as_os_str(),
        };
        let found = path.components().filter(|component| matches!(component, Component::Normal(_)));
        self.names().zip(found).all(matches)
    }

    /// The names in the path.
    fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
    }
}

impl Search {
    /// What `folders` have with this name; `None` beyond the bound.
    fn below(&mut self, folders: Vec<PathBuf>, name: &OsStr) -> Option<Vec<PathBuf>> {
        if !is_wild(name) {
            return Some(folders.into_iter().map(|folder| folder.join(name)).collect());
        }
        let pattern = name.to_str()?;
        let matcher = WildMatch::new(pattern);
        let mut found = Vec::new();
        for folder in folders {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                        self.failed.get_or_insert((folder, error));
                    }
                    continue;
                }
            };
            for entry in entries {
                self.names += 1;
                if self.names > MAX_NAMES {
                    return None;
                }
                let name = entry.ok().map(|entry| entry.file_name());
                // A pattern does not match hidden files, as in a shell; a name with a wild character could not be written back as a path.
                let is_match = |name: &str| {
                    matcher.matches(name) && !name.contains(WILD) && name.starts_with('.') == pattern.starts_with('.')
                };
                if let Some(name) = name.as_deref().and_then(OsStr::to_str).filter(|name| is_match(name)) {
                    found.push(folder.join(name));
                }
            }
        }
        Some(found)
    }
}

fn is_wild(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.contains(WILD))
}

/// When the file was written; `None` if there is none.
fn modified(path: &Path) -> Option<SystemTime> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH))
}

/// The path in a `file` URL, or the text itself.
fn path_of(text: &str) -> &str {
    text.strip_prefix("file://").unwrap_or(text)
}

impl FromStr for BundleFiles {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why: &str| Err(Invalid::new("the path of a bundle", text, why.to_owned()));
        if text.chars().any(char::is_control) {
            return invalid("it holds a control character");
        }
        if text.len() > 4096 {
            return invalid("it is longer than 4096 bytes");
        }
        if !Self::is_meant(text) {
            return invalid("it has to be an absolute path that ends in .bundle");
        }
        let path = PathBuf::from(path_of(text));
        if path.components().any(|component| component == Component::ParentDir) {
            return invalid("it may not contain `..`");
        }
        Ok(Self { text: text.to_owned(), path })
    }
}

impl fmt::Display for BundleFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(path: &Path) -> BundleFiles {
        path.to_str().unwrap().parse().unwrap()
    }

    fn touch(path: &Path, seconds: u64) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn paths_and_patterns_of_bundles_are_read() {
        for (text, is_pattern) in
            [("/media/usb/x.bundle", false), ("file:///x.bundle", false), ("/media/*/clavel?.bundle", true)]
        {
            let files: BundleFiles = text.parse().unwrap();
            assert_eq!((files.to_string().as_str(), files.is_pattern()), (text, is_pattern));
        }
        for bad in ["x.bundle", "/x.git", "/a/../x.bundle", "/a\n.bundle", "https://h/x.bundle", "file://h/x.bundle"] {
            assert!(bad.parse::<BundleFiles>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_finds_the_newest_files_and_no_hidden_ones() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = files(&dir.path().join("*/clavel*.bundle"));
        assert!(matches!(pattern.find(), Err(BundleSearchError::NoMatch(_))));
        touch(&dir.path().join("b/clavel-1.bundle"), 5);
        assert_eq!(pattern.find_one().unwrap(), files(&dir.path().join("b/clavel-1.bundle")));
        touch(&dir.path().join("a/clavel-2.bundle"), 9);
        for other in
            ["a/.clavel.bundle", "a/clavel.git", ".c/clavel-3.bundle", "clavel-4.bundle", "a/b/clavel-5.bundle"]
        {
            touch(&dir.path().join(other), 7);
        }
        let found = pattern.find().unwrap();
        assert_eq!(found, ["b/clavel-1.bundle", "a/clavel-2.bundle"].map(|name| files(&dir.path().join(name))));
        assert!(matches!(pattern.find_one(), Err(BundleSearchError::Ambiguous(..))));
        for number in 0..20 {
            touch(&dir.path().join(format!("many/clavel-{number}.bundle")), 100 + number);
        }
        let found = pattern.find().unwrap();
        assert_eq!(found.len(), MAX_MATCHES);
        assert_eq!(found.last(), Some(&files(&dir.path().join("many/clavel-19.bundle"))));
    }

    #[test]
    fn the_folders_on_the_way_to_a_bundle_are_known_before_they_exist() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (fixed, pattern) = (files(&at("media/usb/x.bundle")), files(&at("media/*/x*.bundle")));
        assert_eq!((fixed.folders(), pattern.folders()), (vec![dir.path().to_owned()], vec![dir.path().to_owned()]));
        fs::create_dir_all(at("media/usb")).unwrap();
        assert_eq!(fixed.folders(), [at("media/usb")]);
        assert_eq!(pattern.folders(), [at("media"), at("media/usb")]);
        for (name, is_near) in
            [("media", true), ("media/a", true), ("media/a/x1.bundle", true), ("other", false), ("media/a/y", false)]
        {
            assert_eq!(pattern.is_near(&at(name)), is_near, "{name}");
        }
    }
}
