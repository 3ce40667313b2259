//! The table of platforms: which output of a flake has the hosts of each, and how Nix finds what to deploy.
//!
//! A new platform is a new row here. How a unit is activated does not belong here: the agent knows that.

use crate::model::UnitType;

/// One platform, which is a row of the table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Platform {
    /// The output of a flake that has the hosts.
    pub(super) output: &'static str,
    /// The levels between the output and a host.
    layout: HostLayout,
    /// The function, in Nix's language, from a host to the derivation that is deployed.
    toplevel: &'static str,
    /// The function, in Nix's language, from a host to its own settings of Nix, where it has such settings.
    nix_settings: Option<&'static str>,
    /// The type of the unit that a host is deployed to.
    pub(super) unit_type: UnitType,
}

/// The levels between an output and a host.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum HostLayout {
    /// `OUTPUT.NAME`
    ByName,
    /// `OUTPUT.NAME` or `OUTPUT.SYSTEM.NAME`
    ByNameOrSystem,
}

/// All platforms.
pub(super) static PLATFORMS: &[Platform] = &[
    Platform {
        output: "nixosConfigurations",
        layout: HostLayout::ByName,
        toplevel: "host: host.config.system.build.toplevel",
        nix_settings: Some("host: host.config.nix.settings or { }"),
        unit_type: UnitType::Nixos,
    },
    Platform {
        output: "darwinConfigurations",
        layout: HostLayout::ByName,
        // nix-darwin has the same derivation under the short name `system`.
        toplevel: "host: host.config.system.build.toplevel or host.system",
        nix_settings: Some("host: host.config.nix.settings or { }"),
        unit_type: UnitType::Darwin,
    },
    Platform {
        output: "homeConfigurations",
        layout: HostLayout::ByName,
        toplevel: "home: home.activationPackage",
        nix_settings: None,
        unit_type: UnitType::HomeManager,
    },
    Platform {
        output: "systemConfigs",
        layout: HostLayout::ByNameOrSystem,
        toplevel: "system: system",
        nix_settings: None,
        unit_type: UnitType::SystemManager,
    },
];

impl Platform {
    /// The row as an attribute in Nix's language.
    fn render(&self) -> String {
        let Self { output, layout, toplevel, nix_settings, .. } = self;
        let by_system = match layout {
            HostLayout::ByName => "false",
            HostLayout::ByNameOrSystem => "true",
        };
        let settings = nix_settings.unwrap_or("_: { }");
        format!("{output} = {{ toplevel = {toplevel}; nixSettings = {settings}; bySystem = {by_system}; }};")
    }
}

/// The table in Nix's language, in the form that `outputs.nix` takes.
pub(super) fn render() -> String {
    let rows: Vec<String> = PLATFORMS.iter().map(Platform::render).collect();
    format!("{{ {} }}", rows.join(" "))
}
