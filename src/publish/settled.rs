//! What claveld remembers of its last round, so that the next one looks at the bins in which something changed, and not at the
//! whole fleet.
//!
//! A bin is settled if a round found that the branch has exactly what the sources give for its names: nothing waits, is held, is
//! contested or is damaged. While the sources give the same for these names, nobody touched the bin on the branch, and the
//! context is the same, a round has nothing to decide there. The memory is in a file of claveld's state folder, and a lost one
//! costs one round that looks at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::{OrphanPolicy, PublishInput};
use crate::branch::{CommitId, Remote, Snapshot};
use crate::disk::{self, Access, Durability};
use crate::evaluate::{Drafts, EvalWarnings, Evaluation, EvaluationWork};
use crate::model::json::{self, StateVersion};
use crate::model::{BinCount, BinId, BranchName, Draft, Folder, Name, Sha256Digest, Specification};

/// The newest version of the file that this Clavel knows.
const NEWEST: u64 = 1;
/// The most bytes that the file may have: dozens of branches with the most bins.
const MAX_BYTES: u64 = 16 << 20;

/// The bins that a round looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of them.
    All,
    /// These, of a branch that has so many names in all bins together.
    Bins(BTreeSet<BinId>, usize),
}

impl Scope {
    /// Whether it is all bins.
    pub(super) fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }
}

/// How much of the branch a round may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The bins that are settled.
    Changes,
    /// Nothing.
    Everything,
}

/// A digest of what one source gives for the names of each bin.
pub(super) type SourceDigests = BTreeMap<String, BTreeMap<BinId, u64>>;

/// What a round left behind on one branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Settled {
    /// The SHA-256 of the index.
    pub(super) index: Sha256Digest,
    /// The commit that the round ended with.
    pub(super) commit: CommitId,
    /// The digest of everything else that a round's decisions depend on.
    pub(super) context: Sha256Digest,
    /// Whether the documents of sources that are no longer configured were withdrawn.
    pub(super) orphans_withdrawn: bool,
    /// How many names all bins have together.
    pub(super) names: usize,
    /// The digest of what each source gave for the names of each settled bin.
    pub(super) sources: SourceDigests,
}

/// What a round found out, for the memory of it.
pub(super) struct RoundResult {
    pub(super) scope: Scope,
    /// The digests of its input, where there are as many bins after the round as before.
    pub(super) digests: Option<SourceDigests>,
    pub(super) context: Sha256Digest,
    pub(super) orphans: OrphanPolicy,
    /// The bins with a name about which the round could not do what the sources say.
    pub(super) unsettled: BTreeSet<BinId>,
    /// How many names all bins have together after it.
    pub(super) names: usize,
    /// The SHA-256 of the index that it found, and of the one after it.
    pub(super) found: Sha256Digest,
    pub(super) index: Sha256Digest,
}

impl RoundResult {
    /// The memory of the round, which ended with this commit. `before` is that of the round before.
    pub(super) fn settle(self, before: Option<&Settled>, commit: CommitId) -> Option<Settled> {
        let Self { scope, digests, context, orphans, unsettled, names, found, index } = self;
        // Another process may have remembered a round meanwhile.
        let before = before.filter(|before| before.index == found);
        let mut sources = match &scope {
            Scope::All => SourceDigests::new(),
            Scope::Bins(..) => before?.sources.clone(),
        };
        for (source, now) in digests? {
            let bins = sources.entry(source).or_default();
            for (bin, digest) in now {
                match &scope {
                    _ if unsettled.contains(&bin) => drop(bins.remove(&bin)),
                    Scope::Bins(looked_at, _) if !looked_at.contains(&bin) => {}
                    Scope::All | Scope::Bins(..) => drop(bins.insert(bin, digest)),
                }
            }
        }
        let orphans_withdrawn = match &scope {
            Scope::All => orphans == OrphanPolicy::Withdraw,
            Scope::Bins(..) => before.is_some_and(|before| before.orphans_withdrawn),
        };
        Some(Settled { index, commit, context, orphans_withdrawn, names, sources })
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettledFile {
    branches: BTreeMap<String, Settled>,
    version: StateVersion<NEWEST>,
}

/// The file with the memory of each branch.
#[derive(Debug)]
pub(super) struct SettledNote {
    path: PathBuf,
    branch: String,
}

impl SettledNote {
    pub(super) fn of(state_directory: &Path, repository: &Remote, branch: &BranchName) -> Self {
        Self { path: state_directory.join("settled.json"), branch: format!("{repository} {branch}") }
    }

    /// What the last round left behind; none where that is not known.
    pub(super) fn read(&self) -> Option<Settled> {
        self.all().branches.remove(&self.branch)
    }

    /// Remembers a round. A failure costs the next round some time.
    pub(super) fn write(&self, settled: Settled) {
        let mut all = self.all();
        if all.branches.get(&self.branch) == Some(&settled) {
            return;
        }
        all.branches.insert(self.branch.clone(), settled);
        let bytes = json::render(&all);
        let written = disk::check_length(&bytes, MAX_BYTES)
            .and_then(|()| disk::replace(&self.path, &bytes, Access::Everyone, Durability::Unsynced));
        if let Err(error) = written {
            tracing::debug!(path = %self.path.display(), %error, "the next round looks at the whole branch");
        }
    }

    fn all(&self) -> SettledFile {
        let bytes = disk::read(&self.path, MAX_BYTES).unwrap_or_default();
        json::parse_state(&bytes, MAX_BYTES, NEWEST).unwrap_or_default()
    }
}

/// The digests of what the evaluations of a round give.
pub(super) fn digests(count: BinCount, evaluations: &[Evaluation]) -> SourceDigests {
    let of = |evaluation: &Evaluation| {
        let mut hashers: BTreeMap<BinId, DefaultHasher> = count.bins().map(|bin| (bin, DefaultHasher::new())).collect();
        hash_all(count, &evaluation.drafts.agents, &mut hashers);
        hash_all(count, &evaluation.drafts.deployments, &mut hashers);
        hash_all(count, &evaluation.drafts.units, &mut hashers);
        hashers.into_iter().map(|(bin, hasher)| (bin, hasher.finish())).collect()
    };
    evaluations.iter().map(|evaluation| (evaluation.source.flake.to_string(), of(evaluation))).collect()
}

fn hash_all<S: Specification>(count: BinCount, drafts: &[Draft<S>], hashers: &mut BTreeMap<BinId, DefaultHasher>) {
    for draft in drafts {
        if let Some(hasher) = hashers.get_mut(&count.bin_of(&draft.name)) {
            (S::FOLDER, &draft.name, &draft.specification).hash(hasher);
        }
    }
}

impl Settled {
    /// The bins that a round with these digests has to look at. `touched` are those that somebody touched on the branch since.
    pub(super) fn scope(
        &self,
        count: BinCount,
        digests: &SourceDigests,
        touched: &BTreeSet<BinId>,
        input: &PublishInput<'_>,
        context: Sha256Digest,
    ) -> Scope {
        let orphans_may_be_left = input.orphans == OrphanPolicy::Withdraw && !self.orphans_withdrawn;
        if self.context != context || orphans_may_be_left {
            return Scope::All;
        }
        let is_settled = |bin: &BinId| {
            let same = |(source, now): (&String, &BTreeMap<BinId, u64>)| {
                self.sources
                    .get(source)
                    .and_then(|before| before.get(bin))
                    .is_some_and(|before| now.get(bin) == Some(before))
            };
            !touched.contains(bin) && digests.iter().all(same)
        };
        Scope::Bins(count.bins().filter(|bin| !is_settled(bin)).collect(), self.names)
    }
}

/// The evaluations with the drafts of the names in these bins alone.
pub(super) fn within(scope: &Scope, evaluations: &[Evaluation]) -> Option<Vec<Evaluation>> {
    let Scope::Bins(bins, _) = scope else { return None };
    let count = bins.first().map_or(BinCount::ONE, |bin| bin.count());
    let is_in = |name: &Name| bins.contains(&count.bin_of(name));
    let cut = |evaluation: &Evaluation| {
        let Evaluation { source, drafts, .. } = evaluation;
        let mut cut = Evaluation {
            source: source.clone(),
            drafts: Drafts::default(),
            warnings: EvalWarnings::default(),
            work: EvaluationWork::default(),
        };
        cut.drafts.failures.clone_from(&drafts.failures);
        cut.drafts.agents = drafts.agents.iter().filter(|draft| is_in(&draft.name)).cloned().collect();
        cut.drafts.deployments = drafts.deployments.iter().filter(|draft| is_in(&draft.name)).cloned().collect();
        cut.drafts.units = drafts.units.iter().filter(|draft| is_in(&draft.name)).cloned().collect();
        cut
    };
    Some(evaluations.iter().map(cut).collect())
}

/// The bins in whose folders two commits differ; none of them where that cannot be known.
pub(super) fn touched_bins(count: BinCount, before: &Snapshot, now: &Snapshot) -> Option<BTreeSet<BinId>> {
    if before.commit() == now.commit() {
        return Some(BTreeSet::new());
    }
    let mut touched = BTreeSet::new();
    for folder in Folder::ALL.map(Folder::as_str).into_iter().chain(["approvals", "index"]) {
        let (before, now) = (before.entries(folder).ok()?, now.entries(folder).ok()?);
        let differs = |(name, id): &(&String, _)| before.get(*name) != Some(*id);
        let gone = before.keys().filter(|name| !now.contains_key(*name));
        let names = now.iter().filter(differs).map(|(name, _)| name).chain(gone);
        if count == BinCount::ONE {
            touched.extend(names.take(1).flat_map(|_| count.bins()));
        } else {
            touched.extend(names.filter_map(|name| name.trim_end_matches(".json").parse::<BinId>().ok()));
        }
    }
    Some(touched)
}
