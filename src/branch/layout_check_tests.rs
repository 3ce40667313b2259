use proptest::prelude::*;

use super::super::fixture::{Listing, index};
use super::super::layout::MAX_APPROVALS;
use super::*;
use crate::git::fixture::{self, TestFolder};
use crate::git::{CommitId, Repository};
use crate::model::{DocumentPath, IndexEntry, IndexVersion, MAX_ENTRIES_OF_A_BIN, Revision, Sha256Digest};
use crate::trust::fixture::Fleet;

const ID: &str = "0123456789012345678901234567890123456789";

/// The names of the documents that the index of these tests lists in each folder.
const LISTED: [&str; 8] = ["a", "@home", "alice@x.json", "Web", "web", "Web-1", "web-2", "b-2"];

/// An index of one bin that lists `names` in each folder, and that bin.
fn listing(names: &[&str]) -> (Index, VerifiedBin) {
    let mut listing = Listing::empty(BinCount::ONE);
    for name in names {
        for folder in ["agents", "deployments", "units"] {
            let entry = IndexEntry { length: 1, revision: Revision::FIRST, sha256: Sha256Digest::of(b"x") };
            listing.documents.insert(format!("{folder}/{name}.json").parse::<DocumentPath>().unwrap(), entry);
        }
    }
    let fleet = Fleet::new();
    let index = fleet.verified(index(&fleet, &listing, "2026-01-01T00:00:00Z".parse().unwrap(), IndexVersion::FIRST));
    let (id, file) = listing.bins().pop_first().unwrap();
    let bin = VerifiedBin::verify(id, Some(&file), &index).unwrap();
    (index.into_inner(), bin)
}

/// A repository in which git itself makes trees of the lines of `mktree`. In the lines, `BLOB` is a blob, `DIR` a folder with
/// `a.json` in it, and `COMMIT` a commit of another repository.
struct TreeMaker {
    dir: TestFolder,
    repository: Repository,
}

impl TreeMaker {
    fn new() -> Self {
        let dir = TestFolder::new();
        let repository = dir.repository("r.git");
        Self { dir, repository }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("r.git")
    }

    fn tree(&self, lines: &str) -> String {
        let path = self.path();
        let blob = fixture::git_with_input(&path, &["hash-object", "-w", "--stdin"], "hello");
        let folder = fixture::git_with_input(&path, &["mktree"], &format!("100644 blob {blob}\ta.json\n"));
        let lines = lines.replace("BLOB", &blob).replace("DIR", &folder).replace("COMMIT", ID);
        fixture::git_with_input(&path, &["mktree", "--missing"], &lines)
    }

    /// Checks a commit whose root has these lines.
    fn check(&self, lines: &str) -> Result<(), LayoutError> {
        self.check_tree(&self.tree(lines))
    }

    fn check_tree(&self, tree: &str) -> Result<(), LayoutError> {
        self.check_commit(fixture::commit_tree(&self.path(), tree))
    }

    fn check_commit(&self, commit: CommitId) -> Result<(), LayoutError> {
        let (index, bin) = listing(&LISTED);
        let files = self.repository.snapshot(commit)?;
        check_top(&files, &index)?;
        check_bin(&files, &index, &bin)?;
        ["a", "web-1"]
            .into_iter()
            .try_for_each(|name| check_approvals(&files, Layout::of(BinCount::ONE), &name.parse().unwrap()))
    }

    /// Checks a commit whose root has one folder with these lines.
    fn check_in(&self, folder: &str, lines: &str) -> Result<(), LayoutError> {
        let tree = self.tree(lines);
        self.check(&format!("040000 tree {tree}\t{folder}\n"))
    }

    /// Writes any bytes as a tree object.
    fn raw_tree(&self, bytes: &[u8]) -> String {
        let file = self.dir.path().join("tree");
        std::fs::write(&file, bytes).unwrap();
        let file = file.to_str().unwrap();
        fixture::git(&self.path(), &["hash-object", "-t", "tree", "--literally", "-w", file])
    }
}

#[track_caller]
fn refused(result: Result<(), LayoutError>, what: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(what), "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[test]
fn exactly_the_layout_is_accepted() {
    let trees = TreeMaker::new();
    let approvals = trees.tree("040000 tree DIR\tweb-1\n");
    let roots = trees.tree("100644 blob BLOB\t1.json\n100644 blob BLOB\t9007199254740991.json\n");
    let root = format!(
        "100644 blob BLOB\tREADME.md\n100644 blob BLOB\tindex.json\n100644 blob BLOB\troot.json\n\
         040000 tree DIR\tagents\n040000 tree DIR\tdeployments\n040000 tree DIR\tunits\n\
         040000 tree {roots}\troots\n040000 tree {approvals}\tapprovals\n"
    );
    trees.check(&root).unwrap();
    trees.check("100644 blob BLOB\tindex.json\n").unwrap();
    trees.check("").unwrap();
    // Git sorts folders with a `/` after the name: `a.b/` comes before `a/`.
    trees.check_in("approvals", "040000 tree DIR\ta\n040000 tree DIR\ta.b\n040000 tree DIR\ta-b\n").unwrap();
    trees.check_in("units", "100644 blob BLOB\t@home.json\n100644 blob BLOB\talice@x.json.json\n").unwrap();
}

#[test]
fn a_foreign_entry_at_the_root_is_refused_by_name() {
    let trees = TreeMaker::new();
    for (line, what) in [
        ("100644 blob BLOB\tindex.JSON", "`index.JSON`"),
        ("100644 blob BLOB\tevil.sh", "it is a file, and only the files README.md"),
        ("100755 blob BLOB\tindex.json", "it is an executable file"),
        ("120000 blob BLOB\tindex.json", "it is a symbolic link"),
        ("120000 blob BLOB\tunits", "`units`"),
        ("160000 commit COMMIT\tunits", "it is a submodule"),
        ("100644 blob BLOB\tunits", "it is a file"),
        ("040000 tree DIR\tindex.json", "it is a folder"),
        ("040000 tree DIR\tUnits", "`Units`"),
        ("040000 tree DIR\tother", "`other`"),
        ("100664 blob BLOB\tindex.json", "it is an entry of mode `100664`"),
    ] {
        refused(trees.check(&format!("{line}\n")), what);
    }
}

#[test]
fn a_foreign_entry_in_a_folder_is_refused_by_name() {
    let trees = TreeMaker::new();
    let long = "x".repeat(129);
    for folder in ["agents", "deployments", "units"] {
        for (mode, name, what) in [
            ("100755 blob BLOB", "a.json", "an executable file"),
            ("120000 blob BLOB", "a.json", "a symbolic link"),
            ("160000 commit COMMIT", "a.json", "a submodule"),
            ("040000 tree DIR", "a", "a folder, and only the documents that the index lists"),
            ("040000 tree DIR", "a.json", "a folder"),
            ("100644 blob BLOB", "a", "/a`"),
            ("100644 blob BLOB", "a.JSON", "/a.JSON`"),
            ("100644 blob BLOB", ".json", "/.json`"),
            ("100644 blob BLOB", ".hidden.json", "/.hidden.json`"),
            ("100644 blob BLOB", "-rf.json", "/-rf.json`"),
            ("100644 blob BLOB", "a b.json", "/a b.json`"),
            ("100644 blob BLOB", "\"\\303\\251.json\"", "/\\xc3\\xa9.json`"),
            ("100644 blob BLOB", "\"e\\314\\201.json\"", "/e\\xcc\\x81.json`"),
            ("100644 blob BLOB", "\"\\377.json\"", "/\\xff.json`"),
            ("100644 blob BLOB", "\"a\\033[2J.json\"", "/a\\x1b[2J.json`"),
            ("100644 blob BLOB", "\"a\\n.json\"", "/a\\n.json`"),
            ("100644 blob BLOB", "a\\b.json", "/a\\\\b.json`"),
            ("100644 blob BLOB", &format!("{long}.json"), "xxx.json`"),
        ] {
            refused(trees.check_in(folder, &format!("{mode}\t{name}\n")), what);
        }
    }
    for name in ["0.json", "01.json", "+1.json", "-1.json", "1.0.json", "9007199254740992.json", "x.json", "1", ".json"]
    {
        refused(trees.check_in("roots", &format!("100644 blob BLOB\t{name}\n")), &format!("`roots/{name}`"));
    }
    refused(trees.check_in("roots", "100755 blob BLOB\t1.json\n"), "an executable file");
    refused(trees.check_in("approvals", "100644 blob BLOB\ta.json\n"), "it is a file, and only folders");
    refused(trees.check_in("approvals", "040000 tree DIR\ta b\n"), "`approvals/a b`");
    let deep = trees.tree("040000 tree DIR\tb\n");
    refused(trees.check_in("approvals", &format!("040000 tree {deep}\ta\n")), "`approvals/a/b`");
    let odd = trees.tree("100644 blob BLOB\tb.txt\n");
    refused(trees.check_in("approvals", &format!("040000 tree {odd}\ta\n")), "`approvals/a/b.txt`");
}

#[test]
fn names_that_git_itself_does_not_write_are_refused() {
    let trees = TreeMaker::new();
    let folder = |name: &str| [format!("40000 {name}\0").as_bytes(), &[7; 20]].concat();
    let file = |name: &str| [format!("100644 {name}\0").as_bytes(), &[7; 20]].concat();
    for name in [".git", ".GIT", ".", "..", "", "a/b", "git~1"] {
        refused(trees.check_tree(&trees.raw_tree(&folder(name))), "does not belong on a branch of Clavel");
        refused(trees.check_tree(&trees.raw_tree(&file(name))), "does not belong on a branch of Clavel");
    }
    // Some programs wrote a zero before the mode. Git reads it, and another reader may read the entry differently.
    let padded = [b"0100644 index.json\0".as_slice(), &[7; 20]].concat();
    refused(trees.check_tree(&trees.raw_tree(&padded)), "it is an entry of mode `0100644`");
    let twice = [file("index.json"), file("index.json")].concat();
    refused(trees.check_tree(&trees.raw_tree(&twice)), "`index.json`");
    let unsorted = [file("root.json"), file("index.json")].concat();
    refused(trees.check_tree(&trees.raw_tree(&unsorted)), "the folder `/`");
    for short in [b"100644 index.json\0short".as_slice(), b"100644"] {
        refused(trees.check_tree(&trees.raw_tree(short)), "is damaged");
        assert_eq!(check_tree(BranchFolder::Roots, short), Err(FolderFault::Malformed("an entry breaks off")));
    }
}

#[test]
fn twins_are_refused_in_every_folder() {
    let trees = TreeMaker::new();
    for folder in ["agents", "deployments", "units"] {
        refused(trees.check_in(folder, "100644 blob BLOB\tWeb.json\n100644 blob BLOB\tweb.json\n"), "/web.json`");
    }
    refused(trees.check_in("approvals", "040000 tree DIR\tWeb\n040000 tree DIR\tweb\n"), "has a twin");
    trees.check_in("agents", "100644 blob BLOB\tWeb-1.json\n100644 blob BLOB\tweb-2.json\n").unwrap();
}

#[test]
fn too_many_entries_are_refused_before_they_are_read() {
    let trees = TreeMaker::new();
    let file = |name: &str| [format!("100644 {name}\0").as_bytes(), &[7; 20]].concat();
    // The tree has more bytes than eight entries can have.
    let large = [b"100644 ".as_slice(), &b"x".repeat(10_000), b"\0", &[7; 20]].concat();
    refused(trees.check_tree(&trees.raw_tree(&large)), "`/`");
    let most: Vec<u8> = (0..MAX_APPROVALS).flat_map(|n| file(&format!("k{n:04}.json"))).collect();
    let in_approvals = |tree: &str| {
        let folder = trees.tree(&format!("040000 tree {tree}\tweb-1\n"));
        trees.check(&format!("040000 tree {folder}\tapprovals\n"))
    };
    in_approvals(&trees.raw_tree(&most)).unwrap();
    let more = [most, file("l.json")].concat();
    refused(in_approvals(&trees.raw_tree(&more)), "`approvals/web-1`");
    assert_eq!(check_tree(BranchFolder::ApprovalsOfOne, &more), Err(FolderFault::TooMany));
    let full: Vec<u8> =
        (0..=MAX_ENTRIES_OF_A_BIN).flat_map(|n| [format!("40000 u{n:06}\0").as_bytes(), &[7; 20]].concat()).collect();
    assert_eq!(check_tree(BranchFolder::Approvals, &full), Err(FolderFault::TooMany));
}

#[test]
fn only_what_the_index_lists_is_accepted_in_a_folder_of_documents() {
    let trees = TreeMaker::new();
    for folder in ["agents", "deployments", "units"] {
        trees.check_in(folder, "100644 blob BLOB\ta.json\n").unwrap();
        let unlisted = trees.check_in(folder, "100644 blob BLOB\ta.json\n100644 blob BLOB\tother.json\n");
        refused(
            unlisted,
            "/other.json` does not belong on a branch of Clavel: it is a file, and only the documents that",
        );
    }
}

#[test]
fn the_folders_of_the_bins_are_those_of_the_index() {
    let (index, _) = listing(&[]);
    let sixteen = BinCount::every().nth(1).unwrap();
    let accepts = |folder: BranchFolder<'_>, mode: &str, name: &str| {
        check_tree(folder, &tree(&[(mode.to_owned(), name.as_bytes().to_vec())])).is_ok()
    };
    for (name, one, many) in
        [("all.json", true, false), ("0.json", false, true), ("f.json", false, true), ("00.json", false, false)]
    {
        assert_eq!(accepts(BranchFolder::Index(BinCount::ONE), "100644", name), one, "{name}");
        assert_eq!(accepts(BranchFolder::Index(sixteen), "100644", name), many, "{name}");
    }
    for name in ["all", "00", "F", "g", "0.json"] {
        assert!(!accepts(BranchFolder::Bins(sixteen), "40000", name), "{name}");
    }
    assert!(accepts(BranchFolder::Bins(sixteen), "40000", "c") && !accepts(BranchFolder::Bins(sixteen), "100644", "c"));
    for (name, good) in [("units", true), ("index", true), ("other", false), ("README.md", false)] {
        assert_eq!(accepts(BranchFolder::Top(&index), "40000", name), good, "{name}");
    }
}

#[test]
fn a_missing_commit_or_tree_is_refused() {
    let trees = TreeMaker::new();
    refused(trees.check_commit(ID.parse().unwrap()), "the repository lacks object");
    refused(trees.check(&format!("040000 tree {ID}\tunits\n")), "the repository lacks object");
}

/// A tree of these entries, in this order.
fn tree(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    entries.iter().flat_map(|(mode, name)| [mode.as_bytes(), b" ", name, b"\0", &[7; 20]].concat()).collect()
}

fn files(names: &[String]) -> Vec<u8> {
    let mut names: Vec<String> = names.iter().map(|name| format!("{name}.json")).collect();
    names.sort();
    tree(&names.into_iter().map(|name| ("100644".to_owned(), name.into_bytes())).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn any_listed_names_that_are_not_twins_are_documents(
        names in proptest::collection::hash_set("[a-z0-9_@][a-z0-9._@-]{0,40}", 0..50)
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let (_, bin) = listing(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let tree = files(&names);
        prop_assert_eq!(check_tree(BranchFolder::Documents("units", &bin), &tree), Ok(()));
    }

    #[test]
    fn a_twin_of_any_name_is_found(
        names in proptest::collection::hash_set("[a-z][a-z0-9._@-]{0,20}", 1..50), which in any::<prop::sample::Index>()
    ) {
        let mut names: Vec<String> = names.into_iter().collect();
        let twin = names[which.index(names.len())].to_ascii_uppercase();
        names.push(twin);
        let (_, bin) = listing(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let tree = files(&names);
        let is_twin = matches!(check_tree(BranchFolder::Documents("units", &bin), &tree), Err(FolderFault::Twin { .. }));
        prop_assert!(is_twin);
    }

    #[test]
    fn a_name_is_accepted_if_the_model_accepts_it(name in any::<Vec<u8>>(), json in any::<bool>()) {
        prop_assume!(!name.contains(&0));
        let stem = std::str::from_utf8(&name).ok().filter(|name| name.parse::<Name>().is_ok());
        let file = if json { [&name[..], b".json"].concat() } else { name.clone() };
        let entry = tree(&[("100644".to_owned(), file.clone())]);
        let of_json = file.strip_suffix(b".json").and_then(|stem| std::str::from_utf8(stem).ok());
        let is_good = of_json.is_some_and(|stem| stem.parse::<Name>().is_ok());
        prop_assert_eq!(check_tree(BranchFolder::ApprovalsOfOne, &entry).is_ok(), is_good);
        prop_assert_eq!(check_tree(BranchFolder::Approvals, &tree(&[("40000".to_owned(), name.clone())])).is_ok(), stem.is_some());
    }

    #[test]
    fn no_bytes_make_the_check_panic(bytes in any::<Vec<u8>>(), cut in any::<prop::sample::Index>()) {
        let (index, bin) = listing(&LISTED);
        let good = files(&["a".to_owned(), "b-2".to_owned()]);
        let cut = cut.index(good.len());
        let kinds = [
            BranchFolder::Top(&index), BranchFolder::Index(BinCount::ONE), BranchFolder::Bins(BinCount::ONE), BranchFolder::Documents("units", &bin),
            BranchFolder::Roots, BranchFolder::Approvals, BranchFolder::ApprovalsOfOne,
        ];
        for kind in kinds {
            let _ = check_tree(kind, &bytes);
            let _ = check_tree(kind, &[&good[..cut], &bytes[..]].concat());
        }
        let whole = check_tree(BranchFolder::Documents("units", &bin), &good[..cut]);
        prop_assert_eq!(whole.is_ok(), cut == 0 || cut == good.len() / 2 - 1);
    }

    #[test]
    fn each_mode_is_accepted_in_one_spelling_only(mode in "[0-7]{1,7}") {
        let (_, bin) = listing(&LISTED);
        let entry = |name: &str| tree(&[(mode.clone(), name.as_bytes().to_vec())]);
        prop_assert_eq!(check_tree(BranchFolder::Documents("units", &bin), &entry("a.json")).is_ok(), mode == "100644");
        prop_assert_eq!(check_tree(BranchFolder::Approvals, &entry("a")).is_ok(), mode == "40000");
    }
}
