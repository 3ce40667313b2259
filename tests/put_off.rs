//! Promise: a server that says for how long it wants to be left alone is left alone for that long, and people are told.

use std::time::{Duration, Instant};

use crate::support::http::HttpServer;
use crate::support::world::{World, until};

/// A table that trusts the server.
fn table(server: &HttpServer) -> String {
    format!("[[credentials]]\nurl = \"{}\"\nca-file = \"{}\"\n", server.url(), server.certificate().display())
}

#[test]
fn an_agent_asks_no_sooner_than_the_server_said() {
    let world = World::published();
    for (kind, path) in [("", "/fleet.git"), ("static+", "/fleet")] {
        let server = HttpServer::answering_later(429, "3");
        let repository = format!("{kind}{}{path}", server.url());
        let unit = "web-1";
        world.configure_agent(unit, &repository, &table(&server));
        let begun = Instant::now();
        let said = world.agent(unit, &["once"]).refused(4, "asked to be left alone until");
        assert!(said.contains("HTTP status 429"), "{said}");
        // The passes until then end without a request, and say the same.
        let before = server.asked();
        let passes = std::cell::Cell::new(0);
        until("the agent asks again", || {
            let counted = server.asked();
            world.agent(unit, &["once"]).refused(4, "asked to be left alone until");
            passes.set(passes.get() + 1);
            server.asked() - counted > 0
        });
        assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(passes.get() > 1 && server.asked() > before);
        let status = world.agent(unit, &["status"]);
        let shown = format!("{}{}", status.stdout, status.stderr);
        assert!(shown.contains("asked to be left alone until") && shown.contains("HTTP status 429"), "{shown}");
        // Another mirror is asked all the same.
        let both = format!("mirrors = [\"{}\"]\n{}", world.at("fleet.git"), table(&server));
        world.configure_agent(unit, &repository, &both);
        let pass = world.agent(unit, &["once"]);
        assert!(world.motd(unit).is_some(), "{}{}", pass.stdout, pass.stderr);
    }
}

#[test]
fn a_mirror_is_pushed_to_no_sooner_than_its_server_said() {
    let world = World::new();
    for (status, value) in [(429, "3600"), (503, "Thu, 21 Oct 2055 07:28:00 GMT")] {
        let server = HttpServer::answering_later(status, value);
        let mirror = format!("{}/mirror.git", server.url());
        world.configure_claveld(&table(&server));
        let text = world.read_file("claveld.toml");
        world.write_file(
            "claveld.toml",
            &text.replace("[publish]\n", &format!("[publish]\nmirrors = [\"{mirror}\"]\n")),
        );
        world.publish();
        let state = || {
            let status = world.claveld(&["status", "--json", "--config", &world.at("claveld.toml")]).json();
            status["mirrors"][0].clone()
        };
        let first = state();
        let not_before = first["failed"]["notBefore"].as_str().unwrap_or_else(|| panic!("{first}")).to_owned();
        assert_eq!(first["failed"]["next"], *not_before, "{first}");
        let error = first["failed"]["error"].as_str().unwrap();
        assert!(error.contains(&format!("returned error: {status}")), "{error}");
        let count = server.asked();
        // A new commit does not change that.
        world.edit("hosts/web-1.nix", "Welcome", "Welcome!");
        world.push("Welcome!");
        assert!(world.publish().stdout.contains("published as index version"));
        assert_eq!(server.asked(), count);
        assert_eq!(state()["failed"]["notBefore"], *not_before);
        let shown = world.claveld(&["status", "--config", &world.at("claveld.toml")]);
        let shown = format!("{}{}", shown.stdout, shown.stderr);
        assert!(shown.contains("because its server asked for that"), "{shown}");
    }
}
