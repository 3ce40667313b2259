//! What to write when an evaluation ends, writing it, and what starts an evaluation.
//!
//! `plan` decides, from the branch as it is and what was evaluated, which documents change: pure. `operate` decides the same
//! from what an operator wants of one deployment: pure. `files` signs a plan; `commit` puts it on the branch, and decides
//! again when somebody else was faster. Between planning and committing, `inside` looks at what changes in the systems
//! themselves. `note` remembers what was published, so that nothing is built on a branch that went back. Where deployments
//! wait for their caches, `caches` asks these; `survey` puts together what they said, `ready` decides what is held back, and
//! `pin` what is pinned: pure. `hook` and `watch` say when. `gate` judges a push before git takes it in, and publishes
//! nothing.

mod caches;
mod changes;
mod commit;
mod files;
mod inside;
mod note;
mod operate;
mod pin;
mod plan;
mod readme;
mod ready;
mod standing;
mod survey;

pub use changes::{Change, Conflict, KeptBack, Report, told_hold};
pub use commit::{PublishError, PublishSettings, Publisher};
pub use note::{Behind, NoteError, Published};
pub use operate::{Deed, OperateError, Operated, Wish};
pub use plan::{Evaluated, PlanError, Strays};
pub use ready::{Awaited, Hopeless, Missing, Unready, Waiting};
pub use standing::StandingError;
pub use survey::{CacheState, Lack};
