//! A small world: a fleet's flake in a bare repository, a key, a binary cache, claveld and agents, all in one temporary
//! folder, driven through the real programs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::command::NIX_CONFIG;
use super::{SOON, hermetic_git, wait_until};

/// How a program ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Asserts that the program succeeded. Returns its standard output.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts that the program ended with `code`, and printed `text` on standard error.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, text: &str) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(text), "`{text}` is not in:\n{}", self.stderr);
        self.stderr
    }

    /// Like [`Ran::refused`], and asserts that the program printed `secret` nowhere.
    #[track_caller]
    pub(crate) fn refused_without(self, code: i32, text: &str, secret: &str) {
        assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "a secret was shown");
        self.refused(code, text);
    }

    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}:\n{}\n{}", self.stdout, self.stderr))
    }
}

/// What a script of an activation says to end its agent, the process that carries it out and itself, as a machine that loses its
/// power does.
pub(crate) const ENDS_EVERYTHING: &str = "read -r a b c agent d < /proc/$PPID/stat; kill -KILL $agent $PPID $$; ";

/// The arguments of `claveld evaluate` with which a flake may have inputs on this machine.
pub(crate) const LOCAL_INPUTS: [&str; 4] = ["--input", "path", "--input", "file"];

/// The fixture fleet with everything around it. Units: `web-1`, `web-2` (nixos) and `router-1` (command).
pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Makes a world whose fleet is pushed and not evaluated yet.
    pub(crate) fn new() -> Self {
        Self::of("fleet")
    }

    /// Makes a world of another folder of the fixtures. It has a flake.nix, a system.nix and a caches.nix.
    pub(crate) fn of(fixture: &str) -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture);
        world.run("cp", &["-r", fixture.to_str().unwrap(), world.path("work").to_str().unwrap()]).good();
        std::fs::create_dir(world.path("cache")).unwrap();
        world.write_file("cache/nix-cache-info", "StoreDir: /nix/store\n");
        let system = format!("\"{}\"\n", clavel::model::System::this().unwrap());
        world.write("system.nix", &system);
        // `clavel init` makes root-1.secret, claveld-1.secret and root.json.
        world.clavel(&["init", &world.at("")]).good();
        world.clavel(&["key", "generate", "cache-1", "--output", &world.at("cache-1.secret")]).good();
        world.use_cache(&format!("file://{}", world.at("cache")));
        world.git(&["init", "-q", "--bare", "-b", "main", &world.at("fleet.git")]);
        world.git(&["-C", &world.at("work"), "init", "-q", "-b", "main"]);
        world.git(&["-C", &world.at("work"), "remote", "add", "origin", &world.at("fleet.git")]);
        world.push("The fleet");
        world.configure_claveld("");
        world
    }

    /// A fleet that is published from memory, and whose `web-1` is in the cache.
    pub(crate) fn published() -> Self {
        let world = Self::new();
        world.publish_from_memory(&["web-1"]);
        world
    }

    /// A fleet that `claveld once` published, and whose `hosts` are in the cache.
    pub(crate) fn published_with_nix(hosts: &[&str]) -> Self {
        let world = Self::new();
        world.publish_with_nix(hosts);
        world
    }

    /// A place in the world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same path as text.
    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write_file(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn read_file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Writes a file of the flake.
    pub(crate) fn write(&self, name: &str, text: &str) {
        self.write_file(&format!("work/{name}"), text);
    }

    /// Replaces text in a file of the flake.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read_file(&format!("work/{name}"));
        assert!(text.contains(from), "{name} lacks {from}");
        self.write(name, &text.replace(from, to));
    }

    /// Makes the fleet's hosts name this cache, and the key that [`World::build`] signs with.
    pub(crate) fn use_cache(&self, url: &str) {
        let key = self.public_key("cache-1");
        let caches = format!("{{ substituters = [ \"{url}\" ]; substituters-public-keys = [ \"{key}\" ]; }}\n");
        self.write("caches.nix", &caches);
    }

    /// The public half of the key of that name.
    pub(crate) fn public_key(&self, name: &str) -> String {
        self.clavel(&["key", "public", &self.at(&format!("{name}.secret"))]).good().trim().to_owned()
    }

    /// The file with the fleet's first root.
    pub(crate) fn root(&self) -> String {
        self.at("root.json")
    }

    /// The fleet: the digest of its first root.
    pub(crate) fn fleet(&self) -> String {
        let shown = self.clavel(&["root", "show", &self.root()]).good();
        let line = shown.lines().find_map(|line| line.strip_prefix("fleet"));
        line.unwrap_or_else(|| panic!("{shown}")).trim().to_owned()
    }

    /// `clavel verify` of what is published.
    pub(crate) fn verify(&self) -> Ran {
        self.clavel(&["verify", "--repository", &self.at("fleet.git"), "--root", &self.root()])
    }

    /// Commits the flake and pushes it. Returns the output that the pusher sees.
    pub(crate) fn push(&self, message: &str) -> String {
        self.try_push(message).also_good().stderr
    }

    /// Commits the flake and tries to push it.
    pub(crate) fn try_push(&self, message: &str) -> Ran {
        self.git(&["-C", &self.at("work"), "add", "-A"]);
        self.git(&["-C", &self.at("work"), "commit", "-q", "--allow-empty", "-m", message]);
        self.run("git", &["-C", &self.at("work"), "push", "origin", "main"])
    }

    /// The flake's address.
    pub(crate) fn flake(&self) -> String {
        format!("git+file://{}?ref=main", self.at("fleet.git"))
    }

    /// Writes claveld's configuration, with `more` at its end.
    pub(crate) fn configure_claveld(&self, more: &str) {
        let text = format!(
            "state-directory = \"{}\"\n[publish]\nrepository = \"{}\"\nroot = \"root.json\"\n\
             secret-key-file = \"claveld-1.secret\"\n\
             [[source]]\nflake = \"{}\"\n{more}",
            self.at("claveld"),
            self.at("fleet.git"),
            self.flake()
        );
        self.write_file("claveld.toml", &text);
    }

    /// Writes the configuration of the agent of `unit`, which fetches from `repository`.
    pub(crate) fn configure_agent(&self, unit: &str, repository: &str, more: &str) {
        let motd = "command = [\"/bin/sh\", \"-c\", \"cp -f $CLAVEL_PATH/etc/motd $(dirname $CLAVEL_PROFILE)/motd\"]";
        let text = format!(
            "name = \"{unit}\"\nrepository = \"{repository}\"\nroot = \"root.json\"\n\
             state-directory = \"{unit}/state\"\n{more}\n[nix]\nstore = \"{unit}/store\"\n[units.{unit}]\n\
             profile = \"{unit}/profile/system\"\n{}\n",
            if unit.starts_with("router") { motd } else { "" },
        );
        self.write_file(&format!("{unit}.toml"), &text);
    }

    /// The agent's copies of what its mirrors show.
    pub(crate) fn copies(&self, unit: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path(&format!("{unit}/state/mirrors")));
        let paths = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "git")).collect()
    }

    /// The message of the day that the activation of `unit` installed.
    pub(crate) fn motd(&self, unit: &str) -> Option<String> {
        std::fs::read_to_string(self.path(&format!("{unit}/profile/motd"))).ok().map(|text| text.trim().to_owned())
    }

    /// Does the work of CI: builds these hosts of the flake and copies them, signed, to the cache.
    pub(crate) fn build(&self, hosts: &[&str]) {
        let attribute = |host: &&str| match *host {
            "router-1" => "clavel.deployments.router-1.template.narId".to_owned(),
            host => format!("nixosConfigurations.{host}.config.system.build.toplevel"),
        };
        self.build_attributes(&hosts.iter().map(attribute).collect::<Vec<_>>());
    }

    /// Does the same for any attributes.
    pub(crate) fn build_attributes(&self, attributes: &[String]) {
        let to = format!("file://{}?secret-key={}", self.at("cache"), self.at("cache-1.secret"));
        let flake = self.flake();
        let mut arguments =
            vec!["copy".to_owned(), "--option".into(), "tarball-ttl".into(), "0".into(), "--to".into(), to];
        arguments.extend(attributes.iter().map(|attribute| format!("{flake}#{attribute}")));
        self.run("nix", &arguments.iter().map(String::as_str).collect::<Vec<_>>()).good();
    }

    pub(crate) fn claveld(&self, arguments: &[&str]) -> Ran {
        self.run(env!("CARGO_BIN_EXE_claveld"), arguments)
    }

    /// `claveld once` with the world's configuration.
    pub(crate) fn publish(&self) -> Ran {
        self.claveld(&["once", "--config", &self.at("claveld.toml")])
    }

    /// Publishes the fleet with `claveld once`, and builds the systems of `hosts` into the cache. Returns the output of claveld.
    pub(crate) fn publish_with_nix(&self, hosts: &[&str]) -> String {
        let said = self.publish().good();
        self.build(hosts);
        said
    }

    /// Changes the greeting of `web-1`, and publishes it with `claveld once`. Returns the output of claveld.
    pub(crate) fn change_with_nix(&self, from: &str, to: &str) -> String {
        self.edit("hosts/web-1.nix", from, to);
        self.push(to);
        self.publish_with_nix(&["web-1"])
    }

    pub(crate) fn agent(&self, unit: &str, arguments: &[&str]) -> Ran {
        let config = self.at(&format!("{unit}.toml"));
        self.run(env!("CARGO_BIN_EXE_clavel-agent"), &[arguments, &["--config", &config]].concat())
    }

    pub(crate) fn clavel(&self, arguments: &[&str]) -> Ran {
        self.run(env!("CARGO_BIN_EXE_clavel"), arguments)
    }

    #[track_caller]
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.run("git", arguments).good()
    }

    /// The commit that the branch is at; empty where there is none.
    pub(crate) fn tip(&self) -> String {
        self.run("git", &["-C", &self.at("fleet.git"), "rev-parse", "-q", "--verify", "deployments"])
            .stdout
            .trim()
            .into()
    }

    /// A file of the branch.
    pub(crate) fn on_branch(&self, path: &str) -> Option<String> {
        let shown = self.run("git", &["-C", &self.at("fleet.git"), "show", &format!("deployments:{path}")]);
        (shown.code == Some(0)).then_some(shown.stdout)
    }

    /// The signed content of a document of the branch.
    pub(crate) fn document(&self, path: &str) -> serde_json::Value {
        let text = self.on_branch(path).unwrap_or_else(|| panic!("the branch has no {path}"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["signed"].clone()
    }

    /// The index, with the fields of its bins.
    pub(crate) fn index(&self) -> serde_json::Value {
        let read = |path: &str| serde_json::from_str(&self.on_branch(path).unwrap()).unwrap();
        super::attacker::whole_index(self.document("index.json"), read)
    }

    /// Changes the branch as somebody with write access and no key can: commits these files on top of it. `None` removes a file.
    pub(crate) fn tamper(&self, changes: &BTreeMap<&str, Option<String>>) {
        let clone = self.at("attacker");
        let _ = std::fs::remove_dir_all(&clone);
        self.git(&["clone", "-q", "-b", "deployments", &self.at("fleet.git"), &clone]);
        for (path, text) in changes {
            match text {
                Some(text) => self.write_file(&format!("attacker/{path}"), text),
                None => std::fs::remove_file(self.path(&format!("attacker/{path}"))).unwrap(),
            }
        }
        self.git(&["-C", &clone, "add", "-A"]);
        self.git(&["-C", &clone, "commit", "-q", "-m", "A small change"]);
        self.git(&["-C", &clone, "push", "-q", "origin", "deployments"]);
    }

    /// Installs the hook that publishes, as README says.
    pub(crate) fn install_hook(&self) {
        self.install("post-receive");
    }

    /// Installs the gate, as docs/publishing.md says.
    pub(crate) fn install_gate(&self) {
        self.install("pre-receive");
    }

    fn install(&self, hook: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks").join(hook);
        self.run("cp", &[file.to_str().unwrap(), &self.at(&format!("fleet.git/hooks/{hook}"))]).good();
        self.git(&["-C", &self.at("fleet.git"), "config", "clavel.config", &self.at("claveld.toml")]);
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        Ran::from(self.command(program, arguments).output().unwrap())
    }

    /// Runs a program with more variables in its environment.
    pub(crate) fn run_with(&self, environment: &[(&str, &str)], program: &str, arguments: &[&str]) -> Ran {
        Ran::from(self.command(program, arguments).envs(environment.iter().copied()).output().unwrap())
    }

    /// Runs a program as a service does: with `environment`, a home and a path, and nothing else.
    pub(crate) fn run_bare(&self, environment: &[(&str, &str)], program: &str, arguments: &[&str]) -> Ran {
        let mut command = super::program(program);
        command.args(arguments).stdin(Stdio::null()).env_clear();
        command.envs([("HOME", self.at("home").as_str()), ("PATH", "/usr/bin:/bin"), ("NIX_CONFIG", NIX_CONFIG)]);
        Ran::from(command.envs(environment.iter().copied()).output().unwrap())
    }

    /// Runs a program as a service, on a machine whose /etc is the folder `etc` of this world.
    pub(crate) fn run_bare_with_etc(&self, etc: &str, program: &str, arguments: &[&str]) -> Ran {
        let etc = self.at(etc);
        let cage = ["--dev-bind", "/", "/", "--bind", &etc, "/etc", "--", program];
        self.run_bare(&[], "bwrap", &[&cage, arguments].concat())
    }

    /// Runs a program at a terminal, where somebody types `typed`. The terminal gets both of its outputs.
    pub(crate) fn run_at_a_terminal(&self, program: &str, arguments: &[&str], typed: &str) -> Ran {
        let quoted: Vec<String> = [&[program], arguments].concat().iter().map(|word| format!("'{word}'")).collect();
        let mut script = self.command("script", &["-qec", &quoted.join(" "), "/dev/null"]);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Starts a program in the background.
    pub(crate) fn start(&self, program: &str, arguments: &[&str]) -> Running {
        let log = std::fs::File::create(self.path("running.log")).unwrap();
        let mut command = self.command(program, arguments);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null()).spawn().unwrap();
        Running { child, log: self.path("running.log") }
    }

    /// A command whose environment does not depend on this machine's configuration.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = super::program(program);
        hermetic_git(&mut command, self.dir.path());
        // The test says which certificates are trusted. A service has none of these variables either.
        for variable in ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE"] {
            command.env_remove(variable);
        }
        let programs = Path::new(env!("CARGO_BIN_EXE_claveld")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env("PATH", path)
            .env("XDG_CACHE_HOME", self.path("cache-home"))
            .env("NIX_CONFIG", NIX_CONFIG);
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Nix made the files in a store of the world read-only.
        let _ = self.run("chmod", &["-R", "u+w", self.dir.path().to_str().unwrap()]);
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn also_good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// A program in the background, which ends when this is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal: `TERM`, `KILL`.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end. Returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` holds. The deadline is long enough for a slow machine to evaluate, fetch and switch.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, 2 * SOON, condition);
}

/// The names of the documents of that kind in the JSON of `claveld evaluate`.
pub(crate) fn names(found: &serde_json::Value, kind: &str) -> Vec<String> {
    let all = found[kind].as_array().unwrap();
    all.iter().map(|document| document["name"].as_str().unwrap().to_owned()).collect()
}
