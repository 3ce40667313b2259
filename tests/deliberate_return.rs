//! Promise: a deployment that an operator rolls back or holds stays at its revision until the operator releases it, and
//! everybody can see that.

use serde_json::json;

use crate::support::attacker::{ForgedBranch, Onto, StolenKey};
use crate::support::ssh::SshServer;
use crate::support::world::{Ran, World, until};

/// A fleet whose `web-1` is at revision 2, with its agent, which runs that revision.
fn at_revision_2() -> World {
    let world = World::published_with_nix(&["web-1"]);
    world.change_with_nix("Welcome", "Hello");
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    world
}

/// Runs a command of `clavel` that signs with claveld's key.
fn operate(world: &World, arguments: &[&str]) -> Ran {
    world.clavel(&[arguments, &["--config", &world.at("claveld.toml")]].concat())
}

fn log(world: &World) -> String {
    world.git(&["-C", &world.at("fleet.git"), "log", "-1", "--format=%B", "deployments"])
}

#[test]
fn going_back_is_a_new_revision_that_stays_until_it_is_released() {
    let world = at_revision_2();
    let said = operate(&world, &["rollback", "web-1", "--to", "1", "--why", "no database"]).good();
    assert!(said.starts_with("web-1: went back, as revision 3, and is held there, because claveld's next"), "{said}");
    let (first, now) = (world.git(&["-C", &world.at("fleet.git"), "rev-list", "--max-parents=0", "deployments"]), 3);
    let old = world.git(&["-C", &world.at("fleet.git"), "show", &format!("{}:deployments/web-1.json", first.trim())]);
    let old: serde_json::Value = serde_json::from_str(&old).unwrap();
    let document = world.document("deployments/web-1.json");
    assert_eq!(document["specification"], old["signed"]["specification"]);
    assert_eq!(document["revision"], now);
    let log = log(&world);
    assert!(log.starts_with("rollback: web-1 to revision 1, as revision 3, and held\n\nWhy: no database\n\n"), "{log}");
    assert!(log.contains("deployments/web-1.json: revision 2 → 3\n  settings: motd"), "{log}");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));

    // Every view of the branch shows the hold.
    let look = ["--repository", &world.at("fleet.git"), "--root", &world.root()];
    assert!(world.clavel(&[&["list"][..], &look].concat()).good().contains("3 (held)"));
    let shown = world.clavel(&[&["show", "web-1"][..], &look].concat()).good();
    assert!(shown.contains("held at revision 3 since") && shown.contains("(no database)"), "{shown}");
    assert!(world.on_branch("README.md").unwrap().contains("| `web-1` | `web-1` | 3, held since"));

    // The source changes, and the held deployment does not.
    let said = world.change_with_nix("Hello", "Good day");
    assert!(said.contains("nothing changed (index version 3)"), "{said}");
    assert!(
        said.contains("(no database); kept back: deployments/web-1.json (changed); `clavel release web-1`"),
        "{said}"
    );
    world.install_hook();
    world.edit("hosts/web-1.nix", "Good day", "Good evening");
    world.edit("hosts/web-2.nix", "Welcome", "Hello");
    let pushed = world.push("Another");
    assert!(pushed.contains("web-1: held at revision 3") && pushed.contains("deployments/web-2.json"), "{pushed}");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 3\n");

    let said = operate(&world, &["release", "web-1"]).good();
    assert!(
        said.starts_with(
            "web-1: released; `claveld run` at once, or else the next push or `claveld once`, follows its source\n"
        ),
        "{said}"
    );
    assert!(self::log(&world).starts_with("release: web-1, held at revision 3 since"), "{}", self::log(&world));
    assert!(world.publish().good().contains("deployments/web-1.json  revision 3 → 4"));
    world.build(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 4\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Good evening to web-1"));
    world.verify().good();
}

#[test]
fn what_is_held_is_not_withdrawn_and_its_unit_and_agent_stay_with_it() {
    let world = at_revision_2();
    operate(&world, &["hold", "web-1", "--why", "frozen"]).good();
    world.edit("flake.nix", "nixosConfigurations.web-1 = host ./hosts/web-1.nix;", "");
    world.push("Without web-1");
    let said = world.publish().good();
    assert!(
        said.contains("kept back: agents/web-1.json (gone), deployments/web-1.json (gone), units/web-1.json (gone)"),
        "{said}"
    );
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    operate(&world, &["release", "web-1"]).good();
    assert!(world.publish().good().contains("deployments/web-1.json  withdrawn after revision 2"));
}

#[test]
fn an_altered_document_of_a_held_deployment_is_repaired_from_the_held_revision() {
    let world = at_revision_2();
    operate(&world, &["rollback", "web-1", "--to", "1"]).good();
    let altered = world.on_branch("deployments/web-1.json").unwrap().replace("web-1-1", "evil-1-1");
    world.tamper(&[("deployments/web-1.json", Some(altered))].into());
    assert!(world.publish().good().contains("deployments/web-1.json  revision 3 → 4"));
    assert_eq!(world.index()["held"]["web-1"]["revision"], 4);
    assert!(!world.document("deployments/web-1.json").to_string().contains("evil"));
    world.agent("web-1", &["once"]).good();
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn what_is_held_stays_so_where_nothing_has_it_any_more() {
    let world = at_revision_2();
    operate(&world, &["rollback", "web-1", "--to", "1"]).good();
    let mut branch = ForgedBranch::of(&world);
    let whole = branch.clone();
    branch.files.remove("deployments/web-1.json");
    // The branch gets a new history that does not have the revision. The repository still has it, because claveld pushed it there.
    branch.push(Onto::Nothing);
    assert!(world.publish().good().contains("deployments/web-1.json  revision 3 → 4"));
    assert_eq!(
        world.document("deployments/web-1.json")["specification"],
        whole.signed("deployments/web-1.json")["specification"]
    );

    let mut branch = ForgedBranch::of(&world);
    let (whole, gone) = (branch.clone(), branch.files.remove("deployments/web-1.json").unwrap());
    branch.push(Onto::Nothing);
    world.git(&["-C", &world.at("fleet.git"), "gc", "-q", "--prune=now"]);
    let tip = world.tip();
    let lost = "web-1: revision 4 is neither on the branch nor in its history any more, and it is held there";
    let said = world.publish().refused(1, lost);
    assert!(said.contains("`clavel release web-1` lets it follow its source"), "{said}");
    assert_eq!(world.tip(), tip);
    assert_eq!(world.index()["held"]["web-1"]["revision"], 4);
    operate(&world, &["rollback", "web-1", "--to", "1"]).refused(5, lost);
    operate(&world, &["hold", "web-1"]).refused(3, "held at revision 4 since");
    world.agent("web-1", &["once"]).refused(5, "deployments/web-1.json is in the index and not on the branch");
    // A copy elsewhere still has the revision.
    whole.push(Onto::Tip);
    world.publish().good();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 4\n");

    assert!(!gone.bytes.is_empty());
    branch.push(Onto::Nothing);
    world.git(&["-C", &world.at("fleet.git"), "gc", "-q", "--prune=now"]);
    let said = operate(&world, &["release", "web-1"]).good();
    assert!(said.starts_with("web-1: withdrawn after revision 4, because its document is lost"), "{said}");
    assert!(world.publish().good().contains("deployments/web-1.json  new, revision 5"));
    world.agent("web-1", &["once"]).good();
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
}

#[test]
fn an_impossible_operation_is_an_error_and_leaves_the_branch_as_it_is() {
    let world = at_revision_2();
    let tip = world.tip();
    for (arguments, why) in [
        (&["hold", "web-9"][..], "the branch has no deployment `web-9`"),
        (&["release", "web-1"], "`web-1` is not held"),
        (&["release", "web-9"], "the branch has no deployment `web-9`"),
        (&["rollback", "web-9", "--to", "1"], "the branch has no deployment `web-9`"),
        (&["rollback", "web-1", "--to", "9"], "has no revision 9 of `web-1` in its history; it is at revision 2"),
        (&["rollback", "web-1", "--to", "2"], "`web-1` is at revision 2 now"),
    ] {
        operate(&world, arguments).refused(3, why);
        assert_eq!(world.tip(), tip);
    }
    operate(&world, &["hold", "web-1", "--why", "two\nlines"]).refused(2, "control character");
    operate(&world, &["hold", "web-1", "--why", "first"]).good();
    operate(&world, &["hold", "web-1"]).refused(3, "held at revision 2 since");
    // The first revision and the third have the same content.
    operate(&world, &["rollback", "web-1", "--to", "1"]).good();
    operate(&world, &["rollback", "web-1", "--to", "1"]).refused(3, "which has the same specification as revision 1");
}

#[test]
fn nobody_goes_back_to_what_no_publisher_of_the_newest_root_signed() {
    let world = World::new();
    world.publish().good();
    let mallory = StolenKey::own("mallory-1", 7);
    let mut branch = ForgedBranch::of(&world);
    let good = branch.clone();
    // Somebody with write access puts a revision of their own into the history, and takes it away again.
    branch.edit("deployments/web-1.json", &[&mallory], |signed| {
        signed["specification"]["template"]["narId"] = json!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-evil");
    });
    branch.reindex(&[&mallory], |_| {});
    branch.push(Onto::Nothing);
    good.push(Onto::Tip);
    world.change_with_nix("Welcome", "Hello");
    world.change_with_nix("Hello", "Good day");
    // The search goes on to the revision of that number that claveld signed, or finds nothing.
    operate(&world, &["rollback", "web-1", "--to", "1"]).good();
    assert!(!world.document("deployments/web-1.json").to_string().contains("evil"));

    // The signature of a removed publisher does not count.
    world.clavel(&["key", "generate", "claveld-2", "--output", &world.at("claveld-2.secret")]).good();
    let (root, next) = (world.root(), world.at("root-2.json"));
    let (key, public) = (world.at("root-1.secret"), world.public_key("claveld-2"));
    let changes = ["--key", &key, "--remove-key", "claveld-1", "--publisher-key", &public];
    world.clavel(&[&["root", "next", &root, "-o", &next][..], &changes].concat()).good();
    world.clavel(&["root", "publish", &next, "--repository", &world.at("fleet.git")]).good();
    let config = world.read_file("claveld.toml").replace("claveld-1.secret", "claveld-2.secret");
    world.write_file("claveld.toml", &config);
    operate(&world, &["hold", "web-2"]).refused(3, "the newest root removed the key that signed this branch");
    world.publish().good();
    let refused = "revision 2 of `web-1` is in the history, but no publisher of the newest root vouches for it";
    operate(&world, &["rollback", "web-1", "--to", "2"]).refused(5, refused);

    // The operator knows that nobody stole it. What a stranger signed counts all the same for nothing.
    let before = world.document("deployments/web-1.json")["revision"].as_u64().unwrap();
    let old = ["rollback", "web-1", "--to", "2", "--trust-removed-keys"];
    operate(&world, &old).good();
    let document = world.document("deployments/web-1.json");
    assert_eq!(document["revision"], before + 1);
    world.verify().good();
}

#[test]
fn a_branch_that_went_back_is_not_built_on() {
    let world = at_revision_2();
    let (fleet, tip) = (world.at("fleet.git"), world.tip());
    let show = |commit: &str| world.git(&["-C", &fleet, "update-ref", "refs/heads/deployments", commit]);
    show(&format!("{tip}~1"));
    let said = world.publish().refused(5, "published index version 2 there (epoch 1, commit ");
    assert!(said.contains("it is at version 1 now") && said.contains("claveld/published.json"), "{said}");
    operate(&world, &["hold", "web-1"]).refused(5, "it is at version 1 now");
    world.git(&["-C", &fleet, "update-ref", "-d", "refs/heads/deployments"]);
    world.publish().refused(5, "it has no index now");
    show(&tip);
    assert_eq!(world.publish().good(), "nothing changed (index version 2)\n");

    // A thief of the key signs another index of the same version.
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    let mut branch = ForgedBranch::of(&world);
    branch.reindex(&[&thief], |index| index["expires"] = json!("2100-01-01T00:00:00Z"));
    branch.push(Onto::Tip);
    world.publish().refused(5, "it has another index under that version now");

    // The operator decides that no agent has seen it.
    std::fs::remove_file(world.path("claveld/published.json")).unwrap();
    world.publish().good();
}

#[test]
fn a_branch_that_went_back_is_noticed_also_after_the_state_folder_was_lost() {
    let world = at_revision_2();
    let (fleet, tip) = (world.at("fleet.git"), world.tip());
    std::fs::remove_dir_all(world.path("claveld")).unwrap();
    // A round that has nothing to change notes what it saw.
    assert_eq!(world.publish().good(), "nothing changed (index version 2)\n");
    world.git(&["-C", &fleet, "update-ref", "refs/heads/deployments", &format!("{tip}~1")]);
    world.publish().refused(5, "it is at version 1 now");
}

#[test]
fn a_branch_elsewhere_that_was_lost_is_pushed_back_from_claveld() {
    let world = World::new();
    let server = SshServer::start();
    let elsewhere = world.at("elsewhere.git");
    world.git(&["init", "-q", "--bare", &elsewhere]);
    let config = world.read_file("claveld.toml");
    let (from, url) = (format!("repository = \"{}\"", world.at("fleet.git")), server.url(&world.path("elsewhere.git")));
    let to = format!("repository = \"{url}\"\nssh-command = \"{}\"", server.command());
    world.write_file("claveld.toml", &config.replacen(&from, &to, 1));
    world.publish().good();
    world.git(&["clone", "-q", "--mirror", &elsewhere, &world.at("backup.git")]);
    world.change_with_nix("Welcome", "Hello");
    operate(&world, &["rollback", "web-1", "--to", "1"]).good();

    std::fs::remove_dir_all(world.path("elsewhere.git")).unwrap();
    std::fs::rename(world.path("backup.git"), world.path("elsewhere.git")).unwrap();
    let said = world.publish().refused(5, "published index version 3 there");
    let commit = said.split("commit ").nth(1).unwrap().split(')').next().unwrap().to_owned();
    let copy = world.at("claveld/publish.git");
    world.git(&["-C", &copy, "push", "-q", &elsewhere, &format!("{commit}:refs/heads/deployments")]);
    let said = world.publish().good();
    assert!(said.starts_with("nothing changed (index version 3)\nweb-1: held at revision 3"), "{said}");
}

#[test]
fn a_claveld_that_runs_sees_a_hold_and_its_end_without_a_push() {
    let world = World::new();
    world.configure_claveld("[watch]\npoll = \"300ms\"\n");
    let claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("the first publication", || !world.tip().is_empty());
    operate(&world, &["hold", "web-1", "--why", "frozen"]).good();
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    until("it says what is kept back", || claveld.said().contains("(frozen); kept back: deployments/web-1.json"));
    assert_eq!(world.document("deployments/web-1.json")["revision"], 1);
    operate(&world, &["release", "web-1"]).good();
    until("it follows the source", || world.document("deployments/web-1.json")["revision"] == 2);
}

#[test]
fn a_release_wakes_a_claveld_that_runs_and_that_asks_the_branch_once_an_hour() {
    let world = World::new();
    world.configure_claveld("[watch]\npoll = \"1h\"\n");
    let elsewhere = world.at("elsewhere.git");
    world.git(&["init", "-q", "--bare", &elsewhere]);
    let config = world.read_file("claveld.toml");
    let (from, to) = (format!("repository = \"{}\"", world.at("fleet.git")), format!("repository = \"{elsewhere}\""));
    world.write_file("claveld.toml", &config.replacen(&from, &to, 1));
    let revision = || {
        let shown = world.run("git", &["-C", &elsewhere, "show", "deployments:deployments/web-1.json"]).stdout;
        serde_json::from_str::<serde_json::Value>(&shown).map_or(0, |file| file["signed"]["revision"].as_u64().unwrap())
    };
    let claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("the first publication", || revision() == 1);
    operate(&world, &["hold", "web-1", "--why", "frozen"]).good();
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    until("it says what is kept back", || claveld.said().contains("(frozen); kept back: deployments/web-1.json"));
    operate(&world, &["release", "web-1"]).good();
    until("it follows the source", || revision() == 2);
}

#[test]
fn a_pattern_holds_many_until_a_time_and_then_they_follow_their_sources_by_themselves() {
    let world = World::published();
    let held = operate(&world, &["hold", "web-*", "--until", "1h", "--why", "frozen", "--json"]).json();
    let names: Vec<&str> =
        held["deployments"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web-1", "web-2"]);
    let until_then = held["deployments"][0]["held"]["until"].as_str().unwrap().to_owned();
    let message = log(&world);
    assert!(message.starts_with(&format!("hold: web-1, web-2 until {until_then}\n\nWhy: frozen")), "{message}");
    let look = ["--repository", &world.at("fleet.git"), "--root", &world.root()];
    let shown = world.clavel(&[&["show", "web-2"][..], &look].concat()).good();
    assert!(shown.contains(&format!("until {until_then} (frozen)")), "{shown}");
    operate(&world, &["hold", "web-1", "--until", "2020-01-01"]).refused(3, "because that is over");
    operate(&world, &["hold", "db-*"]).refused(3, "no deployment that `db-*` matches");
    operate(&world, &["release", "router-*"]).refused(3, "no deployment that `router-*` matches is held");

    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    assert!(world.publish().good().contains("kept back: deployments/web-1.json"));
    // A shorter hold takes the place of the longer one.
    operate(&world, &["hold", "web-*", "--until", "1s"]).good();
    until("the hold is over", || world.publish().good().contains("web-1: the time of its hold is over"));
    assert_eq!(world.document("deployments/web-1.json")["revision"], 2);
    assert!(log(&world).contains("Holds that ended: web-1, web-2"), "{}", log(&world));
    assert!(!world.clavel(&[&["list"][..], &look].concat()).good().contains("held"));
    world.verify().good();
}
