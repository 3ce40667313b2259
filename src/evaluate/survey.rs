//! The survey of a flake: the names of everything that it has, and the values of what it declares as data below `clavel`. No I/O.
//!
//! A unit, an agent or a deployment whose `narId` is text costs next to nothing, so all of them are one answer of the record. A value
//! that needed a derivation is an answer of its own.

use serde::{Deserialize, Serialize};

use super::nix_value::NixValue;
use super::outputs::{FlakeOutput, Item, Names};

/// What a flake has, and what it declares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Survey {
    /// The names.
    pub(super) names: Names,
    /// The values of what is declared as data, in the order of the items. An item that fails is not among them.
    pub(super) told: Vec<(Item, NixValue)>,
}

impl Survey {
    /// The value of `item`, where it is declared as data.
    pub(super) fn value(&self, item: &Item) -> Option<&NixValue> {
        let at = self.told.binary_search_by(|(other, _)| other.cmp(item)).ok()?;
        Some(&self.told[at].1)
    }
}

/// Whether `value` of `item` belongs to a survey.
pub(super) fn is_plain(item: &Item, value: &NixValue) -> bool {
    FlakeOutput::OF_CLAVEL.contains(&item.output) && value.derivation().is_none()
}
