//! The questions to Nix, and the answers as types.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::platforms::{self, PLATFORMS, Platform};
use super::run::EvaluateError;
use crate::model::{
    Attribute, FlakeReference, Invalid, List, Metadata, Name, PublicKey, StorePath, Substituter, System, UnitType,
};

/// The functions that are evaluated, in Nix's language.
const OUTPUTS: &str = include_str!("outputs.nix");

/// The outputs that documents come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Output {
    /// The hosts of a platform.
    Hosts(&'static Platform),
    /// `clavel.deployments.NAME`
    Deployments,
    /// `clavel.units.NAME`
    Units,
    /// `clavel.agents.NAME`
    Agents,
}

impl Output {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        PLATFORMS.iter().map(Self::Hosts).chain([Self::Deployments, Self::Units, Self::Agents])
    }

    /// The word for it in `outputs.nix`.
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

    /// What is called `name` directly below it.
    pub(super) fn item(self, name: &str) -> Item {
        Item { output: self, level: None, name: name.to_owned() }
    }
}

impl TryFrom<String> for Output {
    type Error = Invalid;
    fn try_from(key: String) -> Result<Self, Invalid> {
        let unknown = || Invalid::new("a kind of output", &key, "none is called so");
        Self::all().find(|output| output.key() == key).ok_or_else(unknown)
    }
}

/// Something that a flake has under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Item {
    pub(super) output: Output,
    /// The system it stands below, where its output has such levels and it does.
    pub(super) level: Option<String>,
    pub(super) name: String,
}

impl Item {
    /// What leads to it below its output.
    pub(super) fn below_output(&self) -> impl Iterator<Item = &str> {
        self.level.as_deref().into_iter().chain([self.name.as_str()])
    }

    /// The attribute of the flake that it is.
    pub(super) fn attribute(&self) -> Result<Attribute, Invalid> {
        let path: Vec<&str> = self.output.path().iter().copied().chain(self.below_output()).collect();
        Attribute::at(&path)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute() {
            Ok(attribute) => write!(f, "{attribute}"),
            Err(_) => write!(f, "{}", self.name.escape_debug()),
        }
    }
}

/// A question to Nix about a flake.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question<'a> {
    /// Which names there are.
    Names,
    /// Some of them, each guarded.
    Some(&'a [&'a Item]),
    /// One of them.
    One(&'a Item),
}

/// What is asked, apart from the flake and the names: an answer depends on it.
pub(super) fn template() -> String {
    format!("({OUTPUTS}) {}", platforms::rendered())
}

impl Question<'_> {
    /// The most bytes that its answer may have. A document has 64 KiB of metadata at most, and an agent 1,024 names.
    pub(super) fn largest_answer(self) -> usize {
        const OF_ONE: usize = 1 << 20;
        match self {
            // Names of 128 bytes for each of a hundred thousand.
            Self::Names => 16 << 20,
            Self::One(_) => OF_ONE,
            Self::Some(items) => items.len() * OF_ONE,
        }
    }

    /// The expression that answers it for the flake that the expression `flake` calls.
    pub(super) fn expression(self, flake: &str) -> String {
        let of = |item: &Item| {
            let names = [item.output.key()].into_iter().chain(item.below_output());
            format!("[ {} ]", names.map(|name| NixString(name).to_string()).collect::<Vec<_>>().join(" "))
        };
        let list = |items: &[&Item]| {
            let items: Vec<String> = items.iter().map(|item| of(item)).collect();
            format!("[ {} ]", items.join(" "))
        };
        let question = match self {
            Self::Names => "names".to_owned(),
            Self::Some(items) => format!("some {}", list(items)),
            Self::One(item) => format!("one {}", of(item)),
        };
        format!("({} {flake}).{question}", template())
    }
}

/// Text as a string of Nix's language (Nix's manual, "String literal").
pub(super) struct NixString<'a>(pub(super) &'a str);

impl fmt::Display for NixString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = self.0.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
        write!(f, "\"{escaped}\"")
    }
}

/// What leads to an item below its output.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Below {
    Name([String; 1]),
    Level([String; 2]),
}

/// The answer to [`Question::Names`].
#[derive(Debug, Deserialize)]
pub(super) struct Names {
    kinds: BTreeMap<Output, Vec<Below>>,
    others: Vec<String>,
}

impl Names {
    /// All that `flake` has.
    pub(super) fn items(self, flake: &FlakeReference) -> Result<Vec<Item>, EvaluateError> {
        if let Some(other) = self.others.first() {
            let attribute = other.escape_debug().to_string();
            return Err(EvaluateError::UnknownOutput { flake: flake.to_string(), attribute });
        }
        let item = |output, below| match below {
            Below::Name([name]) => Item { output, level: None, name },
            Below::Level([level, name]) => Item { output, level: Some(level), name },
        };
        let of = |(output, all): (Output, Vec<Below>)| all.into_iter().map(move |below| item(output, below));
        Ok(self.kinds.into_iter().flat_map(of).collect())
    }
}

/// One value of the answer to [`Question::Some`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Guarded {
    /// It evaluated to this.
    Ok(serde_json::Value),
    /// It threw, and Nix will say what when it is asked for it alone.
    Failed(serde::de::IgnoredAny),
}

/// The derivation that an answer names, if any: that of a platform's host, or of a declared deployment.
pub(super) fn derivation(answer: &serde_json::Value) -> Option<StorePath> {
    let nar = answer.get("nar").or_else(|| answer.pointer("/template/narId"))?;
    nar.get("drv")?.as_str()?.parse().ok()
}

/// A store path that a flake names, and what is known of where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Nar {
    pub(super) path: StorePath,
    pub(super) drv: Option<StorePath>,
    pub(super) system: Option<System>,
}

/// What a platform's host says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Host {
    pub(super) nar: Nar,
    pub(super) substituters: List<Substituter, 32>,
    pub(super) substituters_public_keys: List<PublicKey, 32>,
}

/// `clavel.deployments.NAME` as it may be written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredDeployment {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) template: DeclaredTemplate,
    pub(super) unit: Option<Name>,
}

/// Its `template`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DeclaredTemplate {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(rename = "narId")]
    pub(super) nar_id: Option<Nar>,
    pub(super) substituters: Option<List<Substituter, 32>>,
    pub(super) substituters_public_keys: Option<List<PublicKey, 32>>,
}

/// `clavel.units.NAME` as it may be written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredUnit {
    pub(super) arch: Option<System>,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(rename = "type")]
    pub(super) unit_type: Option<UnitType>,
}

/// `clavel.agents.NAME` as it may be written.
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
    fn names_cannot_leave_their_string() {
        assert_eq!(NixString(r#"a"${b}\"#).to_string(), r#""a\"\${b}\\""#);
        let item = Output::Units.item("a.b");
        let question = Question::One(&item).expression("flake");
        assert!(question.ends_with(r#" flake).one [ "units" "a.b" ]"#), "{question}");
        let question = Question::Some(&[&item, &item]).expression("flake");
        assert!(question.ends_with(r#" flake).some [ [ "units" "a.b" ] [ "units" "a.b" ] ]"#), "{question}");
    }

    #[test]
    fn an_item_is_where_the_flake_has_it() {
        let names =
            r#"{ "kinds": { "systemConfigs": [["a.b"], ["x86_64-linux", "web"]], "units": [["u"]] }, "others": [] }"#;
        let names: Names = serde_json::from_str(names).unwrap();
        let items = names.items(&"git+https://git.example.org/fleet".parse().unwrap()).unwrap();
        let told: Vec<String> = items.iter().map(Item::to_string).collect();
        assert_eq!(told, ["systemConfigs.\"a.b\"", "systemConfigs.x86_64-linux.web", "clavel.units.u"]);
    }
}
