//! Assembles the drafts of a source from the answers of Nix. No I/O.
//!
//! A `nixosConfigurations.web-1` alone gives the deployment, the unit and the agent `web-1`, and so does a host of any
//! other platform. The flake's `clavel` output overrides single fields. Substituters and keys come from the deployment,
//! else from the source's configuration, else from the host's own `nix.settings`.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::evaluation::{Drafts, Failure};
use super::nix_value::NixValue;
use super::outputs::{
    DeclaredAgent, DeclaredDeployment, DeclaredUnit, FailedPart, FlakeOutput, FlakeStorePath, Host, Item,
};
use super::platforms::PLATFORMS;
use crate::model::{
    AgentSpecification, Checks, DeploymentSpecification, DocumentMetadata, Draft, Invalid, List, LockedSource,
    MAX_CHECKS, Map, Metadata, Name, NarTemplateSpecification, Probation, SharedProvenance, Source, Specification,
    StorePath, System, TemplateMetadata, Timestamp, UnitSpecification, UnitType, WrittenCheck, describe_error,
};
use crate::parallel::in_parts;

/// The answer about each item: its value, or the message of its failure.
pub(super) type ItemAnswers = BTreeMap<Item, Result<NixValue, String>>;

/// Assembles drafts from `answers`. The deployments `excluded` were not evaluated.
pub(super) fn assemble(
    source: &Source,
    locked: &LockedSource,
    now: Timestamp,
    excluded: &BTreeSet<String>,
    mut answers: ItemAnswers,
) -> Drafts {
    let provenance = SharedProvenance::new(now, &locked.flake, &locked.hash, locked.revision.as_ref());
    let provenance = provenance.map_err(|error| error.to_string());
    let mut assembly = Assembly { source, provenance, excluded, broken: BTreeSet::new(), drafts: Drafts::default() };
    assembly.refuse_twins(&mut answers);
    let mut outputs = assembly.parse(answers);
    let mut deployments = assembly.deployments(&mut outputs);
    let declared_units: BTreeSet<Name> = outputs.units.keys().cloned().collect();
    let mut units = assembly.units(&mut deployments, &mut outputs);
    assembly.agents(&mut deployments, &outputs);
    // A unit that nobody declared goes with the last deployment to it.
    let used: BTreeSet<&Name> = deployments.values().map(|planned| &planned.draft.specification.unit).collect();
    units.retain(|name, _| declared_units.contains(name) || used.contains(name));
    assembly.drafts.units = units.into_values().collect();
    assembly.drafts.deployments = deployments.into_values().map(|planned| planned.draft).collect();
    let in_order = |Failure { part, error }: &Failure| (part.short_name(), part.to_string(), error.clone());
    assembly.drafts.failures.sort_by_cached_key(in_order);
    assembly.drafts
}

/// The parsed answers by name.
#[derive(Default)]
struct ParsedOutputs {
    hosts: BTreeMap<Name, (Item, Host)>,
    deployments: BTreeMap<Name, DeclaredDeployment>,
    units: BTreeMap<Name, DeclaredUnit>,
    agents: BTreeMap<Name, DeclaredAgent>,
}

/// Some parsed answers, each kind in the order of the names, and those that cannot be parsed.
#[derive(Default)]
struct ParsedPart {
    hosts: Vec<(Name, (Item, Host))>,
    deployments: Vec<(Name, DeclaredDeployment)>,
    units: Vec<(Name, DeclaredUnit)>,
    agents: Vec<(Name, DeclaredAgent)>,
    failures: Vec<(Item, String)>,
}

impl ParsedPart {
    fn new(answers: &[(Item, Result<NixValue, String>)]) -> Self {
        let mut part = Self::default();
        for (item, answer) in answers {
            if let Err(why) = part.add(item, answer) {
                part.failures.push((item.clone(), why));
            }
        }
        part
    }

    fn add(&mut self, item: &Item, answer: &Result<NixValue, String>) -> Result<(), String> {
        let name: Name = item.name.parse().map_err(|invalid: Invalid| invalid.to_string())?;
        let value = answer.as_ref().map_err(Clone::clone)?;
        match item.output {
            FlakeOutput::Hosts(_) => self.hosts.push((name, (item.clone(), parsed(value)?))),
            FlakeOutput::Deployments => self.deployments.push((name, parsed(value)?)),
            FlakeOutput::Units => self.units.push((name, parsed(value)?)),
            FlakeOutput::Agents => self.agents.push((name, parsed(value)?)),
        }
        Ok(())
    }
}

/// A drafted deployment, with the item it comes from and the system it is built for.
struct DraftedDeployment {
    draft: Draft<DeploymentSpecification>,
    item: Item,
    system: Option<System>,
}

struct Assembly<'a> {
    source: &'a Source,
    /// The part of the provenance that all drafts have in common.
    provenance: Result<SharedProvenance, String>,
    excluded: &'a BTreeSet<String>,
    /// The names of deployments that failed. An agent that names one of them is not at fault.
    broken: BTreeSet<String>,
    drafts: Drafts,
}

impl Assembly<'_> {
    fn fail(&mut self, item: &Item, error: impl Into<String>) {
        if matches!(item.output, FlakeOutput::Hosts(_) | FlakeOutput::Deployments) {
            self.broken.insert(item.name.clone());
        }
        self.drafts.failures.push(Failure { part: FailedPart::Item(item.clone()), error: error.into() });
    }

    /// Takes out the deployments that need a broken unit or agent: without it, nobody could run them.
    fn fail_with(
        &mut self,
        names: &[Name],
        deployments: &mut BTreeMap<Name, DraftedDeployment>,
        part: &Item,
        why: &str,
    ) {
        for planned in names.iter().filter_map(|name| deployments.remove(name)) {
            // The failure of the part itself is told already.
            if planned.item == *part {
                self.broken.insert(planned.draft.name.to_string());
            } else {
                self.fail(&planned.item, why);
            }
        }
    }

    fn parse(&mut self, answers: ItemAnswers) -> ParsedOutputs {
        let answers: Vec<(Item, Result<NixValue, String>)> = answers.into_iter().collect();
        let mut all = ParsedPart::default();
        for mut part in in_parts(&answers, ParsedPart::new) {
            all.hosts.append(&mut part.hosts);
            all.deployments.append(&mut part.deployments);
            all.units.append(&mut part.units);
            all.agents.append(&mut part.agents);
            all.failures.append(&mut part.failures);
        }
        for (item, why) in all.failures {
            self.fail(&item, why);
        }
        // A map of what is in order is made at once.
        ParsedOutputs {
            hosts: all.hosts.into_iter().collect(),
            deployments: all.deployments.into_iter().collect(),
            units: all.units.into_iter().collect(),
            agents: all.agents.into_iter().collect(),
        }
    }

    /// Refuses hosts with the same name, which would be one deployment, and names that differ in case alone, which would
    /// be one file on some machines. None of them becomes a document.
    fn refuse_twins(&mut self, answers: &mut ItemAnswers) {
        let has_capital = |item: &Item| item.name.bytes().any(|byte| byte.is_ascii_uppercase());
        let has_capitals = answers.keys().any(has_capital);
        // Within one output, names differ in case alone, and only where there are capitals.
        let may_be_twin = |item: &&Item| has_capitals || matches!(item.output, FlakeOutput::Hosts(_));
        let mut by_name: Vec<(NameScope, String, &Item)> = (answers.keys().filter(may_be_twin))
            .map(|item| (NameScope::of(item.output), item.name.to_ascii_lowercase(), item))
            .collect();
        by_name.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let of_one_name = by_name.chunk_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1)).filter(|items| items.len() > 1);
        let twins: Vec<Vec<Item>> =
            of_one_name.map(|items| items.iter().map(|(.., item)| (*item).clone()).collect()).collect();
        for twins in twins {
            for item in &twins {
                answers.remove(item);
                let others = twins.iter().filter(|other| *other != item);
                let Some(other) = others.min_by_key(|other| other.name != item.name) else { continue };
                let why = if other.name == item.name {
                    format!("`{item}` and `{other}` would both be the deployment `{}`", item.name)
                } else {
                    format!("the name of `{item}` differs from that of `{other}` in case alone")
                };
                self.fail(item, format!("{why}; rename one of them"));
            }
        }
    }

    fn deployments(&mut self, outputs: &mut ParsedOutputs) -> BTreeMap<Name, DraftedDeployment> {
        let mut declared = std::mem::take(&mut outputs.deployments);
        let of_hosts = std::mem::take(&mut outputs.hosts).into_iter().map(|(name, (item, host))| {
            let refined = declared.remove(&name).unwrap_or_default();
            (name, item, refined, Some(host))
        });
        let mut all: Vec<_> = of_hosts.collect();
        all.extend(declared.into_iter().map(|(name, declared)| {
            let item = FlakeOutput::Deployments.item(name.as_str());
            (name, item, declared, None)
        }));
        let mut planned = Vec::new();
        for (name, item, declared, host) in all {
            // A deployment with a broken part would not be the one that the flake describes.
            if self.broken.contains(name.as_str()) {
                continue;
            }
            match self.deployment(&item, &name, declared, host) {
                Ok(plan) => planned.push((name, plan)),
                Err(why) => self.fail(&item, why),
            }
        }
        planned.into_iter().collect()
    }

    fn deployment(
        &self,
        item: &Item,
        name: &Name,
        declared: DeclaredDeployment,
        host: Option<Host>,
    ) -> Result<DraftedDeployment, String> {
        let DeclaredDeployment { checks, metadata, mode, probation, template, unit } = declared;
        let (host_nar, host_substituters, host_keys, host_checks, host_mode, host_probation) = match host {
            Some(Host { nar, substituters, substituters_public_keys, checks, mode, probation }) => {
                (Some(nar), substituters, substituters_public_keys, checks, mode, probation)
            }
            None => Default::default(),
        };
        let checks = all_checks(&checks, &host_checks).map_err(|error| error.to_string())?;
        let of = |written| Probation::try_from(written).map_err(|invalid: Invalid| invalid.to_string());
        let probation = of(probation)?.or(&of(host_probation)?);
        let FlakeStorePath { path, drv, system } = template.nar_id.or(host_nar).ok_or_else(|| {
            let outputs: Vec<&str> = PLATFORMS.iter().map(|platform| platform.output).collect();
            format!("it has no `template.narId`, and none of {} has `{name}`", outputs.join(", "))
        })?;
        if path.is_derivation() {
            return Err(format!(
                "its narId {path} is the file of a derivation; name the output of the derivation instead"
            ));
        }
        let template_metadata =
            TemplateMetadata::without_pin(template.metadata).map_err(|error| describe_error(&error))?;
        let specification = DeploymentSpecification {
            checks,
            mode: mode.or(host_mode),
            probation: Some(probation).filter(|probation| *probation != Probation::default()),
            template: NarTemplateSpecification {
                metadata: template_metadata,
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
        let draft = self.draft(item, drv.as_ref(), name, metadata, specification)?;
        Ok(DraftedDeployment { draft, item: item.clone(), system })
    }

    /// A draft that came from `item`, with the metadata that the flake gives.
    fn draft<S: Specification>(
        &self,
        item: &Item,
        drv_path: Option<&StorePath>,
        name: &Name,
        metadata: Metadata,
        specification: S,
    ) -> Result<Draft<S>, String> {
        let attribute = item.attribute().map_err(|e| e.to_string())?;
        let shared = self.provenance.as_ref().map_err(Clone::clone)?;
        let metadata = DocumentMetadata::with_shared_provenance(metadata, shared, &attribute, drv_path);
        let metadata = metadata.map_err(|error| describe_error(&error))?;
        Ok(Draft::new(name.clone(), metadata, specification))
    }

    fn units(
        &mut self,
        deployments: &mut BTreeMap<Name, DraftedDeployment>,
        outputs: &mut ParsedOutputs,
    ) -> BTreeMap<Name, Draft<UnitSpecification>> {
        let mut units = Vec::new();
        let mut used: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
        for planned in deployments.values() {
            used.entry(planned.draft.specification.unit.clone()).or_default().push(planned.draft.name.clone());
        }
        let broken = self.drafts.failures.iter().filter_map(|failure| failure.part.declared_unit());
        let broken: BTreeSet<Name> = broken.filter_map(|name| name.parse().ok()).collect();
        let declared: BTreeSet<Name> = outputs.units.keys().chain(&broken).cloned().collect();
        // Nobody knows to which unit a broken deployment would be deployed.
        let is_stray = |unit: &&Name| !used.contains_key(*unit) && !self.broken.contains(unit.as_str());
        let stray = declared.iter().find(is_stray).filter(|_| self.source.selects_all()).cloned();
        // A unit without a deployment belongs to the part of the flake that this source leaves out.
        let alone = declared.into_iter().filter(|unit| self.source.selects_all() && !broken.contains(unit));
        for unit in alone {
            used.entry(unit).or_default();
        }
        for (name, to_it) in used {
            let deployed: Vec<&DraftedDeployment> = to_it.iter().filter_map(|name| deployments.get(name)).collect();
            let declared = outputs.units.remove(&name);
            let item = match (&declared, deployed.first()) {
                (None, Some(first)) if !broken.contains(&name) => first.item.clone(),
                _ => FlakeOutput::Units.item(name.as_str()),
            };
            let drafted = if broken.contains(&name) {
                // Nix said already what is wrong with the declaration, so its type and arch are not known.
                None
            } else {
                match self.unit(&item, &name, declared.unwrap_or_default(), &deployed, stray.as_ref()) {
                    Ok(unit) => Some(unit),
                    Err(why) => {
                        self.fail(&item, why);
                        None
                    }
                }
            };
            match drafted {
                Some(unit) => units.push((name, unit)),
                None => self.fail_with(&to_it, deployments, &item, &format!("its unit `{name}` is broken")),
            }
        }
        units.into_iter().collect()
    }

    fn unit(
        &self,
        item: &Item,
        name: &Name,
        declared: DeclaredUnit,
        deployments: &[&DraftedDeployment],
        stray: Option<&Name>,
    ) -> Result<Draft<UnitSpecification>, String> {
        let unit_type = declared.unit_type.map_or_else(|| implied_type(name, deployments, stray), Ok)?;
        let systems: BTreeSet<&System> = deployments.iter().filter_map(|planned| planned.system.as_ref()).collect();
        let arch = declared.arch.as_ref().or(systems.first().copied()).ok_or_else(|| {
            format!(
                "the arch of the unit `{name}` does not follow from its deployments; set `clavel.units.{name}.arch`"
            )
        })?;
        if let Some(other) = systems.iter().find(|system| **system != arch) {
            return Err(format!("the unit `{name}` is {arch}, and what is deployed to it is for {other}"));
        }
        if !unit_type.is_for(arch) {
            return Err(format!("the unit `{name}` is of type {unit_type}, which a machine of arch {arch} cannot be"));
        }
        if let Some(planned) = deployments.iter().find(|planned| planned.draft.specification.mode.is_some())
            && !unit_type.has_modes()
        {
            let deployment = &planned.draft.name;
            return Err(format!(
                "the unit `{name}` is of type {unit_type}, which never uses `mode`; remove it from the deployment `{deployment}`"
            ));
        }
        self.draft(item, None, name, declared.metadata, UnitSpecification { arch: arch.clone(), unit_type })
    }

    fn agents(&mut self, deployments: &mut BTreeMap<Name, DraftedDeployment>, outputs: &ParsedOutputs) {
        let mut served: BTreeSet<&Name> = BTreeSet::new();
        for (name, declared) in &outputs.agents {
            served.extend(declared.deployments.iter());
            let item = FlakeOutput::Agents.item(name.as_str());
            let taken: Vec<Name> =
                declared.deployments.iter().filter(|d| !self.excluded.contains(d.as_str())).cloned().collect();
            if taken.is_empty() && !self.source.selects_all() {
                continue;
            }
            let unknown = |d: &&Name| !deployments.contains_key(*d) && !self.broken.contains(d.as_str());
            let drafted = match taken.iter().find(unknown) {
                Some(unknown) => Err(format!("it names the deployment `{unknown}`, which the flake does not have")),
                None => self.agent(&item, name, declared.metadata.clone(), taken.clone()),
            };
            match drafted {
                Ok(agent) => self.drafts.agents.push(agent),
                Err(why) => {
                    self.fail(&item, why);
                    self.fail_with(&taken, deployments, &item, &format!("its agent `{name}` is broken"));
                }
            }
        }
        let mut by_unit: BTreeMap<Name, Vec<(Name, Item)>> = BTreeMap::new();
        for planned in deployments.values().filter(|planned| !served.contains(&planned.draft.name)) {
            let unit = planned.draft.specification.unit.clone();
            by_unit.entry(unit).or_default().push((planned.draft.name.clone(), planned.item.clone()));
        }
        for (unit, planned) in by_unit {
            let (names, items): (Vec<Name>, Vec<Item>) = planned.into_iter().unzip();
            let drafted = if outputs.agents.contains_key(&unit) {
                Err(format!(
                    "`clavel.agents.{unit}` does not name it, and no other agent does; add it to an agent's `deployments`"
                ))
            } else {
                self.agent(&items[0], &unit, Metadata::default(), names.clone())
            };
            match drafted {
                Ok(agent) => self.drafts.agents.push(agent),
                Err(why) => {
                    self.fail(&items[0], why.clone());
                    self.fail_with(&names, deployments, &items[0], &why);
                }
            }
        }
        self.drafts.agents.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn agent(
        &self,
        item: &Item,
        name: &Name,
        metadata: Metadata,
        deployments: Vec<Name>,
    ) -> Result<Draft<AgentSpecification>, String> {
        let deployments = List::try_from(deployments).map_err(|e| e.to_string())?;
        self.draft(item, None, name, metadata, AgentSpecification { deployments })
    }
}

/// The type of a unit for which the flake gives none: that of the hosts that are deployed to it. `stray` is a unit that the flake
/// declares, and to which it deploys nothing: its name may be a misspelt one.
fn implied_type(unit: &Name, deployments: &[&DraftedDeployment], stray: Option<&Name>) -> Result<UnitType, String> {
    let of_host = |planned: &&DraftedDeployment| match planned.item.output {
        FlakeOutput::Hosts(platform) => Some(platform.unit_type),
        FlakeOutput::Deployments | FlakeOutput::Units | FlakeOutput::Agents => None,
    };
    let types: BTreeSet<UnitType> = deployments.iter().filter_map(of_host).collect();
    match types.iter().collect::<Vec<_>>()[..] {
        [] => match stray {
            None => Ok(UnitType::Command),
            Some(stray) => Err(format!(
                "the flake has no type for the unit `{unit}`, and nothing is deployed to the unit `{stray}` that it declares; if \
                 that is the same one, correct its name, and if not, set `clavel.units.{unit}.type`"
            )),
        },
        [one] => Ok(*one),
        [one, other, ..] => Err(format!(
            "what is deployed to the unit `{unit}` is for a unit of type {one} and for one of type {other}; give each a unit of its own, or set `clavel.units.{unit}.type`"
        )),
    }
}

/// The outputs among which a name must be unique.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NameScope {
    /// The hosts of all platforms.
    Hosts,
    /// One other output.
    One(FlakeOutput),
}

impl NameScope {
    fn of(output: FlakeOutput) -> Self {
        match output {
            FlakeOutput::Hosts(_) => Self::Hosts,
            other => Self::One(other),
        }
    }
}

/// The checks that are declared for a deployment, and those of its host that have other names.
fn all_checks(
    declared: &Map<Name, WrittenCheck, MAX_CHECKS>,
    host: &Map<Name, WrittenCheck, MAX_CHECKS>,
) -> Result<Checks, Invalid> {
    let other = host.iter().filter(|(name, _)| declared.get(*name).is_none());
    let all = declared.iter().chain(other).map(|(name, WrittenCheck(check))| (name.clone(), check.clone()));
    all.collect::<Vec<_>>().try_into()
}

fn first_of<T: Clone, const MAX: usize>(
    deployment: Option<List<T, MAX>>,
    source: &List<T, MAX>,
    host: List<T, MAX>,
) -> List<T, MAX> {
    match deployment {
        Some(own) => own,
        None if !source.is_empty() => source.clone(),
        None => host,
    }
}

fn parsed<T: DeserializeOwned>(value: &NixValue) -> Result<T, String> {
    // Tracking the path is slow, and only an error needs it.
    value.read().or_else(|_| {
        let json = &mut serde_json::Deserializer::from_str(value.text());
        serde_path_to_error::deserialize(json).map_err(|error| match error.path().to_string().as_str() {
            "." => error.inner().to_string(),
            place => format!("at `{place}`: {}", error.inner()),
        })
    })
}

#[cfg(test)]
mod tests;
