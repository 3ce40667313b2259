//! What differs between two specifications of one deployment, fact by fact.

use std::fmt;

use serde::Serialize;

use crate::model::DeploymentSpecification;

/// A field of the specification that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactChange {
    /// The field, as the document names it.
    pub field: String,
    /// What it said: one value, or several of a list.
    pub from: Vec<String>,
    /// What it says.
    pub to: Vec<String>,
}

impl fmt::Display for FactChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, from, to } = self;
        let missing = |of: &[String], other: &[String]| -> Vec<String> {
            of.iter().filter(|value| !other.contains(value)).cloned().collect()
        };
        match (&missing(from, to)[..], &missing(to, from)[..]) {
            ([], []) => write!(f, "{field}: in another order"),
            ([from], [to]) => write!(f, "{field}: {from} → {to}"),
            ([], added) => write!(f, "{field}: {} added", added.join(", ")),
            (removed, []) => write!(f, "{field}: {} removed", removed.join(", ")),
            (removed, added) => write!(f, "{field}: {} removed, {} added", removed.join(", "), added.join(", ")),
        }
    }
}

/// The facts in which two specifications differ.
pub fn facts(old: &DeploymentSpecification, new: &DeploymentSpecification) -> Vec<FactChange> {
    let (from, to) = (every(old), every(new));
    let fields = from.iter().chain(to.iter()).map(|(field, _)| field);
    let mut changes: Vec<FactChange> = Vec::new();
    for field in fields {
        let values = |of: &[(String, String)]| -> Vec<String> {
            of.iter().filter(|(name, _)| name == field).map(|(_, value)| value.clone()).collect()
        };
        let change = FactChange { field: field.clone(), from: values(&from), to: values(&to) };
        if change.from != change.to && !changes.contains(&change) {
            changes.push(change);
        }
    }
    changes
}

/// Every fact with its field, as the document names it; a list has one for each of its items.
pub fn every(specification: &DeploymentSpecification) -> Vec<(String, String)> {
    let DeploymentSpecification { template, unit } = specification;
    let mut facts = vec![("unit".to_owned(), unit.to_string()), ("narId".to_owned(), template.nar_id.to_string())];
    facts.extend(template.substituters.iter().map(|cache| ("substituters".to_owned(), cache.to_string())));
    let keys = template.substituters_public_keys.iter();
    facts.extend(keys.map(|key| ("substituters-public-keys".to_owned(), key.to_string())));
    facts.extend(template.metadata.iter().map(|(key, value)| (format!("metadata {key}"), value.to_string())));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specification(path: &str, caches: &[&str]) -> DeploymentSpecification {
        let json = serde_json::json!({ "unit": "web-1", "template": {
            "metadata": {}, "narId": path, "substituters": caches, "substituters-public-keys": [] } });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn only_what_differs_is_told() {
        let (a, b) = ("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-a", "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-b");
        let told = |old: &[&str], new: &[&str]| {
            let facts = facts(&specification(a, old), &specification(b, new));
            facts.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let moved = format!("narId: {a} → {b}");
        assert_eq!(told(&[], &[])[..], [&moved[..]]);
        assert_eq!(told(&["https://x"], &["https://x", "https://y"]), [&moved[..], "substituters: https://y added"]);
        assert_eq!(told(&["https://x", "/y"], &["/y"]), [&moved[..], "substituters: https://x removed"]);
        assert_eq!(told(&["https://x", "/y"], &["/y", "https://x"]), [&moved[..], "substituters: in another order"]);
        assert_eq!(facts(&specification(a, &["/y"]), &specification(a, &["/y"])), []);
    }
}
