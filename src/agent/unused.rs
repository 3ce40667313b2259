//! Parts of the configuration that nothing of this agent uses: the table of a unit whose name is misspelt, for example. No I/O.

use std::collections::BTreeSet;
use std::fmt;

use super::verify::{Order, Unfit};
use crate::model::Name;

/// A table `[units.NAME]` about a unit that no deployment of this agent is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedUnit {
    /// The unit in the configuration.
    pub unit: Name,
    /// The units of this agent's deployments.
    pub units: BTreeSet<Name>,
}

impl fmt::Display for UnusedUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units: Vec<String> = self.units.iter().map(|unit| format!("`{unit}`")).collect();
        let units = if units.is_empty() { "none".to_owned() } else { units.join(", ") };
        write!(
            f,
            "the configuration has [units.\"{}\"], and no deployment of this agent is for that unit; the units there are: {units}; \
             correct the name, or remove the table",
            self.unit
        )
    }
}

/// The units that the deployments of an agent are for; `None` where one of them cannot be read, so that it may be for any unit.
pub(super) fn units_of(orders: &[Order], unfit: &[(Name, Unfit)]) -> Option<BTreeSet<Name>> {
    let unfit = unfit.iter().map(|(_, why)| why.unit().cloned());
    orders.iter().map(|order| Some(order.unit.name.clone())).chain(unfit).collect()
}

/// The tables of the configuration, for the units `configured`, that are about none of `units`.
pub(super) fn unused<'a>(configured: impl Iterator<Item = &'a Name>, units: &BTreeSet<Name>) -> Vec<UnusedUnit> {
    let unused = configured.filter(|unit| !units.contains(*unit));
    unused.map(|unit| UnusedUnit { unit: unit.clone(), units: units.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_about_no_unit_of_the_agent_is_named_with_the_units_there_are() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<Name>>();
        let configured = names(&["web-1", "web-one"]);
        let found = unused(configured.iter(), &names(&["web-1", "web-2"]));
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains("[units.\"web-one\"]"), "{said:?}");
        assert!(said[0].contains("the units there are: `web-1`, `web-2`"), "{said:?}");
        assert!(unused(configured.iter(), &configured).is_empty());
    }
}
