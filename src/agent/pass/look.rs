//! What the mirrors show, and what is believed of it.

use super::super::decide::Retry;
use super::super::evidence::{BelievedFiles, Copy, Remembered, keep_all};
use super::super::fetch::{BranchFetchError, Shown, fetch};
use super::super::mirrors::{Believed, Finding, MirrorReport, NoneBelieved, choose};
use super::super::state::{State, StateError};
use super::super::verify::{Asker, Refusal, SeenIndex, Time, verify};
use super::{Event, Pass, PassError};
use crate::branch::{BranchError, INDEX_PATH, Roots, check_layout};
use crate::config::AgentConfig;
use crate::git::{CommitId, Repository, Snapshot};
use crate::model::Sha256Digest;
use crate::trust::{Anchor, TrustedRoot, digest};

impl Pass<'_> {
    /// Asks every mirror, and keeps what two that cannot both be true said. What is believed of what they show.
    pub(super) async fn look(&mut self, retry: Retry, tell: &dyn Fn(Event<'_>)) -> Result<Believed, PassError> {
        let files = self.believed_files();
        let shown = fetch(self.config, &self.directory.join("mirrors"), &|copy| files.rescue(copy)).await;
        let copies: Vec<Copy> = shown.iter().filter_map(Copy::of).collect();
        let looks = shown.into_iter().map(|shown| self.read(shown)).collect::<Vec<_>>();
        // The mirrors are judged once all of them were asked for the newest root: one that holds it back is judged by it
        // all the same.
        looks.iter().try_for_each(|look| self.learn_root(look))?;
        let judged = |look: Look| (look.mirror.clone(), self.judge(look, retry));
        let choice = choose(looks.into_iter().map(judged).collect());
        let rejected = choice.as_ref().map_or_else(NoneBelieved::rejected, |choice| &choice.rejected);
        let root = match &self.anchor {
            Anchor::Root(root) => Some(root.file()),
            Anchor::Digest(_) => None,
        };
        let (folder, believed) = (self.directory.join("evidence"), Remembered { files: &files, root });
        let evidence = keep_all(&folder, &copies, rejected, &believed, self.clocks.now);
        evidence.places.iter().for_each(|place| tell(Event::Evidence(place)));
        // Once is enough for as long as this process runs.
        if evidence.is_full && !std::mem::replace(&mut self.evidence_is_full, true) {
            tell(Event::EvidenceFull(&folder));
        }
        self.report(choice.as_ref().map_or_else(NoneBelieved::reports, |choice| choice.reports.clone()), tell);
        let taken = choice?.taken;
        if let Some(before) = taken.rewrote {
            tell(Event::Rewritten(before));
        }
        Ok(taken)
    }

    fn believed_files(&self) -> BelievedFiles {
        let State { trusted, believed_at, .. } = &self.state;
        let documents = trusted.documents.keys().map(ToString::to_string);
        let paths = std::iter::once(INDEX_PATH.to_owned()).chain(documents).collect();
        BelievedFiles { folder: self.directory.join("believed"), at: *believed_at, paths }
    }

    /// Reads what a mirror shows, where there is anything to do about it.
    fn read(&self, Shown { mirror, tip }: Shown) -> Look {
        let seen = tip.map(|(repository, tip)| {
            let files = self.already_settled(tip).is_none().then(|| read(&repository, tip));
            Seen { repository, tip, files }
        });
        Look { mirror, seen }
    }

    /// Keeps the newest root that a mirror has, whatever else is wrong with what it shows: that is told when it is judged.
    fn learn_root(&mut self, look: &Look) -> Result<(), StateError> {
        let Ok(Seen { repository, tip, files: Some(files) }) = &look.seen else { return Ok(()) };
        let newest = match files {
            Ok(files) => Roots::newest_from(files, &self.anchor),
            Err(_) => Roots::newest_from(&repository.unchecked(*tip), &self.anchor),
        };
        match newest {
            Some(newest) => self.keep(newest),
            None => Ok(()),
        }
    }

    /// What is made of what one mirror shows.
    fn judge(&self, look: Look, retry: Retry) -> Finding {
        let seen = match look.seen {
            Ok(seen) => seen,
            Err(error) => return Finding::Unreachable(error),
        };
        let tip = seen.tip;
        let believed = match self.already_settled(tip).filter(|_| retry == Retry::NewRevisions) {
            // Only the time can change anything.
            Some((root, index)) => {
                let fresh = self.time().check_root(root).and_then(|()| self.time().check_index(index));
                fresh.map(|clock| Believed {
                    tip,
                    version: Some(index.version),
                    index: Some(index.content),
                    verdict: None,
                    clock,
                    rewrote: None,
                })
            }
            None => self.verify(seen),
        };
        believed.map_or_else(Finding::Refused, Finding::Believed)
    }

    /// The root and the index that were believed, where everything was done at this very commit.
    fn already_settled(&self, tip: CommitId) -> Option<(&TrustedRoot, &SeenIndex)> {
        let settled = self.state.settled.as_ref()?;
        let index = self.state.trusted.index.as_ref()?;
        let Anchor::Root(root) = &self.anchor else { return None };
        (settled.commit == tip && settled.asker == self.asker_digest()).then_some((&**root, index))
    }

    /// Notes what became of each mirror, and tells what was not told in the pass before.
    fn report(&mut self, reports: Vec<MirrorReport>, tell: &dyn Fn(Event<'_>)) {
        // Of a single mirror the outcome of the pass says it all.
        let news = |report: &&MirrorReport| !report.is_good() && reports.len() > 1 && !self.mirrors.contains(report);
        reports.iter().filter(news).for_each(|report| tell(Event::Mirror(report)));
        self.mirrors = reports;
    }

    fn verify(&self, Seen { repository, tip, files }: Seen) -> Result<Believed, Refusal> {
        let files = files.unwrap_or_else(|| read(&repository, tip))?;
        let roots = Roots::from_anchor(&files, &self.anchor)?;
        let asker = Asker {
            agent: &self.config.name,
            wanted: self.config.deployments.as_deref(),
            system: &self.system,
            branch: &self.config.branch,
            root: &roots.newest,
        };
        let verdict = verify(&files, &asker, &self.state.trusted, self.time())?;
        let index = verdict.trusted.index.as_ref();
        let (version, index) = (index.map(|index| index.version), index.map(|index| index.content));
        let rewrote = self.state.believed_at.filter(|before| repository.is_without(tip, *before));
        Ok(Believed { tip, version, index, clock: verdict.clock.clone(), verdict: Some(verdict), rewrote })
    }

    /// Believes a newer root from now on. It proves itself: whatever else is wrong with the branch, a key that it takes
    /// out counts no more.
    fn keep(&mut self, newest: TrustedRoot) -> Result<(), StateError> {
        let is_kept = matches!(&self.anchor, Anchor::Root(root) if root.root().version == newest.root().version);
        if !is_kept || self.directory.root().ok().flatten().is_none() {
            self.directory.save_root(&newest)?;
        }
        self.anchor = Anchor::Root(Box::new(newest));
        Ok(())
    }

    /// Who asks for what, and believes whom: what was settled for another one is not settled for this one.
    pub(super) fn asker_digest(&self) -> Sha256Digest {
        let AgentConfig { name, deployments, branch, units, store, .. } = self.config;
        let fleet = self.anchor.fleet();
        // A new root may take out the key that signed what was settled.
        let root = match &self.anchor {
            Anchor::Root(root) => Some(root.root().version),
            Anchor::Digest(_) => None,
        };
        digest(format!("{name:?} {deployments:?} {branch:?} {fleet:?} {root:?} {units:?} {store:?}").as_bytes())
    }

    fn time(&self) -> Time<'_> {
        Time { clocks: &self.clocks, before: self.measure.as_ref() }
    }
}

/// The files of a commit that holds the layout of a branch and nothing else. That comes first of all: whoever reads what the
/// index names must not be led elsewhere by what stands beside it, and a folder is kept in memory only once it is known
/// how large it may be.
fn read(repository: &Repository, tip: CommitId) -> Result<Snapshot, BranchError> {
    check_layout(repository, tip)?;
    Ok(repository.snapshot(tip)?)
}

/// What one mirror shows, read once.
struct Look {
    mirror: String,
    seen: Result<Seen, BranchFetchError>,
}

/// A mirror's branch.
struct Seen {
    repository: Repository,
    tip: CommitId,
    /// Its files; none where everything was done at this very commit.
    files: Option<Result<Snapshot, BranchError>>,
}
