//! The types of Clavel's documents, and of their parts: names, revisions, store paths, digests, keys and the like.
//!
//! Each part is a type of its own that cannot hold an invalid value: it validates in `FromStr` and in `Deserialize` alike. The
//! other modules share these types and add the work.
//!
//! I/O and cryptography do not belong here: `trust` verifies documents, and `branch` reads them. Nothing here may depend on
//! another module of Clavel but `redact`.

mod approval;
mod bins;
mod branch;
mod branch_part;
mod check;
mod digest;
mod document;
mod error_chain;
mod flake_reference;
mod health_check;
mod index;
mod index_age;
mod index_source;
mod isolation;
pub mod json;
mod key;
mod list;
mod map;
mod metadata;
mod name;
mod nix;
mod number;
mod parsed_metadata;
mod path;
mod pattern;
mod pin;
mod provenance;
mod publish_policy;
mod rendering;
mod role_key;
mod root;
mod root_validity;
mod self_check;
mod source;
mod span;
mod status;
mod text;
mod timestamp;

pub use approval::Approval;
pub use bins::{BinCount, BinDigests, BinId, FileDigest};
pub use branch::BranchName;
pub use branch_part::BranchPart;
pub use check::{CheckFinding, CheckOutcome, CheckReport};
pub use digest::{FleetId, NarHash, Sha256Digest};
pub use document::{
    ActivationMode, Agent, AgentSpecification, BranchFile, Deployment, DeploymentSpecification, Document, Draft, Kind,
    NarTemplateSpecification, Payload, Schema, Specification, Unit, UnitSpecification, UnitType,
};
pub use error_chain::describe_error;
pub use flake_reference::FlakeReference;
pub use health_check::{
    Argument, Check, CheckMode, CheckTarget, Checks, Confirmation, HttpUrl, MAX_CHECKS, Probation, SystemdUnit,
    TcpAddress, WrittenCheck, WrittenProbation,
};
pub use index::{Bin, FolderName, Hold, Index, IndexEntry, MAX_ENTRIES_OF_A_BIN, MAX_SOURCES, Tombstone};
pub use index_age::{IndexAge, IndexAgePolicy};
pub use index_source::{BrokenPart, IndexSource, MAX_BROKEN_PARTS};
pub use isolation::{AllowedInput, InputOrigin, InputPolicy, Isolation, RefusedInput, is_private};
pub use key::{KeyId, PublicKey};
pub use list::List;
pub use map::Map;
pub use metadata::{Metadata, MetadataKey, MetadataValue};
pub use name::Name;
pub use nix::{Attribute, SourceRevision, StorePath, Substituter, System};
pub use number::{Epoch, Format, IndexVersion, Revision, RootVersion};
pub use parsed_metadata::{DocumentMetadata, TemplateMetadata};
pub use path::{DocumentPath, Folder};
pub use pattern::Pattern;
pub use pin::{Closure, ClosureDigest, Content, Pin, PinError, closure_lines};
pub use provenance::{Provenance, ProvenanceError, SharedProvenance};
pub use publish_policy::PublishPolicy;
pub use rendering::{is_rendering, parse_rendering, read_part};
pub use role_key::{HardwareKey, RoleKey};
pub use root::{ApprovalPolicy, MAX_KEYS, MAX_SIGNATURES, Role, Roles, Root, Threshold};
pub use root_validity::{RootValidity, RootWarning, how_to_renew};
pub use self_check::SelfCheck;
pub use source::{LockedSource, Source};
pub use span::Span;
pub use status::{AgentStatus, DeploymentStatus};
pub use text::{FEW, Invalid, beginning, excerpt, few, headline, is_printable, printable_line, printable_lines};
pub use timestamp::Timestamp;
