//! What a switch to another system is likely to restart, and whether the new system needs a reboot to be in effect as a whole. It is
//! a forecast from two derivations: which units run on a machine, and from which system it was booted, only the machine knows.

use std::fmt;

use serde::Serialize;

/// What a switch to the new system is likely to do to a machine that runs the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
pub struct Forecast {
    /// The parts that change and are in effect only after a reboot; none where no reboot is foreseen.
    pub reboot: Vec<RebootPart>,
    /// The units that are restarted or reloaded, if they run.
    pub units: Vec<UnitForecast>,
}

/// A part of a NixOS system that a running machine does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RebootPart {
    /// The kernel.
    Kernel,
    /// The initrd.
    Initrd,
    /// The modules of the kernel.
    KernelModules,
    /// The parameters of the kernel.
    KernelParams,
    /// Systemd, in another version.
    Systemd,
    /// The init program, or the version of its interface.
    Init,
    /// The implementation of D-Bus.
    Dbus,
}

/// A unit that the switch is likely to touch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
pub struct UnitForecast {
    /// The name of the unit: `nginx.service`.
    pub name: String,
    /// What happens to it.
    pub action: UnitAction,
}

/// What a switch does to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnitAction {
    /// It is restarted.
    Restart,
    /// It is reloaded.
    Reload,
}

impl Forecast {
    /// Whether nothing is foreseen.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The names of the units that this happens to.
    pub(super) fn names(&self, action: UnitAction) -> impl Iterator<Item = &str> {
        self.units.iter().filter(move |unit| unit.action == action).map(|unit| unit.name.as_str())
    }
}

impl fmt::Display for RebootPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::KernelModules => "kernel modules",
            Self::KernelParams => "kernel parameters",
            Self::Systemd => "systemd",
            Self::Init => "init",
            Self::Dbus => "D-Bus",
        })
    }
}
