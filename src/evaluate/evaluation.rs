//! The result of one evaluation: the drafts of a source, and what was done for them. No I/O.

use serde::{Serialize, Serializer};

use super::outputs::Item;
use super::reason::EvalReason;
use crate::model::{AgentSpecification, DeploymentSpecification, Draft, LockedSource, UnitSpecification};

/// The result of evaluating one source. `claveld evaluate --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Evaluation {
    /// The source, at the content that was evaluated.
    #[serde(skip)]
    pub source: LockedSource,
    /// The drafts and failures.
    #[serde(flatten)]
    pub drafts: Drafts,
    /// The work that was done to get them.
    pub work: EvaluationWork,
}

/// The work that an evaluation did, and the reasons for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct EvaluationWork {
    /// The attributes that were evaluated.
    pub evaluated: Vec<EvaluatedAttribute>,
    /// How many attributes were not evaluated, because nothing that they depend on changed.
    pub unchanged: usize,
    /// Attributes whose answer differs from the recorded one, although nothing that they depend on changed. Each is an
    /// error in Clavel.
    #[serde(serialize_with = "as_texts")]
    #[schemars(with = "Vec<String>")]
    pub differences: Vec<Item>,
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
}

/// One attribute that gives no document. In JSON it is text for people, where a long name is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The attribute of the flake, whole: two failures are about one attribute only if these are equal.
    pub item: Item,
    /// Nix's own message, or the rule that is broken.
    pub error: String,
}

/// One attribute that gives no document.
#[derive(Serialize, schemars::JsonSchema)]
struct FailureText<'a> {
    /// The name that its document would have.
    name: String,
    /// The attribute of the flake.
    attribute: String,
    /// Nix's own message, or the rule that is broken.
    error: &'a str,
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { item, error } = self;
        FailureText { name: item.short_name(), attribute: item.to_string(), error }.serialize(serializer)
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
