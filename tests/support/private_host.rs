//! A fleet whose repository is on a host that asks who somebody is.

use super::http::HttpServer;
use super::world::World;

/// The table for `server`, with `more` in it.
pub(crate) fn credentials_table(server: &HttpServer, more: &str) -> String {
    let (url, ca) = (server.url(), server.certificate());
    format!("[[credentials]]\nurl = \"{url}\"\nca-file = \"{}\"\n{more}\n", ca.display())
}

/// Makes claveld publish to `repository`, and take its source from there, with these tables.
pub(crate) fn publish_to(world: &World, repository: &str, tables: &str) {
    publish_from(world, repository, repository, tables);
}

/// Makes claveld publish to `repository`, and take its source from `source`, with these tables.
pub(crate) fn publish_from(world: &World, source: &str, repository: &str, tables: &str) {
    world.configure_claveld("");
    let (local, text) = (world.at("fleet.git"), world.read_file("claveld.toml"));
    let text = text
        .replace(&format!("repository = \"{local}\""), &format!("repository = \"{repository}\""))
        .replace(&format!("git+file://{local}"), &format!("git+{source}"));
    world.write_file("claveld.toml", &format!("{text}\n[evaluate]\nisolation = \"none\"\n{tables}\n"));
}
