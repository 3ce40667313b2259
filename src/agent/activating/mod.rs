//! The activation of a unit, in a process of its own that outlives the agent.
//!
//! `clavel-agent` runs itself anew with one hidden command (`child`), which runs the programs of one activation one after another,
//! within their deadline, and writes how that ended to a file. The agent starts it and waits for it (`parent`): under systemd as a
//! transient unit, and elsewhere as a process of its own. Whatever ends the agent, the activation goes on: no pipe leads from one to the
//! other, and it is in a control group or a process group of its own. The process holds
//! the lock of its unit from before it starts until it ends, so there is never more than one activation of a unit. The next agent waits
//! for the lock, and picks up the result. Each program is noted before it begins, by the process that becomes it: where the process that
//! carries out the activation is killed, its program is waited for.
//!
//! `files` has the files that both sides use. Which programs there are belongs to `activate`, and what follows from a result to
//! `lifecycle`.

mod child;
mod files;
mod parent;

pub use child::{ACTIVATE_COMMAND, BECOME_COMMAND, CarryOutError, IN_UNIT, become_program, carry_out};
pub(super) use files::{ActivationFailed, ActivationFolder, ActivationId, ActivationProgram};
pub(super) use parent::{GRACE, PickUp, Undertaking};
