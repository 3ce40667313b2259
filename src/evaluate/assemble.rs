//! What follows from what Nix said: which documents a source gives. No I/O.
//!
//! A `nixosConfigurations.web-1` alone gives the deployment, the unit and the agent `web-1`. What the flake's `clavel`
//! output says goes before it, field by field. Substituters and keys come from the deployment, else from the source's
//! configuration, else from the host's own `nix.settings`.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::outputs::{DeclaredAgent, DeclaredDeployment, DeclaredUnit, Item, Nar, NixosHost, Output};
use super::{Failure, Found};
use crate::model::{
    AgentSpecification, DeploymentSpecification, Draft, List, LockedSource, Metadata, Name, NarTemplateSpecification,
    Provenance, Source, StorePath, System, Timestamp, UnitSpecification, UnitType,
};

/// What Nix said of each attribute: its value, or the message of its failure.
pub(super) type Answers = BTreeMap<Item, Result<serde_json::Value, String>>;

/// The documents that follow from `answers`.
pub(super) fn assemble(source: &Source, locked: &LockedSource, now: Timestamp, answers: Answers) -> Found {
    let mut assembly = Assembly { source, locked, now, broken: BTreeSet::new(), found: Found::default() };
    let mut outputs = assembly.read(answers);
    assembly.refuse_twins(&mut outputs);
    let deployments = assembly.deployments(&mut outputs);
    let units = assembly.units(&deployments, &mut outputs);
    assembly.agents(&deployments, &outputs);
    assembly.found.units = units.into_values().collect();
    assembly.found.deployments = deployments.into_values().map(|planned| planned.draft).collect();
    assembly.found.failures.sort();
    assembly.found
}

/// The answers, typed, by name.
#[derive(Default)]
struct Outputs {
    hosts: BTreeMap<Name, NixosHost>,
    deployments: BTreeMap<Name, DeclaredDeployment>,
    units: BTreeMap<Name, DeclaredUnit>,
    agents: BTreeMap<Name, DeclaredAgent>,
}

/// A deployment, and what it says of the unit it is for.
struct Planned {
    draft: Draft<DeploymentSpecification>,
    output: Output,
    system: Option<System>,
}

struct Assembly<'a> {
    source: &'a Source,
    locked: &'a LockedSource,
    now: Timestamp,
    /// Names of deployments that failed, so that whoever names them is not blamed.
    broken: BTreeSet<String>,
    found: Found,
}

impl Assembly<'_> {
    fn fail(&mut self, output: Output, name: &str, error: impl Into<String>) {
        if matches!(output, Output::NixosConfigurations | Output::Deployments) {
            self.broken.insert(name.to_owned());
        }
        let attribute = output.attribute(name).map_or_else(|_| name.escape_debug().to_string(), |a| a.to_string());
        let name = name.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        self.found.failures.push(Failure { name, attribute, error: error.into() });
    }

    fn read(&mut self, answers: Answers) -> Outputs {
        let mut outputs = Outputs::default();
        for (Item { output, name }, answer) in answers {
            let (parsed, value) = match (name.parse::<Name>(), answer) {
                (Ok(parsed), Ok(value)) => (parsed, value),
                (Err(invalid), _) => {
                    self.fail(output, &name, invalid.to_string());
                    continue;
                }
                (_, Err(message)) => {
                    self.fail(output, &name, message);
                    continue;
                }
            };
            let read = match output {
                Output::NixosConfigurations => typed(value).map(|host| drop(outputs.hosts.insert(parsed, host))),
                Output::Deployments => typed(value).map(|d| drop(outputs.deployments.insert(parsed, d))),
                Output::Units => typed(value).map(|unit| drop(outputs.units.insert(parsed, unit))),
                Output::Agents => typed(value).map(|agent| drop(outputs.agents.insert(parsed, agent))),
            };
            if let Err(why) = read {
                self.fail(output, &name, why);
            }
        }
        outputs
    }

    /// Names that differ in case alone would be one file on some machines: none of them is taken.
    fn refuse_twins(&mut self, outputs: &mut Outputs) {
        self.refuse_twins_among(Output::NixosConfigurations, &mut outputs.hosts);
        self.refuse_twins_among(Output::Deployments, &mut outputs.deployments);
        self.refuse_twins_among(Output::Units, &mut outputs.units);
        self.refuse_twins_among(Output::Agents, &mut outputs.agents);
    }

    fn refuse_twins_among<T>(&mut self, output: Output, named: &mut BTreeMap<Name, T>) {
        let mut by_folded: BTreeMap<String, Vec<Name>> = BTreeMap::new();
        for name in named.keys() {
            by_folded.entry(name.folded()).or_default().push(name.clone());
        }
        for twins in by_folded.into_values().filter(|twins| twins.len() > 1) {
            for name in &twins {
                let others: Vec<&str> = twins.iter().filter(|t| *t != name).map(Name::as_str).collect();
                let error =
                    format!("`{name}` differs from `{}` in case alone; rename one of them", others.join("`, `"));
                self.fail(output, name.as_str(), error);
                named.remove(name);
            }
        }
    }

    fn deployments(&mut self, outputs: &mut Outputs) -> BTreeMap<Name, Planned> {
        let names: BTreeSet<Name> = outputs.hosts.keys().chain(outputs.deployments.keys()).cloned().collect();
        let mut planned = BTreeMap::new();
        for name in names {
            let declared = outputs.deployments.remove(&name);
            let host = outputs.hosts.remove(&name);
            // Half of a deployment would be another deployment than the flake's.
            if self.broken.contains(name.as_str()) {
                continue;
            }
            let output = if host.is_some() { Output::NixosConfigurations } else { Output::Deployments };
            match self.deployment(output, &name, declared.unwrap_or_default(), host) {
                Ok(plan) => drop(planned.insert(name, plan)),
                Err(why) => self.fail(output, name.as_str(), why),
            }
        }
        planned
    }

    fn deployment(
        &self,
        output: Output,
        name: &Name,
        declared: DeclaredDeployment,
        host: Option<NixosHost>,
    ) -> Result<Planned, String> {
        let DeclaredDeployment { metadata, template, unit } = declared;
        let (host_nar, host_substituters, host_keys) = match host {
            Some(host) => (Some(host.nar), host.substituters, host.substituters_public_keys),
            None => (None, List::default(), List::default()),
        };
        let Nar { path, drv, system } = template.nar_id.or(host_nar).ok_or_else(|| {
            format!("it has no `template.narId`, and there is no `nixosConfigurations.{name}` to take it from")
        })?;
        if path.is_derivation() {
            return Err(format!("its narId {path} is a derivation's file; name what it makes"));
        }
        let specification = DeploymentSpecification {
            template: NarTemplateSpecification {
                metadata: template.metadata,
                nar_id: path,
                substituters: first_of(template.substituters, &self.source.substituters, host_substituters),
                substituters_public_keys: first_of(
                    template.substituters_public_keys,
                    &self.source.substituters_public_keys,
                    host_keys,
                ),
            },
            unit: unit.unwrap_or_else(|| name.clone()),
        };
        let metadata =
            self.provenance(output, name, drv).and_then(|p| p.add_to(metadata).map_err(|e| e.to_string()))?;
        Ok(Planned { draft: Draft::new(name.clone(), metadata, specification), output, system })
    }

    fn provenance(&self, output: Output, name: &Name, drv_path: Option<StorePath>) -> Result<Provenance, String> {
        Ok(Provenance {
            attribute: output.attribute(name.as_str()).map_err(|e| e.to_string())?,
            drv_path,
            evaluated_at: self.now,
            source: self.locked.flake.clone(),
            source_hash: self.locked.hash,
            source_revision: self.locked.revision.clone(),
        })
    }

    fn units(
        &mut self,
        deployments: &BTreeMap<Name, Planned>,
        outputs: &mut Outputs,
    ) -> BTreeMap<Name, Draft<UnitSpecification>> {
        let mut units = BTreeMap::new();
        let wanted = deployments.values().map(|planned| planned.draft.specification.unit.clone());
        let names: BTreeSet<Name> = wanted.chain(outputs.units.keys().cloned()).collect();
        for name in names {
            let of_it: Vec<&Planned> =
                deployments.values().filter(|planned| planned.draft.specification.unit == name).collect();
            let declared = outputs.units.remove(&name);
            let (output, by) = match (&declared, of_it.first()) {
                (None, Some(first)) => (first.output, &first.draft.name),
                _ => (Output::Units, &name),
            };
            match self.unit(output, &name, by, declared.unwrap_or_default(), &of_it) {
                Ok(unit) => drop(units.insert(name, unit)),
                Err(why) => self.fail(output, by.as_str(), why),
            }
        }
        units
    }

    fn unit(
        &self,
        output: Output,
        name: &Name,
        by: &Name,
        declared: DeclaredUnit,
        deployments: &[&Planned],
    ) -> Result<Draft<UnitSpecification>, String> {
        let is_nixos = deployments.iter().any(|planned| planned.output == Output::NixosConfigurations);
        let unit_type = declared.unit_type.unwrap_or(if is_nixos { UnitType::Nixos } else { UnitType::Command });
        let systems: BTreeSet<&System> = deployments.iter().filter_map(|planned| planned.system.as_ref()).collect();
        let arch = declared.arch.as_ref().or(systems.first().copied()).ok_or_else(|| {
            format!("the arch of the unit `{name}` cannot be told from its deployments; set `clavel.units.{name}.arch`")
        })?;
        if let Some(other) = systems.iter().find(|system| **system != arch) {
            return Err(format!("the unit `{name}` is {arch}, and what is deployed to it is for {other}"));
        }
        let metadata = self.provenance(output, by, None)?.add_to(declared.metadata).map_err(|e| e.to_string())?;
        Ok(Draft::new(name.clone(), metadata, UnitSpecification { arch: arch.clone(), unit_type }))
    }

    fn agents(&mut self, deployments: &BTreeMap<Name, Planned>, outputs: &Outputs) {
        let mut served: BTreeSet<&Name> = BTreeSet::new();
        for (name, declared) in &outputs.agents {
            served.extend(declared.deployments.iter());
            let unknown = |d: &&Name| !deployments.contains_key(*d) && !self.broken.contains(d.as_str());
            let drafted = match declared.deployments.iter().find(unknown) {
                Some(unknown) => Err(format!("it names the deployment `{unknown}`, which the flake does not have")),
                None => self.agent(Output::Agents, name, name, declared.metadata.clone(), declared.deployments.clone()),
            };
            match drafted {
                Ok(agent) => self.found.agents.push(agent),
                Err(why) => self.fail(Output::Agents, name.as_str(), why),
            }
        }
        let mut by_unit: BTreeMap<&Name, Vec<&Planned>> = BTreeMap::new();
        for planned in deployments.values().filter(|planned| !served.contains(&planned.draft.name)) {
            by_unit.entry(&planned.draft.specification.unit).or_default().push(planned);
        }
        for (unit, planned) in by_unit {
            let (output, by) = (planned[0].output, &planned[0].draft.name);
            let names: Vec<Name> = planned.iter().map(|planned| planned.draft.name.clone()).collect();
            let drafted = if outputs.agents.contains_key(unit) {
                Err(format!("`clavel.agents.{unit}` does not name it, and no other agent does: nobody would run it"))
            } else {
                List::try_from(names)
                    .map_err(|e| e.to_string())
                    .and_then(|names| self.agent(output, unit, by, Metadata::default(), names))
            };
            match drafted {
                Ok(agent) => self.found.agents.push(agent),
                Err(why) => self.fail(output, by.as_str(), why),
            }
        }
        self.found.agents.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn agent(
        &self,
        output: Output,
        name: &Name,
        by: &Name,
        metadata: Metadata,
        deployments: List<Name, 1024>,
    ) -> Result<Draft<AgentSpecification>, String> {
        let metadata = self.provenance(output, by, None)?.add_to(metadata).map_err(|e| e.to_string())?;
        Ok(Draft::new(name.clone(), metadata, AgentSpecification { deployments }))
    }
}

fn first_of<T: Clone, const MOST: usize>(
    deployment: Option<List<T, MOST>>,
    source: &List<T, MOST>,
    host: List<T, MOST>,
) -> List<T, MOST> {
    match deployment {
        Some(own) => own,
        None if !source.is_empty() => source.clone(),
        None => host,
    }
}

fn typed<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        place => format!("at `{place}`: {}", error.inner()),
    })
}

#[cfg(test)]
mod tests;
