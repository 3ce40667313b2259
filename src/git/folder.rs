//! One folder of a commit: the bytes of its tree object, and the position of each entry in them. No I/O.
//!
//! A branch of ten thousand units has folders of as many entries, and an agent reads one of them. So no entry is copied.

use gix::bstr::{BStr, ByteSlice as _};
use gix::hash::Kind;
use gix::objs::TreeRefIter;
use gix::objs::tree::EntryRef;

use super::repository::in_one_line;

/// The entries of a tree by name.
#[derive(Debug)]
pub(super) struct TreeFolder {
    tree: Vec<u8>,
    hash: Kind,
    /// The position at which each entry begins, in the order of the names.
    starts: Vec<usize>,
}

/// The reason why a tree cannot be read as a folder.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FolderError {
    /// Git cannot read an entry.
    #[error("{0}")]
    Entry(String),
    /// Two entries have one name, which git forbids: two readers could see different entries.
    #[error("it holds `{0}` twice")]
    Twice(String),
}

impl TreeFolder {
    /// Parses `tree`, whose object ids are of the kind `hash`.
    pub(super) fn of(tree: Vec<u8>, hash: Kind) -> Result<Self, FolderError> {
        let mut starts = Vec::new();
        let (mut entries, mut is_in_order) = (TreeRefIter::from_bytes(&tree, hash), true);
        let mut before: Option<&BStr> = None;
        loop {
            let start = entries.offset_to_next_entry(&tree);
            let Some(entry) = entries.next() else { break };
            let name = entry.map_err(|error| FolderError::Entry(in_one_line(&error)))?.filename;
            is_in_order &= before.replace(name).is_none_or(|before| before < name);
            starts.push(start);
        }
        let mut folder = Self { tree, hash, starts };
        if !is_in_order {
            folder.sort()?;
        }
        Ok(folder)
    }

    /// Sorts the positions by name. Git sorts folders differently, as if their names ended in `/`.
    fn sort(&mut self) -> Result<(), FolderError> {
        let mut starts = std::mem::take(&mut self.starts);
        starts.sort_by_key(|start| self.at(*start).map(|entry| entry.filename));
        self.starts = starts;
        let mut names = self.entries().map(|entry| entry.filename);
        let mut before = names.next();
        let twice = names.find(|name| before.replace(name) == Some(*name));
        twice.map_or(Ok(()), |name| Err(FolderError::Twice(name.to_string())))
    }

    fn at(&self, start: usize) -> Option<EntryRef<'_>> {
        TreeRefIter::from_bytes(&self.tree[start..], self.hash).next()?.ok()
    }

    /// The entry of this name.
    pub(super) fn get(&self, name: &str) -> Option<EntryRef<'_>> {
        let name = name.as_bytes().as_bstr();
        let place = self.starts.binary_search_by_key(&Some(name), |start| self.at(*start).map(|entry| entry.filename));
        self.at(self.starts[place.ok()?])
    }

    /// All entries, in the order of their names.
    pub(super) fn entries(&self) -> impl Iterator<Item = EntryRef<'_>> {
        self.starts.iter().filter_map(|start| self.at(*start))
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with these entries, each a mode and a name, with ids that count up.
    fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
        let entry = |(at, (mode, name)): (usize, &(&str, &str))| {
            [format!("{mode} {name}\0").as_bytes(), &[u8::try_from(at).unwrap(); 20]].concat()
        };
        entries.iter().enumerate().flat_map(entry).collect()
    }

    #[test]
    fn every_entry_is_found_by_its_name_whatever_its_position() {
        // The order of git: `a` is a folder, so it is sorted as `a/`.
        let names = [("100644", "a.json"), ("40000", "a"), ("100755", "b"), ("120000", "c")];
        let folder = TreeFolder::of(tree(&names), Kind::Sha1).unwrap();
        for (at, (_, name)) in names.iter().enumerate() {
            let entry = folder.get(name).unwrap();
            let id = usize::from(entry.oid.as_bytes()[0]);
            assert_eq!((entry.filename.to_string().as_str(), id), (*name, at));
        }
        for absent in ["", "a/", "A", "a.jso", "d"] {
            assert_eq!(folder.get(absent), None, "{absent}");
        }
        let listed: Vec<String> = folder.entries().map(|entry| entry.filename.to_string()).collect();
        assert_eq!(listed, ["a", "a.json", "b", "c"]);
        assert_eq!(folder.len(), 4);
    }

    #[test]
    fn a_tree_that_breaks_off_or_has_a_name_twice_is_refused() {
        let whole = tree(&[("100644", "a"), ("100644", "b")]);
        assert!(matches!(TreeFolder::of(whole[..whole.len() - 1].to_vec(), Kind::Sha1), Err(FolderError::Entry(_))));
        for names in
            [[("100644", "a"), ("100644", "a"), ("100644", "b")], [("100644", "a"), ("100644", "b"), ("40000", "a")]]
        {
            assert_eq!(TreeFolder::of(tree(&names), Kind::Sha1).unwrap_err(), FolderError::Twice("a".to_owned()));
        }
        assert_eq!(TreeFolder::of(Vec::new(), Kind::Sha1).unwrap().len(), 0);
    }
}
