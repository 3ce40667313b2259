//! Reads a static folder: which files a reader needs, from the tip on. No I/O: the files come from a [`StaticTransfer`].
//!
//! Nothing is verified here. The files become a commit, and every check of a branch is made on that. A file that cannot be parsed has the
//! digest that the index asks for, so that its publisher made it like this; the checks say what is wrong with it.

use std::collections::BTreeMap;

use super::layout::Layout;
use super::static_tip::{StaticApprovals, StaticRoots, StaticTip};
use crate::git::{STATIC_TIP, StaticError, StaticTransfer};
use crate::model::{
    AgentSpecification, Bin, BinId, BranchFile as _, BranchPart, DeploymentSpecification, Document, DocumentPath,
    FileDigest, Folder, Index, Name, Root, RootVersion, Specification, json,
};
use crate::trust::{Signed, parse_bin};

/// Reads the part of the branch that the tip names.
pub fn read_static(tip: &[u8], part: &BranchPart, transfer: &mut dyn StaticTransfer) -> Result<(), StaticError> {
    let damaged = |source| content(STATIC_TIP, source);
    let tip = StaticTip::parse(tip).map_err(damaged)?;
    let index = tip.unverified_index().map_err(damaged)?;
    transfer.keep(Layout::INDEX, tip.index)?;
    read_roots(&tip.head.roots, transfer)?;
    let Some(index) = index else { return Ok(()) };
    let index = index.unverified();
    let layout = Layout::of(index.bins.count());
    let mut reader = Reader { transfer, tip: &tip, index, layout, bins: BTreeMap::new(), approvals: BTreeMap::new() };
    match part {
        BranchPart::Whole => reader.read_all(),
        BranchPart::OfAgent { agent, deployments } => reader.read_for(agent, deployments.as_deref()),
    }
}

fn content(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> StaticError {
    StaticError::Content { what: what.into(), source: Box::new(source) }
}

/// The list of the roots whose files these are.
pub fn static_roots(mut file: impl FnMut(&str) -> Option<Vec<u8>>) -> Vec<FileDigest> {
    let versions = std::iter::successors(Some(RootVersion::FIRST), |version| version.next());
    versions.map_while(|version| file(&Layout::root(version))).map(|bytes| FileDigest::of(&bytes)).collect()
}

/// Reads the roots that were not read before. While the list is the same, that is no request.
fn read_roots(listed: &FileDigest, transfer: &mut dyn StaticTransfer) -> Result<(), StaticError> {
    let known = static_roots(|path| transfer.known(path, Root::MAX_BYTES));
    let roots = if FileDigest::of(&json::render(&known)) == *listed {
        known
    } else {
        let bytes = transfer.object(listed)?;
        let roots: StaticRoots =
            json::parse(&bytes, bytes.len() as u64).map_err(|error| content("the list of the roots", error))?;
        roots.to_vec()
    };
    let versions = std::iter::successors(Some(RootVersion::FIRST), |version| version.next());
    let mut newest = None;
    for (version, root) in versions.zip(&roots) {
        newest = Some(transfer.file(&Layout::root(version), root)?);
    }
    newest.map_or(Ok(()), |newest| transfer.keep(Layout::NEWEST_ROOT, &newest))
}

struct Reader<'a> {
    transfer: &'a mut dyn StaticTransfer,
    tip: &'a StaticTip<'a>,
    index: &'a Index,
    layout: Layout,
    /// The bins that were read; `None` for one that cannot be parsed.
    bins: BTreeMap<BinId, Option<Bin>>,
    approvals: BTreeMap<BinId, StaticApprovals>,
}

impl Reader<'_> {
    /// What an agent reads.
    fn read_for(&mut self, agent: &Name, wanted: Option<&[Name]>) -> Result<(), StaticError> {
        let Some(agent) = self.document::<AgentSpecification>(agent)? else { return Ok(()) };
        for name in agent.specification.deployments.iter() {
            if wanted.is_some_and(|wanted| !wanted.contains(name)) {
                continue;
            }
            let Some(deployment) = self.document::<DeploymentSpecification>(name)? else { continue };
            self.file(&DocumentPath::new(Folder::Units, deployment.specification.unit.clone()))?;
            self.approvals_of(name)?;
        }
        Ok(())
    }

    fn read_all(&mut self) -> Result<(), StaticError> {
        for bin in self.layout.bins().bins() {
            self.read_bin(bin)?;
            let Some(content) = self.bins.remove(&bin).flatten() else { continue };
            for (folder, names) in &content.documents {
                for (name, entry) in names {
                    self.transfer.file(&self.layout.file(folder.as_str(), name), &entry.file())?;
                }
            }
            self.read_approvals(bin)?;
            let names: Vec<Name> = self
                .approvals
                .get(&bin)
                .into_iter()
                .flat_map(|list| list.iter())
                .map(|(name, _)| name.clone())
                .collect();
            names.iter().try_for_each(|name| self.approvals_of(name))?;
        }
        Ok(())
    }

    /// Reads a document; `None` where there is none, or one that cannot be parsed.
    fn document<S: Specification>(&mut self, name: &Name) -> Result<Option<Document<S>>, StaticError> {
        let bytes = self.file(&DocumentPath::new(S::FOLDER, name.clone()))?;
        Ok(bytes.and_then(|bytes| Signed::<Document<S>>::parse(&bytes).ok()).map(|signed| signed.unverified().clone()))
    }

    /// Reads the file of a document, where its bin lists it.
    fn file(&mut self, path: &DocumentPath) -> Result<Option<Vec<u8>>, StaticError> {
        let bin = self.layout.bins().bin_of(path.name());
        self.read_bin(bin)?;
        let listed = self.bins.get(&bin).and_then(|bin| bin.as_ref()?.document(path));
        listed.map(|entry| self.transfer.file(&self.layout.document(path), &entry.file())).transpose()
    }

    fn read_bin(&mut self, bin: BinId) -> Result<(), StaticError> {
        if let (false, Some(listed)) = (self.bins.contains_key(&bin), self.index.bins.get(bin)) {
            let bytes = self.transfer.file(&Layout::bin(bin), listed)?;
            self.bins.insert(bin, parse_bin(&bytes).ok());
        }
        Ok(())
    }

    fn approvals_of(&mut self, deployment: &Name) -> Result<(), StaticError> {
        let bin = self.layout.bins().bin_of(deployment);
        self.read_approvals(bin)?;
        let files = self.approvals.get(&bin).and_then(|list| list.get(deployment.as_str()));
        for (approver, file) in files.into_iter().flat_map(|files| files.iter()) {
            let path = format!("{}/{approver}.json", self.layout.approvals(deployment));
            self.transfer.file(&path, file)?;
        }
        Ok(())
    }

    /// Reads the list of the approvals of a bin, where there are any.
    fn read_approvals(&mut self, bin: BinId) -> Result<(), StaticError> {
        if let (false, Some(listed)) = (self.approvals.contains_key(&bin), self.tip.head.approvals.get(&bin)) {
            let bytes = self.transfer.object(listed)?;
            let list = json::parse(&bytes, bytes.len() as u64);
            let list = list.map_err(|error| content(format!("the list of the approvals of bin {bin}"), error))?;
            self.approvals.insert(bin, list);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "static_reader_tests.rs"]
mod tests;
