//! The platforms that Clavel knows: where a flake has their hosts, and what to ask of one. Nowhere else is it said.
//!
//! How a unit is activated is not said here: that is the agent's.

use crate::model::UnitType;

/// One platform: a row of the table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Platform {
    /// The flake output that has its hosts.
    pub(super) output: &'static str,
    /// How hosts stand below the output.
    layout: Layout,
    /// From a host to what is deployed: a function of Nix's language.
    toplevel: &'static str,
    /// From a host to its own settings of Nix, if it has such: a function of Nix's language.
    nix_settings: Option<&'static str>,
    /// What a unit is that one of its hosts is deployed to.
    pub(super) unit_type: UnitType,
}

/// How hosts stand below an output.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Layout {
    /// `OUTPUT.NAME`
    ByName,
    /// `OUTPUT.NAME` or `OUTPUT.SYSTEM.NAME`
    ByNameOrSystem,
}

/// All of them.
pub(super) static PLATFORMS: &[Platform] = &[
    Platform {
        output: "nixosConfigurations",
        layout: Layout::ByName,
        toplevel: "host: host.config.system.build.toplevel",
        nix_settings: Some("host: host.config.nix.settings or { }"),
        unit_type: UnitType::Nixos,
    },
    Platform {
        output: "darwinConfigurations",
        layout: Layout::ByName,
        // `system` is nix-darwin's own short name for the same.
        toplevel: "host: host.config.system.build.toplevel or host.system",
        nix_settings: Some("host: host.config.nix.settings or { }"),
        unit_type: UnitType::Darwin,
    },
    Platform {
        output: "homeConfigurations",
        layout: Layout::ByName,
        toplevel: "home: home.activationPackage",
        nix_settings: None,
        unit_type: UnitType::HomeManager,
    },
    Platform {
        output: "systemConfigs",
        layout: Layout::ByNameOrSystem,
        toplevel: "system: system",
        nix_settings: None,
        unit_type: UnitType::SystemManager,
    },
];

impl Platform {
    /// The row as an attribute of Nix's language.
    fn rendered(&self) -> String {
        let Self { output, layout, toplevel, nix_settings, .. } = self;
        let by_system = match layout {
            Layout::ByName => "false",
            Layout::ByNameOrSystem => "true",
        };
        let settings = nix_settings.unwrap_or("_: { }");
        format!("{output} = {{ toplevel = {toplevel}; nixSettings = {settings}; bySystem = {by_system}; }};")
    }
}

/// The table in Nix's language, as `outputs.nix` takes it.
pub(super) fn rendered() -> String {
    let rows: Vec<String> = PLATFORMS.iter().map(Platform::rendered).collect();
    format!("{{ {} }}", rows.join(" "))
}
