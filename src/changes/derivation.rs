//! One derivation, reduced to the parts that a comparison needs. It is a package with a version, or a piece of the system
//! itself (a configuration file, a systemd unit, a script, a folder that gathers them) with its text and the store paths
//! that the text mentions.

use std::collections::{BTreeMap, HashSet};

use nix_derivation::store_path::downstream_placeholder;
use nix_derivation::{Derivation, Output, StructuredAttrs};

use super::boot::{BootParts, boot_parts};
use super::text::{self, Key};
use super::unit_file::UnitFile;
use super::version::split_numbered;
use crate::model::StorePath;

/// Attributes that say how something is built. Their store paths are not followed and their changes are not reported;
/// otherwise a new compiler would change everything.
const TOOLS: &[&str] = &[
    "PATH",
    "allowSubstitutes",
    "builder",
    "checkInputs",
    "checkPhase",
    "initialPath",
    "installCheckInputs",
    "name",
    "nativeBuildInputs",
    "nativeCheckInputs",
    "nativeInstallCheckInputs",
    "outputHash",
    "outputHashAlgo",
    "outputHashMode",
    "outputs",
    "passAsFile",
    "pname",
    "preferLocalBuild",
    "propagatedNativeBuildInputs",
    "shell",
    "stdenv",
    "strictDeps",
    "system",
    "userHook",
];
/// The beginnings of more such attributes: `doCheck`, `dontStrip`, `depsBuildBuild`, `__structuredAttrs`.
const TOOLS_BEGIN: &[&str] =
    &["__", "depsBuild", "depsHost", "depsTarget", "doCheck", "doInstall", "dont", "enableParallel"];
/// Attributes that are lists of inputs only. Their store paths are followed, and their text is not compared.
const LISTS: &[&str] =
    &["buildInputs", "chosenOutputs", "derivations", "manifest", "paths", "pkgs", "propagatedBuildInputs"];

/// The name and version of a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// A reduced derivation.
#[derive(Debug, Clone)]
pub(super) struct DerivationNode {
    pub(super) name: String,
    /// The package that it is inside a system; none for a piece of the system itself.
    pub(super) package: Option<Package>,
    /// The version in its own attributes, also for a piece of the system.
    pub(super) version: Option<String>,
    /// The keys by which other derivations mention its outputs. Equal keys mean equal outputs.
    pub(super) outputs: Vec<Key>,
    /// Its content, where it was opened. A package inside a system is not opened.
    pub(super) inside: Option<Inside>,
}

/// The content of a piece of the system.
#[derive(Debug, Clone, Default)]
pub(super) struct Inside {
    /// Its text by attribute, in which store paths have no hashes and versions.
    pub(super) text: BTreeMap<String, String>,
    /// The names and keys of the source files that it mentions.
    pub(super) sources: Vec<(String, Key)>,
    /// Its input derivations.
    pub(super) inputs: Vec<StorePath>,
    /// The keys of everything that its text mentions.
    pub(super) mentions: HashSet<Key>,
    /// The parts of a NixOS system that take a reboot to change.
    pub(super) boot: BootParts,
    /// The systemd unit that it is.
    pub(super) unit: Option<UnitFile>,
}

/// The role of a derivation in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputRole {
    /// The system as a whole. It is opened although it has a version.
    Root,
    /// A part of the system. It is opened unless it is a package.
    Part,
}

impl DerivationNode {
    /// Parses `bytes`, the file of the derivation at `path`.
    pub(super) fn parse(path: &StorePath, bytes: &[u8], role: InputRole) -> Result<Self, nix_derivation::Error> {
        let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
        let derivation = Derivation::from_aterm_bytes(bytes, name)?;
        let attributes = attributes(&derivation);
        let fixed = derivation.outputs().values().any(|output| matches!(output, Output::Fixed { .. }));
        let package = package(name, &attributes, fixed);
        let version = own(&attributes, "version");
        let outputs = outputs(path, &derivation)?;
        let opened = role == InputRole::Root || package.is_none();
        let inside = opened.then(|| if fixed { fetched(&outputs) } else { inside(&derivation, &attributes) });
        Ok(Self { name: name.to_owned(), package, version, outputs, inside })
    }
}

/// The environment, the structured attributes and the arguments, as text by name.
fn attributes(derivation: &Derivation) -> BTreeMap<String, String> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let outputs = derivation.outputs();
    let environment = derivation.environment().iter().filter(|(key, _)| !outputs.contains_key(*key));
    let mut all: BTreeMap<String, String> = environment.map(|(key, value)| (key.clone(), lossy(value))).collect();
    for (key, value) in derivation.structured_attrs().into_iter().flat_map(StructuredAttrs::iter) {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        all.insert(key.to_owned(), text);
    }
    // With the standard environment, the arguments are always the same scripts.
    if !all.contains_key("stdenv") {
        all.insert("args".to_owned(), derivation.arguments().join("\n"));
    }
    all
}

fn own(attributes: &BTreeMap<String, String>, key: &str) -> Option<String> {
    attributes.get(key).filter(|value| !value.is_empty()).map(|value| text::printable(value))
}

fn package(name: &str, attributes: &BTreeMap<String, String>, fixed: bool) -> Option<Package> {
    if let Some(version) = own(attributes, "version") {
        let named = || name.rfind(&format!("-{version}")).map_or(name, |end| &name[..end]).to_owned();
        return Some(Package { name: own(attributes, "pname").unwrap_or_else(named), version });
    }
    // A file that is written from a text, or fetched, has no version: `unit-10-eth0.network`, `dbus-1`.
    if fixed || attributes.contains_key("text") || attributes.contains_key("buildCommand") {
        return None;
    }
    let (stem, version) = split_numbered(name);
    (!version.is_empty()).then(|| Package { name: stem.to_owned(), version: version.to_owned() })
}

fn outputs(path: &StorePath, derivation: &Derivation) -> Result<Vec<Key>, nix_derivation::Error> {
    let mut keys = Vec::new();
    for (name, output) in derivation.outputs() {
        let known = output.path(derivation.name(), name)?;
        keys.extend(match known {
            Some(known) => text::key(&known.to_basename()),
            // A content-addressed output has a placeholder until it is built.
            None => text::key(downstream_placeholder(path.as_nix(), [name])?.trim_start_matches('/')),
        });
    }
    Ok(keys)
}

/// The content of a fetched file. Its origin does not count.
fn fetched(outputs: &[Key]) -> Inside {
    let content = outputs.iter().map(|key| String::from_utf8_lossy(key)).collect();
    Inside { text: BTreeMap::from([("content".to_owned(), content)]), ..Inside::default() }
}

fn inside(derivation: &Derivation, attributes: &BTreeMap<String, String>) -> Inside {
    let content_attributes = || attributes.iter().filter(|(key, _)| !is_tool(key));
    let mentions: HashSet<Key> = content_attributes().flat_map(|(_, value)| text::mentions(value)).collect();
    let sources = derivation.input_sources().iter().filter_map(|source| {
        let key = text::key(&source.to_basename())?;
        mentions.contains(&key).then(|| (source.name().to_owned(), key))
    });
    // Where there is a text, the command only writes it into a file.
    let is_written = attributes.contains_key("text");
    let is_content = |key: &str| !LISTS.contains(&key) && key != "version" && !(is_written && key == "buildCommand");
    let content = content_attributes().filter(|(key, _)| is_content(key));
    let text = content.map(|(key, value)| (text::printable(key), text::without_hashes(value))).collect();
    let sources = sources.collect();
    let inputs = derivation.input_derivations().keys().cloned().map(StorePath::from).collect();
    let (boot, unit) = (boot_parts(derivation.name(), attributes), UnitFile::of(derivation.name(), attributes));
    Inside { text, sources, inputs, mentions, boot, unit }
}

/// Whether an attribute says how something is built.
fn is_tool(key: &str) -> bool {
    TOOLS.contains(&key) || TOOLS_BEGIN.iter().any(|begin| key.starts_with(begin))
}
