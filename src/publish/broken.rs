//! The documents that a broken part of a source touches. No I/O.
//!
//! They stay on the branch as they are, all of them together: the document that the part gave, those of the same name, and what needs
//! them or is needed by them.

use std::collections::BTreeSet;

use super::branch_state::{BranchState, Existing};
use super::withheld::Withheld;
use crate::evaluate::{Evaluation, FailedPart, Failure, FlakeOutput};
use crate::model::{Attribute, FlakeReference, Name, Provenance, Specification};

/// The broken parts of one source, to be looked up.
#[derive(Debug, Default)]
pub(super) struct BrokenParts {
    names: BTreeSet<String>,
    attributes: BTreeSet<String>,
    /// The outputs that are broken as a whole.
    outputs: Vec<FlakeOutput>,
}

impl BrokenParts {
    pub(super) fn of(failures: &[Failure]) -> Self {
        let mut parts = Self::default();
        for Failure { part, .. } in failures {
            match part {
                FailedPart::Item(item) => {
                    parts.names.insert(item.name().to_owned());
                    parts.attributes.extend(item.attribute().ok().map(|attribute| attribute.to_string()));
                }
                FailedPart::Output(output) => parts.outputs.push(*output),
            }
        }
        parts
    }

    /// Whether one of them may have given this document. Its absence then means nothing.
    pub(super) fn may_give(&self, name: &Name, attribute: &Attribute) -> bool {
        self.names.contains(name.as_str())
            || self.attributes.contains(attribute.as_str())
            || self.outputs.iter().any(|output| output.has(attribute))
    }
}

/// The documents that the failures of `evaluations` touch.
pub(super) fn touched_by_failures(branch: &BranchState, evaluations: &[Evaluation]) -> Withheld {
    let mut stays = Withheld::default();
    for Evaluation { source, drafts, .. } in evaluations.iter().filter(|e| !e.drafts.failures.is_empty()) {
        let parts = BrokenParts::of(&drafts.failures);
        stays.deployments.extend(given_by(&parts, &source.flake, &branch.deployments));
        stays.units.extend(given_by(&parts, &source.flake, &branch.units));
        stays.agents.extend(given_by(&parts, &source.flake, &branch.agents));
        for path in drafts.failures.iter().filter_map(|failure| failure.part.document()) {
            stays.insert(&path);
        }
    }
    if stays.is_empty() {
        return stays;
    }
    for (name, document) in &branch.deployments {
        if document.known().is_some_and(|known| stays.units.contains(&known.specification.unit)) {
            stays.deployments.insert(name.clone());
        }
    }
    for agent in stays.agents.iter().filter_map(|name| branch.agents.get(name)?.known()) {
        stays.deployments.extend(agent.specification.deployments.iter().cloned());
    }
    stays
}

/// The documents that came from the source, and that a broken part of it may have given.
fn given_by<S: Specification>(parts: &BrokenParts, source: &FlakeReference, existing: &Existing<S>) -> Vec<Name> {
    let is_touched = |name: &Name, provenance: &Provenance| {
        provenance.source == *source && parts.may_give(name, &provenance.attribute)
    };
    let touched = existing.iter().filter(|(name, document)| {
        document.known().and_then(|known| known.provenance()).is_some_and(|own| is_touched(name, own))
    });
    touched.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{branch_with, draft, evaluation, intact, list};
    use super::*;
    use crate::evaluate::{Drafts, Item};
    use crate::model::{
        AgentSpecification, DeploymentSpecification, NarTemplateSpecification, TemplateMetadata, UnitSpecification,
        UnitType,
    };

    /// A branch of two hosts on a unit each, where the agent `g` takes both.
    fn branch() -> BranchState {
        let deployment = |of: &str| {
            let template = NarTemplateSpecification {
                metadata: TemplateMetadata::default(),
                nar_id: "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x".parse().unwrap(),
                substituters: list(&[]),
                substituters_public_keys: list(&[]),
            };
            (draft("a", of, DeploymentSpecification::new(format!("on-{of}").parse().unwrap(), template)), 1)
        };
        let unit = |of: &str| {
            let specification = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type: UnitType::Nixos };
            (draft("a", of, specification), 1)
        };
        let agent = draft("a", "g", AgentSpecification { deployments: list(&["x", "y"]) });
        BranchState {
            deployments: intact([deployment("x"), deployment("y")]),
            units: intact([unit("on-x"), unit("on-y")]),
            agents: intact([(agent, 1)]),
            ..branch_with(&[])
        }
    }

    fn touched(path: &[&str]) -> Vec<String> {
        let item = Item::try_from(path.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let failures = vec![Failure { part: FailedPart::Item(item), error: "error: no".to_owned() }];
        let Withheld { deployments, units, agents, .. } =
            touched_by_failures(&branch(), &[evaluation("a", Drafts { failures, ..Drafts::default() })]);
        let mut names = Vec::new();
        for (kind, of) in [("deployment", deployments), ("unit", units), ("agent", agents)] {
            names.extend(of.iter().map(|name| format!("{kind} {name}")));
        }
        names
    }

    #[test]
    fn a_broken_part_keeps_what_needs_it() {
        assert_eq!(touched(&["nixosConfigurations", "x"]), ["deployment x"]);
        assert_eq!(touched(&["units", "on-y"]), ["deployment y", "unit on-y"]);
        assert_eq!(touched(&["agents", "g"]), ["deployment x", "deployment y", "agent g"]);
        // One that is not on the branch may be what others wait for.
        assert_eq!(touched(&["nixosConfigurations", "new"]), ["deployment new"]);
        assert_eq!(touched(&["agents", "new"]), ["agent new"]);
    }
}
