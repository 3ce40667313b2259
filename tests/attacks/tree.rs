//! Entries other than plain files that git can hold at the paths of the layout: links, submodules, other modes, and names that
//! are dangerous in a work tree.

use super::Siege;

/// One entry of a tree, as git writes it: `MODE NAME`, a zero, and the id's twenty bytes.
fn entry(mode: &str, name: &str, id: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).unwrap();
    let id: Vec<u8> = (0..40).step_by(2).map(digit).collect();
    [format!("{mode} {name}\0").as_bytes(), &id].concat()
}

/// The name of an entry as git sorts it: that of a folder as if it ended in `/`.
fn in_gits_order((name, bytes): &(String, Vec<u8>)) -> String {
    if bytes.starts_with(b"40000") { format!("{name}/") } else { name.clone() }
}

impl Siege {
    fn fleet_git(&self, arguments: &[&str]) -> String {
        let said = self.world.git(&[&["-C", &self.world.at("fleet.git")], arguments].concat());
        said.trim().to_owned()
    }

    /// The entries of the branch's `folder`, by name. An empty `folder` is the top of the branch.
    fn entries(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let listed = self.fleet_git(&["ls-tree", &format!("deployments:{folder}")]);
        let parsed = listed.lines().map(|line| {
            let (about, name) = line.split_once('\t').unwrap();
            let [mode, _, id] = about.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            (name.to_owned(), entry(mode.trim_start_matches('0'), name, id))
        });
        parsed.collect()
    }

    /// Writes a tree as it is, even one that git itself would not make.
    fn write_tree(&self, entries: &[(String, Vec<u8>)]) -> String {
        let bytes: Vec<u8> = entries.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        std::fs::write(self.world.path("tree"), bytes).unwrap();
        self.fleet_git(&["hash-object", "-t", "tree", "--literally", "-w", &self.world.at("tree")])
    }

    /// A commit on top of the branch that has the entries `wrong` in `folder`, in place of those of their names or beside them.
    fn with_entries(&self, folder: &str, wrong: &[(&str, Vec<u8>)]) -> String {
        let mut entries = self.entries(folder);
        entries.retain(|(name, _)| wrong.iter().all(|(other, _)| other != name));
        entries.extend(wrong.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())));
        entries.sort_by_key(in_gits_order);
        let mut tree = self.write_tree(&entries);
        if !folder.is_empty() {
            let mut top = self.entries("");
            top.retain(|(name, _)| name != folder);
            top.push((folder.to_owned(), entry("40000", folder, &tree)));
            top.sort_by_key(in_gits_order);
            tree = self.write_tree(&top);
        }
        self.fleet_git(&["commit-tree", &tree, "-p", "deployments", "-m", "An odd tree"])
    }

    /// Asserts that the agent refuses, with its path, the entry `wrong` in `folder`, in place of the entry of that name or beside
    /// it.
    #[track_caller]
    fn holds_in(&self, folder: &str, wrong: &[(&str, Vec<u8>)], why: &str) {
        let commit = self.with_entries(folder, wrong);
        self.show(&commit);
        self.refused(why);
        self.restore();
        assert_eq!(self.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    }

    /// The id of an object on the branch.
    fn id(&self, path: &str) -> String {
        self.fleet_git(&["rev-parse", &format!("deployments:{path}")])
    }
}

#[test]
fn what_is_no_plain_file_where_a_document_belongs() {
    let siege = Siege::begin();
    let (blob, tree, commit) = (siege.id("deployments/web-1.json"), siege.id("deployments"), siege.world.tip());
    for (mode, id, what) in [
        ("120000", &blob, "it is a symbolic link"),
        ("160000", &commit, "it is a submodule"),
        ("100755", &blob, "it is an executable file"),
        ("100664", &blob, "it is an entry of mode `100664`"),
        ("0100644", &blob, "it is an entry of mode `0100644`"),
        ("40000", &tree, "it is a folder"),
    ] {
        let wrong = [("web-1.json", entry(mode, "web-1.json", id))];
        siege.holds_in("deployments", &wrong, "`deployments/web-1.json`");
        siege.holds_in("deployments", &wrong, what);
    }
    for (mode, id, what) in [("120000", &blob, "it is a symbolic link"), ("100644", &blob, "it is a file")] {
        siege.holds_in("", &[("units", entry(mode, "units", id))], what);
    }
}

#[test]
fn names_that_lead_elsewhere() {
    let siege = Siege::begin();
    let (blob, tree) = (siege.id("deployments/web-1.json"), siege.id("deployments"));
    for name in ["..", ".", ".git", ".GIT", "git~1", "a/b", "evil.sh"] {
        let why = format!("`{name}`");
        siege.holds_in("", &[(name, entry("100644", name, &blob))], &why);
        siege.holds_in("", &[(name, entry("40000", name, &tree))], &why);
        siege.holds_in("deployments", &[(name, entry("100644", name, &blob))], &format!("`deployments/{name}`"));
    }
}

#[test]
fn names_that_stand_there_twice() {
    let siege = Siege::begin();
    let blob = siege.id("deployments/web-1.json");
    let one = || entry("100644", "web-1.json", &blob);
    siege.holds_in("deployments", &[("web-1.json", one()), ("web-1.json", one())], "`deployments/web-1.json`");
    siege.holds_in("deployments", &[("WEB-1.json", entry("100644", "WEB-1.json", &blob))], "does not belong");
}

#[test]
fn odd_names_are_named_by_verify_and_gone_after_the_next_publication() {
    let siege = Siege::begin();
    let (blob, tree) = (siege.id("deployments/web-1.json"), siege.id("deployments"));
    for (mode, name) in [
        ("100644", "a\nb"),
        ("100644", "a\u{7f}\u{e9}"),
        ("100644", "a\\b"),
        ("120000", "link"),
        ("100755", "run.sh"),
        ("160000", "module"),
        ("40000", ".git"),
    ] {
        for folder in ["", "deployments"] {
            let id = if mode == "40000" { &tree } else { &blob };
            let commit = siege.with_entries(folder, &[(name, entry(mode, name, id))]);
            siege.fleet_git(&["update-ref", "refs/heads/deployments", &commit]);
            siege.world.verify().refused(5, "does not belong on the branch");
            siege.world.publish().good();
            siege.world.verify().good();
        }
    }
}
