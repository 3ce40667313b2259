//! The differences between two specifications of one deployment, as a list of facts.

use std::fmt;

use serde::Serialize;

use crate::model::{DeploymentSpecification, Probation};

/// A field of the specification that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct FactChange {
    /// The name of the field in the document.
    pub field: String,
    /// The old value, or the old values of a list.
    pub from: Vec<String>,
    /// The new value, or the new values of a list.
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

/// The facts that differ between two specifications.
pub fn diff_facts(old: &DeploymentSpecification, new: &DeploymentSpecification) -> Vec<FactChange> {
    let (from, to) = (list_facts(old), list_facts(new));
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

/// Every fact of a specification, as the field's name in the document and its value. A list has a fact for each item.
pub fn list_facts(specification: &DeploymentSpecification) -> Vec<(String, String)> {
    let DeploymentSpecification { checks, mode, probation, template, unit } = specification;
    let mut facts = vec![("unit".to_owned(), unit.to_string()), ("narId".to_owned(), template.nar_id.to_string())];
    facts.extend(template.substituters.iter().map(|cache| ("substituters".to_owned(), cache.to_string())));
    let keys = template.substituters_public_keys.iter();
    facts.extend(keys.map(|key| ("substituters-public-keys".to_owned(), key.to_string())));
    facts.extend(mode.map(|mode| ("mode".to_owned(), mode.to_string())));
    facts.extend(checks.iter().map(|(name, check)| (format!("check {name}"), check.to_string())));
    facts.extend(
        probation.iter().flat_map(Probation::facts).map(|(field, value)| (format!("probation {field}"), value)),
    );
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
    fn only_the_fields_that_differ_are_listed() {
        let (a, b) = ("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-a", "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-b");
        let lines = |old: &[&str], new: &[&str]| {
            let facts = diff_facts(&specification(a, old), &specification(b, new));
            facts.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let moved = format!("narId: {a} → {b}");
        assert_eq!(lines(&[], &[])[..], [&moved[..]]);
        assert_eq!(lines(&["https://x"], &["https://x", "https://y"]), [&moved[..], "substituters: https://y added"]);
        assert_eq!(lines(&["https://x", "/y"], &["/y"]), [&moved[..], "substituters: https://x removed"]);
        assert_eq!(lines(&["https://x", "/y"], &["/y", "https://x"]), [&moved[..], "substituters: in another order"]);
        assert_eq!(diff_facts(&specification(a, &["/y"]), &specification(a, &["/y"])), []);
    }
}
