//! Activations at the next boot: when one is needed in place of a switch, and whether the machine has booted.
//!
//! `reasons` compares what two systems say about themselves, `exit` tells the exit codes of NixOS's `switch-to-configuration` apart, and
//! `reboot` says whether the machine has booted; all three decide without I/O. `facts` reads the files of a system and what this machine has booted.

pub(super) mod exit;
pub(super) mod facts;
pub(super) mod reasons;
pub(super) mod reboot;
