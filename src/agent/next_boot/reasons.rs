//! Why one system cannot be replaced by another while the machine runs. No I/O.

use std::collections::BTreeMap;

use crate::model::printable_line;

/// The most characters of a fact that a reason shows.
const MAX_FACT: usize = 80;
/// The most reasons.
const MAX_REASONS: usize = 8;

/// What a NixOS says about the parts of it that a machine stands on. What is not known of one of two systems is no reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::agent) struct SystemFacts {
    /// Its `switch-inhibitors`, which NixOS itself compares before a switch.
    pub(in crate::agent) inhibitors: BTreeMap<String, String>,
    /// The name of the service behind `dbus.service`.
    pub(in crate::agent) dbus: Option<String>,
    /// The major version of systemd.
    pub(in crate::agent) systemd: Option<u32>,
    /// Its `init-interface-version`; NixOS does not switch where it differs.
    pub(in crate::agent) init: Option<String>,
    /// The lines of its `fstab` about the Nix store.
    pub(in crate::agent) store_mounts: Option<Vec<String>>,
}

/// Why `new` has to wait for a boot where `running` runs; none where a switch is safe.
pub(in crate::agent) fn reasons(running: &SystemFacts, new: &SystemFacts) -> Vec<String> {
    let shown = |text: &str| printable_line(text, MAX_FACT);
    let changed = |from: &str, to: &str| format!("{} → {}", shown(from), shown(to));
    let mut reasons: Vec<String> = running
        .inhibitors
        .iter()
        .filter_map(|(name, from)| {
            let to = new.inhibitors.get(name).filter(|to| *to != from)?;
            Some(format!("{}: {}", shown(name), changed(from, to)))
        })
        .collect();
    // NixOS's own words about D-Bus come first, and say the same.
    let is_told = reasons.iter().any(|reason| reason.starts_with("dbus"));
    let text = |from: &Option<String>, to: &Option<String>| match (from, to) {
        (Some(from), Some(to)) if from != to => Some((from.clone(), to.clone())),
        _ => None,
    };
    if let (Some((from, to)), false) = (text(&running.dbus, &new.dbus), is_told) {
        reasons.push(changed(&from, &to));
    }
    if let (Some(from), Some(to)) = (running.systemd, new.systemd)
        && from != to
    {
        reasons.push(format!("systemd {from} → {to}"));
    }
    if let Some((from, to)) = text(&running.init, &new.init) {
        reasons.push(format!("init {}", changed(&from, &to)));
    }
    if let (Some(from), Some(to)) = (&running.store_mounts, &new.store_mounts)
        && from != to
    {
        reasons.push("the mount of the Nix store changes".to_owned());
    }
    reasons.truncate(MAX_REASONS);
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> SystemFacts {
        let inhibitors = [("kernel".to_owned(), "a".to_owned())].into();
        SystemFacts {
            inhibitors,
            dbus: Some("dbus".to_owned()),
            systemd: Some(257),
            init: Some("systemd 2".to_owned()),
            store_mounts: Some(Vec::new()),
        }
    }

    #[test]
    fn each_part_that_the_machine_stands_on_is_a_reason() {
        let with = |change: fn(&mut SystemFacts)| {
            let mut new = facts();
            change(&mut new);
            reasons(&facts(), &new).join(", ")
        };
        assert_eq!(with(|_| ()), "");
        assert_eq!(with(|new| new.dbus = Some("dbus-broker".to_owned())), "dbus → dbus-broker");
        assert_eq!(with(|new| new.systemd = Some(258)), "systemd 257 → 258");
        assert_eq!(with(|new| new.init = Some("systemd 3".to_owned())), "init systemd 2 → systemd 3");
        assert_eq!(with(|new| drop(new.inhibitors.insert("kernel".to_owned(), "b".to_owned()))), "kernel: a → b");
        let tmpfs = |new: &mut SystemFacts| new.store_mounts = Some(vec!["tmpfs /nix/store tmpfs".to_owned()]);
        assert_eq!(with(tmpfs), "the mount of the Nix store changes");
    }

    #[test]
    fn what_is_not_known_of_both_is_no_reason() {
        assert_eq!(reasons(&facts(), &SystemFacts::default()), [""; 0]);
        assert_eq!(reasons(&SystemFacts::default(), &facts()), [""; 0]);
        // An inhibitor that only one of them has inhibits nothing, as on NixOS.
        let other = [("firmware".to_owned(), "x".to_owned())].into();
        assert_eq!(reasons(&facts(), &SystemFacts { inhibitors: other, ..facts() }), [""; 0]);
    }

    #[test]
    fn a_change_of_dbus_is_told_once_and_text_from_outside_is_bounded() {
        let of = |implementation: &str| {
            let inhibitors = [("dbus-implementation".to_owned(), implementation.to_owned())].into();
            SystemFacts { inhibitors, dbus: Some(implementation.to_owned()), ..SystemFacts::default() }
        };
        assert_eq!(reasons(&of("dbus"), &of("broker")), ["dbus-implementation: dbus → broker"]);
        let long = reasons(&of("dbus"), &of(&"\u{1b}x".repeat(9000)));
        assert!(long[0].len() < 500 && !long[0].contains('\u{1b}'), "{long:?}");
    }
}
