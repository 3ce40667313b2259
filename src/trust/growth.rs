//! How a program meets files that a newer Clavel wrote: the `schema`, the `critical` fields and the root's `format`.
//!
//! A field that this version does not know is kept and ignored, unless `critical` names it, as in JSON Web Signature (RFC 7515,
//! section 4.1.11). docs/format.md has the rules for writers.

use serde_json::Value;

use super::SignedError;
use crate::model::json::JsonError;
use crate::model::{BranchFile, Format, Index, List, Schema, read_part};

/// The most fields that one file can name as critical.
const MAX_CRITICAL: usize = 16;
/// The longest name of a schema that an error shows.
const MAX_SCHEMA_LENGTH: usize = 64;

/// Checks the schema and the format of what was signed, before anything else of it is read.
pub(super) fn check_schema<P: BranchFile>(signed: &Value) -> Result<(), SignedError> {
    let schema = signed.get("schema").and_then(Value::as_str);
    // Without a schema it is no file of any Clavel, and reading its fields says what is wrong.
    if let Some(schema) = schema.filter(|schema| *schema != Schema::V1.as_str() && is_name_of_a_schema(schema)) {
        return Err(SignedError::NewerSchema { kind: P::KIND, schema: schema.to_owned() });
    }
    // Nothing of that time was released, so this is all that is left of it.
    if P::KIND == Index::KIND && signed.get("bins").is_none() && signed.get("documents").is_some() {
        return Err(SignedError::BeforeRelease);
    }
    match signed.get("format").and_then(Value::as_u64) {
        Some(found) if P::ASKS_FOR_A_FORMAT && found > Format::CURRENT.get() => Err(SignedError::NewerFormat { found }),
        Some(_) | None => Ok(()),
    }
}

/// Checks that this version knows every field that `signed` names as critical. `known` is `signed` as this version writes it: it
/// lacks the fields that this version does not know.
pub(super) fn check_critical<P: BranchFile>(signed: &Value, known: impl FnOnce() -> Value) -> Result<(), SignedError> {
    let Some(critical) = signed.get("critical") else { return Ok(()) };
    let malformed = |source| SignedError::Malformed { kind: P::KIND, source };
    let fields: List<String, MAX_CRITICAL> = read_part(critical, "signed.critical").map_err(malformed)?;
    if fields.is_empty() {
        return Err(malformed(JsonError::at("signed.critical", "it names no field")));
    }
    let known = known();
    for field in fields.iter() {
        if find(signed, field).is_none() {
            let why = format!("it names `{field}`, which the file does not have");
            return Err(malformed(JsonError::at("signed.critical", why)));
        }
        if find(&known, field).is_none() {
            return Err(SignedError::UnknownCritical { kind: P::KIND, field: field.clone() });
        }
    }
    Ok(())
}

/// The field at a path such as `specification.unit`.
fn find<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, field| value.get(field))
}

fn is_name_of_a_schema(text: &str) -> bool {
    text.len() <= MAX_SCHEMA_LENGTH
        && text.strip_prefix("clavel/v").is_some_and(|version| version.bytes().all(|b| b.is_ascii_alphanumeric()))
}
