//! The questions that Clavel asks Nix about a flake, and the answers as types. No I/O.
//!
//! Asking is the work of `flake_caller`; making documents of the answers is the work of `assemble`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::EvaluateError;
use super::nix_value::NixValue;
use super::platforms::{self, PLATFORMS, Platform};
use crate::model::{
    ActivationMode, Attribute, DocumentPath, FlakeReference, Folder, Invalid, List, MAX_CHECKS, Map, Metadata, Name,
    Pattern, PublicKey, StorePath, Substituter, System, UnitType, WrittenCheck, WrittenProbation, printable_line,
};
use crate::nix::NixString;

/// The most values of plain data that are told at once. Telling them one by one costs as much as evaluating them.
pub(super) const MAX_GROUP: usize = 256;

/// The functions in Nix's language that answer the questions.
const OUTPUTS: &str = include_str!("outputs.nix");

/// An output of a flake that documents come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum FlakeOutput {
    /// The hosts of a platform.
    #[expect(private_interfaces, reason = "other rooms only compare outputs and show them")]
    Hosts(&'static Platform),
    /// `clavel.deployments.NAME`
    Deployments,
    /// `clavel.units.NAME`
    Units,
    /// `clavel.agents.NAME`
    Agents,
}

impl FlakeOutput {
    /// The parts of the `clavel` output.
    pub(super) const OF_CLAVEL: [Self; 3] = [Self::Deployments, Self::Units, Self::Agents];

    /// All outputs.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        PLATFORMS.iter().map(Self::Hosts).chain(Self::OF_CLAVEL)
    }

    /// Its name in `outputs.nix`.
    fn key(self) -> &'static str {
        match self {
            Self::Hosts(platform) => platform.output,
            Self::Deployments => "deployments",
            Self::Units => "units",
            Self::Agents => "agents",
        }
    }

    /// The attributes of the flake that lead to it.
    pub(super) fn path(self) -> &'static [&'static str] {
        match self {
            Self::Hosts(platform) => std::slice::from_ref(&platform.output),
            Self::Deployments => &["clavel", "deployments"],
            Self::Units => &["clavel", "units"],
            Self::Agents => &["clavel", "agents"],
        }
    }

    /// Whether the attribute is below it.
    pub fn has(self, attribute: &Attribute) -> bool {
        let below = attribute.as_str().strip_prefix(self.path().join(".").as_str());
        below.is_some_and(|below| below.starts_with('.'))
    }

    /// The item called `name` directly below it.
    pub(super) fn item(self, name: &str) -> Item {
        Item { output: self, level: None, name: name.to_owned() }
    }
}

impl From<FlakeOutput> for String {
    fn from(output: FlakeOutput) -> Self {
        output.key().to_owned()
    }
}

impl TryFrom<String> for FlakeOutput {
    type Error = Invalid;
    fn try_from(key: String) -> Result<Self, Invalid> {
        let unknown = || Invalid::new("an output", &key, "Clavel knows no output of this name");
        Self::all().find(|output| output.key() == key).ok_or_else(unknown)
    }
}

/// An attribute of a flake that may become a document. Its names need not be valid, and none is ever cut.
///
/// In JSON it is a list: the output, the level if any, the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "Vec<String>", try_from = "Vec<String>")]
pub struct Item {
    pub(super) output: FlakeOutput,
    /// The system between the output and the name, where there is one.
    pub(super) level: Option<String>,
    pub(super) name: String,
}

impl Item {
    /// The names that lead to it below its output.
    pub(super) fn below_output(&self) -> impl Iterator<Item = &str> {
        self.level.as_deref().into_iter().chain([self.name.as_str()])
    }

    /// Its attribute path in the flake. It is an error where the path is too long, or has a control character.
    pub fn attribute(&self) -> Result<Attribute, Invalid> {
        let path: Vec<&str> = self.output.path().iter().copied().chain(self.below_output()).collect();
        Attribute::at(&path)
    }

    /// Its name, whole.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that its document would have, for people: cut, and without control characters.
    pub(super) fn short_name(&self) -> String {
        printable_line(&self.name, 200)
    }
}

impl From<Item> for Vec<String> {
    fn from(Item { output, level, name }: Item) -> Self {
        [Some(output.key().to_owned()), level, Some(name)].into_iter().flatten().collect()
    }
}

impl TryFrom<Vec<String>> for Item {
    type Error = Invalid;
    fn try_from(mut path: Vec<String>) -> Result<Self, Invalid> {
        let unknown = || Invalid::new("an item", &path.join("."), "it has to be an output, a level if any, and a name");
        if !(2..=3).contains(&path.len()) {
            return Err(unknown());
        }
        let name = path.pop().unwrap_or_default();
        let level = if path.len() == 2 { path.pop() } else { None };
        Ok(Self { output: path.swap_remove(0).try_into()?, level, name })
    }
}

/// Its attribute path, or its name where that is no valid attribute. This is for people; the identity is the item itself.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute() {
            Ok(attribute) => write!(f, "{attribute}"),
            Err(_) => write!(f, "{}", self.name.escape_debug()),
        }
    }
}

/// The part of a flake that a failure is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailedPart {
    /// One attribute.
    Item(Item),
    /// An output as a whole: nobody knows which attributes it has.
    Output(FlakeOutput),
}

impl FailedPart {
    /// The document that it would give; none where it is an output, or its name is not valid.
    pub fn document(&self) -> Option<DocumentPath> {
        let Self::Item(item) = self else { return None };
        let folder = match item.output {
            FlakeOutput::Hosts(_) | FlakeOutput::Deployments => Folder::Deployments,
            FlakeOutput::Units => Folder::Units,
            FlakeOutput::Agents => Folder::Agents,
        };
        item.name.parse().ok().map(|name| DocumentPath::new(folder, name))
    }

    /// The name of the unit, where it is an attribute of `clavel.units`.
    pub(super) fn declared_unit(&self) -> Option<&str> {
        match self {
            Self::Item(item) if item.output == FlakeOutput::Units => Some(&item.name),
            Self::Item(_) | Self::Output(_) => None,
        }
    }

    /// The name that its document would have, for people; none where it is an output.
    pub(super) fn short_name(&self) -> String {
        match self {
            Self::Item(item) => item.short_name(),
            Self::Output(_) => String::new(),
        }
    }
}

/// Its attribute path. This is for people.
impl fmt::Display for FailedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(item) => item.fmt(f),
            Self::Output(output) => write!(f, "{}", output.path().join(".")),
        }
    }
}

/// A question about a flake.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question<'a> {
    /// Which items do these outputs have, and what are the values of some? Traces tell both, one after the other.
    Tell {
        /// The outputs whose names are told; none where they are known.
        outputs: &'a [FlakeOutput],
        told: Told<'a>,
        /// The beginning of the traces.
        mark: &'a str,
    },
    /// What is the value of this item? Nix says what is wrong with it.
    One(&'a Item),
}

/// The items whose values are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told<'a> {
    /// All of the outputs but these.
    AllBut(&'a [Item]),
    /// These alone.
    Only(&'a [ItemRun]),
}

/// Some items that are told in the same way, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ItemRun {
    pub(super) items: Vec<Item>,
    pub(super) grain: Grain,
}

/// How many values are told at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// One, by itself. It is told when its evaluation begins.
    Single,
    /// Up to [`MAX_GROUP`], but for one that needs a derivation. It is told when the first of the run begins.
    Group,
}

/// The expression of every question, without the flake and the items. Every answer depends on it.
pub(super) fn template() -> String {
    // Nix shows the lines around a position. Those of the flake's lock can be long.
    format!("({OUTPUTS})\n{}\n", platforms::render())
}

impl Question<'_> {
    /// The most bytes of its answer. A document has at most 64 KiB of metadata, and an agent at most 1,024 names.
    pub(super) fn largest_answer(self) -> usize {
        const OF_ONE: usize = 1 << 20;
        match self {
            // `null`: the traces have their own bound.
            Self::Tell { .. } => 1 << 10,
            Self::One(_) => OF_ONE,
        }
    }

    /// The expression that answers it. `flake` is the expression that calls the flake.
    pub(super) fn expression(self, flake: &str) -> String {
        let of = |item: &Item| {
            let names = [item.output.key()].into_iter().chain(item.below_output());
            format!("[ {} ]", names.map(|name| NixString(name).to_string()).collect::<Vec<_>>().join(" "))
        };
        let list = |items: &[Item]| format!("[ {} ]", items.iter().map(of).collect::<Vec<_>>().join(" "));
        let run = |ItemRun { items, grain }: &ItemRun| {
            format!("{{ together = {}; items = {}; }} ", *grain == Grain::Group, list(items))
        };
        let question = match self {
            Self::Tell { outputs, told, mark } => {
                let keys: Vec<String> = outputs.iter().map(|output| NixString(output.key()).to_string()).collect();
                let (apart, only) = match told {
                    Told::AllBut(apart) => (list(apart), "null".to_owned()),
                    Told::Only(runs) => ("[ ]".to_owned(), format!("[ {} ]", runs.iter().map(run).collect::<String>())),
                };
                let (kinds, mark) = (keys.join(" "), NixString(mark));
                format!(
                    "tell {{ kinds = [ {kinds} ]; apart = {apart}; only = {only}; group = {MAX_GROUP}; mark = {mark}; }}"
                )
            }
            Self::One(item) => format!("one {}", of(item)),
        };
        format!("({} {flake}).{question}", template())
    }
}

/// The names that lead to an item below its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum ItemPath {
    Name([String; 1]),
    Level([String; 2]),
}

/// The names that [`Question::Tell`] tells.
///
/// `others` are the attributes of the `clavel` output that Clavel does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names {
    kinds: BTreeMap<FlakeOutput, Vec<ItemPath>>,
    others: Vec<String>,
    /// The names whose documents may be withdrawn, however many they are.
    #[serde(default)]
    pub(super) withdraw: Vec<Pattern>,
}

impl Names {
    /// The outputs that it is about.
    pub(super) fn outputs(&self) -> Vec<FlakeOutput> {
        self.kinds.keys().copied().collect()
    }

    /// Whether it is about all of `outputs`.
    pub(super) fn are_of(&self, outputs: &[FlakeOutput]) -> bool {
        outputs.iter().all(|output| self.kinds.contains_key(output))
    }

    /// Adds the names of further outputs of the same flake.
    pub(super) fn add(&mut self, other: Self) {
        self.kinds.extend(other.kinds);
    }

    /// All items of `flake`.
    pub(super) fn items(&self, flake: &FlakeReference) -> Result<Vec<Item>, EvaluateError> {
        if let Some(other) = self.others.first() {
            let attribute = other.escape_debug().to_string();
            return Err(EvaluateError::UnknownOutput { flake: flake.to_string(), attribute });
        }
        let item = |output, below: &ItemPath| match below {
            ItemPath::Name([name]) => Item { output, level: None, name: name.clone() },
            ItemPath::Level([level, name]) => Item { output, level: Some(level.clone()), name: name.clone() },
        };
        Ok(self.kinds.iter().flat_map(|(output, all)| all.iter().map(|below| item(*output, below))).collect())
    }
}

/// One value that [`Question::Tell`] tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ItemAnswer {
    /// The item has this value.
    Ok(NixValue),
    /// The item threw. Nix says why when it is asked for this item alone.
    Failed(serde::de::IgnoredAny),
}

/// A store path in a flake, with its derivation and system where they are known. Nix tells the path alone where neither is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FlakeStorePath {
    pub(super) path: StorePath,
    pub(super) drv: Option<StorePath>,
    pub(super) system: Option<System>,
}

impl<'de> Deserialize<'de> for FlakeStorePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Known {
            path: StorePath,
            drv: Option<StorePath>,
            system: Option<System>,
        }

        struct PathVisitor;

        impl<'de> Visitor<'de> for PathVisitor {
            type Value = FlakeStorePath;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a store path")
            }

            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<FlakeStorePath, E> {
                Ok(FlakeStorePath { path: path.parse().map_err(E::custom)?, drv: None, system: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FlakeStorePath, A::Error> {
                let Known { path, drv, system } = Known::deserialize(MapAccessDeserializer::new(map))?;
                Ok(FlakeStorePath { path, drv, system })
            }
        }

        deserializer.deserialize_any(PathVisitor)
    }
}

/// The answer about a host of a platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Host {
    pub(super) nar: FlakeStorePath,
    pub(super) substituters: List<Substituter, 32>,
    pub(super) substituters_public_keys: List<PublicKey, 32>,
    #[serde(default)]
    pub(super) checks: Map<Name, WrittenCheck, MAX_CHECKS>,
    pub(super) mode: Option<ActivationMode>,
    #[serde(default)]
    pub(super) probation: WrittenProbation,
}

/// The answer about `clavel.deployments.NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredDeployment {
    #[serde(default)]
    pub(super) checks: Map<Name, WrittenCheck, MAX_CHECKS>,
    pub(super) mode: Option<ActivationMode>,
    #[serde(default)]
    pub(super) probation: WrittenProbation,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) template: DeclaredTemplate,
    pub(super) unit: Option<Name>,
}

/// The `template` of a declared deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DeclaredTemplate {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(rename = "narId")]
    pub(super) nar_id: Option<FlakeStorePath>,
    pub(super) substituters: Option<List<Substituter, 32>>,
    pub(super) substituters_public_keys: Option<List<PublicKey, 32>>,
}

/// The answer about `clavel.units.NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredUnit {
    pub(super) arch: Option<System>,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(rename = "type")]
    pub(super) unit_type: Option<UnitType>,
}

/// The answer about `clavel.agents.NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredAgent {
    pub(super) deployments: List<Name, 1024>,
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_the_string_it_stands_in() {
        let item = FlakeOutput::Units.item("a.b");
        let question = Question::One(&item).expression("flake");
        assert!(question.ends_with(r#" flake).one [ "units" "a.b" ]"#), "{question}");
        let run = ItemRun { items: vec![item.clone(), item], grain: Grain::Group };
        let question = Question::Tell { outputs: &[], told: Told::Only(&[run]), mark: "m" }.expression("flake");
        let expected = r#" flake).tell { kinds = [  ]; apart = [ ]; only = [ { together = true; items = [ [ "units" "a.b" ] [ "units" "a.b" ] ]; }  ]; group = 256; mark = "m"; }"#;
        assert!(question.ends_with(expected), "{question}");
    }

    #[test]
    fn an_item_has_its_attribute_path_and_comes_back_from_json() {
        let names =
            r#"{ "kinds": { "systemConfigs": [["a.b"], ["x86_64-linux", "web"]], "units": [["u"]] }, "others": [] }"#;
        let names: Names = serde_json::from_str(names).unwrap();
        let items = names.items(&"git+https://git.example.org/fleet".parse().unwrap()).unwrap();
        let json = serde_json::to_string(&items).unwrap();
        assert!(json.contains(r#"["systemConfigs","x86_64-linux","web"]"#), "{json}");
        assert_eq!(serde_json::from_str::<Vec<Item>>(&json).unwrap(), items);
        assert!(serde_json::from_str::<Item>(r#"["units"]"#).is_err());
        let attributes: Vec<String> = items.iter().map(Item::to_string).collect();
        assert_eq!(attributes, ["systemConfigs.\"a.b\"", "systemConfigs.x86_64-linux.web", "clavel.units.u"]);
    }
}
