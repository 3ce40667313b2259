//! Whether the machine has booted into what was set for its next boot. No I/O.

use super::super::lifecycle::NextBoot;
use super::facts::MachineFacts;
use crate::model::StorePath;

/// What became of a system that was set for the next boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Reboot {
    /// The machine has not booted since.
    Awaited,
    /// The machine runs it.
    Into,
    /// The machine has booted, and not into it. These words say so.
    Elsewhere(String),
}

/// What became of `candidate`, which was set for the boot after the one that `next` names, by what the machine is now.
pub(in crate::agent) fn reboot(next: &NextBoot, candidate: &StorePath, machine: &MachineFacts) -> Reboot {
    let is_another_boot = next.set_in.is_some() && machine.boot.is_some() && next.set_in != machine.boot;
    let is = |system: &Option<StorePath>| system.as_ref() == Some(candidate);
    // A person may have switched to it, which needs no boot any more.
    if is(&machine.current) || (is_another_boot && is(&machine.booted)) {
        return Reboot::Into;
    }
    if !is_another_boot {
        return Reboot::Awaited;
    }
    Reboot::Elsewhere(match &machine.booted {
        Some(booted) => format!("the machine did not boot into it, but into {booted}"),
        None => "the machine did not boot into it, and /run/booted-system does not say into what".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap()
    }

    #[test]
    fn only_another_boot_tells_whether_it_was_booted() {
        let next = NextBoot { because: Vec::new(), set_in: Some("1".to_owned()) };
        let of = |boot: Option<&str>, booted: Option<&str>, current: Option<&str>| {
            let boot = boot.map(ToOwned::to_owned);
            reboot(&next, &path("new"), &MachineFacts { boot, booted: booted.map(path), current: current.map(path) })
        };
        for (boot, booted, current, expected) in [
            (Some("1"), Some("old"), Some("old"), Reboot::Awaited),
            (None, Some("old"), Some("old"), Reboot::Awaited),
            // It was booted before, and the machine was switched since.
            (Some("1"), Some("new"), Some("old"), Reboot::Awaited),
            (Some("1"), Some("old"), Some("new"), Reboot::Into),
            (Some("2"), Some("new"), Some("new"), Reboot::Into),
            (Some("2"), Some("new"), None, Reboot::Into),
        ] {
            assert_eq!(of(boot, booted, current), expected, "{boot:?} {booted:?} {current:?}");
        }
        let told = |reboot| match reboot {
            Reboot::Elsewhere(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(
            told(of(Some("2"), Some("old"), Some("old")))
                .ends_with("but into /nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-old")
        );
        assert!(told(of(Some("2"), None, None)).contains("does not say into what"));
    }
}
