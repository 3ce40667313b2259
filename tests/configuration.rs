//! Promise: an error in a configuration is reported with its file, line and key, and the program does nothing else.

use crate::support::world::World;

#[test]
fn errors_in_claveld_toml_are_reported() {
    let world = World::new();
    let good = world.read_file("claveld.toml");
    for (text, what) in [
        (good.replace("[publish]", "[publish]\nsecret-key = 1"), "unknown field `secret-key`"),
        (good.replace("[publish]", "[publish]\nsecret-key = 1"), "line 3"),
        (good.replace("secret-key-file", "# secret-key-file"), "there is no key to sign with"),
        (good.replace("[[source]]", "[[source"), "line 6"),
        (good.replace("flake = \"", "flake = \"--impure "), "is not a flake reference"),
        (good.split("[[source]]").next().unwrap().to_owned(), "there is none, so nothing would ever be published"),
    ] {
        world.write_file("claveld.toml", &text);
        let said = world.publish().refused(3, what);
        assert!(said.contains(&world.at("claveld.toml")), "{said}");
    }
    assert_eq!(world.tip(), "");
    std::fs::remove_file(world.path("claveld.toml")).unwrap();
    world.publish().refused(3, "cannot read the configuration");
    world.claveld(&["run", "--config", &world.at("claveld.toml")]).refused(3, "cannot read the configuration");
}

#[test]
fn errors_in_clavel_agent_toml_are_reported() {
    let world = World::new();
    world.configure_agent("web-1", "/srv/fleet.git", "");
    let good = world.read_file("web-1.toml");
    for (text, what) in [
        (good.replace("name =", "nome ="), "unknown field `nome`"),
        (good.replace("\"web-1\"\n", "\"web 1\"\n"), "is not a name"),
        (good.replace("/srv/fleet.git", "ext::sh -c evil"), "ext::sh"),
        (good.replace("/srv/fleet.git", "--upload-pack=evil"), "--upload-pack"),
    ] {
        world.write_file("web-1.toml", &text);
        world.agent("web-1", &["once"]).refused(3, what);
        world.agent("web-1", &["status"]).refused(3, what);
    }
    assert!(!world.path("web-1/state").exists());
}

#[test]
fn a_path_without_a_repository_is_an_error() {
    let world = World::new();
    let good = world.read_file("claveld.toml");
    world.write_file(
        "claveld.toml",
        &good.replace(&format!("repository = \"{}\"", world.at("fleet.git")), "repository = \"/does/not/exist\""),
    );
    world.publish().refused(4, "/does/not/exist");
}

#[test]
fn a_secret_in_a_url_is_refused_and_shown_nowhere() {
    let world = World::new();
    let good = world.read_file("claveld.toml");
    let repository = format!("repository = \"{}\"", world.at("fleet.git"));
    for text in [
        good.replace(&repository, "repository = \"https://t0ken@h/fleet.git\""),
        good.replace("flake = \"git+file://", "flake = \"git+https://me:t0ken@h"),
        good.replace("[[source]]", "[[source]]\nsubstituters = [\"https://me:t0ken@h\"]"),
    ] {
        assert_ne!(text, good);
        world.write_file("claveld.toml", &text);
        world.publish().refused_without(3, "write it without", "t0ken");
    }
    world.configure_agent("web-1", "https://t0ken@h/fleet.git", "");
    world.agent("web-1", &["once"]).refused_without(3, "[[credentials]]", "t0ken");
}
