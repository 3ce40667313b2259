//! The result of one evaluation: the drafts of a source, and what was done for them. No I/O.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::outputs::{FailedPart, FlakeOutput, Item};
use super::reason::EvalReason;
use super::warnings::EvalWarnings;
use crate::model::{
    AgentSpecification, DeploymentSpecification, Draft, LockedSource, Name, Pattern, Source, UnitSpecification,
};

/// The result of evaluating one source. `claveld evaluate --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Evaluation {
    /// The source, at the content that was evaluated.
    #[serde(skip)]
    pub source: LockedSource,
    /// The drafts and failures.
    #[serde(flatten)]
    pub drafts: Drafts,
    /// The warnings of what was evaluated without an error.
    #[serde(flatten)]
    pub warnings: EvalWarnings,
    /// The work that was done to get them.
    pub work: EvaluationWork,
}

impl Evaluation {
    /// Whether the source gives a deployment of this name.
    pub fn gives(&self, name: &Name) -> bool {
        self.drafts.deployments.iter().any(|draft| draft.name == *name)
    }
}

/// The work that an evaluation did, and the reasons for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct EvaluationWork {
    /// The seconds from its beginning to the last answer of Nix.
    pub seconds: f64,
    /// The attributes that were evaluated.
    pub evaluated: Vec<EvaluatedAttribute>,
    /// How many attributes were not evaluated, because nothing that they depend on changed.
    pub unchanged: usize,
    /// Attributes whose answer differs from the recorded one, although nothing that they depend on changed. Each is an
    /// error in Clavel.
    #[serde(serialize_with = "as_texts")]
    #[schemars(with = "Vec<String>")]
    pub differences: Vec<Item>,
    /// Whether there is a recorded answer of which it was not learnt yet what it depends on.
    #[serde(skip)]
    pub has_unlearnt: bool,
}

/// One attribute that was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct EvaluatedAttribute {
    /// The attribute.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub attribute: Item,
    /// Why it was evaluated.
    pub reason: EvalReason,
    /// The seconds that it took; an equal part of the time where several shared a process; none where it failed.
    pub seconds: Option<f64>,
    /// The most memory that its process held, in bytes; none where it failed, or the memory was not measured.
    pub memory: Option<u64>,
}

/// The drafts of a source's documents, and the attributes that gave no draft.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Drafts {
    /// The Deployments. They have no revision yet: publishing gives them one.
    pub deployments: Vec<Draft<DeploymentSpecification>>,
    /// The Units.
    pub units: Vec<Draft<UnitSpecification>>,
    /// The Agents.
    pub agents: Vec<Draft<AgentSpecification>>,
    /// The attributes that could not be evaluated, or break a rule.
    pub failures: Vec<Failure>,
    /// The names whose documents may be withdrawn, however many they are: the flake's `clavel.withdraw`.
    pub withdraw: Vec<Pattern>,
}

impl Drafts {
    /// Turns every draft into a failure whose name the source may not publish, or that is about a document of such a name.
    pub fn restrict_to_names_of(&mut self, source: &Source) {
        let refused = |name: &Name| (!source.may_publish(name)).then(|| name.clone());
        let mut failures = BTreeMap::new();
        let mut check = |output: FlakeOutput, own: &Name, about: &[Name]| {
            let Some(why) = refused(own).or_else(|| about.iter().find_map(refused)) else { return true };
            let item = Item { output, level: None, name: own.to_string() };
            let error = format!("the source may not publish the name `{why}`: no pattern of its `names` matches it");
            // A failure is about all documents of its name.
            failures.entry(own.clone()).or_insert(Failure { part: FailedPart::Item(item), error });
            false
        };
        self.deployments.retain(|draft| {
            check(FlakeOutput::Deployments, &draft.name, std::slice::from_ref(&draft.specification.unit))
        });
        self.units.retain(|draft| check(FlakeOutput::Units, &draft.name, &[]));
        self.agents.retain(|draft| check(FlakeOutput::Agents, &draft.name, &draft.specification.deployments));
        self.failures.extend(failures.into_values());
    }
}

/// One part of a flake that gives no document. In JSON it is text for people, where a long name is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The part of the flake, whole: two failures are about one attribute only if these are equal.
    pub part: FailedPart,
    /// Nix's own message, or the rule that is broken.
    pub error: String,
}

/// One part of a flake that gives no document.
#[derive(Serialize, schemars::JsonSchema)]
struct FailureText<'a> {
    /// The name that its document would have; empty where it is an output as a whole.
    name: String,
    /// The attribute of the flake.
    attribute: String,
    /// Nix's own message, or the rule that is broken.
    error: &'a str,
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { part, error } = self;
        FailureText { name: part.short_name(), attribute: part.to_string(), error }.serialize(serializer)
    }
}

impl schemars::JsonSchema for Failure {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Failure".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        FailureText::json_schema(generator)
    }
}

fn as_text<S: Serializer>(item: &Item, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(item)
}

fn as_texts<S: Serializer>(items: &[Item], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(Item::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{List, Metadata, UnitType};

    #[test]
    fn a_name_that_no_pattern_allows_is_a_failure_of_its_documents_alone() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let unit = |of: &str| {
            let specification = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type: UnitType::Nixos };
            Draft::new(name(of), Metadata::default(), specification)
        };
        let agent = |of: &str, deployment: &str| {
            let deployments = List::one(name(deployment));
            Draft::new(name(of), Metadata::default(), AgentSpecification { deployments })
        };
        let all = Drafts {
            units: vec![unit("A-1"), unit("b-1")],
            agents: vec![agent("a-1", "a-1"), agent("a-2", "b-1"), agent("b-1", "b-1")],
            ..Drafts::default()
        };
        let mut drafts = all.clone();
        let mut source = Source::bare("x".parse().unwrap());
        drafts.restrict_to_names_of(&source);
        assert_eq!(drafts, all);
        source.names = vec!["a-*".parse().unwrap()];
        drafts.restrict_to_names_of(&source);
        assert_eq!(drafts.units, [unit("A-1")]);
        assert_eq!(drafts.agents, [agent("a-1", "a-1")]);
        let failed: Vec<String> = drafts.failures.iter().map(|failure| failure.part.short_name()).collect();
        assert_eq!(failed, ["a-2", "b-1"]);
        assert!(drafts.failures.iter().all(|failure| failure.error.contains("may not publish the name `b-1`")));
    }
}
