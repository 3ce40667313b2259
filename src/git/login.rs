//! A user and a password, as a program sends them to a host.

use std::fmt;

/// A user and a password. Its `Debug` has no password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// The user.
    pub(super) user: String,
    /// The password or token.
    pub(super) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.user)
    }
}
