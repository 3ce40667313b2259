//! Promise: a host that asks for a client certificate gets that of its `[[credentials]]` table, and no other host ever does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::authority::Authority;
use crate::support::http::HttpServer;
use crate::support::world::World;

const AGENT: &str = env!("CARGO_BIN_EXE_clavel-agent");
const CLAVELD: &str = env!("CARGO_BIN_EXE_claveld");
const CLAVEL: &str = env!("CARGO_BIN_EXE_clavel");

/// A server for the certificates of `authority` alone, with `more` in its configuration.
fn serve_for(world: &World, authority: &Authority, more: &str) -> HttpServer {
    let ca = authority.certificate();
    let more = format!("ssl_client_certificate \"{}\"; ssl_verify_client on; {more}", ca.display());
    HttpServer::serve_git_with(&world.path(""), &more)
}

/// The table for `server`, with these files.
fn table(server: &HttpServer, certificate: &Path, key: &Path) -> String {
    table_with(
        server,
        &format!("client-certificate = \"{}\"\nclient-key = \"{}\"", certificate.display(), key.display()),
    )
}

fn table_with(server: &HttpServer, more: &str) -> String {
    format!("[[credentials]]\nurl = \"{}\"\nca-file = \"{}\"\n{more}\n", server.url(), server.certificate().display())
}

/// Makes claveld publish to `fleet` and push on to `mirrors`, and take its source from `fleet`.
fn publish_to(world: &World, fleet: &str, mirrors: &[&str], tables: &str) {
    world.configure_claveld("");
    let local = world.at("fleet.git");
    let text = world.read_file("claveld.toml");
    let text = text
        .replace(&format!("repository = \"{local}\""), &format!("repository = \"{fleet}\"\nmirrors = {mirrors:?}"))
        .replace(&format!("git+file://{local}"), &format!("git+{fleet}"));
    world.write_file("claveld.toml", &format!("{text}\n[evaluate]\nisolation = \"none\"\n{tables}\n"));
}

/// Lets anybody push whom nginx lets in.
fn accept_pushes(world: &World, repository: &str) {
    world.git(&["-C", &world.at(repository), "config", "http.receivepack", "true"]);
}

#[test]
fn everything_that_connects_shows_the_certificate() {
    let world = World::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("claveld");
    let server = serve_for(&world, &authority, "");
    world.git(&["init", "-q", "--bare", &world.at("mirror.git")]);
    accept_pushes(&world, "fleet.git");
    accept_pushes(&world, "mirror.git");
    let [fleet, mirror] = ["fleet.git", "mirror.git"].map(|name| format!("{}/{name}", server.url()));
    let good = table(&server, &certificate, &key);
    publish_to(&world, &fleet, &[&mirror], &good);
    let once = ["once", "--config", &world.at("claveld.toml")];
    let published = world.run_bare(&[], CLAVELD, &once).also_good();
    assert!(published.stdout.contains("published as index version 1"), "{}", published.stdout);
    let mirrored = world.git(&["-C", &world.at("mirror.git"), "rev-parse", "deployments"]);
    assert_eq!(mirrored.trim(), world.tip());
    world.build(&["web-1"]);
    world.write_file("credentials.toml", &good);
    let (root, credentials) = (world.root(), world.at("credentials.toml"));
    for repository in [&fleet, &mirror] {
        let verify = ["verify", "--repository", repository, "--root", &root, "--credentials", &credentials];
        world.run_bare(&[], CLAVEL, &verify).good();
    }
    world.configure_agent("web-1", &mirror, &good);
    let agent = ["once", "--config", &world.at("web-1.toml")];
    assert_eq!(world.run_bare(&[], AGENT, &agent).good(), "web-1: switched to revision 1\n");
    // The key as a credential of systemd's, which its group can read too.
    world.write_file("credentials/key", &std::fs::read_to_string(&key).unwrap());
    std::fs::set_permissions(world.path("credentials/key"), PermissionsExt::from_mode(0o440)).unwrap();
    let of_systemd = format!("client-certificate = \"{}\"\nclient-key-credential = \"key\"", certificate.display());
    world.configure_agent("web-1", &fleet, &table_with(&server, &of_systemd));
    let folder = world.at("credentials");
    world.run_bare(&[("CREDENTIALS_DIRECTORY", &folder)], AGENT, &agent).good();
    world.run_bare(&[], AGENT, &agent).refused(4, "LoadCredential=");
    // The files of a static folder.
    let export = ["export", "--static", &world.at("static"), "--repository", &world.at("fleet.git"), "--root", &root];
    world.clavel(&export).good();
    let exported = format!("static+{}/files/static", server.url());
    world.configure_agent("web-2", &exported, &good);
    let agent = ["once", "--config", &world.at("web-2.toml")];
    let taken = world.run_bare(&[], AGENT, &agent);
    assert!(!taken.stderr.contains("HTTP status"), "{}", taken.stderr);
    world.configure_agent("web-2", &exported, &table_with(&server, ""));
    world.run_bare(&[], AGENT, &agent).refused(4, "client-certificate");
}

#[test]
fn without_a_good_certificate_the_error_says_what_to_do() {
    let world = World::published();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("agent");
    let (_, key_of_another) = authority.issue("another");
    let strangers = Authority::new();
    let (of_a_stranger, key_of_a_stranger) = strangers.issue("stranger");
    let server = serve_for(&world, &authority, "");
    let fleet = format!("{}/fleet.git", server.url());
    let readable = world.path("readable.key");
    std::fs::copy(&key, &readable).unwrap();
    std::fs::set_permissions(&readable, PermissionsExt::from_mode(0o644)).unwrap();
    let secret = std::fs::read_to_string(&key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    for (table, why) in [
        (table_with(&server, ""), "client-certificate and client-key"),
        (table(&server, &of_a_stranger, &key_of_a_stranger), "client-certificate and client-key"),
        (table(&server, &certificate, &key_of_another), "has to be the key of its client-certificate"),
        (table(&server, &certificate, &readable), "can be read by others (mode 0644); run `chmod 600`"),
        (table(&server, &certificate, &world.path("none")), "client-key that [[credentials]] names cannot be read"),
        (table(&server, &key, &key), "no certificate in PEM"),
    ] {
        world.configure_agent("web-1", &fleet, &table);
        let once = ["once", "--config", &world.at("web-1.toml")];
        world.run_bare(&[], AGENT, &once).refused_without(4, why, secret);
        publish_to(&world, &fleet, &[], &table);
        let said = world.run_bare(&[], CLAVELD, &["once", "--config", &world.at("claveld.toml")]);
        assert!(said.code != Some(0) && said.stderr.contains(why), "{why}: {}", said.stderr);
        assert!(!said.stderr.contains(secret), "{}", said.stderr);
    }
    assert_eq!(world.motd("web-1"), None);
    world.configure_agent("web-1", &fleet, &table(&server, &certificate, &key));
    world.run_bare(&[], AGENT, &["once", "--config", &world.at("web-1.toml")]).good();
}

#[test]
fn another_host_gets_no_certificate_and_no_token() {
    let world = World::published();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("agent");
    // It tells by the status what it was shown.
    let stranger = HttpServer::serve_git_with(
        &world.path(""),
        "ssl_verify_client optional_no_ca; if ($ssl_client_verify != NONE) { return 418; } if ($http_authorization) { return 451; }",
    );
    let away = format!("rewrite ^/away\\.git/(.*) {}/fleet.git/$1 redirect;", stranger.url());
    let moved = "rewrite ^/moved\\.git/(.*) /fleet.git/$1 redirect;";
    let server = serve_for(&world, &authority, &format!("{away} {moved}"));
    world.write_file("token", "s3cret\n");
    // One file vouches for both servers.
    let both = [&server, &stranger].map(|server| std::fs::read_to_string(server.certificate()).unwrap()).concat();
    world.write_file("both.pem", &both);
    let own = table(&server, &certificate, &key).replace(server.certificate().to_str().unwrap(), &world.at("both.pem"));
    let own = format!("{own}token-file = \"token\"\n");
    let pass = |repository: &str| {
        world.configure_agent("web-1", &format!("{}/{repository}", server.url()), &own);
        world.run_bare(&[], AGENT, &["once", "--config", &world.at("web-1.toml")])
    };
    // The stranger would have said what it saw; so it does to a client that shows everything.
    let curl = ["-sko", "/dev/null", "-w", "%{http_code}", "--cert", certificate.to_str().unwrap(), "--key"];
    let shown = world.run("curl", &[&curl[..], &[key.to_str().unwrap(), &stranger.url()]].concat());
    assert_eq!(shown.stdout, "418");
    let before = stranger.requests().len();
    assert_eq!(pass("away.git").good(), "web-1: switched to revision 1\n");
    let asked = stranger.requests().split_off(before);
    assert!(asked.iter().any(|request| request == "POST /fleet.git/git-upload-pack 200"), "{asked:?}");
    assert!(asked.iter().all(|request| !request.ends_with("418") && !request.ends_with("451")), "{asked:?}");
    // Within the host, a redirect is followed with the certificate.
    assert_eq!(pass("moved.git").good(), "web-1: up to date at revision 1\n");
    // git follows none, since it would show the certificate there.
    for name in ["away.git", "moved.git"] {
        let repository = format!("{}/{name}", server.url());
        publish_to(&world, &repository, &[], &own);
        let said = world.run_bare(&[], CLAVELD, &["once", "--config", &world.at("claveld.toml")]);
        assert_ne!(said.code, Some(0), "{}", said.stdout);
    }
    let asked = stranger.requests().split_off(before);
    assert!(asked.iter().all(|request| !request.ends_with("418") && !request.ends_with("451")), "{asked:?}");
}
