//! One folder of a commit: the bytes that git has for it, and where in them each name is. Pure.
//!
//! A branch of ten thousand units has folders of as many entries, of which an agent wants one. So no entry is copied out.

use gix::bstr::{BStr, ByteSlice as _};
use gix::hash::Kind;
use gix::objs::TreeRefIter;
use gix::objs::tree::EntryRef;

/// The entries of a tree by name.
#[derive(Debug)]
pub(super) struct Folder {
    tree: Vec<u8>,
    hash: Kind,
    /// Where each entry begins, in the order of the names.
    starts: Vec<usize>,
}

/// Why a tree has no entries by name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoFolder {
    /// Git cannot read an entry.
    #[error("{0}")]
    Entry(String),
    /// Git forbids it; of two entries with one name, two readers could see different ones.
    #[error("it holds `{0}` twice")]
    Twice(String),
}

impl Folder {
    /// The entries of `tree`, whose object ids are of the kind `hash`.
    pub(super) fn of(tree: Vec<u8>, hash: Kind) -> Result<Self, NoFolder> {
        let mut starts = Vec::new();
        let (mut entries, mut is_in_order) = (TreeRefIter::from_bytes(&tree, hash), true);
        let mut before: Option<&BStr> = None;
        loop {
            let start = entries.offset_to_next_entry(&tree);
            let Some(entry) = entries.next() else { break };
            let name = entry.map_err(|error| NoFolder::Entry(error.to_string()))?.filename;
            is_in_order &= before.replace(name).is_none_or(|before| before < name);
            starts.push(start);
        }
        let mut folder = Self { tree, hash, starts };
        if !is_in_order {
            folder.sort()?;
        }
        Ok(folder)
    }

    /// Git has a folder where its name would be with a `/` behind it.
    fn sort(&mut self) -> Result<(), NoFolder> {
        let mut starts = std::mem::take(&mut self.starts);
        starts.sort_by_key(|start| self.at(*start).map(|entry| entry.filename));
        self.starts = starts;
        let mut names = self.entries().map(|entry| entry.filename);
        let mut before = names.next();
        let twice = names.find(|name| before.replace(name) == Some(*name));
        twice.map_or(Ok(()), |name| Err(NoFolder::Twice(name.to_string())))
    }

    fn at(&self, start: usize) -> Option<EntryRef<'_>> {
        TreeRefIter::from_bytes(&self.tree[start..], self.hash).next()?.ok()
    }

    /// What is there under `name`.
    pub(super) fn get(&self, name: &str) -> Option<EntryRef<'_>> {
        let name = name.as_bytes().as_bstr();
        let place = self.starts.binary_search_by_key(&Some(name), |start| self.at(*start).map(|entry| entry.filename));
        self.at(self.starts[place.ok()?])
    }

    /// All entries, in the order of their names.
    pub(super) fn entries(&self) -> impl Iterator<Item = EntryRef<'_>> {
        self.starts.iter().filter_map(|start| self.at(*start))
    }

    /// How many entries there are.
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
    fn every_entry_is_found_by_its_name_wherever_git_has_it() {
        // As git sorts them: `a` is a folder, and so comes where `a/` would.
        let names = [("100644", "a.json"), ("40000", "a"), ("100755", "b"), ("120000", "c")];
        let folder = Folder::of(tree(&names), Kind::Sha1).unwrap();
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
    fn what_breaks_off_or_has_a_name_twice_is_no_folder() {
        let whole = tree(&[("100644", "a"), ("100644", "b")]);
        assert!(matches!(Folder::of(whole[..whole.len() - 1].to_vec(), Kind::Sha1), Err(NoFolder::Entry(_))));
        for names in
            [[("100644", "a"), ("100644", "a"), ("100644", "b")], [("100644", "a"), ("100644", "b"), ("40000", "a")]]
        {
            assert_eq!(Folder::of(tree(&names), Kind::Sha1).unwrap_err(), NoFolder::Twice("a".to_owned()));
        }
        assert_eq!(Folder::of(Vec::new(), Kind::Sha1).unwrap().len(), 0);
    }
}
