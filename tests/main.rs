//! The promises of Clavel.
