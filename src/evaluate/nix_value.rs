//! A value that Nix gave, as the text of its JSON. No I/O.
//!
//! Thousands of them are held at once, and most are only compared: the text has a fifth of the size of a parsed tree.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::model::StorePath;

/// A value, as JSON.
#[derive(Debug, Clone)]
pub(super) struct NixValue(Arc<RawValue>);

/// The derivation in the value of a host or of a declared deployment.
#[derive(Default, Deserialize)]
struct Derived {
    nar: Option<Value>,
    template: Option<DerivedTemplate>,
}

#[derive(Deserialize)]
struct DerivedTemplate {
    #[serde(rename = "narId")]
    nar_id: Option<Value>,
}

impl NixValue {
    /// The value as `T`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.text())
    }

    /// The JSON.
    pub(super) fn text(&self) -> &str {
        self.0.get()
    }

    /// The derivation in the value of a host or of a declared deployment, if there is one.
    pub(super) fn derivation(&self) -> Option<StorePath> {
        if !self.text().contains(".drv") {
            return None;
        }
        let Derived { nar, template } = self.read().unwrap_or_default();
        let nar = nar.or_else(|| template?.nar_id)?;
        nar.get("drv")?.as_str()?.parse().ok()
    }
}

/// Nix writes the same value as the same text, but for how it writes some characters in different places.
impl PartialEq for NixValue {
    fn eq(&self, other: &Self) -> bool {
        let value = |of: &Self| of.read::<Value>().ok();
        self.text() == other.text() || value(self) == value(other)
    }
}

impl Serialize for NixValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NixValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The value that `json` is.
    pub(in crate::evaluate) fn nix_value(json: &Value) -> NixValue {
        serde_json::from_str(&json.to_string()).unwrap()
    }

    #[test]
    fn the_derivation_is_that_of_what_is_deployed() {
        let path = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x.drv";
        let drv = |json: Value| nix_value(&json).derivation().map(|path| path.to_string());
        let nar = serde_json::json!({ "path": "/x", "drv": path });
        assert_eq!(drv(serde_json::json!({ "nar": nar })), Some(path.to_owned()));
        assert_eq!(drv(serde_json::json!({ "template": { "narId": nar } })), Some(path.to_owned()));
        assert_eq!(
            drv(serde_json::json!({ "template": { "narId": { "drv": null } }, "metadata": { "x": ".drv" } })),
            None
        );
        assert_eq!(drv(serde_json::json!({ "deployments": [".drv"] })), None);
    }

    #[test]
    fn the_same_value_in_other_words_is_equal() {
        let value = |text: &str| serde_json::from_str::<NixValue>(text).unwrap();
        assert_eq!(value(r#"{"a":"\u00e9"}"#), value("{\"a\": \"é\"}"));
        assert_ne!(value(r#"{"a":1}"#), value(r#"{"a":2}"#));
    }
}
