//! A fleet of one machine: the flake of fixtures/machines, its branch and its cache, and the machine that reads them.

use std::time::Instant;

use crate::machine::Machine;
use crate::network::Network;
use crate::support::world::{World, until};

/// The name of the machine, its deployment, its unit and its agent.
pub(crate) const HOST: &str = "web-1";

/// The agent's unit, as `make install` installs it.
pub(crate) const AGENT: &str = "clavel-agent.service";

/// The agent's unit of the project.
pub(crate) fn agent_text() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(AGENT);
    std::fs::read_to_string(path).unwrap()
}

/// The same with another line in place of `from`.
pub(crate) fn agent_unit(from: &str, to: &str) -> String {
    let text = agent_text();
    assert!(text.contains(from), "{text}");
    text.replace(from, to)
}

/// A fleet whose machine reads the branch and the cache below /srv.
pub(crate) struct Fleet {
    /// The host of the mirror, where it is on a network.
    network: Option<Network>,
    world: World,
}

impl Fleet {
    /// A fleet of which nothing is published.
    pub(crate) fn new() -> Self {
        let world = World::of("machines");
        world.use_cache("file:///srv/cache");
        Self { network: None, world }
    }

    /// A fleet whose revisions have this `probation`.
    pub(crate) fn on_probation(probation: &str) -> Self {
        let fleet = Self::new();
        let host = "nixosConfigurations.web-1";
        let deployment = format!("clavel.deployments.web-1 = {{ probation = {{ {probation} }}; }};");
        fleet.edit("flake.nix", host, &format!("{deployment}\n      {host}"));
        fleet
    }

    /// A fleet whose machine reads the branch over a network, from a host with a name and a certificate.
    pub(crate) fn with_host(probation: &str) -> Self {
        let fleet = Self::on_probation(probation);
        let network = Network::serving(&fleet.world.path(""));
        Self { network: Some(network), ..fleet }
    }

    /// The configuration of the machine's agent.
    pub(crate) fn configuration(&self) -> String {
        let mirror = match &self.network {
            Some(network) => network.url("fleet.git"),
            None => "file:///srv/fleet.git".to_owned(),
        };
        format!("name = \"{HOST}\"\nrepository = \"{mirror}\"\nroot = \"{}\"\ninterval = \"1s\"\n", self.world.fleet())
    }

    /// Writes a file of /etc of the next revision.
    pub(crate) fn write_etc(&self, name: &str, text: &str) {
        self.world.write(&format!("etc/{name}"), text);
    }

    /// Writes a unit of the next revision.
    pub(crate) fn write_unit(&self, name: &str, text: &str) {
        self.world.write(&format!("units/{name}"), text);
    }

    /// Leaves a unit out of the next revision.
    pub(crate) fn remove_unit(&self, name: &str) {
        std::fs::remove_file(self.world.path(&format!("work/units/{name}"))).unwrap();
    }

    /// Replaces text in a file of the flake.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        self.world.edit(name, from, to);
    }

    /// Builds the system into the cache, and publishes it. Returns its store path.
    pub(crate) fn publish(&self) -> String {
        self.world.push("The next revision");
        // An agent that reads the branch at once finds the system in the cache.
        self.world.build(&[HOST]);
        self.world.publish().good();
        let deployment = self.world.document(&format!("deployments/{HOST}.json"));
        deployment["specification"]["template"]["narId"].as_str().unwrap().to_owned()
    }

    /// Boots a machine that has Clavel and its configuration, and has never switched. Its agent does not run yet.
    pub(crate) fn boot(&self) -> Machine<'_> {
        self.world.write_file(&format!("{HOST}/files/etc/clavel/clavel-agent.toml"), &self.configuration());
        let mut shared = vec![("fleet.git", "/srv/fleet.git"), ("cache", "/srv/cache")];
        let Some(network) = &self.network else { return Machine::boot(&self.world, HOST, &shared) };
        std::fs::copy(network.certificate(), self.world.path("authority.pem")).unwrap();
        // The branch is there over the network alone.
        shared[0] = ("authority.pem", "/srv/authority.pem");
        let machine = Machine::boot(&self.world, HOST, &shared);
        network.connect(&machine);
        machine
    }

    /// Boots a machine, starts its agent as an operator does, and waits until it runs what is published as revision 1.
    pub(crate) fn boot_switched(&self) -> Machine<'_> {
        let machine = self.boot();
        machine.switch_first();
        machine
    }

    /// Boots a machine, starts its agent, and waits until revision 1 waits for a person.
    pub(crate) fn boot_awaiting_person(&self) -> Machine<'_> {
        let machine = self.boot();
        machine.sh(&format!("systemctl enable --now {AGENT}"));
        machine.wait_until_awaiting_person(1);
        machine
    }
}

impl Machine<'_> {
    /// `clavel-agent status --json`.
    pub(crate) fn status(&self) -> serde_json::Value {
        self.run(&["clavel-agent", "status", "--json"]).json()
    }

    /// Starts the agent as an operator does, and waits until it runs what is published as revision 1.
    #[track_caller]
    pub(crate) fn switch_first(&self) {
        self.sh(&format!("systemctl enable --now {AGENT}"));
        self.wait_for("confirmed", 1);
    }

    /// Waits until the second revision is activated, and then until the one before it is activated again. Returns the seconds between.
    #[track_caller]
    pub(crate) fn wait_until_back(&self) -> f32 {
        until("the second revision is activated", || self.activations().len() == 2);
        let activated = Instant::now();
        until("the machine is back", || self.activations().len() == 3);
        activated.elapsed().as_secs_f32()
    }

    /// Waits until `clavel-agent status` tells a person all of this.
    #[track_caller]
    pub(crate) fn wait_for_status(&self, texts: &[&str]) {
        until(&format!("the status says {texts:?}"), || {
            let said = self.sh("clavel-agent status");
            texts.iter().all(|text| said.contains(text))
        });
    }

    /// Waits until `revision` waits for a person.
    #[track_caller]
    pub(crate) fn wait_until_awaiting_person(&self, revision: u64) {
        until("a person is asked", || {
            let ran = self.run(&["clavel-agent", "status", "--json"]);
            let status = serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap_or_default();
            status["probation"]["awaitsPerson"] == true && status["probation"]["revision"] == revision
        });
    }

    /// Waits until the deployment is in `state`, while the machine runs `revision`.
    #[track_caller]
    pub(crate) fn wait_for(&self, state: &str, revision: u64) {
        until(&format!("revision {revision} runs, {state}"), || {
            let ran = self.run(&["clavel-agent", "status", "--json"]);
            let Ok(status) = serde_json::from_str::<serde_json::Value>(&ran.stdout) else { return false };
            let deployment = &status["deployments"][HOST];
            deployment["state"] == state && deployment["running"]["revision"] == revision
        });
    }

    /// Waits until the agent has said `text` in its journal, which it does after it has recorded a state. Returns the journal.
    #[track_caller]
    pub(crate) fn wait_until_said(&self, text: &str) -> String {
        let mut journal = String::new();
        until(&format!("the agent says `{text}`"), || {
            journal = self.journal(AGENT);
            journal.contains(text)
        });
        journal
    }

    /// Timers of ways back that wait.
    pub(crate) fn ways_back(&self) -> String {
        self.sh("systemctl list-timers --all --no-legend 'clavel-way-back-*'")
    }

    /// The paths that were activated so far, in order; `boot` for an activation by a boot.
    pub(crate) fn activations(&self) -> Vec<String> {
        self.sh("cat /var/log/activations").lines().map(str::to_owned).collect()
    }

    /// Asserts that the machine is switched to `system`, in every place that says so.
    #[track_caller]
    pub(crate) fn assert_runs(&self, system: &str) {
        for place in ["/nix/var/nix/profiles/system", "/run/current-system", "/boot/default"] {
            assert_eq!(self.sh(&format!("readlink -f {place}")), system, "{place}");
        }
    }
}
