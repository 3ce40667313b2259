//! Compares systems by their derivations, and keeps the derivations it read for the next comparison.

use std::error::Error;

use super::compare;
use super::error::{CompareError, Side};
use super::graph::Graph;
use super::system::SystemChange;
use super::text;
use crate::model::StorePath;

/// A system as a deployment names it.
#[derive(Debug, Clone, Copy)]
pub struct DeployedSystem<'a> {
    /// The store path that is deployed.
    pub path: &'a StorePath,
    /// The derivation that is said to make it.
    pub derivation: Option<&'a StorePath>,
}

/// Compares systems. The function `R` reads the file of a derivation.
#[derive(Debug)]
pub struct Comparer<R> {
    pub(super) graph: Graph,
    read: R,
}

impl<R, E: Error> Comparer<R>
where
    R: Fn(&StorePath) -> Result<Vec<u8>, E>,
{
    /// A comparer that reads derivations with `read`.
    pub fn new(read: R) -> Self {
        Self { graph: Graph::default(), read }
    }

    /// The differences between two systems. Each derivation must make the path of its system, because a flake may name a
    /// path and the derivation of something else.
    pub fn compare_systems(
        &mut self,
        old: DeployedSystem<'_>,
        new: DeployedSystem<'_>,
    ) -> Result<SystemChange, CompareError> {
        let change = self.compare(old.derivation, new.derivation)?;
        for (DeployedSystem { path, derivation }, side) in [(old, Side::Old), (new, Side::New)] {
            let outputs = derivation.and_then(|derivation| self.graph.node(derivation)).map(|node| &node.outputs);
            let key = text::key(&path.as_nix().to_basename());
            if !key.zip(outputs).is_some_and(|(key, outputs)| outputs.contains(&key)) {
                return Err(CompareError::OtherDerivation { side });
            }
        }
        Ok(change)
    }

    /// The differences between the outputs of the derivations `old` and `new`.
    pub fn compare(&mut self, old: Option<&StorePath>, new: Option<&StorePath>) -> Result<SystemChange, CompareError> {
        let old = old.ok_or(CompareError::NoDerivation { side: Side::Old })?;
        let new = new.ok_or(CompareError::NoDerivation { side: Side::New })?;
        self.graph.load(new, &self.read)?;
        self.graph.load(old, &self.read)?;
        Ok(compare::compare(&self.graph, old, new))
    }
}

#[cfg(test)]
mod tests;
