//! A message of a program. No I/O.

/// The most bytes that are written at once. A longer text is written in several pieces, which become several entries of the journal.
pub(super) const MAX_PIECE: usize = 16 << 10;

/// A message, fit for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How much it matters.
    pub severity: Severity,
    /// The text, of one or more lines.
    pub text: String,
    /// The names and values of its fields in the journal. A name has capital letters, digits and `_`.
    pub fields: Vec<(&'static str, String)>,
}

/// How much a message matters: the priorities of syslog that Clavel uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For whoever debugs.
    Debug,
    /// In the order of things.
    Info,
    /// Somebody should look at it.
    Warning,
    /// Something failed.
    Error,
}
