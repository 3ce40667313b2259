//! The table of platforms: which output of a flake has the hosts of each, and how Nix finds what to deploy.
//!
//! A new platform is a new row here. How a unit is activated does not belong here: the agent knows that.

use crate::model::UnitType;
use crate::nix::NixString;

/// One platform, which is a row of the table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Platform {
    /// The output of a flake that has the hosts.
    pub(super) output: &'static str,
    /// The levels between the output and a host.
    layout: HostLayout,
    /// The attributes of a host that lead to the derivation that is deployed: the first path that the host has.
    toplevel: &'static [&'static [&'static str]],
    /// What a host has to be, for the author of a flake who wrote something else.
    host: &'static str,
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
        toplevel: &[&["config", "system", "build", "toplevel"]],
        host: "a NixOS system with config.system.build.toplevel",
        nix_settings: Some("host: host.config.nix.settings or { }"),
        unit_type: UnitType::Nixos,
    },
    Platform {
        output: "darwinConfigurations",
        layout: HostLayout::ByName,
        // nix-darwin has the same derivation under the short name `system`.
        toplevel: &[&["config", "system", "build", "toplevel"], &["system"]],
        host: "a system of nix-darwin with config.system.build.toplevel",
        nix_settings: Some("host: host.config.nix.settings or { }"),
        unit_type: UnitType::Darwin,
    },
    Platform {
        output: "homeConfigurations",
        layout: HostLayout::ByName,
        toplevel: &[&["activationPackage"]],
        host: "a configuration of home-manager with activationPackage",
        nix_settings: None,
        unit_type: UnitType::HomeManager,
    },
    Platform {
        output: "systemConfigs",
        layout: HostLayout::ByNameOrSystem,
        toplevel: &[&[]],
        host: "a system of system-manager, which is a derivation",
        nix_settings: None,
        unit_type: UnitType::SystemManager,
    },
];

impl Platform {
    /// The row as an attribute in Nix's language.
    fn render(&self) -> String {
        let Self { output, layout, toplevel, host, nix_settings, .. } = self;
        let path = |path: &&[&str]| {
            format!("[ {} ]", path.iter().map(|name| NixString(name).to_string()).collect::<Vec<_>>().join(" "))
        };
        let toplevels = toplevel.iter().map(path).collect::<Vec<_>>().join(" ");
        let host = NixString(host);
        let by_system = match layout {
            HostLayout::ByName => "false",
            HostLayout::ByNameOrSystem => "true",
        };
        let settings = nix_settings.unwrap_or("_: { }");
        format!(
            "{output} = {{ toplevels = [ {toplevels} ]; host = {host}; nixSettings = {settings}; bySystem = {by_system}; }};"
        )
    }
}

/// The table in Nix's language, in the form that `outputs.nix` takes.
pub(super) fn render() -> String {
    let rows: Vec<String> = PLATFORMS.iter().map(Platform::render).collect();
    format!("{{ {} }}", rows.join(" "))
}
