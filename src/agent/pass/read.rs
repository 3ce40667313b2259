//! The first half of a pass: what the mirrors show, and which branch the agent believes.
//!
//! How to fetch belongs to `fetch`, what is believed to `verify`, and which mirror is taken to `mirrors`.

use super::super::fetch::{BranchFetchError, FetchedMirror, fetch};
use super::super::fork_evidence::{BelievedFiles, MirrorCopy, Remembered, keep_all};
use super::super::leave_status::FoundBundle;
use super::super::mirrors::{Believed, Finding, MirrorChoice, MirrorReport, NoneBelieved, choose};
use super::super::state::{State, StateError};
use super::super::verify::{Refusal, Requester, SeenIndex, Time, index_ages, verify};
use super::Pass;
use super::outcome::{Event, PassError};
use crate::branch::{BranchError, RootChain};
use crate::config::AgentConfig;
use crate::git::{CommitId, ReadError, Repository, Snapshot};
use crate::model::Sha256Digest;
use crate::trust::{Anchor, TrustedRoot, digest};

/// Whether the branch is verified again at the commit at which everything was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completed {
    /// It is not.
    Skip,
    /// It is.
    Verify,
}

impl Pass<'_> {
    /// Asks every mirror, keeps both sides of every fork, and chooses the branch that is believed.
    pub(super) async fn read_branch(&mut self, tell: &dyn Fn(Event<'_>)) -> Result<Believed, PassError> {
        let files = self.believed_files();
        let fetched = fetch(self.config, &self.directory.join("mirrors"), &|copy| files.rescue(copy)).await;
        let tip_of = |found: &FetchedMirror| found.tip.as_ref().ok().map(|(_, tip)| *tip);
        self.bundles = fetched.iter().filter_map(|found| FoundBundle::of(&found.mirror, tip_of(found))).collect();
        let copies: Vec<MirrorCopy> = fetched.iter().filter_map(MirrorCopy::of).collect();
        let branches = fetched.into_iter().map(|mirror| self.read_mirror(mirror)).collect::<Vec<_>>();
        // Every mirror's root is learned before any mirror is verified: one that holds back the newest root is verified by
        // it all the same.
        branches.iter().try_for_each(|branch| self.learn_root(branch))?;
        let find = |branch: MirrorBranch| (branch.mirror.clone(), self.find(branch, Completed::Skip));
        let choice = choose(branches.into_iter().map(find).collect());
        let rejected = choice.as_ref().map_or_else(NoneBelieved::rejected, |choice| &choice.rejected);
        let root = match &self.anchor {
            Anchor::Root(root) => Some(root.file()),
            Anchor::Digest(_) => None,
        };
        let (folder, believed) = (self.directory.join("evidence"), Remembered { files: &files, root });
        let evidence = keep_all(&folder, &copies, rejected, &believed, self.clocks.now);
        evidence.folders.iter().for_each(|folder| tell(Event::ForkKept(folder)));
        // This process reports it once.
        if evidence.is_full && !std::mem::replace(&mut self.fork_folder_is_full, true) {
            tell(Event::ForkFolderFull(&folder));
        }
        self.report(choice.as_ref().map_or_else(NoneBelieved::reports, |choice| &choice.reports).to_vec(), tell);
        let taken = choice?.taken;
        if let Some(before) = taken.rewrote {
            tell(Event::Rewritten(before));
        }
        Ok(taken)
    }

    pub(super) fn believed_files(&self) -> BelievedFiles {
        let State { trusted, believed_at, .. } = &self.state;
        let documents = trusted.documents.keys().cloned().collect();
        BelievedFiles { folder: self.directory.join("believed"), at: *believed_at, documents }
    }

    /// Reads the branch of a mirror, unless everything was done at its very commit.
    fn read_mirror(&self, FetchedMirror { mirror, tip }: FetchedMirror) -> MirrorBranch {
        let commit = tip.map(|(repository, tip)| {
            let files = self.completed_at(tip).is_none().then(|| repository.snapshot(tip));
            MirrorCommit { repository, tip, files }
        });
        MirrorBranch { mirror, commit }
    }

    /// Chooses the branch that a pass would believe of these mirrors, and records nothing.
    pub(in crate::agent) fn look(&mut self, fetched: Vec<FetchedMirror>) -> Result<MirrorChoice, NoneBelieved> {
        let branches: Vec<_> = fetched.into_iter().map(MirrorBranch::read).collect();
        for branch in &branches {
            if let Some(newest) = self.newest_root_of(branch) {
                self.anchor = Anchor::Root(Box::new(newest));
            }
        }
        let find = |branch: MirrorBranch| (branch.mirror.clone(), self.find(branch, Completed::Verify));
        choose(branches.into_iter().map(find).collect())
    }

    /// Keeps the newest root that a mirror has. Anything else that is wrong with its branch is found later, in `find`.
    fn learn_root(&mut self, branch: &MirrorBranch) -> Result<(), StateError> {
        match self.newest_root_of(branch) {
            Some(newest) => self.keep_root(newest),
            None => Ok(()),
        }
    }

    fn newest_root_of(&self, branch: &MirrorBranch) -> Option<TrustedRoot> {
        let Ok(MirrorCommit { files: Some(Ok(files)), .. }) = &branch.commit else { return None };
        RootChain::newest_from(files, &self.anchor)
    }

    /// Verifies the branch of one mirror.
    fn find(&self, branch: MirrorBranch, completed: Completed) -> Finding {
        let commit = match branch.commit {
            Ok(commit) => commit,
            Err(error) => return Finding::Unreachable(error),
        };
        let tip = commit.tip;
        let believed = match self.completed_at(tip).filter(|_| completed == Completed::Skip) {
            // Only the time can have changed anything.
            Some((root, index)) => {
                let ages = index_ages(root, &self.config.name, self.config.max_index_age);
                let fresh = self.time().check_root(root).and_then(|()| self.time().check_index(index, ages));
                fresh.map(|clock| Believed {
                    tip,
                    version: Some(index.version),
                    index: Some(index.content_digest),
                    verdict: None,
                    clock,
                    rewrote: None,
                })
            }
            None => self.verify(commit),
        };
        believed.map_or_else(Finding::Refused, Finding::Believed)
    }

    /// The root and the index that were believed, where everything was done at this very commit.
    fn completed_at(&self, tip: CommitId) -> Option<(&TrustedRoot, &SeenIndex)> {
        let completed = self.state.completed.as_ref().filter(|_| self.units_are_as_recorded)?;
        let index = self.state.trusted.index.as_ref()?;
        let Anchor::Root(root) = &self.anchor else { return None };
        (completed.commit == tip && completed.request == self.request_digest()).then_some((&**root, index))
    }

    /// Keeps the report of each mirror, and tells those that differ from the pass before.
    fn report(&mut self, reports: Vec<MirrorReport>, tell: &dyn Fn(Event<'_>)) {
        // With a single mirror, the result of the pass says the same.
        let is_news = |report: &&MirrorReport| !report.is_good() && reports.len() > 1 && !self.mirrors.contains(report);
        reports.iter().filter(is_news).for_each(|report| tell(Event::Mirror(report)));
        self.mirrors = reports;
    }

    fn verify(&self, MirrorCommit { repository, tip, files }: MirrorCommit) -> Result<Believed, Refusal> {
        let files = files.unwrap_or_else(|| repository.snapshot(tip)).map_err(BranchError::from)?;
        let roots = RootChain::from_anchor(&files, &self.anchor)?;
        let requester = Requester {
            agent: &self.config.name,
            wanted: self.config.deployments.as_deref(),
            units: &self.config.units,
            system: &self.system,
            branch: &self.config.branch,
            root: &roots.newest,
            max_index_age: self.config.max_index_age,
        };
        let verdict = verify(&files, &requester, &self.state.trusted, self.time())?;
        let index = verdict.trusted.index.as_ref();
        let (version, index) = (index.map(|index| index.version), index.map(|index| index.content_digest));
        let rewrote = self.state.believed_at.filter(|before| repository.was_rewritten(tip, *before));
        Ok(Believed { tip, version, index, clock: verdict.clock.clone(), verdict: Some(Box::new(verdict)), rewrote })
    }

    /// Trusts a newer root from now on. Its chain proves it, so it counts even where the rest of the branch is refused: a key
    /// that it removes must not be trusted any longer.
    fn keep_root(&mut self, newest: TrustedRoot) -> Result<(), StateError> {
        let is_kept = matches!(&self.anchor, Anchor::Root(root) if root.root().version == newest.root().version);
        if !is_kept || self.directory.root().ok().flatten().is_none() {
            self.directory.save_root(&newest)?;
        }
        self.anchor = Anchor::Root(Box::new(newest));
        Ok(())
    }

    /// The digest of everything that this agent's request consists of. A commit that was complete for another configuration
    /// or root is read again.
    pub(super) fn request_digest(&self) -> Sha256Digest {
        let AgentConfig { name, deployments, branch, units, store, max_index_age, .. } = self.config;
        let fleet = self.anchor.fleet();
        // A new root may remove the key that signed what was believed.
        let root = match &self.anchor {
            Anchor::Root(root) => Some(root.root().version),
            Anchor::Digest(_) => None,
        };
        digest(
            format!(
                "{name:?} {deployments:?} {branch:?} {fleet:?} {root:?} {units:?} {store:?} {max_index_age:?} {:?}",
                self.system
            )
            .as_bytes(),
        )
    }

    fn time(&self) -> Time<'_> {
        Time { clocks: &self.clocks, baseline: self.clock_baseline.as_ref() }
    }
}

/// The branch of one mirror, read once.
struct MirrorBranch {
    mirror: String,
    commit: Result<MirrorCommit, BranchFetchError>,
}

impl MirrorBranch {
    fn read(FetchedMirror { mirror, tip }: FetchedMirror) -> Self {
        let commit = tip.map(|(repository, tip)| {
            let files = Some(repository.snapshot(tip));
            MirrorCommit { repository, tip, files }
        });
        Self { mirror, commit }
    }
}

/// The commit that a mirror shows.
struct MirrorCommit {
    repository: Repository,
    tip: CommitId,
    /// Its files; `None` where everything was done at this very commit.
    files: Option<Result<Snapshot, ReadError>>,
}
