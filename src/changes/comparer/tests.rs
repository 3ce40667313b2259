use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::super::forecast::{Forecast, RebootPart, UnitAction, UnitForecast};
use super::super::graph::Limits;
use super::{CompareError, Comparer, DeployedSystem, SystemChange};
use crate::model::StorePath;

/// A small store: the files of derivations by path.
#[derive(Default)]
struct FakeStore(BTreeMap<StorePath, Vec<u8>>);

/// A derivation of the small store, and the path of its output.
#[derive(Clone)]
struct Made {
    derivation: StorePath,
    output: String,
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// A store path whose hash follows from `what`.
fn path(what: &str, name: &str) -> String {
    let hash = nix_derivation::nixbase32::encode(&Sha256::digest(what)[..20]);
    format!("/nix/store/{hash}-{name}")
}

impl FakeStore {
    /// Adds the derivation `name`, made from `inputs` and `sources`, with these attributes.
    fn add(&mut self, name: &str, inputs: &[&Made], sources: &[&str], attributes: &[(&str, &str)]) -> Made {
        let list = |items: Vec<String>| format!("[{}]", items.join(","));
        let inputs = list(inputs.iter().map(|made| format!("(\"{}\",[\"out\"])", made.derivation)).collect());
        let sources = list(sources.iter().map(|source| quoted(source)).collect());
        let output = path(&format!("{name}{inputs}{sources}{attributes:?}"), name);
        let mut environment = vec![("out", output.as_str())];
        environment.extend(attributes);
        environment.sort_unstable();
        let environment =
            environment.iter().map(|(key, value)| format!("({},{})", quoted(key), quoted(value))).collect();
        let file = format!(
            "Derive([(\"out\",\"{output}\",\"\",\"\")],{inputs},{sources},\"x86_64-linux\",\"/bin/sh\",[],{})",
            list(environment)
        );
        let derivation: StorePath = path(&file, &format!("{name}.drv")).parse().unwrap();
        self.0.insert(derivation.clone(), file.into_bytes());
        Made { derivation, output }
    }

    fn package(&mut self, name: &str, version: &str, how: &str) -> Made {
        self.add(&format!("{name}-{version}"), &[], &[], &[("pname", name), ("version", version), ("how", how)])
    }

    /// A system of these packages and of files with these texts, as NixOS makes one.
    fn system(&mut self, packages: &[&Made], files: &[(&str, &str)]) -> Made {
        let written: Vec<Made> = files
            .iter()
            .map(|(name, text)| {
                let used: Vec<&Made> = packages.iter().filter(|made| text.contains(&made.output)).copied().collect();
                self.add(name, &used, &[], &[("text", text), ("buildCommand", "echo -n \"$text\" > $out")])
            })
            .collect();
        let lines: Vec<String> = written.iter().map(|made| format!("ln -s {} $out/x", made.output)).collect();
        let etc = self.add("etc", &written.iter().collect::<Vec<_>>(), &[], &[("buildCommand", &lines.join("\n"))]);
        let paths: Vec<&str> = packages.iter().map(|made| made.output.as_str()).collect();
        let path = self.add("system-path", packages, &[], &[("buildCommand", "perl"), ("pkgs", &paths.join(" "))]);
        let attributes = [("buildCommand", "mkdir $out"), ("etc", &etc.output), ("path", &path.output)];
        self.add("nixos-system-web-1-24.05", &[&etc, &path], &[], &attributes)
    }

    fn compare(&self, old: &Made, new: &Made) -> Result<SystemChange, CompareError> {
        let read = |path: &StorePath| {
            self.0.get(path).cloned().ok_or_else(|| std::io::Error::other("it is not on this machine"))
        };
        Comparer::new(read).compare(Some(&old.derivation), Some(&new.derivation))
    }

    fn lines(&self, old: &Made, new: &Made) -> Vec<String> {
        self.compare(old, new).unwrap().lines(20)
    }
}

#[test]
fn packages_are_upgraded_downgraded_added_and_removed() {
    let mut store = FakeStore::default();
    let [nginx, newer] = ["1.24.0", "1.26.1"].map(|version| store.package("nginx", version, ""));
    let [bash, again] = ["a", "b"].map(|how| store.package("bash", "5.2", how));
    let [vim, older] = ["9.1", "9.0"].map(|version| store.package("vim", version, ""));
    let (htop, telnet) = (store.package("htop", "3.3.0", ""), store.package("telnet", "0.17", ""));
    let old = store.system(&[&nginx, &bash, &vim, &telnet], &[]);
    let new = store.system(&[&newer, &again, &older, &htop], &[]);
    let expected = ["vim 9.1 → 9.0 (older)", "nginx 1.24.0 → 1.26.1", "htop 3.3.0 added", "telnet 0.17 removed"];
    let lines = store.lines(&old, &new);
    assert_eq!(lines[..4], expected);
    assert_eq!(lines[4..], ["bash 5.2 rebuilt"]);
    assert_eq!(store.compare(&old, &old).unwrap(), SystemChange::default());
}

#[test]
fn the_build_inputs_of_a_package_are_not_reported() {
    let mut store = FakeStore::default();
    let [gcc, newer] = ["13", "14"].map(|version| store.package("gcc", version, ""));
    let system = |store: &mut FakeStore, gcc: &Made| {
        let with = [("pname", "nginx"), ("version", "1.24"), ("stdenv", &gcc.output[..]), ("NIX_LDFLAGS", &gcc.output)];
        let nginx = store.add("nginx-1.24", &[gcc], &[], &with);
        let text = format!("ExecStart={}/bin/nginx", nginx.output);
        let attributes = [("text", &text[..]), ("stdenv", &gcc.output), ("nativeBuildInputs", &gcc.output)];
        store.add("unit-nginx.service", &[gcc, &nginx], &[], &attributes)
    };
    let (old, new) = (system(&mut store, &gcc), system(&mut store, &newer));
    assert_eq!(store.lines(&old, &new), ["nginx 1.24 rebuilt"]);
}

#[test]
fn files_differ_by_their_text_and_not_by_the_versions_they_mention() {
    let mut store = FakeStore::default();
    let [nginx, newer] = ["1.24.0", "1.26.1"].map(|version| store.package("nginx", version, ""));
    let unit = |made: &Made, more: &str| format!("[Service]\nExecStart={}/bin/nginx{more}", made.output);
    let (before, after) = (unit(&nginx, ""), unit(&newer, ""));
    let old = store.system(&[&nginx], &[("unit-nginx.service", &before), ("etc-motd", "hello"), ("gone", "x")]);
    let new = store.system(&[&newer], &[("unit-nginx.service", &after), ("etc-motd", "good day"), ("come", "x")]);
    let expected = ["nginx 1.24.0 → 1.26.1", "files: etc-motd", "files added: come", "files removed: gone"];
    assert_eq!(store.lines(&old, &new), expected);
    let option = unit(&nginx, " -t");
    let new = store.system(&[&nginx], &[("unit-nginx.service", &option), ("etc-motd", "hello"), ("gone", "x")]);
    assert_eq!(store.lines(&old, &new), ["files: unit-nginx.service"]);
}

#[test]
fn a_source_differs_by_its_content() {
    let mut store = FakeStore::default();
    let [a, b] = ["a", "b"].map(|what| path(what, "nginx.conf"));
    let system = |store: &mut FakeStore, source: &str| {
        let unused = path("unused", "builder.sh");
        store.add("etc", &[], &[source, &unused], &[("buildCommand", &format!("cp {source} $out"))])
    };
    let (old, new) = (system(&mut store, &a), system(&mut store, &b));
    let root = |store: &mut FakeStore, etc: &Made| store.add("system", &[etc], &[], &[("etc", &etc.output)]);
    let (old, new) = (root(&mut store, &old), root(&mut store, &new));
    assert_eq!(store.lines(&old, &new), ["files: nginx.conf"]);
}

#[test]
fn the_version_and_settings_of_the_system_are_reported() {
    let mut store = FakeStore::default();
    let root = |store: &mut FakeStore, version: &str, kernel: &str| {
        store.add(&format!("nixos-system-web-1-{version}"), &[], &[], &[("buildCommand", ""), ("kernelParams", kernel)])
    };
    let old = root(&mut store, "24.05.1", "quiet");
    let new = root(&mut store, "24.11.2", "quiet loglevel=4");
    assert_eq!(store.lines(&old, &new), ["system 24.05.1 → 24.11.2", "settings: kernelParams"]);
    let new = root(&mut store, "24.05.1", "loglevel=4");
    assert_eq!(store.lines(&old, &new), ["settings: kernelParams"]);
}

#[test]
fn a_file_with_a_version_in_its_name_changes() {
    let mut store = FakeStore::default();
    let [linux, newer] = ["6.6.32", "6.6.40"].map(|version| store.package("linux", version, ""));
    let root = |store: &mut FakeStore, linux: &Made, version: &str| {
        let command = format!("cp {}/bzImage $out", linux.output);
        let initrd = store.add(&format!("initrd-linux-{version}"), &[linux], &[], &[("buildCommand", &command)]);
        store.add("system", &[&initrd, linux], &[], &[("initrd", &initrd.output), ("kernel", &linux.output)])
    };
    let (old, new) = (root(&mut store, &linux, "6.6.32"), root(&mut store, &newer, "6.6.40"));
    assert_eq!(store.lines(&old, &new), ["linux 6.6.32 → 6.6.40", "files: initrd-linux-6.6.40"]);
}

#[test]
fn structured_attributes_are_attributes() {
    let mut store = FakeStore::default();
    let [nginx, newer] = ["1.24.0", "1.26.1"].map(|version| {
        store.add("nginx", &[], &[], &[("__json", &format!(r#"{{"pname":"nginx","version":"{version}"}}"#))])
    });
    let root = |store: &mut FakeStore, nginx: &Made, motd: &str| {
        let json = format!(r#"{{"env":{{"nginx":["{}"]}},"motd":"{motd}"}}"#, nginx.output);
        store.add("system", &[nginx], &[], &[("__json", &json)])
    };
    let (old, new) = (root(&mut store, &nginx, "a"), root(&mut store, &newer, "b"));
    assert_eq!(store.lines(&old, &new), ["nginx 1.24.0 → 1.26.1", "settings: motd"]);
}

#[test]
fn a_missing_derivation_is_named_and_other_comparisons_go_on() {
    let mut store = FakeStore::default();
    let nginx = store.package("nginx", "1.24.0", "");
    let (old, new) = (store.system(&[&nginx], &[("a", "1")]), store.system(&[&nginx], &[("a", "2")]));
    let other = store.system(&[&nginx], &[("a", "3")]);
    let file = store.0.remove(&old.derivation).unwrap();
    let why = "it is not on this machine".to_owned();
    assert_eq!(store.compare(&old, &new), Err(CompareError::Unreadable { path: old.derivation.clone(), why }));
    assert!(store.compare(&other, &new).is_ok());
    store.0.insert(old.derivation.clone(), b"Derive(".to_vec());
    assert!(matches!(store.compare(&old, &new), Err(CompareError::Unreadable { .. })));
    store.0.insert(old.derivation.clone(), file);
    assert_eq!(store.lines(&old, &new), ["files: a"]);
    let read = |path: &StorePath| store.0.get(path).cloned().ok_or_else(|| std::io::Error::other("no"));
    let error = Comparer::new(read).compare(None, Some(&new.derivation)).unwrap_err();
    assert_eq!(error.to_string(), "the old one names a store path and no derivation");
}

#[test]
fn a_file_that_uses_another_present_version_is_reported() {
    let mut store = FakeStore::default();
    let [old_one, new_one] = ["15.1", "16.2"].map(|version| store.package("postgresql", version, ""));
    let starts = |made: &Made| format!("ExecStart={}/bin/postgres", made.output);
    let both = [&old_one, &new_one];
    let old = store.system(&both, &[("postgresql.service", &starts(&old_one))]);
    let new = store.system(&both, &[("postgresql.service", &starts(&new_one))]);
    assert_eq!(store.lines(&old, &new), ["files: postgresql.service"]);
    // Where the old version is removed, the package is reported instead.
    let new = store.system(&[&new_one], &[("postgresql.service", &starts(&new_one))]);
    assert_eq!(store.lines(&old, &new), ["postgresql 15.1, 16.2 → 16.2"]);
}

#[test]
fn the_derivation_of_another_path_is_refused() {
    let mut store = FakeStore::default();
    let (old, new) = (store.system(&[], &[("a", "1")]), store.system(&[], &[("a", "2")]));
    let read = |path: &StorePath| store.0.get(path).cloned().ok_or_else(|| std::io::Error::other("no"));
    let path = |made: &Made| -> StorePath { made.output.parse().unwrap() };
    let (old_path, new_path) = (path(&old), path(&new));
    let compare = |path, derivation: &Made| {
        let old = DeployedSystem { path: &old_path, derivation: Some(&old.derivation) };
        Comparer::new(read).compare_systems(old, DeployedSystem { path, derivation: Some(&derivation.derivation) })
    };
    assert_eq!(compare(&new_path, &new).unwrap().lines(20), ["files: a"]);
    // The path of the new system with the derivation of the old one.
    let error = compare(&new_path, &old).unwrap_err();
    assert_eq!(error.to_string(), "the new one names a derivation that does not make its store path");
}

#[test]
fn the_text_of_a_file_counts_although_it_mentions_an_added_file() {
    let mut store = FakeStore::default();
    let old = store.system(&[], &[("unit", "ExecStart=/bin/a")]);
    let added = store.add("added", &[], &[], &[("text", "x")]);
    let says = format!("ExecStart=/bin/a\nExecStartPre=/bin/sh {}", added.output);
    let new = store.system(&[], &[("unit", &says), ("added", "x")]);
    assert_eq!(store.lines(&old, &new), ["files: unit", "files added: added"]);
}

#[test]
fn a_read_that_failed_is_tried_again_by_the_next_comparison() {
    let mut store = FakeStore::default();
    let nginx = store.package("nginx", "1.24.0", "");
    let (old, new) = (store.system(&[&nginx], &[("a", "1")]), store.system(&[], &[("a", "2")]));
    let lost = std::cell::Cell::new(true);
    let read = |path: &StorePath| match store.0.get(path) {
        Some(bytes) if !(lost.get() && path.name() == "nginx-1.24.0.drv") => Ok(bytes.clone()),
        _ => Err(std::io::Error::other("no")),
    };
    let mut comparer = Comparer::new(read);
    assert!(comparer.compare(Some(&old.derivation), Some(&new.derivation)).is_err());
    lost.set(false);
    let change = comparer.compare(Some(&old.derivation), Some(&new.derivation)).unwrap();
    assert_eq!(change.lines(20), ["nginx 1.24.0 removed", "files: a"]);
}

#[test]
fn a_system_above_the_limits_is_refused() {
    let mut store = FakeStore::default();
    let root = store.system(&[], &[("a", "1"), ("b", "1")]);
    let read = |path: &StorePath| store.0.get(path).cloned().ok_or_else(|| std::io::Error::other("no"));
    for (derivations, text) in [(3, 1 << 20), (100, 10)] {
        let mut comparer = Comparer::new(read);
        comparer.graph.limits = Limits { derivations, text };
        assert_eq!(comparer.compare(Some(&root.derivation), Some(&root.derivation)), Err(CompareError::TooLarge));
    }
}

/// A system like one of NixOS: its command links to these boot parts, and its folder of units has these units.
fn nixos(store: &mut FakeStore, links: &[(&str, &str)], units: &[(&str, &str)]) -> Made {
    let written: Vec<Made> =
        units.iter().map(|(name, text)| store.add(&format!("unit-{name}"), &[], &[], &[("text", text)])).collect();
    let folder = |store: &mut FakeStore, name: &str, of: &[&Made]| {
        let command: Vec<&str> = of.iter().map(|made| made.output.as_str()).collect();
        store.add(name, of, &[], &[("buildCommand", &command.join("\n"))])
    };
    let system_units = folder(store, "system-units", &written.iter().collect::<Vec<_>>());
    let user = store.add("unit-user.service", &[], &[], &[("text", &format!("[Service]\nExecStart={links:?}"))]);
    let user_units = folder(store, "user-units", &[&user]);
    let etc = folder(store, "etc", &[&system_units, &user_units]);
    let links: Vec<String> = links.iter().map(|(name, from)| format!("ln -s {from} $out/{name}")).collect();
    let command = format!("{}\nln -s {}/etc $out/etc", links.join("\n"), etc.output);
    store.add("nixos-system-web-1-24.05", &[&etc], &[], &[("buildCommand", &command)])
}

#[test]
fn a_reboot_is_foreseen_where_a_boot_part_changes() {
    let mut store = FakeStore::default();
    let (linux, again) = (path("a", "linux-6.12"), path("b", "linux-6.12"));
    let (systemd, rebuilt, newer) = (path("a", "systemd-256"), path("b", "systemd-256"), path("a", "systemd-257"));
    let unit = [("a.service", "[Service]\nExecStart=/a")];
    let system = |store: &mut FakeStore, linux: &str, systemd: &str| {
        nixos(store, &[("kernel", linux), ("systemd", systemd)], &unit)
    };
    let old = system(&mut store, &linux, &systemd);
    let reboot = |store: &FakeStore, new: &Made| store.compare(&old, new).unwrap().forecast.reboot;
    let new = system(&mut store, &again, &systemd);
    assert_eq!(reboot(&store, &new), [RebootPart::Kernel]);
    // Systemd of the same version starts itself anew.
    let new = system(&mut store, &linux, &rebuilt);
    assert_eq!(reboot(&store, &new), []);
    let new = system(&mut store, &linux, &newer);
    assert_eq!(reboot(&store, &new), [RebootPart::Systemd]);
    let units = [unit[0], ("dbus-broker.service", "[Service]")];
    let new = nixos(&mut store, &[("kernel", &linux), ("systemd", &systemd)], &units);
    assert_eq!(reboot(&store, &new), [RebootPart::Dbus]);
    // A container has no kernel.
    let [old, new] = [&systemd, &newer].map(|systemd| nixos(&mut store, &[("systemd", systemd)], &unit));
    assert_eq!(store.compare(&old, &new).unwrap().forecast, Forecast::default());
}

#[test]
fn units_of_the_system_that_change_are_restarted() {
    let mut store = FakeStore::default();
    let old = nixos(&mut store, &[], &[("a.service", "[Service]\nExecStart=/a"), ("b.timer", "[Timer]\nOnCalendar=1")]);
    let changed = [("a.service", "[Service]\nExecStart=/b"), ("b.timer", "[Timer]\nOnCalendar=1"), ("c.service", "")];
    // The user's units and those that are new are not restarted.
    let new = nixos(&mut store, &[("x", "/y")], &changed);
    let forecast = store.compare(&old, &new).unwrap().forecast;
    let restart = UnitForecast { name: "a.service".to_owned(), action: UnitAction::Restart };
    assert_eq!(forecast, Forecast { reboot: Vec::new(), units: vec![restart] });
    assert!(store.lines(&old, &new).contains(&"forecast: restart of a.service".to_owned()));
}

#[test]
fn the_units_of_a_home_are_foreseen_and_those_of_other_systems_are_not() {
    let mut store = FakeStore::default();
    let mut home = |root: &str, text: &str| {
        let unit = store.add("sync.service", &[], &[], &[("text", text)]);
        let command = format!("insertFile {}/sync.service .config/systemd/user/sync.service", unit.output);
        let files = store.add("home-manager-files", &[&unit], &[], &[("buildCommand", &command)]);
        store.add(root, &[&files], &[], &[("buildCommand", &format!("ln -s {} $out/home-files", files.output))])
    };
    let texts = ["[Service]\nExecStart=/a", "[Service]\nExecStart=/b"];
    let [old, new] = texts.map(|text| home("home-manager-generation", text));
    let [other, newer] = texts.map(|text| home("system-manager", text));
    let restart = UnitForecast { name: "sync.service".to_owned(), action: UnitAction::Restart };
    assert_eq!(store.compare(&old, &new).unwrap().forecast.units, [restart]);
    assert_eq!(store.compare(&other, &newer).unwrap().forecast, Forecast::default());
}
