//! Promise: a commit names claveld as its committer, and the person who asked for it as its author, where git knows that person.

use crate::support::world::World;

const CLAVELD: &str = "claveld <claveld-1@clavel.invalid>";
const ADA: &str = "Ada <ada@example.org>";

impl World {
    /// The author and the committer of the newest commit of the branch, as git shows them.
    fn made_by(&self) -> [String; 2] {
        let format = "--format=%an <%ae>%n%cn <%ce>";
        let shown = self.git(&["-C", &self.at("fleet.git"), "log", "-1", format, "deployments"]);
        let mut lines = shown.lines().map(ToOwned::to_owned);
        [lines.next().unwrap(), lines.next().unwrap()]
    }

    /// Runs `clavel` as somebody whose environment has `variables`, and whose git has the configuration `home/.gitconfig`.
    fn operate(&self, variables: &[(&str, &str)], arguments: &[&str]) {
        let config = self.at("claveld.toml");
        let arguments = [arguments, &["--config", &config]].concat();
        self.run_bare(variables, env!("CARGO_BIN_EXE_clavel"), &arguments).good();
    }
}

#[test]
fn an_operation_names_the_person_and_claveld() {
    let world = World::published();
    // The person who pushes has these variables too, and is not the author of what claveld publishes.
    assert_eq!(world.made_by(), [CLAVELD; 2]);
    let named = [("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")];
    world.operate(&named, &["hold", "web-1"]);
    assert_eq!(world.made_by(), [ADA, CLAVELD]);
    // Nobody is named by a guess from the user and the machine.
    world.operate(&[], &["release", "web-1"]);
    assert_eq!(world.made_by(), [CLAVELD; 2]);
    world.write_file("home/.gitconfig", "[user]\nname = Bea\n");
    world.operate(&[], &["hold", "web-1"]);
    assert_eq!(world.made_by(), [CLAVELD; 2]);
    world.write_file("home/.gitconfig", "[user]\nname = Bea\nemail = bea@example.org\n");
    world.operate(&[], &["release", "web-1"]);
    assert_eq!(world.made_by(), ["Bea <bea@example.org>", CLAVELD]);
    world.change_from_memory("Welcome", "Hello");
    world.operate(&named, &["rollback", "web-1", "--to", "1"]);
    assert_eq!(world.made_by(), [ADA, CLAVELD]);
}

#[test]
fn the_configuration_names_another_author_than_the_key() {
    let world = World::new();
    let text = world.read_file("claveld.toml");
    let with = |author: &str| text.replace("[publish]", &format!("[publish]\nauthor = \"{author}\""));
    world.write_file("claveld.toml", &with("Clavel Bot <bot@example.org>"));
    world.publish_from_memory(&["web-1"]);
    let bot = "Clavel Bot <bot@example.org>";
    assert_eq!(world.made_by(), [bot; 2]);
    world.operate(&[], &["hold", "web-1"]);
    assert_eq!(world.made_by(), [bot; 2]);
    world.operate(&[("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")], &["release", "web-1"]);
    assert_eq!(world.made_by(), [ADA, bot]);
    for bad in
        ["Clavel Bot", "bot@example.org", "Bot <a@b> <c@d>", "Bot\\nparent 0 <a@b>", "Bot\\u0000 <a@b>", " <a@b>"]
    {
        world.write_file("claveld.toml", &with(bad));
        world.claveld(&["status", "--config", &world.at("claveld.toml")]).refused(3, "claveld.toml");
    }
}

#[test]
fn an_approval_and_a_root_name_the_person_and_clavel() {
    let world = World::new();
    world.clavel(&["key", "generate", "alice", "--output", &world.at("alice.secret")]).good();
    let (first, second, key) = (world.root(), world.at("root-2.json"), world.at("root-1.secret"));
    let alice = world.at("alice.secret");
    let approver = ["--approver-key", &alice, "--approvals", "web-1=1"];
    world.clavel(&[&["root", "next", &first, "-o", &second, "--key", &key], &approver[..]].concat()).good();
    world.publish_from_memory(&["web-1"]);
    let repository = world.at("fleet.git");
    let clavel = "clavel <clavel@clavel.invalid>";
    world.clavel(&["root", "publish", &second, "--repository", &repository]).good();
    assert_eq!(world.made_by(), [ADA, clavel]);
    let approve = ["approve", "web-1", "--repository", &repository, "--root", &first, "--yes", "--key", &alice];
    world.run_bare(&[], env!("CARGO_BIN_EXE_clavel"), &approve).good();
    assert_eq!(world.made_by(), [clavel; 2]);
}
