//! Turns a flake into drafts of its Deployments, Units and Agents. Nothing is ever built here.
//!
//! [`Evaluator::evaluate`] is the entry; docs/design/evaluation.md tells the whole story. These files decide and do no I/O:
//! `platforms` (where a flake has its hosts), `select` (which hosts a source takes), `lock` (which inputs there are),
//! `observe` (what an evaluation read), `record` (which recorded answers still hold; it also reads and writes its own file), `plan` (what has to be evaluated),
//! `schedule` (what runs when, and with what), `assemble` (which documents follow). These files act: `flake_caller` asks
//! Nix one question, `pool` asks many at once, `fingerprint` reads files, `relocation` checks answers with the source
//! elsewhere in the store, and `evaluator` calls all of them in order.
//!
//! Running Nix belongs to `nix`. Everything that happens to a draft afterwards belongs to `publish`.

mod assemble;
mod budget;
mod error;
mod evaluation;
mod evaluator;
mod fingerprint;
mod flake_caller;
mod lock;
mod observe;
mod outputs;
mod plan;
mod platforms;
mod pool;
mod progress;
mod reason;
mod record;
mod relocation;
mod schedule;
mod select;

pub use budget::Budget;
pub use error::EvaluateError;
pub use evaluation::{Drafts, EvaluatedAttribute, Evaluation, EvaluationWork, Failure};
pub use evaluator::Evaluator;
pub use outputs::{FailedPart, FlakeOutput, Item};
pub use plan::EvalMode;
pub use progress::Progress;
pub use reason::EvalReason;
