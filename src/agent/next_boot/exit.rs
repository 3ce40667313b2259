//! The exit codes of NixOS's `switch-to-configuration`, the one in Rust (nixpkgs, `switch-to-configuration-ng`) and the one in Perl. No I/O.
//!
//! Both end with 1 where they changed nothing that runs, 2 where the script `activate` failed, 3 where systemd did not take its new
//! units, 4 where units did not start, reload or restart, and 100 where the new system has another interface of init: then the boot
//! loader is set, and nothing else is done.

use crate::model::printable_line;

/// The words before the units that failed.
const FAILED_UNITS: &str = "the following units failed: ";
/// The line of NixOS's own check that compares `switch-inhibitors`.
const INHIBITED: &str = "Pre-switch check 'switchInhibitors' failed";
/// The most characters of the list of units.
const MAX_UNITS: usize = 1000;

/// What the end of an activation means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Meaning {
    /// The new system does not allow a switch, for this reason. It has to be booted.
    NeedsBoot(&'static str),
    /// It failed, which these words explain.
    Failed(String),
    /// It failed, and nothing more is known.
    Unknown,
}

/// What it means that `switch-to-configuration` ended with `code` after it said `log`.
pub(in crate::agent) fn meaning(code: i32, log: &str) -> Meaning {
    match code {
        1 if log.lines().any(|line| line.trim() == INHIBITED) => {
            Meaning::NeedsBoot("the new system does not allow a switch")
        }
        2 => Meaning::Failed("its script `activate` failed (exit code 2)".to_owned()),
        3 => Meaning::Failed("systemd did not take its new units (exit code 3)".to_owned()),
        4 => Meaning::Failed(match failed_units(log) {
            Some(units) => format!("units failed to start or to reload (exit code 4): {units}"),
            None => "units failed to start or to reload (exit code 4)".to_owned(),
        }),
        100 => Meaning::NeedsBoot("the new system has another init (exit code 100)"),
        _ => Meaning::Unknown,
    }
}

/// The units that the last line about them names.
fn failed_units(log: &str) -> Option<String> {
    let (_, units) = log.lines().rev().find_map(|line| line.split_once(FAILED_UNITS))?;
    let units = units.split([',', ' ']).filter(|unit| !unit.is_empty()).collect::<Vec<_>>().join(", ");
    (!units.is_empty()).then(|| printable_line(&units, MAX_UNITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_meaning() {
        let log = "starting\nswitch-to-configuration: warning: the following units failed: a.service, b.mount\n\n● a.service\n";
        let failed = |words: &str| Meaning::Failed(words.to_owned());
        assert_eq!(meaning(4, log), failed("units failed to start or to reload (exit code 4): a.service, b.mount"));
        assert_eq!(meaning(4, ""), failed("units failed to start or to reload (exit code 4)"));
        assert_eq!(meaning(2, log), failed("its script `activate` failed (exit code 2)"));
        assert_eq!(meaning(3, log), failed("systemd did not take its new units (exit code 3)"));
        assert_eq!(meaning(1, log), Meaning::Unknown);
        assert!(matches!(meaning(100, ""), Meaning::NeedsBoot(_)));
        let refused = "dbus-implementation : dbus -> broker\n\nPre-switch check 'switchInhibitors' failed\nPre-switch checks failed\n";
        assert!(matches!(meaning(1, refused), Meaning::NeedsBoot(_)));
        assert_eq!(meaning(1, "Pre-switch check 'disk' failed"), Meaning::Unknown);
    }
}
