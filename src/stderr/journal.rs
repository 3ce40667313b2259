//! The journal of systemd, where standard error leads there: a message has fields and a priority, and one entry.

use std::sync::OnceLock;

use log::{Level, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal, current_exe_identifier};

use super::message::{MAX_PIECE, Message, Severity};

/// The journal, if standard error is connected to it and its socket is there.
pub(super) fn journal() -> Option<&'static JournalLog> {
    static JOURNAL: OnceLock<Option<JournalLog>> = OnceLock::new();
    let open = || {
        let journal = connected_to_journal().then(JournalLog::empty)?.ok()?;
        Some(journal.with_syslog_identifier(current_exe_identifier().unwrap_or_default()))
    };
    JOURNAL.get_or_init(open).as_ref()
}

/// The entries of a message: one, unless its text is long.
pub(super) fn entries(message: Message) -> Vec<Message> {
    let Message { severity, text, fields } = message;
    parts(&text).map(|text| Message { severity, text: text.to_owned(), fields: fields.clone() }).collect()
}

/// Sends one entry. It waits for the journal where that is slow.
pub(super) fn send(journal: &JournalLog, entry: &Message) -> std::io::Result<()> {
    let fields: Vec<(&str, &str)> = entry.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let text = &entry.text;
    let (mut record, level) = (Record::builder(), level(entry.severity));
    journal.journal_send(&record.level(level).target("clavel").key_values(&fields).args(format_args!("{text}")).build())
}

/// The level to which the logger gives that priority of syslog's. Its names are one off: `Debug` becomes `info`.
fn level(severity: Severity) -> Level {
    match severity {
        Severity::Error => Level::Error,
        Severity::Warning => Level::Warn,
        Severity::Info => Level::Debug,
        Severity::Debug => Level::Trace,
    }
}

/// The text in parts of at most [`MAX_PIECE`] bytes.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (part, after) = text.split_at(text.floor_char_boundary(MAX_PIECE));
        rest = Some(after).filter(|after| !after.is_empty());
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_whole_in_several_entries() {
        let text = "ü".repeat(MAX_PIECE) + "!";
        let fields = vec![("CLAVEL_DEPLOYMENT", "web-1".to_owned())];
        let message = Message { severity: Severity::Error, text: text.clone(), fields: fields.clone() };
        let entries = entries(message);
        assert_eq!(entries.len(), 3);
        assert!(entries.iter().all(|entry| entry.text.len() <= MAX_PIECE && entry.fields == fields));
        assert_eq!(entries.into_iter().map(|entry| entry.text).collect::<String>(), text);
        assert_eq!(parts("").collect::<Vec<_>>(), [""]);
    }
}
