//! The names of refs and commits. Each type checks its text once, when it is parsed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{BranchName, Invalid};

/// Makes documents and configuration use a type's `FromStr` and `Display`.
macro_rules! as_string {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

/// The full name of a ref, like `refs/clavel/fetched`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

impl RefName {
    /// The ref of a branch.
    pub fn of(branch: &BranchName) -> Self {
        Self(format!("refs/heads/{branch}"))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RefName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why: String| Invalid::new("the full name of a ref", text, why);
        if !text.starts_with("refs/") {
            return Err(invalid("it has to begin with `refs/`".to_owned()));
        }
        gix::validate::reference::name(text.into()).map_err(|error| invalid(error.to_string()))?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The object id of a commit. It is an address, and no reason to trust the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(gix::ObjectId);

impl CommitId {
    pub(super) fn object(self) -> gix::ObjectId {
        self.0
    }
}

impl From<gix::ObjectId> for CommitId {
    fn from(id: gix::ObjectId) -> Self {
        Self(id)
    }
}

impl FromStr for CommitId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("a commit id", text, "it has to be 40 hexadecimal digits");
        if text.len() != 40 {
            return Err(invalid());
        }
        gix::ObjectId::from_hex(text.as_bytes()).map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

as_string!(CommitId);

impl schemars::JsonSchema for CommitId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CommitId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{40}$", "description": "The object id of a commit" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_ids_are_forty_digits_in_text_and_json() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        let id: CommitId = hex.parse().unwrap();
        assert_eq!(id.to_string(), hex);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{hex}\""));
        assert_eq!(serde_json::from_str::<CommitId>(&format!("\"{hex}\"")).unwrap(), id);
        for bad in ["", "0123", &hex[1..], &format!("{hex}0"), &hex.replace('0', "g")] {
            assert!(bad.parse::<CommitId>().is_err(), "{bad}");
        }
    }
}
