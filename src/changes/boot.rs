//! The parts of a NixOS system that a running machine does not change: kernel, initrd and so on. Pure.

use std::collections::BTreeMap;

use super::forecast::RebootPart;
use super::text;

/// The beginning of the name of a NixOS system.
pub(super) const NIXOS: &str = "nixos-system-";

/// The parts of a NixOS system that take a reboot to change, each with what it is made of.
pub(super) type BootParts = BTreeMap<RebootPart, String>;

/// The boot parts of the derivation `name`, which has these attributes; none where it is no NixOS system, or one without a kernel.
///
/// A NixOS system is built by a command of lines like `ln -s /nix/store/…-linux-6.12/bzImage $out/kernel`.
pub(super) fn boot_parts(name: &str, attributes: &BTreeMap<String, String>) -> BootParts {
    let mut parts = BootParts::new();
    if !name.starts_with(NIXOS) {
        return parts;
    }
    let plain = |word: &str| word.trim_matches(['"', '\'']).replace("${out}", "$out");
    for line in attributes.get("buildCommand").map_or("", String::as_str).lines() {
        let words: Vec<String> = line.split_whitespace().map(plain).collect();
        let [command, .., source, target] = &words[..] else { continue };
        let source = with_attribute(source, attributes);
        match (command.as_str(), target.as_str()) {
            ("ln" | "cp", "$out/kernel") => _ = parts.insert(RebootPart::Kernel, source),
            ("ln" | "cp", "$out/initrd") => _ = parts.insert(RebootPart::Initrd, source),
            ("ln" | "cp", "$out/kernel-modules") => _ = parts.insert(RebootPart::KernelModules, source),
            ("ln" | "cp", "$out/systemd") => _ = parts.insert(RebootPart::Systemd, versioned(&source)),
            // The script or program itself changes with most updates, and is run at the next boot only.
            ("ln" | "cp", "$out/init") => {
                parts.entry(RebootPart::Init).or_default().push_str(&text::without_hashes(&source));
            }
            ("echo" | "printf", "$out/init-interface-version") => {
                parts.entry(RebootPart::Init).or_default().push_str(line.trim());
            }
            _ => {}
        }
    }
    // A container has no kernel of its own, and nothing to reboot.
    if !parts.contains_key(&RebootPart::Kernel) {
        return BootParts::new();
    }
    if let Some(parameters) = attributes.get("kernelParams") {
        parts.insert(RebootPart::KernelParams, parameters.clone());
    }
    parts
}

/// `source`, where it begins with a variable, with the value of the attribute of that name.
fn with_attribute(source: &str, attributes: &BTreeMap<String, String>) -> String {
    let Some(rest) = source.strip_prefix('$') else { return source.to_owned() };
    let rest = rest.replacen(['{', '}'], "", 2);
    let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    attributes.get(name).map_or_else(|| source.to_owned(), |value| format!("{value}{path}"))
}

/// The name and version in a store path, without its hash.
fn versioned(path: &str) -> String {
    let base = path.rsplit("/nix/store/").next().unwrap_or(path);
    base.split_once('-').map_or(base, |(_, name)| name).split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(command: &str) -> BootParts {
        let attributes =
            [("buildCommand", command), ("systemd", "/nix/store/h-systemd-256.7"), ("kernelParams", "quiet")];
        boot_parts("nixos-system-web-1-24.05", &attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }

    #[test]
    fn the_boot_parts_of_a_nixos_system_are_those_that_it_links_to() {
        let found = parts(
            "mkdir $out\n  ln -s /nix/store/k-linux-6.12/bzImage $out/kernel\nln -s /nix/store/m-kernel-modules $out/kernel-modules\n\
             ln -s /nix/store/i-initrd-linux/initrd $out/initrd\nln -s \"$systemd\" $out/systemd\n\
             cp /nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-stage-2-init.sh $out/init\n\
             echo -n \"systemd 2\" > $out/init-interface-version\nln -s /nix/store/e-etc/etc $out/etc",
        );
        let expected = [
            (RebootPart::Kernel, "/nix/store/k-linux-6.12/bzImage"),
            (RebootPart::Initrd, "/nix/store/i-initrd-linux/initrd"),
            (RebootPart::KernelModules, "/nix/store/m-kernel-modules"),
            (RebootPart::KernelParams, "quiet"),
            (RebootPart::Systemd, "systemd-256.7"),
            (RebootPart::Init, "/nix/store/stageecho -n \"systemd 2\" > $out/init-interface-version"),
        ];
        assert_eq!(found, expected.map(|(part, made_of)| (part, made_of.to_owned())).into());
        let of_braces = parts("ln -s /k $out/kernel\nln -s ${systemd}/lib $out/systemd");
        assert_eq!(of_braces[&RebootPart::Systemd], "systemd-256.7");
    }

    #[test]
    fn nothing_else_has_boot_parts() {
        let attributes = [("kernelParams".to_owned(), "quiet".to_owned())].into();
        assert_eq!(boot_parts("darwin-system-24", &attributes), BootParts::new());
        assert_eq!(boot_parts("nixos-system-web", &attributes), BootParts::new());
    }
}
