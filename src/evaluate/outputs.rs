//! The questions to Nix, and the answers as types.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::run::EvaluateError;
use crate::model::{
    Attribute, FlakeReference, Invalid, List, Metadata, Name, PublicKey, StorePath, Substituter, System, UnitType,
};

/// The functions that are evaluated, in Nix's language.
const OUTPUTS: &str = include_str!("outputs.nix");

/// The outputs that documents come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Output {
    /// `nixosConfigurations.NAME`
    NixosConfigurations,
    /// `clavel.deployments.NAME`
    Deployments,
    /// `clavel.units.NAME`
    Units,
    /// `clavel.agents.NAME`
    Agents,
}

impl Output {
    /// The word for it in `outputs.nix`.
    fn key(self) -> &'static str {
        match self {
            Self::NixosConfigurations => "nixosConfigurations",
            Self::Deployments => "deployments",
            Self::Units => "units",
            Self::Agents => "agents",
        }
    }

    /// The attribute of the flake that holds `name`.
    pub(super) fn attribute(self, name: &str) -> Result<Attribute, Invalid> {
        match self {
            Self::NixosConfigurations => Attribute::at(&["nixosConfigurations", name]),
            Self::Deployments | Self::Units | Self::Agents => Attribute::at(&["clavel", self.key(), name]),
        }
    }
}

/// Something that a flake has under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Item {
    pub(super) output: Output,
    pub(super) name: String,
}

impl Item {
    /// The attribute of the flake that it is.
    pub(super) fn attribute(&self) -> Result<Attribute, Invalid> {
        self.output.attribute(&self.name)
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
    /// Some of them, as nix-eval-jobs takes them.
    Jobs(&'a [&'a Item]),
}

/// What is asked, apart from the flake and the names: an answer depends on it.
pub(super) fn template() -> &'static str {
    OUTPUTS
}

impl Question<'_> {
    /// The expression that answers it for the flake that the expression `flake` calls.
    pub(super) fn expression(self, flake: &str) -> String {
        let of = |item: &Item| format!("{} {}", NixString(item.output.key()), NixString(&item.name));
        let list = |items: &[&Item]| {
            let items: Vec<String> = items.iter().map(|item| format!("[ {} ]", of(item))).collect();
            format!("[ {} ]", items.join(" "))
        };
        let question = match self {
            Self::Names => "names".to_owned(),
            Self::Some(items) => format!("some {}", list(items)),
            Self::Jobs(items) => format!("jobs {}", list(items)),
            Self::One(item) => format!("one {}", of(item)),
        };
        format!("(({OUTPUTS}) {flake}).{question}")
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

/// The answer to [`Question::Names`].
#[derive(Debug, Deserialize)]
pub(super) struct Names {
    pub(super) kinds: BTreeMap<Output, Vec<String>>,
    pub(super) others: Vec<String>,
}

impl Names {
    /// All that `flake` has.
    pub(super) fn items(self, flake: &FlakeReference) -> Result<Vec<Item>, EvaluateError> {
        if let Some(other) = self.others.first() {
            let attribute = other.escape_debug().to_string();
            return Err(EvaluateError::UnknownOutput { flake: flake.to_string(), attribute });
        }
        let of = |(output, names): (Output, Vec<String>)| names.into_iter().map(move |name| Item { output, name });
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

/// A store path that a flake names, and what is known of where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Nar {
    pub(super) path: StorePath,
    pub(super) drv: Option<StorePath>,
    pub(super) system: Option<System>,
}

/// What a NixOS host says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct NixosHost {
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
        let item = Item { output: Output::Units, name: "a.b".to_owned() };
        let question = Question::One(&item).expression("flake");
        assert!(question.ends_with(r#") flake).one "units" "a.b""#), "{question}");
        let question = Question::Some(&[&item, &item]).expression("flake");
        assert!(question.ends_with(r#") flake).some [ [ "units" "a.b" ] [ "units" "a.b" ] ]"#), "{question}");
    }
}
