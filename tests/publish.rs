//! Promise: the branch changes only where a specification did, one signed and atomic commit at a time.

use std::collections::BTreeMap;

use crate::support::attacker::{ForgedBranch, Onto, StolenKey};
use crate::support::world::{World, until};

/// A second source, with the hosts of `outputs`, beside the world's own.
fn second_source(world: &World, outputs: &str) {
    let repository = world.at("second");
    world.git(&["init", "-q", "-b", "main", &repository]);
    let flake = format!("{{ outputs = {{ self }}: let system = \"x86_64-linux\"; in {outputs}; }}");
    world.write_file("second/flake.nix", &flake);
    world.git(&["-C", &repository, "add", "-A"]);
    world.git(&["-C", &repository, "commit", "-qm", "Second"]);
    world.configure_claveld(&format!("[[source]]\nflake = \"git+file://{repository}?ref=main\"\n"));
}

fn host(name: &str) -> String {
    format!(
        "{{ nixosConfigurations.{name}.config.system.build.toplevel = derivation {{ name = \"other\"; inherit system; \
         builder = \"/bin/sh\"; }}; }}"
    )
}

#[test]
fn the_same_evaluation_twice_makes_no_commit() {
    let world = World::new();
    assert!(world.publish().good().contains("published as index version 1"));
    let tip = world.tip();
    assert_eq!(world.publish().good(), "nothing changed (index version 1)\n");
    // Another revision of the source with the same systems changes no specification.
    world.push("Nothing of note");
    assert_eq!(world.publish().good(), "nothing changed (index version 1)\n");
    assert_eq!(world.tip(), tip);
}

#[test]
fn one_changed_host_is_one_changed_document_with_the_next_revision() {
    let world = World::new();
    world.publish().good();
    let before = world.tip();
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    let report = world.claveld(&["once", "--json", "--config", &world.at("claveld.toml")]).json();
    assert_eq!(
        report["report"]["changes"],
        serde_json::json!([{ "path": "deployments/web-1.json", "from": 1, "to": 2, "system": {
            "settings": ["motd"], "packages": [], "rebuilt": [], "files": []
        } }])
    );
    let fleet = world.at("fleet.git");
    let changed = world.git(&["-C", &fleet, "diff", "--name-only", &before, "deployments"]);
    assert_eq!(changed, "README.md\ndeployments/web-1.json\nindex.json\nindex/all.json\n");
    assert_eq!(world.git(&["-C", &fleet, "rev-parse", "deployments~1"]).trim(), before);
    let index = world.index();
    assert_eq!(index["documents"]["deployments/web-1.json"]["revision"], 2);
    assert_eq!(index["version"], 2);
    let message = world.git(&["-C", &fleet, "log", "-1", "--format=%B", "deployments"]);
    assert!(message.starts_with("deployments: web-1 2\n\ndeployments/web-1.json: revision 1 → 2\n"), "{message}");
    let source = world.git(&["-C", &fleet, "rev-parse", "main"]);
    assert!(message.contains(&format!("Source: {} {}", world.flake(), source.trim())), "{message}");
    world.git(&["-C", &fleet, "fsck", "--strict"]);
}

#[test]
fn a_round_without_changes_does_not_renew_the_index() {
    let world = World::new();
    let once = || world.claveld(&["once", "--json", "--config", &world.at("claveld.toml")]).json()["report"].clone();
    let first = once();
    let seconds = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let published = seconds();
    until("it is later", || seconds() > published);
    let second = once();
    assert_eq!(second["commit"], serde_json::Value::Null);
    assert_eq!(second["signAnewAt"], first["signAnewAt"]);
}

#[test]
fn what_does_not_belong_on_the_branch_is_removed_and_told() {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();
    let stray = Some("{}\n".to_owned());
    let paths = ["evil.sh", "tools/run.sh", "deployments/stray.json", "units/web-1/deep.json"];
    world.tamper(&paths.iter().map(|path| (*path, stray.clone())).collect());
    world.agent("web-1", &["once"]).refused(5, "does not belong on a branch of Clavel");
    let said = world.publish().good();
    for path in ["evil.sh", "tools", "deployments/stray.json", "units/web-1"] {
        assert!(said.contains(&format!("{path}: removed, because it does not belong on the branch")), "{said}");
    }
    world.agent("web-1", &["once"]).good();
    world.verify().good();
    assert!(world.publish().good().starts_with("nothing changed"));
}

#[test]
fn junk_approvals_and_a_forged_readme_are_gone_after_the_next_publication() {
    let world = World::new();
    world.publish().good();
    let readme = world.on_branch("README.md");
    let junk = |text: &str| Some(text.to_owned());
    world.tamper(&BTreeMap::from([
        ("README.md", junk("# Ask mallory\n")),
        ("approvals/web-1/mallory.json", junk("{}\n")),
        ("approvals/zz/mallory.json", junk("{}\n")),
        ("deployments/zz.json", junk("{}\n")),
    ]));
    let said = world.verify().refused(5, "`approvals/web-1/mallory.json` does not belong on the branch");
    for path in ["approvals/zz", "deployments/zz.json"] {
        assert!(said.contains(&format!("`{path}` does not belong on the branch")), "{said}");
    }
    // Nothing else is to be published.
    world.publish().good();
    assert_eq!(world.on_branch("README.md"), readme);
    for path in ["approvals/web-1/mallory.json", "approvals/zz/mallory.json", "deployments/zz.json"] {
        assert_eq!(world.on_branch(path), None, "{path}");
    }
    world.verify().good();
    assert!(world.publish().good().starts_with("nothing changed"));
}

#[test]
fn the_published_branch_is_an_orphan_that_anybody_can_verify() {
    let world = World::new();
    world.publish().good();
    let fleet = world.at("fleet.git");
    assert_eq!(world.git(&["-C", &fleet, "rev-list", "--count", "deployments"]), "1\n");
    assert!(world.on_branch("README.md").unwrap().contains("| `web-1` | `web-1` | 1 |"));
    assert!(world.verify().good().contains("3 deployments, 3 units and 3 agents verified"));
    let digest = world.fleet();
    world.clavel(&["verify", "--repository", &fleet, "--root", &digest]).good();
    world.clavel(&["init", &world.at("others")]).good();
    let other = world.at("others/root.json");
    world.clavel(&["verify", "--repository", &fleet, "--root", &other]).refused(5, "is of the fleet");
    let listed = world.clavel(&["list", "--repository", &fleet, "--root", &digest]).good();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let shown = world.clavel(&["show", "web-1", "--repository", &fleet, "--json"]).json();
    assert_eq!(shown, world.document("deployments/web-1.json"));
    world.clavel(&["show", "web-9", "--repository", &fleet]).refused(5, "deployments/web-9.json");
    world.clavel(&["list", "--repository", &fleet, "--branch", "none"]).refused(4, "has no branch `none`");
}

#[test]
fn a_removed_host_leaves_a_tombstone_and_returns_with_the_next_revision() {
    let world = World::new();
    world.publish().good();
    world.edit("flake.nix", "nixosConfigurations.web-2 = host ./hosts/web-2.nix;", "");
    world.push("Without web-2");
    assert!(world.publish().good().contains("deployments/web-2.json  withdrawn after revision 1"));
    assert_eq!(world.on_branch("deployments/web-2.json"), None);
    assert_eq!(world.index()["tombstones"]["deployments/web-2.json"]["revision"], 1);
    world.edit(
        "flake.nix",
        "nixosConfigurations.web-1 =",
        "nixosConfigurations.web-2 = host ./hosts/web-2.nix; nixosConfigurations.web-1 =",
    );
    world.push("With web-2 again");
    world.publish().good();
    assert_eq!(world.document("deployments/web-2.json")["revision"], 2);
    assert!(world.index()["tombstones"].as_object().unwrap().is_empty());
}

#[test]
fn a_source_with_hosts_that_never_end_keeps_no_other_source_from_being_published() {
    let world = World::new();
    let endless = "let many = builtins.genList (n: n) 10000; in
        builtins.foldl' (a: _: builtins.foldl' (a: _: builtins.foldl' (a: _: a) a many) a many) 0 many";
    let hosts: Vec<String> = (1..=4).map(|n| format!("nixosConfigurations.endless-{n} = {endless};")).collect();
    second_source(&world, &format!("{{ {} }}", hosts.join(" ")));
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["once", "--config", &world.at("claveld.toml")]);
    // Each of the others has ten seconds at first, and ten minutes then.
    until("the healthy source is published", || world.on_branch("deployments/web-1.json").is_some());
    assert!(!claveld.has_ended(), "{}", claveld.said());
}

#[test]
fn two_sources_share_a_branch_and_a_name_belongs_to_the_first() {
    let world = World::new();
    second_source(&world, &host("db-1"));
    world.publish().good();
    assert!(world.on_branch("deployments/db-1.json").is_some());
    let before = world.on_branch("deployments/web-1.json");
    second_source(&world, &host("Web-1"));
    world.write_file("second/flake.nix", &world.read_file("second/flake.nix").replace("Web-1", "web-1"));
    world.git(&["-C", &world.at("second"), "commit", "-qam", "Claims web-1"]);
    let said = world.publish().refused(1, "deployments/web-1.json is claimed by");
    assert!(said.contains(&world.flake()) && said.contains("/second?ref=main"), "{said}");
    assert_eq!(world.on_branch("deployments/web-1.json"), before);
    assert!(said.contains("published it first and goes on with it"), "{said}");
    // The first one goes on with its name, whatever the other one claims.
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Web-1 greets");
    world.publish().refused(1, "deployments/web-1.json is claimed by");
    assert_ne!(world.on_branch("deployments/web-1.json"), before);
    // A source with `names` publishes those alone, and what else it has is a failure of its own.
    let named = world.read_file("claveld.toml").replace("/second?ref=main\"", "/second?ref=main\"\nnames = [\"DB-*\"]");
    world.write_file("claveld.toml", &named);
    let said = world.publish().refused(1, "may not publish the name `web-1`");
    assert!(!said.contains("is claimed by"), "{said}");
    // The second source has no db-1 any more, and its withdrawal is published all the same.
    assert_eq!(world.on_branch("deployments/db-1.json"), None);
}

#[test]
fn a_source_that_cannot_be_evaluated_keeps_what_it_has() {
    let world = World::new();
    world.publish().good();
    let tip = world.tip();
    world.write("flake.nix", "{ this is no nix");
    world.push("Broken");
    world.publish().refused(1, "syntax error");
    assert_eq!(world.tip(), tip);
}

#[test]
fn an_altered_document_is_published_anew() {
    let world = World::new();
    world.publish().good();
    let altered = world.on_branch("deployments/web-1.json").unwrap().replace("web-1-1", "evil-1-1");
    world.tamper(&BTreeMap::from([("deployments/web-1.json", Some(altered)), ("units/web-2.json", None)]));
    let said = world.publish().good();
    assert!(
        said.contains("deployments/web-1.json  revision 1 → 2 (repaired: the file there was altered or not trusted)"),
        "{said}"
    );
    assert!(said.contains("units/web-2.json        revision 1 → 2"), "{said}");
    world.verify().good();
}

#[test]
fn a_branch_that_is_not_clavels_is_left_alone() {
    let world = World::new();
    world.git(&["-C", &world.at("fleet.git"), "branch", "deployments", "main"]);
    let tip = world.tip();
    world.publish().refused(5, "this is not a branch of Clavel");
    assert_eq!(world.tip(), tip);
}

#[test]
fn a_branch_that_another_key_signed_is_left_alone() {
    let world = World::new();
    world.publish().good();
    let mut branch = ForgedBranch::of(&world);
    branch.reindex(&[&StolenKey::own("claveld-1", 7)], |index| index["version"] = serde_json::json!(2));
    branch.push(Onto::Tip);
    let tip = world.tip();
    // Claveld publishes nothing, with its record of what it published and without it.
    for remembers in ["its note", "nothing"] {
        let said = world.publish().refused(5, "the index cannot be trusted");
        assert!(said.contains("will not publish to the branch"), "{remembers}: {said}");
        assert_eq!(world.tip(), tip);
        let _ = std::fs::remove_file(world.path("claveld/published.json"));
    }
}

#[test]
fn a_key_that_is_no_publisher_of_the_root_publishes_nothing() {
    let world = World::new();
    world.publish().good();
    let tip = world.tip();
    std::fs::remove_file(world.path("claveld-1.secret")).unwrap();
    world.clavel(&["key", "generate", "claveld-1", "--output", &world.at("claveld-1.secret")]).good();
    world.publish().refused(3, "`claveld-1` is not among the publishers of the root's version 1");
    assert_eq!(world.tip(), tip);
}

#[test]
fn two_that_publish_at_once_both_succeed() {
    let world = World::new();
    let config = world.at("claveld.toml");
    std::thread::scope(|scope| {
        let publish = || world.claveld(&["once", "--config", &config]).good();
        let all: Vec<_> = (0..4).map(|_| scope.spawn(publish)).collect();
        let said: Vec<String> = all.into_iter().map(|one| one.join().unwrap()).collect();
        // Both may make the very same commit within one second. Then the branch gets only one.
        assert!(said.iter().all(|said| said.contains("index version 1")), "{said:?}");
    });
    assert_eq!(world.git(&["-C", &world.at("fleet.git"), "rev-list", "--count", "deployments"]), "1\n");
    world.git(&["-C", &world.at("fleet.git"), "fsck", "--strict"]);
}

#[test]
fn caches_come_from_the_source_when_the_deployment_names_none() {
    let world = World::new();
    let key = world.public_key("cache-1");
    world.configure_claveld(&format!(
        "substituters = [\"https://source.example.org\"]\nsubstituters-public-keys = [\"{key}\"]\n"
    ));
    world.publish().good();
    let cache = |path: &str| world.document(path)["specification"]["template"]["substituters"][0].clone();
    assert_eq!(cache("deployments/web-1.json"), "https://source.example.org");
    // router-1 names its own.
    assert_eq!(cache("deployments/router-1.json"), format!("file://{}", world.at("cache")));
}

#[test]
fn the_history_of_a_deployment_has_each_of_its_revisions() {
    let world = World::new();
    world.publish().good();
    let first = world.tip();
    world.change_with_nix("Welcome", "Hello");
    let second = world.tip();
    // A commit about another deployment is none of this one's.
    world.edit("hosts/web-2.nix", "Welcome", "Hello");
    world.push("web-2");
    world.publish().good();
    let (repository, root) = (world.at("fleet.git"), world.at("root.json"));
    let history = |arguments: &[&str]| {
        let environment = [("CLAVEL_REPOSITORY", repository.as_str()), ("CLAVEL_ROOT", root.as_str())];
        world.run_with(&environment, env!("CARGO_BIN_EXE_clavel"), &[&["history"], arguments].concat())
    };
    let found = history(&["web-1", "--json"]).json();
    let commits: Vec<_> = found.as_array().unwrap().iter().map(|past| (&past["revision"], &past["commit"])).collect();
    assert_eq!(commits, [(&2.into(), &second.as_str().into()), (&1.into(), &first.as_str().into())], "{found}");
    assert_ne!(found[0]["narId"], found[1]["narId"]);
    assert_eq!(found[1]["sourceRevision"].as_str().unwrap().len(), 40);
    let table = history(&["web-1"]).good();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains(&second[..10]) && table.starts_with("REVISION"), "{table}");
    history(&["web-9"]).refused(3, "the branch has no deployment web-9 in its history");
}
