//! Turns a flake into drafts of its Deployments, Units and Agents. Nothing is ever built here.
//!
//! [`Evaluator::evaluate`] gives the answers, and [`Evaluator::learn`] finds out afterwards what they depend on; docs/design/evaluation.md
//! tells the whole story. These files decide and do no I/O: `platforms` (where a flake has its hosts), `select` (which hosts a source
//! takes), `lock` (which inputs there are), `told` (what a process tells), `warning_reader` and `warnings` (what it warns of), `observe`
//! (what an evaluation used), `basis` (what an answer depends on), `record` (the answers; it also reads and writes its own file),
//! `recorded` (what the record says of each item), `plan` (what has to be evaluated), `schedule` (what runs when, and with what),
//! `allowance` (what one source may use in all), `assemble` (which documents follow). These files act: `flake_caller` starts a process of
//! Nix, `teller` listens to it, `pool` runs many, `fingerprint` reads files, and `evaluator` and `learn` call all of them in order.
//!
//! Running Nix belongs to `nix`. Everything that happens to a draft afterwards belongs to `publish`.

mod allowance;
mod assemble;
mod basis;
mod budget;
mod error;
mod evaluation;
mod evaluator;
mod fingerprint;
mod flake_caller;
mod learn;
mod lock;
mod nix_value;
mod observe;
mod outputs;
mod plan;
mod platforms;
mod pool;
mod progress;
mod reason;
mod record;
mod recorded;
mod schedule;
mod select;
mod survey;
mod teller;
mod told;
mod warning_reader;
mod warnings;

pub use allowance::SpentAllowance;
pub use budget::Budget;
pub use error::EvaluateError;
pub use evaluation::{Drafts, EvaluatedAttribute, Evaluation, EvaluationWork, Failure};
pub use evaluator::Evaluator;
pub use outputs::{FailedPart, FlakeOutput, Item};
pub use plan::EvalMode;
pub use progress::Progress;
pub use reason::EvalReason;
pub use warnings::{EvalWarning, EvalWarnings};
