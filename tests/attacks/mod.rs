//! Promise: an attacker with the git host, a mirror or a stolen key can keep an agent from newer revisions, and do nothing
//! else. Each attack has a test, and SECURITY.md has the list.

mod bins;
mod documents;
mod index;
mod parsing;
mod roots;
mod signatures;
mod tree;

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::support::attacker::{ForgedBranch, Onto, StolenKey};
use crate::support::world::World;

/// A machine that runs the right revision, and an attacker who may write to the branch that it follows.
struct Siege {
    world: World,
    /// The commit that claveld published last.
    good: RefCell<String>,
}

impl Siege {
    /// `web-1` runs its first revision, which was published from memory.
    fn begin() -> Self {
        let world = World::new();
        world.publish_from_memory(&["web-1"]);
        Self::of(world)
    }

    /// `web-1` runs its first revision, which `claveld once` published.
    fn begin_with_nix() -> Self {
        let world = World::new();
        world.publish_with_nix(&["web-1"]);
        Self::of(world)
    }

    fn of(world: World) -> Self {
        world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
        assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
        let good = world.tip();
        Self { world, good: RefCell::new(good) }
    }

    /// The branch, for the attacker to change.
    fn branch(&self) -> ForgedBranch<'_> {
        ForgedBranch::of(&self.world)
    }

    /// Claveld's own key, stolen.
    fn claveld(&self) -> StolenKey {
        StolenKey::read(&self.world.path("claveld-1.secret"))
    }

    /// Publishes another greeting of `web-1`. Returns the new commit of the branch.
    fn change(&self, from: &str, to: &str) {
        self.world.change_from_memory(from, to);
        self.good.replace(self.world.tip());
    }

    /// The same with `claveld once`.
    fn change_with_nix(&self, from: &str, to: &str) {
        self.world.change_with_nix(from, to);
        self.good.replace(self.world.tip());
    }

    /// Sets the branch to the commit that was published last.
    fn restore(&self) {
        self.show(&self.good.borrow());
    }

    /// Sets the branch to an earlier commit of it.
    fn show(&self, commit: &str) {
        self.world.git(&["-C", &self.world.at("fleet.git"), "update-ref", "refs/heads/deployments", commit]);
    }

    /// Asserts that the agent refuses the branch, in one line that says `why`, and that the machine keeps what it runs.
    #[track_caller]
    fn refused(&self, why: &str) -> String {
        let before = self.world.motd("web-1");
        let profile = std::fs::read_link(self.world.path("web-1/profile/system")).unwrap();
        let said = self.world.agent("web-1", &["once"]).refused(5, why);
        assert_eq!(said.lines().filter(|line| line.starts_with("error:")).count(), 1, "{said}");
        assert_eq!(self.world.motd("web-1"), before);
        assert_eq!(std::fs::read_link(self.world.path("web-1/profile/system")).unwrap(), profile);
        said
    }

    /// Asserts that the agent refuses the attacker's branch with `why`, and accepts the good branch again at its next pass.
    #[track_caller]
    fn holds(&self, attack: &ForgedBranch<'_>, why: &str) {
        attack.push(Onto::Tip);
        self.refused(why);
        self.restore();
        self.world.agent("web-1", &["once"]).good();
    }
}

/// SECURITY.md names exactly the attacks that are tested here.
#[test]
fn security_md_lists_every_attack() {
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(project.join("SECURITY.md")).unwrap();
    let named: BTreeSet<&str> = list.split('`').filter(|word| word.starts_with("attacks::")).collect();
    let mut there = BTreeSet::new();
    for room in ["bins", "documents", "index", "parsing", "roots", "signatures", "tree"] {
        let text = std::fs::read_to_string(project.join(format!("tests/attacks/{room}.rs"))).unwrap();
        let tests = text.split("#[test]\nfn ").skip(1);
        there.extend(tests.map(|test| format!("attacks::{room}::{}", test.split('(').next().unwrap())));
    }
    assert_eq!(named, there.iter().map(String::as_str).collect());
}
