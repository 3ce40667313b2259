//! Promise: where the root asks for approvals, an agent applies a revision once enough approvers have signed that very
//! revision, with keys in files, ssh-agents or hardware. Until then the machine keeps what it runs.

use std::collections::BTreeMap;

use crate::support::openssh::{SshAgent, new_key};
use crate::support::world::{Ran, World};

/// A published fleet whose web machines need two approvals, by alice, who has a key of Clavel, or bob and carol, who have
/// OpenSSH keys.
fn ready() -> World {
    let world = asking("web-*=2");
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world
}

/// A fleet that is not published yet, whose root has `policy` and those approvers.
fn asking(policy: &str) -> World {
    let world = World::new();
    world.clavel(&["key", "generate", "alice", "--output", &world.at("alice.secret")]).good();
    let (bob, carol) = (new_key(&world, "ed25519", "bob"), new_key(&world, "ed25519", "carol"));
    for made in ["root.json", "root-1.secret"] {
        std::fs::remove_file(world.path(made)).unwrap();
    }
    let (publisher, alice) = (world.at("claveld-1.secret"), world.at("alice.secret"));
    let approvers = ["--approver-key", &alice, "--approver-key", &format!("{bob}.pub"), "--approver-key"];
    let init = ["init", &world.at(""), "--publisher-key", &publisher, "--approvals", policy];
    world.clavel(&[&init, &approvers[..], &[&format!("{carol}.pub")]].concat()).good();
    world
}

/// The arguments of `clavel approve web-1`, with more at their end.
fn arguments(world: &World, more: &[&str]) -> Vec<String> {
    arguments_of("web-1", world, more)
}

fn arguments_of(name: &str, world: &World, more: &[&str]) -> Vec<String> {
    let (repository, root) = (world.at("fleet.git"), world.root());
    let all = [&["approve", name, "--repository", &repository, "--root", &root], more].concat();
    all.into_iter().map(ToOwned::to_owned).collect()
}

fn approve(world: &World, more: &[&str]) -> Ran {
    approve_of("web-1", world, more)
}

fn approve_of(name: &str, world: &World, more: &[&str]) -> Ran {
    let arguments = arguments_of(name, world, &[more, &["--yes"]].concat());
    world.clavel(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn pass(world: &World) -> String {
    world.agent("web-1", &["once"]).good()
}

fn change(world: &World) {
    world.change_from_memory("Welcome", "Hello");
}

/// The store path that is published for `web-1`.
fn nar_id(world: &World) -> String {
    let document = world.document("deployments/web-1.json");
    document["specification"]["template"]["narId"].as_str().unwrap().to_owned()
}

#[test]
fn it_waits_until_enough_have_approved_that_very_revision() {
    let world = ready();
    let waits = "web-1: revision 1 has 0 of 2 approvals; alice, bob, carol may give one: `clavel approve web-1`\n";
    assert_eq!(pass(&world), waits);
    assert_eq!(world.motd("web-1"), None);
    let shown = approve(&world, &["--key", &world.at("alice.secret")]).good();
    assert!(shown.contains("web-1: revision 1 in full: alice has approved no revision before it"), "{shown}");
    assert!(pass(&world).contains("revision 1 has 1 of 2 approvals (by alice); bob, carol may give one"));
    let again = approve(&world, &["--key", &world.at("alice.secret")]).good();
    assert!(again.contains("alice has approved revision 1 already"), "{again}");
    approve(&world, &["--ssh-key", &world.at("bob")]).good();
    assert_eq!(pass(&world), "web-1: switched to revision 1\n");

    // Approvals of one revision do not count for the next.
    change(&world);
    assert!(pass(&world).contains("revision 2 has 0 of 2 approvals"));
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    let verified = world.verify().good();
    assert!(verified.contains("waits  web-1: revision 2 has 0 of 2"), "{verified}");
    let list = ["list", "--repository", &world.at("fleet.git"), "--root", &world.root()];
    assert!(world.clavel(&list).stderr.contains("web-1 waits: revision 2 has 0 of 2"));
    let show = world.clavel(&[&["show", "web-1"], &list[1..]].concat()).good();
    assert!(show.contains("approvals") && show.contains("0 of 2"), "{show}");

    // Carol's key is in her ssh-agent.
    let agent = SshAgent::start(&world);
    agent.add(&world, &["-q", &world.at("carol")]).good();
    std::fs::remove_file(world.path("carol")).unwrap();
    let carol = arguments(&world, &["--ssh-key", &world.at("carol.pub"), "--yes"]);
    let carol: Vec<&str> = carol.iter().map(String::as_str).collect();
    let shown = world.run_with(&[("SSH_AUTH_SOCK", agent.socket())], env!("CARGO_BIN_EXE_clavel"), &carol).good();
    assert!(
        shown.contains("carol has approved no revision before it") && shown.contains("carol approved revision 2"),
        "{shown}"
    );
    approve(&world, &["--key", &world.at("alice.secret")]).good();
    assert_eq!(pass(&world), "web-1: switched to revision 2\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
}

#[test]
fn what_is_no_approval_of_it_counts_nothing_and_is_in_nobodys_way() {
    let world = ready();
    approve(&world, &["--key", &world.at("alice.secret")]).good();
    approve(&world, &["--ssh-key", &world.at("bob")]).good();
    let of = |who: &str| world.on_branch(&format!("approvals/web-1/{who}.json")).unwrap();
    let (first_of_alice, first_of_bob) = (of("alice"), of("bob"));
    pass(&world);
    change(&world);
    // Approvals of an earlier revision, one under the name of another approver, and one altered to name the new revision.
    world.tamper(&BTreeMap::from([
        ("approvals/web-1/alice.json", Some(first_of_alice.replace("\"revision\": 1", "\"revision\": 2"))),
        ("approvals/web-1/carol.json", Some(first_of_bob)),
        ("approvals/web-1/mallory.json", Some("junk".to_owned())),
    ]));
    let said = pass(&world);
    assert!(said.contains("revision 2 has 0 of 2 approvals"), "{said}");
    assert!(said.contains("the approval of alice does not count: the key `alice` did not sign it"), "{said}");
    assert!(said.contains("the approval of carol does not count"), "{said}");
    // Junk files beside enough good approvals.
    world.tamper(&BTreeMap::from([("approvals/web-1/carol.json", Some("junk".to_owned()))]));
    approve(&world, &["--key", &world.at("alice.secret")]).good();
    approve(&world, &["--ssh-key", &world.at("bob")]).good();
    assert_eq!(pass(&world), "web-1: switched to revision 2\n");
    world.verify().refused(5, "`approvals/web-1/mallory.json` does not belong on the branch");
    world.publish().good();
    world.verify().good();
}

#[test]
fn only_approvers_approve_and_only_where_approvals_are_asked_for() {
    let world = ready();
    world.clavel(&["key", "generate", "mallory", "--output", &world.at("mallory.secret")]).good();
    approve(&world, &["--key", &world.at("mallory.secret")])
        .refused(3, "no approver's; the approvers are: alice, bob, carol");
    let unasked = arguments(&world, &["--key", &world.at("alice.secret")]);
    let unasked: Vec<&str> = unasked.iter().map(String::as_str).collect();
    world.clavel(&unasked).refused(3, "--yes approves without asking");
    approve(&world, &[]).refused(3, "--key FILE or --ssh-key FILE");
    let router = ["approve", "router-1", "--yes", "--key", &world.at("alice.secret"), "--root", &world.root()];
    world
        .clavel(&[&router[..], &["--repository", &world.at("fleet.git")]].concat())
        .refused(3, "asks for no approvals");
    assert_eq!(world.on_branch("approvals/web-1/alice.json"), None);
}

/// Writes the configuration of an agent of that name that takes the deployment `x`, which is for `unit`.
fn configure_for_x(world: &World, agent: &str, unit: &str) {
    let text = format!(
        "name = \"{agent}\"\nrepository = \"file://{}\"\nroot = \"root.json\"\nstate-directory = \"{agent}/state\"\n\
         deployments = [\"x\"]\n[nix]\nstore = \"{agent}/store\"\n[units.{unit}]\n\
         profile = \"{agent}/profile/system\"\ncommand = [\"/bin/true\"]\n",
        world.at("fleet.git")
    );
    world.write_file(&format!("{agent}.toml"), &text);
}

/// A fleet that asks for two approvals of `db-*`, and a flake that calls its deployment `x` to avoid them.
fn another_name(agent: &str, unit: &str) -> World {
    let world = asking("db-*=2");
    let more = format!(
        "clavel.deployments.x = {{ unit = \"{unit}\"; template = {{ narId = (host ./hosts/router-1.nix).config.system.build.toplevel; \
         inherit (caches) substituters substituters-public-keys; }}; }}; \
         clavel.agents.{agent}.deployments = [ \"x\" ];"
    );
    let before = "nixosConfigurations.web-1 = host ./hosts/web-1.nix;";
    world.edit("flake.nix", before, &format!("{before} {more}"));
    world.push("Another name");
    world.publish().good();
    world.build_attributes(&["clavel.deployments.x.template.narId".to_owned()]);
    configure_for_x(&world, agent, unit);
    world
}

/// Asserts that the deployment `x` waits for two approvals, that every program says so, and that it is applied with them.
fn assert_x_waits_for_two_approvals(world: &World, agent: &str) {
    let once = || world.agent(agent, &["once"]).good();
    assert!(once().contains("x: revision 1 has 0 of 2 approvals"), "{}", once());
    assert!(!world.path(&format!("{agent}/profile/system")).exists());
    let place = ["--repository", &world.at("fleet.git"), "--root", &world.root()];
    let told = world.verify().good();
    assert!(told.contains("waits  x: revision 1 has 0 of 2") && told.matches("waits").count() == 1, "{told}");
    assert!(world.clavel(&[&["list"], &place[..]].concat()).stderr.contains("x waits: revision 1 has 0 of 2"));
    assert!(world.clavel(&[&["show", "x"], &place[..]].concat()).good().contains("0 of 2 approvals"));
    approve_of("x", world, &["--key", &world.at("alice.secret")]).good();
    assert!(once().contains("1 of 2 approvals (by alice)"), "{}", once());
    approve_of("x", world, &["--ssh-key", &world.at("bob")]).good();
    assert_eq!(once(), "x: switched to revision 1\n");
}

#[test]
fn another_name_of_the_deployment_does_not_take_the_demand_of_its_unit_away() {
    let world = another_name("gateway", "db-1");
    assert_x_waits_for_two_approvals(&world, "gateway");
}

#[test]
fn other_names_of_deployment_and_unit_do_not_take_the_demand_of_the_agent_away() {
    let world = another_name("db-1", "y");
    assert_x_waits_for_two_approvals(&world, "db-1");
}

#[test]
fn each_approver_is_shown_what_changed_since_they_approved_last() {
    let world = ready();
    let alice = || approve(&world, &["--key", &world.at("alice.secret")]).good();
    let bob = || approve(&world, &["--ssh-key", &world.at("bob")]).good();
    let first = nar_id(&world);
    alice();
    world.change_from_memory("Welcome", "Hello");
    let second = nar_id(&world);
    // Bob has approved no revision, so he sees the whole revision, whatever alice approved.
    let shown = bob();
    assert!(shown.contains("web-1: revision 2 in full: bob has approved no revision before it\n"), "{shown}");
    let key = world.public_key("cache-1");
    let cache = format!("substituters: file://{}", world.at("cache"));
    let all = ["unit: web-1", &format!("narId: {second}"), &cache, &format!("substituters-public-keys: {key}")];
    for fact in all {
        assert!(shown.contains(&format!("\n  {fact}\n")), "`{fact}` is not in:\n{shown}");
    }
    assert!(shown.contains("\n  attribute: ") && !shown.contains('→'), "{shown}");
    // Alice has not seen the second revision, so the diff begins at the first.
    world.change_from_memory("Hello", "Good day");
    let third = nar_id(&world);
    let shown = alice();
    assert!(shown.contains(&format!("web-1: revision 1 → 3\n  narId: {first} → {third}\n")), "{shown}");
    let shown = bob();
    assert!(shown.contains(&format!("web-1: revision 2 → 3\n  narId: {second} → {third}\n")), "{shown}");
    // The third revision may run now. Carol has approved none, so she sees the whole fourth revision, and the diff from the
    // third.
    world.change_from_memory("Good day", "Good evening");
    let fourth = nar_id(&world);
    let shown = approve(&world, &["--ssh-key", &world.at("carol")]).good();
    assert!(shown.contains("web-1: revision 4 in full: carol has approved no revision before it\n"), "{shown}");
    let since = "web-1: enough have approved revision 3, so it may run; since then:\nweb-1: revision 3 → 4\n";
    assert!(shown.contains(&format!("{since}  narId: {third} → {fourth}\n")), "{shown}");
}

#[test]
fn where_what_somebody_approved_is_gone_they_are_shown_all_of_it() {
    let world = ready();
    let alice = || approve(&world, &["--key", &world.at("alice.secret")]).good();
    alice();
    world.change_from_memory("Welcome", "Hello");
    world.change_from_memory("Hello", "Good day");
    // Somebody rewrites the history: it has another content of the first revision, and the second as it was.
    let repository = world.at("fleet.git");
    let git = |arguments: &[&str]| world.git(&[&["-C", &repository], arguments].concat()).trim().to_owned();
    let (tip, before) = (world.tip(), git(&["rev-parse", "deployments^"]));
    let file = world.on_branch("deployments/web-1.json").unwrap();
    assert!(file.contains("\"revision\": 3"));
    world.tamper(&BTreeMap::from([(
        "deployments/web-1.json",
        Some(file.replace("\"revision\": 3", "\"revision\": 1")),
    )]));
    let altered = git(&["commit-tree", "deployments^{tree}", "-m", "Altered"]);
    let second = git(&["commit-tree", &format!("{before}^{{tree}}"), "-p", &altered, "-m", "The second"]);
    let third = git(&["commit-tree", &format!("{tip}^{{tree}}"), "-p", &second, "-m", "The third"]);
    git(&["update-ref", "refs/heads/deployments", &third]);
    let shown = alice();
    let told = "web-1: revision 3 in full: revision 1, which alice approved, is not on the branch any more\n";
    assert!(shown.contains(told) && shown.contains(&format!("  narId: {}\n", nar_id(&world))), "{shown}");
    assert!(!shown.contains('→'), "{shown}");
}

#[test]
fn approve_at_a_terminal_shows_the_changes_and_asks() {
    let world = ready();
    let asked = arguments(&world, &["--key", &world.at("alice.secret")]);
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    for no in ["n\n", "\n", "\u{4}"] {
        let ran = world.run_at_a_terminal(env!("CARGO_BIN_EXE_clavel"), &asked, no);
        assert_eq!(ran.code, Some(3), "{no:?}: {}", ran.stdout);
        assert!(ran.stdout.contains("Approve revision 1 of web-1 as alice? [y/N]"), "{}", ran.stdout);
        assert!(ran.stdout.contains("not approved"), "{}", ran.stdout);
    }
    assert_eq!(world.on_branch("approvals/web-1/alice.json"), None);
    let ran = world.run_at_a_terminal(env!("CARGO_BIN_EXE_clavel"), &asked, "y\n");
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(world.on_branch("approvals/web-1/alice.json").is_some());
}

#[test]
fn an_approval_in_a_file_counts_once_it_is_on_the_branch_and_goes_with_its_deployment() {
    let world = ready();
    let file = world.at("approval.json");
    let said = approve(&world, &["--ssh-key", &world.at("bob"), "--output", &file]).good();
    assert!(said.contains("put it on the branch as approvals/web-1/bob.json"), "{said}");
    assert_eq!(world.on_branch("approvals/web-1/bob.json"), None);
    world.tamper(&BTreeMap::from([("approvals/web-1/bob.json", Some(world.read_file("approval.json")))]));
    assert!(pass(&world).contains("1 of 2 approvals (by bob)"));
    approve(&world, &["--key", &world.at("alice.secret")]).good();
    // Claveld keeps the approvals until the deployment is withdrawn.
    change(&world);
    assert!(world.on_branch("approvals/web-1/bob.json").is_some());
    world.edit("flake.nix", "nixosConfigurations.web-1 = host ./hosts/web-1.nix;", "");
    world.publish_from_memory(&[]);
    assert_eq!(world.on_branch("approvals/web-1/bob.json"), None);
    assert_eq!(world.on_branch("approvals/web-1/alice.json"), None);
}

#[test]
fn two_approvals_at_the_same_time_both_count() {
    let world = ready();
    std::thread::scope(|scope| {
        let alice = scope.spawn(|| approve(&world, &["--key", &world.at("alice.secret")]).good());
        let bob = scope.spawn(|| approve(&world, &["--ssh-key", &world.at("bob")]).good());
        (alice.join().unwrap(), bob.join().unwrap())
    });
    assert_eq!(pass(&world), "web-1: switched to revision 1\n");
}
