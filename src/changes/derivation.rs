//! One derivation, as far as a comparison looks at it: a package with a version, or a piece of the system itself (a
//! configuration file, a systemd unit, a script, what gathers them) with its own text and what that text mentions.

use std::collections::{BTreeMap, HashSet};

use nix_derivation::store_path::downstream_placeholder;
use nix_derivation::{Derivation, Output, StructuredAttrs};

use super::text::{self, Key};
use super::version::split_numbered;
use crate::model::StorePath;

/// Attributes that say how something is made, not what it is. What they mention is not followed, and a change of theirs
/// is not told: else a new compiler would be told as a change of everything.
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
/// The same by how they begin: `doCheck`, `dontStrip`, `depsBuildBuild`, `__structuredAttrs` and their kin.
const TOOLS_BEGIN: &[&str] =
    &["__", "depsBuild", "depsHost", "depsTarget", "doCheck", "doInstall", "dont", "enableParallel"];
/// Attributes that are lists of inputs and nothing else. What they mention is followed, and says all there is to say.
const LISTS: &[&str] =
    &["buildInputs", "chosenOutputs", "derivations", "manifest", "paths", "pkgs", "propagatedBuildInputs"];

/// A package, as people speak of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// A derivation, reduced.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: String,
    /// What it is where it is met inside a system; none for a piece of the system itself.
    pub(super) package: Option<Package>,
    /// The version that it names itself, whatever it is.
    pub(super) version: Option<String>,
    /// By what others mention its outputs; what is the same here is the same thing.
    pub(super) outputs: Vec<Key>,
    /// What a package that is only met does not need.
    pub(super) inside: Option<Inside>,
}

/// What a piece of the system holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Inside {
    /// Its own text by attribute, where store paths stand without hashes and versions.
    pub(super) text: BTreeMap<String, String>,
    /// The files it mentions that came into the store as they are: their names and keys.
    pub(super) sources: Vec<(String, Key)>,
    /// The derivations it is made from.
    pub(super) inputs: Vec<StorePath>,
    /// What its text mentions.
    pub(super) mentions: HashSet<Key>,
}

/// How a derivation is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The system as a whole, which is opened though it has a version.
    Root,
    /// Something in it, which is left closed where it is a package.
    Part,
}

impl Node {
    /// Reads the file of the derivation at `path`.
    pub(super) fn parse(path: &StorePath, bytes: &[u8], role: Role) -> Result<Self, nix_derivation::Error> {
        let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
        let derivation = Derivation::from_aterm_bytes(bytes, name)?;
        let attributes = attributes(&derivation);
        let fixed = derivation.outputs().values().any(|output| matches!(output, Output::Fixed { .. }));
        let package = package(name, &attributes, fixed);
        let version = own(&attributes, "version");
        let outputs = outputs(path, &derivation)?;
        let opened = role == Role::Root || package.is_none();
        let inside = opened.then(|| if fixed { fetched(&outputs) } else { inside(&derivation, &attributes) });
        Ok(Self { name: name.to_owned(), package, version, outputs, inside })
    }
}

/// The environment and the arguments as text by name, structured attributes like all others.
fn attributes(derivation: &Derivation) -> BTreeMap<String, String> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let outputs = derivation.outputs();
    let environment = derivation.environment().iter().filter(|(key, _)| !outputs.contains_key(*key));
    let mut all: BTreeMap<String, String> = environment.map(|(key, value)| (key.clone(), lossy(value))).collect();
    for (key, value) in derivation.structured_attrs().into_iter().flat_map(StructuredAttrs::iter) {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        all.insert(key.to_owned(), text);
    }
    // The standard environment's arguments are its own scripts.
    if !all.contains_key("stdenv") {
        all.insert("args".to_owned(), derivation.arguments().join("\n"));
    }
    all
}

fn own(attributes: &BTreeMap<String, String>, key: &str) -> Option<String> {
    attributes.get(key).filter(|value| !value.is_empty()).map(|value| text::shown(value))
}

fn package(name: &str, attributes: &BTreeMap<String, String>, fixed: bool) -> Option<Package> {
    if let Some(version) = own(attributes, "version") {
        let named = || name.rfind(&format!("-{version}")).map_or(name, |end| &name[..end]).to_owned();
        return Some(Package { name: own(attributes, "pname").unwrap_or_else(named), version });
    }
    // What is written from a text has a name of its own: `unit-10-eth0.network`, `dbus-1`. So has what is fetched.
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
            // One that is named by its content has a placeholder until it is built.
            None => text::key(downstream_placeholder(path.as_nix(), [name])?.trim_start_matches('/')),
        });
    }
    Ok(keys)
}

/// Of what is fetched the content counts alone, wherever it comes from.
fn fetched(outputs: &[Key]) -> Inside {
    let content = outputs.iter().map(|key| String::from_utf8_lossy(key)).collect();
    Inside { text: BTreeMap::from([("content".to_owned(), content)]), ..Inside::default() }
}

fn inside(derivation: &Derivation, attributes: &BTreeMap<String, String>) -> Inside {
    let told = || attributes.iter().filter(|(key, _)| !is_tool(key));
    let mentions: HashSet<Key> = told().flat_map(|(_, value)| text::mentions(value)).collect();
    let sources = derivation.input_sources().iter().filter_map(|source| {
        let key = text::key(&source.to_basename())?;
        mentions.contains(&key).then(|| (source.name().to_owned(), key))
    });
    // Where there is a text, the command is only how it comes into its file.
    let is_written = attributes.contains_key("text");
    let is_content = |key: &str| !LISTS.contains(&key) && key != "version" && !(is_written && key == "buildCommand");
    let content = told().filter(|(key, _)| is_content(key));
    let text = content.map(|(key, value)| (text::shown(key), text::without_hashes(value))).collect();
    let sources = sources.collect();
    let inputs = derivation.input_derivations().keys().cloned().map(StorePath::from).collect();
    Inside { text, sources, inputs, mentions }
}

fn is_tool(key: &str) -> bool {
    TOOLS.contains(&key) || TOOLS_BEGIN.iter().any(|begin| key.starts_with(begin))
}
