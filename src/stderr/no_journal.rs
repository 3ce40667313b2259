//! Systems without systemd have no journal.

use super::message::Message;

/// A journal that no program has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Nowhere {}

pub(super) fn journal() -> Option<Nowhere> {
    None
}

pub(super) fn entries(message: Message) -> Vec<Message> {
    vec![message]
}

pub(super) fn send(journal: Nowhere, _: &Message) -> std::io::Result<()> {
    match journal {}
}
