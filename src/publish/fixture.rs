//! Test fixtures: evaluations and branches made in memory, from a few names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use nix_derivation::nixbase32;

use super::branch_state::{BranchState, Existing, ExistingDocument};
use super::document_change::DocumentChange;
use super::plan::{OrphanPolicy, Plan, PublishInput, plan};
use super::withheld::Withheld;
use crate::branch::Branch;
use crate::branch::fixture::{Listing, index, index_files};
use crate::changes::{FileChange, FileChangeKind, SystemChange, SystemDiff};
use crate::evaluate::{Drafts, EvalWarnings, Evaluation, EvaluationWork};
use crate::model::{
    BinCount, BrokenPart, DeploymentSpecification, Document, DocumentMetadata, Draft, FlakeReference, Index,
    IndexSource, IndexVersion, List, LockedSource, Metadata, MetadataValue, Name, NarHash, NarTemplateSpecification,
    Payload, Provenance, Revision, Specification, TemplateMetadata, Timestamp, Tombstone,
};
use crate::store::CacheEntry;
use crate::trust::Verified;
use crate::trust::fixture::Fleet;

pub(super) const DAY: Duration = Duration::from_hours(24);
const HASH: &str = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// The time of all tests.
pub(super) fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// The fleet of all tests.
pub(super) fn fleet() -> &'static Fleet {
    static FLEET: LazyLock<Fleet> = LazyLock::new(Fleet::new);
    &FLEET
}

pub(super) fn verified<P: Payload>(payload: P) -> Verified<P> {
    fleet().verified(payload)
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn revision(number: u64) -> Revision {
    number.try_into().unwrap()
}

pub(super) fn list<T: std::str::FromStr<Err: fmt::Debug>, const MAX: usize>(items: &[&str]) -> List<T, MAX> {
    items.iter().map(|item| item.parse().unwrap()).collect::<Vec<T>>().try_into().unwrap()
}

/// The flake of the source `source`.
pub(super) fn flake(source: &str) -> FlakeReference {
    format!("git+https://git.example.org/{source}").parse().unwrap()
}

/// A draft that came from the attribute `x.NAME` of `source`.
pub(super) fn draft<S: Specification>(source: &str, of: &str, specification: S) -> Draft<S> {
    let provenance = Provenance {
        attribute: format!("x.{of}").parse().unwrap(),
        drv_path: None,
        evaluated_at: now(),
        source: flake(source),
        source_hash: HASH.parse().unwrap(),
        source_revision: None,
    };
    Draft::new(name(of), DocumentMetadata::with_provenance(Metadata::default(), &provenance).unwrap(), specification)
}

/// The change of a deployment from its first revision to its second, in whose system these files changed.
pub(super) fn changed_deployment<'a>(
    of: &str,
    files: impl IntoIterator<Item = &'a str>,
    system: SystemChange,
) -> DocumentChange {
    let file = |name: &str| FileChange { name: name.to_owned(), change: FileChangeKind::Changed };
    let files = files.into_iter().map(file).collect();
    DocumentChange {
        path: format!("deployments/{of}.json").parse().unwrap(),
        from: Some(revision(1)),
        to: revision(1).next(),
        repaired: false,
        system: Some(SystemDiff::Change(SystemChange { files, ..system })),
    }
}

/// The evaluation of `source` that found this.
pub(super) fn evaluation(source: &str, drafts: Drafts) -> Evaluation {
    let source =
        LockedSource { flake: flake(source), locked: flake(source), hash: HASH.parse().unwrap(), revision: None };
    Evaluation { source, drafts, warnings: EvalWarnings::default(), work: EvaluationWork::default() }
}

/// A source with these broken parts.
pub(super) fn index_source(source: &str, broken: &[&str]) -> IndexSource {
    let since = "2026-01-01T00:00:00Z".parse().unwrap();
    let error: MetadataValue = "error: <b>".parse().unwrap();
    let part = |attribute: &&str| BrokenPart { attribute: attribute.parse().unwrap(), error: error.clone(), since };
    let broken = broken.iter().map(part).collect::<Vec<_>>().try_into().unwrap();
    IndexSource { broken, more_broken: 0, revision: None, source: source.parse().unwrap(), unread_since: None }
}

/// A document as the branch has it, at this revision.
pub(super) fn published<S: Specification>(draft: Draft<S>, at: u64) -> Verified<Document<S>> {
    verified(draft.at(revision(at), fleet().id()))
}

/// These documents, each intact at its revision.
pub(super) fn intact<S: Specification>(drafts: impl IntoIterator<Item = (Draft<S>, u64)>) -> Existing<S> {
    let document = |(draft, at): (Draft<S>, u64)| (draft.name.clone(), ExistingDocument::Intact(published(draft, at)));
    drafts.into_iter().map(document).collect()
}

/// A branch without documents, whose index has these tombstones: paths with the last revision of each.
pub(super) fn branch_with(tombstones: &[(&str, u64)]) -> BranchState {
    branch_of(tombstones, Vec::new())
}

/// A branch without documents, whose index has these sources.
pub(super) fn branch_of_sources(sources: Vec<IndexSource>) -> BranchState {
    branch_of(&[], sources)
}

fn branch_of(tombstones: &[(&str, u64)], sources: Vec<IndexSource>) -> BranchState {
    let mut listing = Listing::empty(BinCount::ONE);
    let tombstone = |(path, last): &(&str, u64)| (path.parse().unwrap(), Tombstone { revision: revision(*last) });
    listing.tombstones = tombstones.iter().map(tombstone).collect();
    let sources = sources.try_into().unwrap();
    let index = Index { sources, expires: now().plus(7 * DAY), ..index(fleet(), &listing, now(), IndexVersion::FIRST) };
    let files = index_files(fleet(), &listing, index);
    let index = Branch::new(&files, &fleet().root, &"deployments".parse().unwrap()).whole_index().unwrap();
    BranchState {
        index: Some((index, crate::trust::digest(b"index"))),
        holds: BTreeMap::new(),
        ..BranchState::empty(fleet().id())
    }
}

/// The plan for `evaluations` on `branch`, where the configuration has the sources `configured`.
pub(super) fn planned(
    branch: &BranchState,
    configured: &[&str],
    evaluations: &[Evaluation],
    orphans: OrphanPolicy,
    withheld: &Withheld,
) -> Plan {
    let configured: Vec<FlakeReference> = configured.iter().map(|name| flake(name)).collect();
    plan(
        branch,
        &PublishInput { configured: &configured, evaluations, orphans, allowed_withdrawals: 0, sources: &[] },
        withheld,
        now(),
        7 * DAY,
    )
    .unwrap()
}

/// The key of all caches.
fn cache_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The store path called `name`.
pub(super) fn path(name: &str) -> String {
    format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}")
}

/// The hash of this content.
pub(super) fn hash(content: u8) -> NarHash {
    format!("sha256-{}", STANDARD.encode([content; 32])).parse().unwrap()
}

/// The entry of a cache that has `name` with this content and these references, validly signed.
pub(super) fn cache_entry(name: &str, content: u8, references: &[&str]) -> CacheEntry {
    let references: Vec<String> = references.iter().map(|name| path(name)).collect();
    let fingerprint =
        format!("1;{};sha256:{};120;{}", path(name), nixbase32::encode(&[content; 32]), references.join(","));
    let signature = format!("c-1:{}", STANDARD.encode(cache_key().sign(fingerprint.as_bytes()).to_bytes()));
    let entry = serde_json::json!({
        "narHash": hash(content), "narSize": 120, "references": references, "signatures": [signature],
    });
    serde_json::from_value(entry).unwrap()
}

/// A deployment of the store path `nar_id` that these caches provide, to the unit `u`.
pub(super) fn cached_draft(name: &str, nar_id: &str, caches: &[&str]) -> Draft<DeploymentSpecification> {
    let public = STANDARD.encode(cache_key().verifying_key().to_bytes());
    let template = NarTemplateSpecification {
        metadata: TemplateMetadata::default(),
        nar_id: path(nar_id).parse().unwrap(),
        substituters: list(caches),
        substituters_public_keys: list(&[&format!("c-1:{public}")]),
    };
    draft("fleet", name, DeploymentSpecification::new("u".parse().unwrap(), template))
}
