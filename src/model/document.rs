//! The documents of the branch: Deployment, Agent and Unit, in the form that is signed.
//!
//! The fields stand in the order of their names in JSON, so a serialised document is in the canonical form (RFC 8785) without
//! sorting. `trust::canonical` has the test for it.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Checks, DocumentMetadata, FleetId, Folder, Invalid, List, Map, Name, Probation, Provenance, PublicKey, Revision,
    StorePath, Substituter, System, TemplateMetadata,
};

/// The content of a file of the branch: a document, the index, one of its bins, a root or an approval.
pub trait BranchFile: Serialize + DeserializeOwned {
    /// The value of its `kind` field.
    const KIND: &'static str;
    /// The most bytes that its file may have.
    const MAX_BYTES: u64;

    /// Whether its field `format` is the format that its readers have to know.
    const ASKS_FOR_A_FORMAT: bool = false;
}

/// The content of a signed file: any file of the branch but a bin.
pub trait Payload: BranchFile {
    /// The payload type that its signature binds (DSSE, "Protocol").
    const PAYLOAD_TYPE: &'static str;

    /// The fleet that it names; none in the first root of a fleet.
    fn fleet(&self) -> Option<FleetId>;
}

/// The specification of one kind of document.
pub trait Specification: Clone + PartialEq + Hash + fmt::Debug + Serialize + DeserializeOwned + JsonSchema {
    /// The value of the document's `kind` field.
    const KIND: &'static str;
    /// The payload type that its signature binds.
    const PAYLOAD_TYPE: &'static str;
    /// The folder of its documents on the branch.
    const FOLDER: Folder;
}

/// The `kind` field of a `P`. It has one possible value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind<P>(PhantomData<P>);

impl<P> Kind<P> {
    /// The value.
    pub const THIS: Self = Self(PhantomData);
}

impl<P: BranchFile> fmt::Debug for Kind<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(P::KIND)
    }
}

impl<P: BranchFile> Serialize for Kind<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(P::KIND)
    }
}

impl<'de, P: BranchFile> Deserialize<'de> for Kind<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = String::deserialize(deserializer)?;
        if found == P::KIND {
            return Ok(Self::THIS);
        }
        Err(serde::de::Error::custom(Invalid::new("the kind asked for", &found, format!("a {} is", P::KIND))))
    }
}

impl<P: BranchFile> JsonSchema for Kind<P> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("KindOf{}", P::KIND).into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": P::KIND })
    }
}

/// The version of the documents' schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Schema {
    /// `clavel/v1`
    #[serde(rename = "clavel/v1")]
    V1,
}

impl Schema {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "clavel/v1",
        }
    }
}

/// A document of the branch: a specification with a name and a revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "S: Specification")]
#[schemars(bound = "S: Specification")]
pub struct Document<S: Specification> {
    /// The fleet that it belongs to.
    pub fleet: FleetId,
    /// The kind of the document.
    pub kind: Kind<Self>,
    /// Its provenance, and the metadata that its flake gives it.
    pub metadata: DocumentMetadata,
    /// Its name. No other document of the kind has it, in any case.
    pub name: Name,
    /// How often its specification has changed, counted from 1.
    pub revision: Revision,
    /// The version of this schema.
    pub schema: Schema,
    /// The specification.
    pub specification: S,
}

impl<S: Specification> Document<S> {
    /// Its folder on the branch.
    pub const FOLDER: Folder = S::FOLDER;
}

impl<S: Specification> BranchFile for Document<S> {
    const KIND: &'static str = S::KIND;
    const MAX_BYTES: u64 = 256 << 10;
}

impl<S: Specification> Payload for Document<S> {
    const PAYLOAD_TYPE: &'static str = S::PAYLOAD_TYPE;

    fn fleet(&self) -> Option<FleetId> {
        Some(self.fleet)
    }
}

/// A document that was evaluated and has no revision yet.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(bound = "S: Specification")]
#[schemars(bound = "S: Specification")]
pub struct Draft<S: Specification> {
    /// The kind of the document.
    pub kind: Kind<Document<S>>,
    /// Its provenance, and the metadata that its flake gives it.
    pub metadata: DocumentMetadata,
    /// Its name.
    pub name: Name,
    /// The version of this schema.
    pub schema: Schema,
    /// The specification.
    pub specification: S,
}

impl<S: Specification> Document<S> {
    /// The provenance that its metadata states; none where it states no valid one.
    pub fn provenance(&self) -> Option<&Provenance> {
        self.metadata.provenance().ok()
    }
}

impl<S: Specification> Draft<S> {
    /// Makes a draft of this content.
    pub fn new(name: Name, metadata: impl Into<DocumentMetadata>, specification: S) -> Self {
        Self { kind: Kind::THIS, metadata: metadata.into(), name, schema: Schema::V1, specification }
    }

    /// The document with this content at `revision` in `fleet`.
    pub fn at(self, revision: Revision, fleet: FleetId) -> Document<S> {
        let Self { kind, metadata, name, schema, specification } = self;
        Document { fleet, kind, metadata, name, revision, schema, specification }
    }
}

/// The content that a unit has to run, evaluated from a source, in numbered revisions.
pub type Deployment = Document<DeploymentSpecification>;
/// The daemon on a machine, and the Deployments that it may ask for.
pub type Agent = Document<AgentSpecification>;
/// A machine or an environment.
pub type Unit = Document<UnitSpecification>;

/// The specification of a Deployment: the content, and the Unit that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentSpecification {
    /// What has to hold on the machine after a switch.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub checks: Checks,
    /// How a unit of the type `nixos` is activated; `switch` where there is none, and where the machine does not say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ActivationMode>,
    /// How the revision proves itself after a switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation: Option<Probation>,
    /// The content that the Unit has to run.
    pub template: NarTemplateSpecification,
    /// The name of the Unit.
    pub unit: Name,
}

impl DeploymentSpecification {
    /// This content for this unit, with nothing to check.
    pub fn new(unit: Name, template: NarTemplateSpecification) -> Self {
        Self { checks: Map::default(), mode: None, probation: None, template, unit }
    }
}

/// A store path, and the caches to fetch it from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct NarTemplateSpecification {
    /// Metadata of the content, such as its pin.
    pub metadata: TemplateMetadata,
    /// The store path.
    #[serde(rename = "narId")]
    pub nar_id: StorePath,
    /// The binary caches to fetch it from, in the order in which they are tried.
    pub substituters: List<Substituter, 32>,
    /// The keys of the caches. One of them has to have signed every path that a cache serves.
    #[serde(rename = "substituters-public-keys")]
    pub substituters_public_keys: List<PublicKey, 32>,
}

impl Specification for DeploymentSpecification {
    const KIND: &'static str = "Deployment";
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.deployment.v1+json";
    const FOLDER: Folder = Folder::Deployments;
}

/// The specification of an Agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct AgentSpecification {
    /// The names of the Deployments that it may ask for.
    pub deployments: List<Name, 1024>,
}

impl Specification for AgentSpecification {
    const KIND: &'static str = "Agent";
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.agent.v1+json";
    const FOLDER: Folder = Folder::Agents;
}

/// The specification of a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct UnitSpecification {
    /// The system of its store paths.
    pub arch: System,
    /// How a Deployment is activated there.
    #[serde(rename = "type")]
    pub unit_type: UnitType,
}

impl Specification for UnitSpecification {
    const KIND: &'static str = "Unit";
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.unit.v1+json";
    const FOLDER: Folder = Folder::Units;
}

/// How a Deployment is activated on a Unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnitType {
    /// The system profile and `bin/switch-to-configuration`.
    Nixos,
    /// The system profile and nix-darwin's `activate`.
    Darwin,
    /// home-manager's `activate`, as the user whose home it is.
    HomeManager,
    /// system-manager's `bin/register-profile` and `bin/activate`.
    SystemManager,
    /// The profile of a NixOS container, which is reloaded or restarted.
    Container,
    /// A profile of its own, and a command from the agent's configuration.
    Command,
}

/// How a unit of the type `nixos` is activated: the first argument of its `bin/switch-to-configuration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationMode {
    /// At once, and at each boot from then on.
    Switch,
    /// At the next boot.
    Boot,
}

impl fmt::Display for ActivationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Switch => "switch",
            Self::Boot => "boot",
        })
    }
}

impl UnitType {
    /// Whether a unit of this type has an [`ActivationMode`].
    pub fn has_modes(self) -> bool {
        match self {
            Self::Nixos => true,
            Self::Darwin | Self::HomeManager | Self::SystemManager | Self::Container | Self::Command => false,
        }
    }

    /// Whether a machine of this system can be a unit of this type.
    pub fn is_for(self, system: &System) -> bool {
        match self {
            Self::Nixos | Self::SystemManager | Self::Container => system.as_str().ends_with("-linux"),
            Self::Darwin => system.as_str().ends_with("-darwin"),
            Self::HomeManager | Self::Command => true,
        }
    }
}

impl fmt::Display for UnitType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nixos => "nixos",
            Self::Darwin => "darwin",
            Self::HomeManager => "home-manager",
            Self::SystemManager => "system-manager",
            Self::Container => "container",
            Self::Command => "command",
        })
    }
}
