//! The changes that a publication makes inside systems, before anything is built: the derivations of the old and the new
//! system are compared, and the result is a list of packages, files and settings.
//!
//! A comparison starts at the derivation of a system, follows the pieces that the system is made of (files, units, scripts
//! and the folders that gather them), and ends at packages: the inputs of a package are not what a machine runs. An input
//! counts where its path occurs in the text of the derivation that uses it, outside of attributes that only say how
//! something is built.
//!
//! [`Forecast`] says what a switch is likely to restart, and [`group_changes`] puts deployments together that change alike.
//!
//! No I/O: the caller passes a function that reads the files of derivations. Printing the result belongs to `cli`.

mod boot;
mod closures;
mod compare;
mod comparer;
mod derivation;
mod error;
mod forecast;
mod graph;
mod group;
mod specification;
mod switch;
mod system;
mod text;
mod unit_file;
mod version;

pub use closures::{ClosureChange, compare_closures};
pub use comparer::{Comparer, DeployedSystem};
pub use error::{CompareError, Side};
pub use forecast::{Forecast, RebootPart, UnitAction, UnitForecast};
pub use group::{ChangeGroup, group_changes};
pub use specification::{FactChange, diff_facts, list_facts};
pub use system::{
    FileChange, FileChangeKind, PackageChange, PackageChangeKind, SystemChange, SystemDiff, VersionChange,
};
pub use version::compare_versions;
