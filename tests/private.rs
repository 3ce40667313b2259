//! Promise: every program reaches repositories over HTTPS and SSH as a service, with an empty environment, and private ones with
//! the credentials of its configuration, which are shown nowhere.

use std::path::Path;

use crate::support::http::HttpServer;
use crate::support::proxy::HttpProxy;
use crate::support::ssh::SshServer;
use crate::support::world::World;

/// Copies this machine's /etc to the folder `etc` of the world, without any certificate but this one.
fn make_etc(world: &World, etc: &str, certificate: Option<(&str, &Path)>) {
    world.run("cp", &["-a", "/etc", &world.at(etc)]).good();
    for folder in ["ssl", "pki"] {
        world.run("rm", &["-rf", &world.at(&format!("{etc}/{folder}"))]).good();
    }
    if let Some((at, certificate)) = certificate {
        world.write_file(&format!("{etc}/{at}"), &std::fs::read_to_string(certificate).unwrap());
    }
}

const AGENT: &str = env!("CARGO_BIN_EXE_clavel-agent");
const CLAVELD: &str = env!("CARGO_BIN_EXE_claveld");
const CLAVEL: &str = env!("CARGO_BIN_EXE_clavel");

/// The text `from` of claveld's configuration becomes `to`.
fn edit_claveld(world: &World, from: &str, to: &str) {
    let text = world.read_file("claveld.toml");
    assert!(text.contains(from), "{text}");
    world.write_file("claveld.toml", &text.replace(from, to));
}

/// Makes claveld publish to `repository`, and take its source from there.
fn publish_to(world: &World, repository: &str, more: &str) {
    edit_claveld(
        world,
        &format!("repository = \"{}\"", world.at("fleet.git")),
        &format!("repository = \"{repository}\""),
    );
    edit_claveld(world, &format!("git+file://{}", world.at("fleet.git")), &format!("git+{repository}"));
    let text = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &format!("{text}\n[evaluate]\nisolation = \"none\"\n{more}\n"));
}

#[test]
fn the_certificates_of_the_machine_count_wherever_a_distribution_has_them() {
    let world = World::published();
    let server = HttpServer::serve_git_over_https(&world.path(""));
    let fleet = format!("{}/fleet.git", server.url());
    let root = world.root();
    let verify = ["verify", "--repository", &fleet, "--root", &root];
    for (number, place) in [
        "ssl/certs/ca-certificates.crt",
        "ssl/certs/ca-bundle.crt",
        "pki/tls/certs/ca-bundle.crt",
        "ssl/ca-bundle.pem",
        "ssl/cert.pem",
    ]
    .iter()
    .enumerate()
    {
        let etc = format!("etc-{number}");
        make_etc(&world, &etc, Some((place, &server.certificate())));
        world.run_bare_with_etc(&etc, CLAVEL, &verify).good();
    }
    make_etc(&world, "etc-none", None);
    let said = world.run_bare_with_etc("etc-none", CLAVEL, &verify).refused(4, "no CA certificates found");
    assert!(said.contains("ca-file") && said.contains("ca-certificates"), "{said}");
    world.configure_agent("web-1", &fleet, "");
    let once = ["once", "--config", &world.at("web-1.toml")];
    world.run_bare_with_etc("etc-none", AGENT, &once).refused(4, "no CA certificates found");
    // This machine's own certificates do not vouch for the server.
    world.run_bare(&[], AGENT, &once).refused(4, "certificate");
    assert_eq!(world.run_bare_with_etc("etc-0", AGENT, &once).good(), "web-1: switched to revision 1\n");
}

#[test]
fn certificates_can_be_named_by_each_variable_and_by_the_configuration() {
    let world = World::published();
    let server = HttpServer::serve_git_over_https(&world.path(""));
    let fleet = format!("{}/fleet.git", server.url());
    let certificate = server.certificate();
    let certificate = certificate.to_str().unwrap();
    world.write_file("certificates/ca.pem", &std::fs::read_to_string(certificate).unwrap());
    world.run("openssl", &["rehash", &world.at("certificates")]).good();
    let root = world.root();
    let verify = ["verify", "--repository", &fleet, "--root", &root];
    for (variable, value) in [
        ("NIX_SSL_CERT_FILE", certificate),
        ("SSL_CERT_FILE", certificate),
        ("SSL_CERT_DIR", &world.at("certificates")),
    ] {
        world.run_bare(&[(variable, value)], CLAVEL, &verify).good();
        world
            .run_bare(&[(variable, "/none")], CLAVEL, &verify)
            .refused(4, &format!("the variable {variable} names /none"));
    }
    // A certificate that is named is the only one.
    let stranger = HttpServer::serve_git_over_https(&world.path(""));
    let both = [("SSL_CERT_FILE", certificate)];
    let other = format!("{}/fleet.git", stranger.url());
    world.run_bare(&both, CLAVEL, &["verify", "--repository", &other, "--root", &root]).refused(4, "certificate");
    let table = format!("[[credentials]]\nurl = \"{}\"\nca-file = \"{certificate}\"\n", server.url());
    world.write_file("credentials.toml", &table);
    world.run_bare(&[("CLAVEL_CREDENTIALS", &world.at("credentials.toml"))], CLAVEL, &verify).good();
    world.configure_agent("web-1", &fleet, &table);
    let once = ["once", "--config", &world.at("web-1.toml")];
    assert_eq!(world.run_bare(&[], AGENT, &once).good(), "web-1: switched to revision 1\n");
}

#[test]
fn claveld_publishes_a_private_repository_over_https_and_everybody_reads_it() {
    const SECRET: &str = "dGhlIHNlY3JldCB0b2tlbg";
    let world = World::new();
    let server = HttpServer::serve_private_git(&world.path(""), "git", SECRET);
    let fleet = format!("{}/fleet.git", server.url());
    world.write_file("token", &format!("{SECRET}\n"));
    let (url, certificate) = (server.url(), server.certificate());
    let table =
        |how: &str| format!("[[credentials]]\nurl = \"{url}\"\nca-file = \"{}\"\n{how}\n", certificate.display());
    let token = table("token-file = \"token\"");
    let config = world.at("claveld.toml");
    let once = ["once", "--config", &config];
    publish_to(&world, &fleet, "");
    let original = world.read_file("claveld.toml");
    // Without credentials: the certificate is trusted, and the server asks who that is.
    world.write_file("claveld.toml", &format!("{original}{}", table("")));
    let said = world.run_bare(&[], CLAVELD, &once);
    assert!(said.code != Some(0) && !said.stderr.contains(SECRET), "{}", said.stderr);
    world.write_file("claveld.toml", &format!("{original}{token}"));
    let published = world.run_bare(&[], CLAVELD, &once);
    assert!(!published.stderr.contains(SECRET), "{}", published.stderr);
    assert!(published.good().contains("published as index version 1"));
    world.build(&["web-1"]);
    world.write_file("netrc", &format!("machine 127.0.0.1 login git password {SECRET}\n"));
    world.write_file("credentials/pass", &format!("{SECRET}\n"));
    let helper = format!("helper = \"!f() {{ echo username=git; echo password=$(cat {}); }}; f\"", world.at("token"));
    let (root, folder) = (world.root(), world.at("credentials"));
    for how in [
        "token-file = \"token\"",
        "user = \"git\"\npassword-file = \"token\"",
        "netrc-file = \"netrc\"",
        &helper,
        "password-credential = \"pass\"",
    ] {
        world.write_file("credentials.toml", &table(how));
        let file = world.at("credentials.toml");
        let verify = ["verify", "--repository", &fleet, "--root", &root, "--credentials", &file];
        world.run_bare(&[("CREDENTIALS_DIRECTORY", &folder)], CLAVEL, &verify).good();
        world.configure_agent("web-1", &fleet, &table(how));
        let config = world.at("web-1.toml");
        world.run_bare(&[("CREDENTIALS_DIRECTORY", &folder)], AGENT, &["once", "--config", &config]).good();
        // It pushes with each of them, too.
        world.write_file("claveld.toml", &format!("{original}{}", table(how)));
        world.edit("hosts/web-1.nix", "Welcome", "Welcome!");
        world.push(how);
        let again = world.run_bare(&[("CREDENTIALS_DIRECTORY", &folder)], CLAVELD, &once);
        assert!(again.good().contains("published as index version"), "{how}");
    }
    // A person has them where git has them.
    let trusted = [("SSL_CERT_FILE", certificate.to_str().unwrap())];
    let verify = ["verify", "--repository", &fleet, "--root", &root];
    world.run_bare(&trusted, CLAVEL, &verify).refused_without(4, "credentials", SECRET);
    world.write_file("home/.netrc", &world.read_file("netrc"));
    world.run_bare(&trusted, CLAVEL, &verify).good();
    std::fs::remove_file(world.path("home/.netrc")).unwrap();
    world.write_file("home/.gitconfig", &format!("[credential]\n{helper}\n"));
    world.run_bare(&trusted, CLAVEL, &verify).good();
    std::fs::remove_file(world.path("home/.gitconfig")).unwrap();
    // A wrong token is refused, and nothing shows it.
    world.write_file("token", "d3JvbmcgdG9rZW4\n");
    world.write_file("claveld.toml", &format!("{original}{token}"));
    world.edit("hosts/web-1.nix", "Welcome", "Bye");
    let wrong = world.run_bare(&[], CLAVELD, &once);
    assert!(wrong.code != Some(0) && !wrong.stderr.contains("d3JvbmcgdG9rZW4"), "{}", wrong.stderr);
    // Nor does what was published.
    let grep = world.run("git", &["-C", &world.at("fleet.git"), "grep", SECRET, "deployments"]);
    assert_eq!(grep.code, Some(1), "{}", grep.stdout);
}

#[test]
fn a_host_is_reached_through_the_proxy_of_its_table() {
    let world = World::new();
    let server = HttpServer::serve_private_git(&world.path(""), "git", "secret");
    let proxy = HttpProxy::start();
    let (url, certificate) = (server.url(), server.certificate());
    let (fleet, host) = (format!("{url}/fleet.git"), url.strip_prefix("https://").unwrap());
    world.write_file("token", "secret\n");
    let table = format!(
        "[[credentials]]\nurl = \"{url}\"\nca-file = \"{}\"\ntoken-file = \"token\"\nproxy = \"{}\"\n",
        certificate.display(),
        proxy.url()
    );
    publish_to(&world, &fleet, &table);
    let config = world.at("claveld.toml");
    let published = world.run_bare(&[], CLAVELD, &["once", "--config", &config]).good();
    assert!(published.contains("published as index version 1"), "{published}");
    // The branch was fetched, the source was fetched, and the branch was pushed.
    let of_claveld = proxy.connections_to(host);
    assert!(of_claveld >= 3, "{of_claveld}");
    world.build(&["web-1"]);
    world.configure_agent("web-1", &fleet, &table);
    let config = world.at("web-1.toml");
    let once = ["once", "--config", &config];
    assert_eq!(world.run_bare(&[], AGENT, &once).good(), "web-1: switched to revision 1\n");
    assert!(proxy.connections_to(host) > of_claveld);
    // No other way is taken where the proxy is down.
    drop(proxy);
    world.run_bare(&[], AGENT, &once).refused(4, "127.0.0.1");
}

#[test]
fn a_deploy_key_and_pinned_keys_of_hosts_are_enough_over_ssh() {
    let world = World::new();
    let server = SshServer::start();
    let fleet = server.url(&world.path("fleet.git"));
    let host = fleet.strip_suffix(&world.at("fleet.git")).unwrap().to_owned();
    let table = |known_hosts: &Path| {
        format!(
            "[[credentials]]\nurl = \"{host}\"\nssh-identity = \"{}\"\nknown-hosts = \"{}\"\n",
            server.client_key().display(),
            known_hosts.display()
        )
    };
    let good = table(&server.known_hosts());
    publish_to(&world, &fleet, &good);
    let config = world.at("claveld.toml");
    assert!(
        world.run_bare(&[], CLAVELD, &["once", "--config", &config]).good().contains("published as index version 1")
    );
    world.build(&["web-1"]);
    world.configure_agent("web-1", &fleet, &good);
    let once = ["once", "--config", &world.at("web-1.toml")];
    assert_eq!(world.run_bare(&[], AGENT, &once).good(), "web-1: switched to revision 1\n");
    let (root, file) = (world.root(), world.at("credentials.toml"));
    let verify = ["verify", "--repository", &fleet, "--root", &root, "--credentials", &file];
    world.write_file("credentials.toml", &good);
    world.run_bare(&[], CLAVEL, &verify).good();
    // A host that is not in the file is refused, in the words of ssh, whatever the user's own file says.
    world.write_file("none", "");
    world.write_file("credentials.toml", &table(&world.path("none")));
    world.run_bare(&[], CLAVEL, &verify).refused(4, "Host key verification failed.");
    // So is a key that the host does not know.
    let (key, other) = (server.client_key().display().to_string(), world.at("stranger"));
    world.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &other]).good();
    world.write_file("credentials.toml", &good.replace(&key, &other));
    world.run_bare(&[], CLAVEL, &verify).refused(4, "Permission denied (publickey)");
}

#[test]
fn every_refusal_of_a_host_says_what_to_do() {
    let world = World::published();
    let root = world.root();
    let list = |server: &HttpServer, path: &str| {
        let certificate = server.certificate();
        let trusted = [("SSL_CERT_FILE", certificate.to_str().unwrap())];
        let fleet = format!("{}/{path}", server.url());
        world.run_bare(&trusted, CLAVEL, &["verify", "--repository", &fleet, "--root", &root])
    };
    for (status, advice) in [
        (403, "give the token the right to read"),
        (404, "correct the URL"),
        (429, "ask it less often"),
        (500, "try again later"),
        (503, "try again later"),
    ] {
        let said = list(&HttpServer::answering(status), "fleet.git").refused(4, advice);
        assert!(said.contains(&format!("HTTP status {status}")), "{said}");
    }
    let private = HttpServer::serve_private_git(&world.path(""), "git", "s3cret");
    list(&private, "fleet.git").refused(4, "name a token that is still good");
    // A certificate that signed itself.
    let fleet = format!("{}/fleet.git", private.url());
    let verify = ["verify", "--repository", &fleet, "--root", &root];
    let said = world.run_bare(&[], CLAVEL, &verify).refused(4, "self-signed certificate");
    assert!(said.contains("ca-file"), "{said}");
    // A repository whose objects are named by SHA-256, here and elsewhere.
    world.git(&["init", "-q", "--bare", "--object-format=sha256", &world.at("other.git")]);
    let other = world.at("other.git");
    world.run_bare(&[], CLAVEL, &["list", "--repository", &other]).refused(4, "SHA-256");
    world.configure_agent("web-1", &other, "");
    let once = ["once", "--config", &world.at("web-1.toml")];
    world.run_bare(&[], AGENT, &once).refused(4, "SHA-1 object names alone");
    // Programs that are missing.
    world.configure_agent("web-1", &world.at("fleet.git"), "");
    world.run_bare(&[("PATH", "/nonexistent")], AGENT, &once).refused(4, "install git");
    let ssh = ["list", "--repository", "ssh://git@127.0.0.1:1/x"];
    world.run_bare(&[("PATH", "/nonexistent")], CLAVEL, &ssh).refused(4, "install the OpenSSH client");
}

#[test]
fn claveld_reads_and_pushes_by_the_same_certificates() {
    let world = World::new();
    let server = HttpServer::serve_git_over_https(&world.path(""));
    world.git(&["-C", &world.at("fleet.git"), "config", "http.receivepack", "true"]);
    publish_to(&world, &format!("{}/fleet.git", server.url()), "");
    let config = world.at("claveld.toml");
    let once = ["once", "--config", &config];
    let certificate = server.certificate();
    // This machine's certificates do not vouch for the server, and a machine may have none.
    let said = world.run_bare(&[], CLAVELD, &once);
    assert!(said.code != Some(0) && said.stderr.contains("certificate"), "{}", said.stderr);
    make_etc(&world, "etc", Some(("ssl/certs/ca-certificates.crt", &certificate)));
    assert!(world.run_bare_with_etc("etc", CLAVELD, &once).good().contains("published as index version 1"));
    let certificate = certificate.to_str().unwrap();
    for (number, variable) in ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"].iter().enumerate() {
        world.edit("hosts/web-1.nix", "Welcome", "Welcome!");
        world.push(variable);
        let published = world.run_bare(&[(variable, certificate)], CLAVELD, &once).good();
        assert!(published.contains(&format!("published as index version {}", number + 2)), "{published}");
    }
}
