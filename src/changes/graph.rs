//! The graph of the derivations below a system, as far as a comparison needs it. Derivations are kept for the next
//! comparison, because a hundred hosts share most of theirs.

use std::collections::{HashMap, HashSet};
use std::error::Error;

use super::derivation::{DerivationNode, InputRole};
use super::error::CompareError;
use super::text::{self, Key};
use crate::model::{StorePath, describe_error};

/// The most that is read in one round. Larger systems are not compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most derivations. Of a NixOS host, some thousands are read.
    pub(super) derivations: usize,
    /// The most bytes of text that are kept of all derivations together.
    pub(super) text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { derivations: 200_000, text: 512 << 20 }
    }
}

/// Derivations by path. Each is read once.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<StorePath, DerivationNode>,
    /// The inputs that the text of each opened derivation mentions.
    edges: HashMap<StorePath, Vec<StorePath>>,
    /// The bytes of text that are kept.
    text: usize,
    pub(super) limits: Limits,
}

impl Graph {
    /// Reads the derivations of the system at `root` that are not known yet.
    pub(super) fn load<E: Error>(
        &mut self,
        root: &StorePath,
        read: &impl Fn(&StorePath) -> Result<Vec<u8>, E>,
    ) -> Result<(), CompareError> {
        self.read_node(root, InputRole::Root, read)?;
        let (mut open, mut seen) = (vec![root.clone()], HashSet::from([root.clone()]));
        while let Some(path) = open.pop() {
            let is_root = path == *root;
            let Some(node) = self.nodes.get(&path).filter(|node| is_root || node.package.is_none()) else { continue };
            if !self.edges.contains_key(&path) {
                let inputs = node.inside.as_ref().map_or_else(Vec::new, |inside| inside.inputs.clone());
                for input in &inputs {
                    self.read_node(input, InputRole::Part, read)?;
                }
                self.edges.insert(path.clone(), self.mentioned(&path));
            }
            let edges = self.edges.get(&path).into_iter().flatten();
            open.extend(edges.filter(|input| seen.insert((*input).clone())).cloned());
        }
        Ok(())
    }

    /// The node at `path`, where it was read.
    pub(super) fn node(&self, path: &StorePath) -> Option<&DerivationNode> {
        self.nodes.get(path)
    }

    /// The inputs that the text of the derivation at `path` mentions.
    pub(super) fn inputs(&self, path: &StorePath) -> impl Iterator<Item = &StorePath> {
        self.edges.get(path).into_iter().flatten()
    }

    /// All derivations of the system at `root`, each once. Packages are not opened.
    pub(super) fn below<'a>(
        &'a self,
        root: &'a StorePath,
    ) -> impl Iterator<Item = (&'a StorePath, &'a DerivationNode)> {
        let (mut open, mut seen) = (vec![root], HashSet::from([root]));
        std::iter::from_fn(move || {
            let path = open.pop()?;
            let node = self.nodes.get(path)?;
            if path == root || node.package.is_none() {
                let edges = self.edges.get(path).into_iter().flatten();
                open.extend(edges.filter(|input| seen.insert(input)));
            }
            Some((path, node))
        })
    }

    /// Reads the derivation at `path`, unless it is known in this role.
    fn read_node<E: Error>(
        &mut self,
        path: &StorePath,
        role: InputRole,
        read: &impl Fn(&StorePath) -> Result<Vec<u8>, E>,
    ) -> Result<(), CompareError> {
        let known = self.nodes.get(path);
        if known.is_some_and(|node| role == InputRole::Part || node.inside.is_some()) {
            return Ok(());
        }
        if self.nodes.len() >= self.limits.derivations || self.text >= self.limits.text {
            return Err(CompareError::TooLarge);
        }
        let unreadable = |why: String| CompareError::Unreadable { path: path.clone(), why };
        let bytes = read(path).map_err(|error| unreadable(describe_error(&error)))?;
        let node = DerivationNode::parse(path, &bytes, role)
            .map_err(|error| unreadable(text::printable(&error.to_string())))?;
        let texts = node.inside.iter().flat_map(|inside| inside.text.values().chain(inside.boot.values()));
        let units = node.inside.iter().filter_map(|inside| inside.unit.as_ref()).map(|unit| &unit.text);
        self.text += texts.chain(units).map(String::len).sum::<usize>();
        self.nodes.insert(path.clone(), node);
        Ok(())
    }

    /// The inputs of the opened derivation at `path` that its text mentions.
    fn mentioned(&self, path: &StorePath) -> Vec<StorePath> {
        let Some(inside) = self.nodes.get(path).and_then(|node| node.inside.as_ref()) else { return Vec::new() };
        let outputs = |input: &StorePath| self.nodes.get(input).map_or::<&[Key], _>(&[], |node| &node.outputs);
        let is_mentioned = |input: &&StorePath| outputs(input).iter().any(|key| inside.mentions.contains(key));
        inside.inputs.iter().filter(is_mentioned).cloned().collect()
    }
}
