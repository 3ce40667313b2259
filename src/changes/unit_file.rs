//! The text of a systemd unit, and what switching to another text of it asks for. Pure.
//!
//! The rules are those that NixOS's `switch-to-configuration` follows for a unit that is running.

use std::collections::BTreeMap;

use super::forecast::UnitAction;

/// Keys that do not matter to a running unit: section and key.
const INERT: &[(&str, &str)] = &[
    ("Unit", "AllowIsolate"),
    ("Unit", "CollectMode"),
    ("Unit", "Description"),
    ("Unit", "Documentation"),
    ("Unit", "IgnoreOnIsolate"),
    ("Unit", "OnFailure"),
    ("Unit", "OnFailureJobMode"),
    ("Unit", "OnSuccess"),
    ("Unit", "RefuseManualStart"),
    ("Unit", "RefuseManualStop"),
    ("Unit", "SourcePath"),
    ("Unit", "StopWhenUnneeded"),
];
/// Keys that a running unit takes up when it is reloaded.
const RELOADED: &[(&str, &str)] = &[("Mount", "Options"), ("Service", "ExecReload"), ("Unit", "X-Reload-Triggers")];
/// Mounts that nobody can take away from a running system.
const NEVER_UNMOUNTED: &[&str] = &["-.mount", "nix.mount"];

/// A unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitFile {
    /// The name of the unit: `nginx.service`.
    pub(super) name: String,
    /// Its text, with the hashes of store paths.
    pub(super) text: String,
}

/// The values of a unit by section and key.
type Values<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

impl UnitFile {
    /// The unit that the derivation `name` writes, which has these attributes; none where it does not write one.
    pub(super) fn of(name: &str, attributes: &BTreeMap<String, String>) -> Option<Self> {
        let text = attributes.get("text")?.clone();
        let plain = name.strip_prefix("unit-").unwrap_or(name);
        let said = attributes.get("buildCommand").and_then(|command| said_name(command));
        let name = said.unwrap_or_else(|| plain.to_owned());
        is_unit(&name).then_some(Self { name, text })
    }

    /// What a running unit of this text is in for, where `newer` takes its place; none where it just goes on.
    pub(super) fn forecast(&self, newer: &Self) -> Option<UnitAction> {
        // Units of other kinds are not started anew: sockets, targets, slices and paths stay as they are.
        let kind = newer.name.rsplit('.').next().filter(|kind| matches!(*kind, "service" | "timer" | "mount"))?;
        let (old, new) = (values(&self.text), values(&newer.text));
        let keys = old.keys().chain(new.keys()).filter(|key| old.get(key) != new.get(key));
        let mut odd = keys.filter(|key| key.0 != "Install" && !INERT.contains(key)).peekable();
        odd.peek()?;
        if odd.all(|key| RELOADED.contains(key)) {
            return Some(UnitAction::Reload);
        }
        if kind == "mount" {
            let stays = NEVER_UNMOUNTED.contains(&newer.name.as_str());
            return Some(if stays { UnitAction::Reload } else { UnitAction::Restart });
        }
        let is_set =
            |section, key, default| new.get(&(section, key)).and_then(|v| v.last()).map_or(default, |v| is_yes(v));
        let has_method = |method| new.get(&("Unit", "X-SwitchMethod")).is_some_and(|v| v.last() == Some(&method));
        if is_set("Service", "X-ReloadIfChanged", false) || has_method("reload") {
            return Some(UnitAction::Reload);
        }
        let stays = !is_set("Service", "X-RestartIfChanged", true)
            || !is_set("Unit", "X-RestartIfChanged", true)
            || is_set("Unit", "RefuseManualStop", false)
            || is_set("Unit", "X-OnlyManualStart", false)
            || has_method("keep-old");
        (!stays).then_some(UnitAction::Restart)
    }
}

/// The name that the command of NixOS's unit derivations gives the unit: `name=getty@.service`, or `mv "$textPath" "$out/…"`.
fn said_name(command: &str) -> Option<String> {
    let plain = |text: &str| text.trim_matches(['"', '\'']).replace("\\\\", "\\");
    let named = command.lines().find_map(|line| line.trim().strip_prefix("name=")).map(plain);
    let moved = || {
        let line = command.lines().find(|line| line.trim_start().starts_with("mv "))?;
        line.split_whitespace().last().map(plain)?.strip_prefix("$out/").map(ToOwned::to_owned)
    };
    named.or_else(moved).filter(|name| !name.contains(['$', '/']))
}

fn is_unit(name: &str) -> bool {
    let kinds = ["automount", "mount", "path", "service", "slice", "socket", "swap", "target", "timer"];
    name.rsplit_once('.').is_some_and(|(stem, kind)| !stem.is_empty() && kinds.contains(&kind))
}

fn is_yes(value: &str) -> bool {
    matches!(value, "1" | "yes" | "true" | "on")
}

fn values(text: &str) -> Values<'_> {
    let (mut section, mut values) = ("", Values::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=') {
            values.entry((section, key.trim())).or_default().push(value.trim());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(name: &str, old: &str, new: &str) -> Option<UnitAction> {
        let unit = |text: &str| UnitFile { name: name.to_owned(), text: text.to_owned() };
        unit(old).forecast(&unit(new))
    }

    #[test]
    fn a_changed_unit_restarts_reloads_or_goes_on() {
        let (old, new) = ("[Service]\nExecStart=/a\n", "[Service]\nExecStart=/b\n");
        let with = |more: &str| forecast("x.service", old, &format!("{new}{more}"));
        assert_eq!(with(""), Some(UnitAction::Restart));
        assert_eq!(with("X-ReloadIfChanged=true"), Some(UnitAction::Reload));
        assert_eq!(with("X-RestartIfChanged=true"), Some(UnitAction::Restart));
        for stays in ["X-RestartIfChanged=false", "[Unit]\nRefuseManualStop=yes", "[Unit]\nX-OnlyManualStart=1"] {
            assert_eq!(with(stays), None, "{stays}");
        }
        assert_eq!(with("[Unit]\nX-SwitchMethod=keep-old"), None);
        assert_eq!(with("[Unit]\nX-SwitchMethod=reload"), Some(UnitAction::Reload));
        assert_eq!(forecast("x.service", old, old), None);
    }

    #[test]
    fn the_kind_of_a_unit_counts() {
        let (old, new) = ("[Mount]\nWhat=/a\nOptions=x", "[Mount]\nWhat=/b\nOptions=x");
        assert_eq!(forecast("srv.mount", old, new), Some(UnitAction::Restart));
        assert_eq!(forecast("nix.mount", old, new), Some(UnitAction::Reload));
        assert_eq!(forecast("srv.mount", old, "[Mount]\nWhat=/a\nOptions=y"), Some(UnitAction::Reload));
        assert_eq!(forecast("x.timer", "[Timer]\nOnCalendar=daily", "[Timer]\n"), Some(UnitAction::Restart));
        for untouched in ["x.socket", "x.target", "x.slice", "x.path"] {
            assert_eq!(forecast(untouched, "[A]\na=1", "[A]\na=2"), None, "{untouched}");
        }
    }

    #[test]
    fn a_description_does_not_restart_a_service_and_a_reload_trigger_reloads_it() {
        let unit = |more: &str| format!("[Unit]\n{more}\n[Service]\nExecStart=/a\n");
        let to = |more: &str| forecast("x.service", &unit("Description=a"), &unit(more));
        assert_eq!(to("Description=b"), None);
        assert_eq!(to("Description=b\n# After=b\n[Install]\nWantedBy=a"), None);
        assert_eq!(to("Description=a\nX-Reload-Triggers=/x"), Some(UnitAction::Reload));
        assert_eq!(to("Description=a\nX-Restart-Triggers=/x"), Some(UnitAction::Restart));
    }

    #[test]
    fn the_name_of_a_unit_is_that_of_the_file() {
        let name = |drv: &str, command: &str| {
            let attributes = [("text", ""), ("buildCommand", command)].map(|(k, v)| (k.to_owned(), v.to_owned()));
            UnitFile::of(drv, &attributes.into()).map(|unit| unit.name)
        };
        assert_eq!(name("unit-a.service", "").as_deref(), Some("a.service"));
        let command = "name=getty@.service\nmkdir -p \"$out/$(dirname -- \"$name\")\"\nmv \"$textPath\" \"$out/$name\"";
        assert_eq!(name("unit-getty-.service", command).as_deref(), Some("getty@.service"));
        let older = "mkdir -p $out\nmv \"$textPath\" \"$out/a\\\\x2db@.service\"";
        assert_eq!(name("unit-x.service", older).as_deref(), Some("a\\x2db@.service"));
        assert_eq!(name("etc-motd", ""), None);
        assert_eq!(UnitFile::of("unit-a.service", &BTreeMap::new()), None);
    }
}
