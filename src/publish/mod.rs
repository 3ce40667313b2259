//! From evaluations to a commit on the branch: plan, sign, commit.
//!
//! [`Publisher::publish`] is the entry for evaluations, [`Publisher::operate`] for an operator's request. These files decide
//! and have no I/O: `plan` (which documents change), `withhold` (which of them have to wait), `broken` (which of them a broken part
//! touches), `withdrawals` (which of them an operator has to allow), all by the names of `withheld`; `survey` (whether the caches have
//! a deployment), `pin`, `operate`. These do the I/O and decide nothing: `base` and `document_loader` read the branch into the types
//! of `branch_state`, `caches` asks the caches, `diffs` compares systems, `sign` signs, `attempt` begins one attempt, `publisher` has
//! the [`Publisher`] and the order of it all, `note` remembers the last publication, `settled` what the next one need not look at, and
//! `foresee` answers the gate, `export` writes a branch as plain files. `bins` makes the bins of the index. `document_change`, `left_out`, `described`, `report`, `message`
//! and `readme` are what people read of it.
//!
//! The daemon, its triggers and the gate belong to `claveld`; evaluating belongs to `evaluate`.

mod attempt;
mod base;
mod bins;
mod branch_state;
mod broken;
mod caches;
mod described;
mod diffs;
mod document_change;
mod document_loader;
mod error;
mod export;
#[cfg(test)]
mod fixture;
mod foresee;
mod inspect;
mod left_out;
mod message;
mod note;
mod operate;
mod pin;
mod plan;
mod publisher;
mod readme;
mod report;
mod settled;
mod sign;
mod survey;
mod withdrawals;
mod withheld;
mod withhold;

pub use attempt::PublishSettings;
pub use base::PublishBaseError;
pub use described::DescribedChange;
pub use document_change::{DocumentChange, NameConflict};
pub use error::PublishError;
pub use export::{ExportError, Exported, StaticExport, remove_unnamed};
pub use foresee::foresee_withdrawals;
pub use inspect::{BranchInspection, check_keys, check_note, inspect};
pub use left_out::{
    Awaited, KeptBack, LostDeployment, MissingSetting, Protection, Unpublishable, Unready, Waiting, describe_hold,
};
pub use note::{BranchRegression, IndexOrigin, PublishNoteError, PublishedIndex};
pub use operate::{OperateError, OperatedDeployment, Operation, OperationReport, OperatorRequest, RemovedKeys};
pub use plan::{OrphanPolicy, PlanError, PublishInput};
pub use publisher::Publisher;
pub use report::{IndexTimes, PublishReport};
pub use survey::{CacheProblem, CacheState};
pub use withdrawals::HeldWithdrawals;
