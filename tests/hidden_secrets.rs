//! Promise: while something is fetched or pushed, no process shows a secret: not in its arguments, which every user of the machine reads,
//! and not in its environment, which its children inherit.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use base64::Engine as _;

use crate::support::authority::Authority;
use crate::support::http::HttpServer;
use crate::support::private_host::{credentials_table, publish_from};
use crate::support::ssh::SshServer;
use crate::support::world::{World, until};

const AGENT: &str = env!("CARGO_BIN_EXE_clavel-agent");
const CLAVELD: &str = env!("CARGO_BIN_EXE_claveld");
const CLAVEL: &str = env!("CARGO_BIN_EXE_clavel");
const SECRET: &str = "dGhlIHNlY3JldCBvZiBubyBwcm9jZXNz";

/// What a server asks that never answers those who logged in.
struct Silence {
    listener: TcpListener,
}

impl Silence {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    /// The location of nginx that is silent.
    fn location(&self) -> String {
        let address = self.listener.local_addr().unwrap();
        format!("location /hang.git/ {{ proxy_pass http://{address}; proxy_read_timeout 600s; }}")
    }

    /// The next request, if somebody has sent one. The connection stays open as long as this value.
    fn next(&self) -> Option<(TcpStream, String)> {
        let (mut stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(false).unwrap();
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "nginx sends whole requests");
            request.extend_from_slice(&buffer[..length]);
        }
        Some((stream, String::from_utf8_lossy(&request).into_owned()))
    }
}

/// The processes of this machine: each with its parent.
fn processes() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let with_parent = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name of the program, in parentheses, may have anything in it.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((id, parent))
    };
    ids.filter_map(with_parent).collect()
}

/// The process, and all below it.
fn tree(root: u32) -> Vec<u32> {
    let all = processes();
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(parent) = tree.get(at).copied() {
        tree.extend(all.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    tree
}

/// Where the secrets are shown now.
fn shown(root: u32, secrets: &[String]) -> Vec<String> {
    let read = |id: u32, what: &str| {
        let bytes = std::fs::read(format!("/proc/{id}/{what}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    let has = |text: &str| secrets.iter().any(|secret| text.contains(secret));
    let arguments = processes().into_iter().map(|(id, _)| read(id, "cmdline")).filter(|text| has(text));
    let variables = tree(root).into_iter().filter(|id| has(&read(*id, "environ")));
    let variables = variables.map(|id| format!("the environment of: {}", read(id, "cmdline")));
    arguments.chain(variables).collect()
}

/// Runs a program until `hangs`. Asserts that no process shows a secret from its beginning until then. Returns what was running.
#[track_caller]
fn assert_hidden(
    world: &World,
    what: &str,
    program: &str,
    arguments: &[&str],
    secrets: &[String],
    mut hangs: impl FnMut() -> bool,
) -> Vec<String> {
    let credentials = format!("CREDENTIALS_DIRECTORY={}", world.at("credentials"));
    // env becomes the program.
    let mut running = world.start("env", &[&[&credentials, program], arguments].concat());
    let mut found = Vec::new();
    until(&format!("{what}: the server hangs"), || {
        assert!(!running.has_ended(), "{what}: it ended:\n{}", running.said());
        let hangs = hangs();
        // The last look is at what hangs.
        found.extend(shown(running.id(), secrets));
        hangs
    });
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{what}: a secret is shown: {}", found.join("\n"));
    let names = |id: &u32| std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim().to_owned();
    tree(running.id()).iter().map(names).collect()
}

/// The three ways to `hang.git`: of an agent, of Nix for claveld, and of a push of claveld's.
fn every_way(world: &World, hang: &str, table: &str, secrets: &[String], hangs: &dyn Fn() -> bool) {
    let config = world.at("claveld.toml");
    world.configure_agent("web-1", hang, table);
    assert_hidden(world, "the agent", AGENT, &["once", "--config", &world.at("web-1.toml")], secrets, hangs);
    world.write_file("credentials.toml", table);
    let (root, file) = (world.root(), world.at("credentials.toml"));
    let verify = ["verify", "--repository", hang, "--root", &root, "--credentials", &file];
    assert_hidden(world, "clavel verify", CLAVEL, &verify, secrets, hangs);
    publish_from(world, hang, &world.at("fleet.git"), table);
    let running = assert_hidden(world, "the source", CLAVELD, &["once", "--config", &config], secrets, hangs);
    assert!(running.iter().any(|name| name.starts_with("git")), "{running:?}");
    publish_from(world, &format!("file://{}", world.at("fleet.git")), &world.at("fleet.git"), table);
    let text = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &text.replace("[publish]\n", &format!("[publish]\nmirrors = [\"{hang}\"]\n")));
    world.edit("hosts/web-1.nix", "Welcome", "Welcome!");
    world.push("Welcome!");
    let running = assert_hidden(world, "the push", CLAVELD, &["once", "--config", &config], secrets, hangs);
    assert!(running.iter().any(|name| name.starts_with("git")), "{running:?}");
}

#[test]
fn the_words_of_a_login_are_in_no_process() {
    let world = World::published();
    let silence = Silence::new();
    world.write_file("users", &format!("git:{{PLAIN}}{SECRET}\n"));
    let only = format!("auth_basic fleet; auth_basic_user_file \"{}\";", world.at("users"));
    let server = HttpServer::serve_git_with(&world.path(""), &format!("{only} {}", silence.location()));
    let hang = format!("{}/hang.git", server.url());
    let sent = base64::engine::general_purpose::STANDARD.encode(format!("git:{SECRET}"));
    world.write_file("token", &format!("{SECRET}\n"));
    world.write_file("netrc", &format!("machine 127.0.0.1 login git password {SECRET}\n"));
    world.write_file("credentials/pass", &format!("{SECRET}\n"));
    let helper = format!("helper = \"!f() {{ echo username=git; echo password=$(cat {}); }}; f\"", world.at("token"));
    for how in [
        "token-file = \"token\"",
        "user = \"git\"\npassword-file = \"token\"",
        "password-credential = \"pass\"",
        &helper,
        "netrc-file = \"netrc\"",
    ] {
        let held = std::cell::RefCell::new(Vec::new());
        let hangs = || match silence.next() {
            Some((stream, request)) => {
                // It did get the login.
                assert!(request.contains(&format!("Authorization: Basic {sent}")), "{how}: {request}");
                held.borrow_mut().push(stream);
                true
            }
            None => false,
        };
        let secrets = [SECRET.to_owned(), sent.clone()];
        every_way(&world, &hang, &credentials_table(&server, how), &secrets, &hangs);
    }
}

/// The line of a key's file that has the most of the key.
fn secret_of(key: &Path) -> String {
    let text = std::fs::read_to_string(key).unwrap();
    text.lines().filter(|line| !line.starts_with('-')).max_by_key(|line| line.len()).unwrap().to_owned()
}

#[test]
fn a_key_is_in_no_process() {
    let world = World::published();
    let (silence, authority) = (Silence::new(), Authority::new());
    let (certificate, key) = authority.issue("claveld");
    let asks = format!("ssl_client_certificate \"{}\"; ssl_verify_client on;", authority.certificate().display());
    let server = HttpServer::serve_git_with(&world.path(""), &format!("{asks} {}", silence.location()));
    let held = std::cell::RefCell::new(Vec::new());
    let hangs = || silence.next().map(|(stream, _)| held.borrow_mut().push(stream)).is_some();
    let table = credentials_table(
        &server,
        &format!("client-certificate = \"{}\"\nclient-key = \"{}\"", certificate.display(), key.display()),
    );
    every_way(&world, &format!("{}/hang.git", server.url()), &table, &[secret_of(&key)], &hangs);
    // Over SSH.
    let mark = world.path("asked");
    let ssh = SshServer::start_with(&format!("ForceCommand touch {}; exec cat > /dev/null", mark.display()));
    let url = ssh.url(&world.path("hang.git"));
    let host = url.strip_suffix(&world.at("hang.git")).unwrap();
    let table = format!(
        "[[credentials]]\nurl = \"{host}\"\nssh-identity = \"{}\"\nknown-hosts = \"{}\"\n",
        ssh.client_key().display(),
        ssh.known_hosts().display()
    );
    let hangs = || std::fs::remove_file(&mark).is_ok();
    every_way(&world, &url, &table, &[secret_of(&ssh.client_key())], &hangs);
}
