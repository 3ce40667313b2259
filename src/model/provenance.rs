//! The provenance of a document: the part of its metadata that claveld writes.
//!
//! `DocumentMetadata` reads it where a document is parsed, and passes the type on.

use super::metadata::{Metadata, MetadataKey, MetadataValue};
use super::{Attribute, FlakeReference, Invalid, NarHash, SourceRevision, StorePath, Timestamp};

/// The source of a document, and how it was evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The attribute of the flake that was evaluated.
    pub attribute: Attribute,
    /// The derivation of the store path; none where the flake names a store path itself.
    pub drv_path: Option<StorePath>,
    /// The time of the evaluation.
    pub evaluated_at: Timestamp,
    /// The source, as the configuration names it.
    pub source: FlakeReference,
    /// The hash of the source's content.
    pub source_hash: NarHash,
    /// The source's revision; none for a plain folder or a dirty work tree.
    pub source_revision: Option<SourceRevision>,
}

/// The reason why the metadata of a document has no valid provenance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProvenanceError {
    /// A required key is missing.
    #[error("the metadata has no `{0}`")]
    Missing(&'static str),
    /// A key has an invalid value.
    #[error("the metadata has an invalid `{key}`")]
    InvalidValue {
        /// The key.
        key: &'static str,
        /// The rule that its value breaks.
        source: Invalid,
    },
}

impl Provenance {
    const ATTRIBUTE: &'static str = "attribute";
    const DRV_PATH: &'static str = "drvPath";
    const EVALUATED_AT: &'static str = "evaluatedAt";
    const SOURCE: &'static str = "source";
    const SOURCE_HASH: &'static str = "sourceHash";
    const SOURCE_REVISION: &'static str = "sourceRevision";

    /// The keys that only claveld may set.
    pub const KEYS: [&'static str; 6] =
        [Self::ATTRIBUTE, Self::DRV_PATH, Self::EVALUATED_AT, Self::SOURCE, Self::SOURCE_HASH, Self::SOURCE_REVISION];

    /// Adds itself to the metadata that the flake gave. It is an error if the flake set one of these keys or too many keys.
    pub(super) fn add_to(&self, metadata: Metadata) -> Result<Metadata, Invalid> {
        let Self { attribute, drv_path, evaluated_at, source, source_hash, source_revision } = self;
        let shared = SharedProvenance::new(*evaluated_at, source, source_hash, source_revision.as_ref())?;
        shared.add_to(metadata, attribute, drv_path.as_ref())
    }
}

/// The part of the provenance that all documents of one evaluation have in common. They share its texts.
#[derive(Debug, Clone)]
pub struct SharedProvenance {
    attribute_key: MetadataKey,
    drv_path_key: MetadataKey,
    entries: Vec<(MetadataKey, MetadataValue)>,
}

impl SharedProvenance {
    /// The provenance of what was evaluated at this time from this content of a source.
    pub fn new(
        evaluated_at: Timestamp,
        source: &FlakeReference,
        source_hash: &NarHash,
        source_revision: Option<&SourceRevision>,
    ) -> Result<Self, Invalid> {
        let texts = [
            (Provenance::EVALUATED_AT, Some(evaluated_at.to_string())),
            (Provenance::SOURCE, Some(source.to_string())),
            (Provenance::SOURCE_HASH, Some(source_hash.to_string())),
            (Provenance::SOURCE_REVISION, source_revision.map(ToString::to_string)),
        ];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text?)));
        let entries = texts.map(|(key, text)| Ok((key.parse()?, text.parse()?))).collect::<Result<_, Invalid>>()?;
        let (attribute_key, drv_path_key) = (Provenance::ATTRIBUTE.parse()?, Provenance::DRV_PATH.parse()?);
        Ok(Self { attribute_key, drv_path_key, entries })
    }

    /// Adds the whole provenance of the document at `attribute` to the metadata that the flake gave. It is an error if the flake set one
    /// of its keys or too many keys.
    pub(super) fn add_to(
        &self,
        metadata: Metadata,
        attribute: &Attribute,
        drv_path: Option<&StorePath>,
    ) -> Result<Metadata, Invalid> {
        if let Some(taken) = Provenance::KEYS.iter().find(|key| metadata.get(**key).is_some()) {
            return Err(Invalid::new("a metadata key for a flake to set", taken, "Claveld writes it itself"));
        }
        let mut own = Vec::with_capacity(Provenance::KEYS.len());
        own.push((self.attribute_key.clone(), attribute.as_str().parse()?));
        if let Some(path) = drv_path {
            own.push((self.drv_path_key.clone(), path.to_string().parse()?));
        }
        own.extend(self.entries.iter().cloned());
        metadata.with(own)
    }
}

impl Provenance {
    /// Reads it from the metadata of a document.
    pub(super) fn read(metadata: &Metadata) -> Result<Self, ProvenanceError> {
        Ok(Self {
            attribute: required(metadata, Self::ATTRIBUTE)?,
            drv_path: optional(metadata, Self::DRV_PATH)?,
            evaluated_at: required(metadata, Self::EVALUATED_AT)?,
            source: required(metadata, Self::SOURCE)?,
            source_hash: required(metadata, Self::SOURCE_HASH)?,
            source_revision: optional(metadata, Self::SOURCE_REVISION)?,
        })
    }
}

fn optional<T: std::str::FromStr<Err = Invalid>>(
    metadata: &Metadata,
    key: &'static str,
) -> Result<Option<T>, ProvenanceError> {
    let value = metadata.get(key).map(|value| value.as_str().parse());
    value.transpose().map_err(|source| ProvenanceError::InvalidValue { key, source })
}

fn required<T: std::str::FromStr<Err = Invalid>>(metadata: &Metadata, key: &'static str) -> Result<T, ProvenanceError> {
    optional(metadata, key)?.ok_or(ProvenanceError::Missing(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance() -> Provenance {
        Provenance {
            attribute: Attribute::at(&["nixosConfigurations", "web-1"]).unwrap(),
            drv_path: None,
            evaluated_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            source: "git+https://git.example.org/fleet".parse().unwrap(),
            source_hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
            source_revision: Some("a".repeat(40).parse().unwrap()),
        }
    }

    #[test]
    fn provenance_is_read_from_the_metadata_that_it_was_added_to() {
        let mut own = Metadata::default();
        own.insert("team".parse().unwrap(), "infra".parse().unwrap()).unwrap();
        let metadata = provenance().add_to(own).unwrap();
        assert_eq!(metadata.len(), 6);
        assert_eq!(Provenance::read(&metadata), Ok(provenance()));
    }

    #[test]
    fn a_flake_may_not_set_its_keys() {
        let mut own = Metadata::default();
        own.insert("drvPath".parse().unwrap(), "/nix/store/x".parse().unwrap()).unwrap();
        assert!(provenance().add_to(own).unwrap_err().to_string().contains("Claveld writes it itself"));
    }

    #[test]
    fn an_error_names_the_missing_key() {
        assert_eq!(Provenance::read(&Metadata::default()), Err(ProvenanceError::Missing("attribute")));
    }
}
