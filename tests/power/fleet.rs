//! A fleet of one machine whose mirror and cache are on the network of a guest.

use std::path::Path;

use crate::points::Scenario;
use crate::support::fleet::seeded::Seeded;
use crate::support::http::HttpServer;
use crate::support::world::World;

/// The name of the machine, its deployment, its unit and its agent.
pub(crate) const HOST: &str = "web-1";

/// The files of each system beside those of fixtures/machines, so that there is something to lose.
const PAYLOADS: usize = 6;
/// The size of each of them.
const PAYLOAD_BYTES: usize = 400_000;

/// The line of the flake that stands before the host.
const BEFORE_HOST: &str = "      nixosConfigurations.web-1";

pub(crate) struct Fleet {
    pub(crate) world: World,
    git: HttpServer,
    _cache: HttpServer,
    flake: String,
    revision: u64,
}

impl Fleet {
    /// A fleet of which nothing is published.
    pub(crate) fn new() -> Self {
        let world = World::of("machines");
        let git = HttpServer::serve_git(&world.path(""));
        let cache = HttpServer::serve_files(&world.path("cache"));
        world.use_cache(&seen_by_guest(&cache));
        let boot_loader = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/power/boot-loader.sh");
        std::fs::copy(boot_loader, world.path("work/boot-loader.sh")).unwrap();
        let flake = world.read_file("work/flake.nix");
        Self { world, git, _cache: cache, flake, revision: 0 }
    }

    /// The configuration of the machine's agent.
    pub(crate) fn configuration(&self) -> String {
        let (git, fleet) = (seen_by_guest(&self.git), self.world.fleet());
        format!("name = \"{HOST}\"\nrepository = \"{git}/fleet.git\"\nroot = \"{fleet}\"\ninterval = \"1s\"\n")
    }

    /// Builds the next revision into the cache, and publishes it. Returns its number and its store path.
    pub(crate) fn publish(&mut self, scenario: Scenario) -> (u64, String) {
        self.revision += 1;
        let proof = match scenario {
            Scenario::Good => "probation.settle = \"1500ms\"; checks.greeter.systemd = [ \"greeter.service\" ];",
            Scenario::NextBoot => "mode = \"boot\"; probation.settle = \"500ms\";",
            Scenario::Bad => {
                "checks.no = { exec = [ \"/bin/false\" ]; interval = \"200ms\"; }; probation.deadline = \"2s\";"
            }
        };
        let deployment = format!("      clavel.deployments.web-1 = {{ {proof} }};\n{BEFORE_HOST}");
        self.world.write("flake.nix", &self.flake.replace(BEFORE_HOST, &deployment));
        self.world.write("etc/revision", &self.revision.to_string());
        for number in 0..PAYLOADS {
            self.world.write(&format!("etc/payload/{number}"), &payload(self.revision, number));
        }
        let greeting = format!("echo revision-{} > /run/greeting", self.revision);
        let unit = include_str!("../../fixtures/machines/units/greeter.service");
        self.world.write("units/greeter.service", &unit.replace("echo first > /run/greeting", &greeting));
        self.world.push("The next revision");
        self.world.build(&[HOST]);
        self.world.publish().good();
        let document = self.world.document(&format!("deployments/{HOST}.json"));
        assert_eq!(document["revision"], self.revision, "each change is one revision");
        (self.revision, document["specification"]["template"]["narId"].as_str().unwrap().to_owned())
    }
}

/// Text that does not compress well, and is another one for each file of each revision.
fn payload(revision: u64, number: usize) -> String {
    let mut random = Seeded::new(revision * 1_000 + u64::try_from(number).unwrap());
    (0..PAYLOAD_BYTES).map(|_| char::from(b"0123456789abcdef"[random.below(16)])).collect()
}

/// The address of a server of this machine's loopback interface in the network that qemu makes.
fn seen_by_guest(server: &HttpServer) -> String {
    server.url().replace("127.0.0.1", "10.0.2.2")
}
