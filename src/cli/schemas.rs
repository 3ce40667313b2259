//! The schemas of what the commands print with `--json`.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use super::output::ErrorOutput;
use super::{agent, clavel, claveld};
use crate::agent::PlannedDeployment;
use crate::changes::SystemDiff;
use crate::evaluate::Evaluation;
use crate::model::{Agent, CheckReport, Deployment, Root, Unit};
use crate::publish::OperationReport;

/// The forms of `clavel diff`: of two revisions, of several deployments, and of two derivations.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it stands for its schema")]
enum DiffOutput {
    Revisions(clavel::diff::Difference),
    Deployments(clavel::diff::Differences),
    Derivations(SystemDiff),
}

/// A document as `clavel show` prints it: without its signatures.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it stands for its schema")]
enum ShownDocument {
    Deployment(Deployment),
    Unit(Unit),
    Agent(Agent),
}

/// Each schema, with its name below `schemas/` and the commands that print what it describes. With the name `error` it is what each
/// of them prints where it fails before it has a document.
pub fn output_schemas() -> Vec<(&'static str, &'static [&'static str], Schema)> {
    vec![
        ("agent-status", &["clavel-agent status"], schema::<agent::status::Status<'_>>()),
        ("bundle", &["clavel bundle inspect"], schema::<clavel::bundle::InspectOutput>()),
        ("check", &["clavel check", "clavel-agent check", "claveld check"], schema::<CheckReport>()),
        ("claveld-status", &["claveld status"], schema::<claveld::status::Status>()),
        ("diff", &["clavel diff"], schema::<DiffOutput>()),
        ("error", &[], schema::<ErrorOutput>()),
        ("evaluation", &["claveld evaluate"], schema::<Evaluation>()),
        ("history", &["clavel history"], schema::<Vec<clavel::history::PastRevision>>()),
        ("list", &["clavel list"], schema::<clavel::list::ListOutput<'_>>()),
        ("operation", &["clavel hold", "clavel release", "clavel rollback"], schema::<OperationReport>()),
        ("pass", &["clavel-agent once"], schema::<Vec<agent::once::PrintedEntry<'_>>>()),
        ("plan", &["clavel-agent plan"], schema::<Vec<PlannedDeployment>>()),
        ("round", &["claveld once"], schema::<claveld::once::OnceOutput<'_>>()),
        ("shown-document", &["clavel show"], schema::<ShownDocument>()),
        ("shown-root", &["clavel root show"], schema::<Root>()),
        ("stick-status", &["clavel bundle status"], schema::<clavel::machines::StickOutput>()),
        ("verification", &["clavel bundle verify", "clavel verify"], schema::<clavel::verify::VerifyOutput>()),
    ]
}

/// The schema of what is written, where an absent field and `null` are two things.
fn schema<T: JsonSchema>() -> Schema {
    SchemaSettings::default().for_serialize().into_generator().into_root_schema_for::<T>()
}
