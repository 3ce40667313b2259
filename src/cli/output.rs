//! Prints data on standard output, and errors, progress and remarks on standard error.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;

use super::exit::{Code, ErrorDocument, Exit};
use crate::model::{is_printable, json, printable_lines};
use crate::stderr::{self, Message, Severity};

/// Prints a line of data. Parts of it may come from a branch, a flake, a server or a program, and must not steer the terminal.
pub(super) fn line(text: impl Display) -> Result<(), Exit> {
    check_written(writeln!(io::stdout().lock(), "{}", printable_lines(&text.to_string())))
}

/// Prints bytes of data as they are.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Exit> {
    check_written(io::stdout().lock().write_all(bytes))
}

/// Prints one JSON document. What is not fit for a terminal stands in it as an escape sequence of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Exit> {
    // A document may have some 20 MB. A buffer is written where a piece of text ends.
    let mut buffer = BufWriter::with_capacity(64 << 10, EscapedJson(io::stdout().lock()));
    check_written(json::render_to(value, &mut buffer).and_then(|()| buffer.flush()))
}

/// Prints the bytes of one JSON document, as [`json()`] does.
pub(super) fn rendered_json(document: &[u8]) -> Result<(), Exit> {
    check_written(io::stdout().lock().write_all(escaped(document).as_bytes()))
}

/// JSON for a terminal. Only strings of a document have characters that are not fit for one, so each can stand as an escape sequence
/// there.
fn escaped(json: &[u8]) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in String::from_utf8_lossy(json).chars() {
        if is_printable(c) || c == '\n' {
            escaped.push(c);
        } else {
            let mut units = [0; 2];
            escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
}

/// Writes what `serde_json` serialises, [`escaped`]. No write may end within a character.
struct EscapedJson<W>(W);

impl<W: io::Write> io::Write for EscapedJson<W> {
    fn write(&mut self, json: &[u8]) -> io::Result<usize> {
        self.write_all(json).map(|()| json.len())
    }

    fn write_all(&mut self, json: &[u8]) -> io::Result<()> {
        /// The only character of ASCII that steers a terminal and that `serde_json` does not escape by itself.
        const DELETE: u8 = 0x7f;
        // This is nearly all of a document, and both look at many bytes at once.
        if json.is_ascii() && !json.contains(&DELETE) {
            self.0.write_all(json)
        } else {
            self.0.write_all(escaped(json).as_bytes())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn check_written(written: io::Result<()>) -> Result<(), Exit> {
    match written {
        // The reader has closed the pipe, as in `clavel list | head -1`. That is no error to report.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Exit::silent(Code::Machine)),
        other => {
            other.map_err(|error| Exit::machine(format!("cannot write to standard output: {error}")).without_document())
        }
    }
}

/// Prints a remark on standard error.
pub(super) fn remark(text: impl Display) {
    tell(vec![message(Severity::Info, text)]);
}

/// Prints a warning on standard error.
pub(super) fn warning(text: impl Display) {
    tell(vec![message(Severity::Warning, format_args!("warning: {text}"))]);
}

/// Prints an error on standard error.
pub(super) fn error(text: impl Display) {
    tell_as_error(vec![message(Severity::Error, text)]);
}

/// A message for [`tell`], without fields.
pub(super) fn message(severity: Severity, text: impl Display) -> Message {
    Message { severity, text: text.to_string(), fields: Vec::new() }
}

/// Prints messages that belong together on standard error.
pub(super) fn tell(mut messages: Vec<Message>) {
    let lines = joined(&mut messages);
    stderr::tell(messages, &lines);
}

/// Prints messages that belong together on standard error, as one error.
pub(super) fn tell_as_error(mut messages: Vec<Message>) {
    let red = match anstream::AutoStream::choice(&io::stderr()) {
        anstream::ColorChoice::Never => anstyle::Style::new(),
        _ => anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into())),
    };
    let otherwise = format!("{red}error:{red:#} {}", joined(&mut messages));
    for error in messages.iter_mut().filter(|message| message.severity == Severity::Error) {
        // In the journal, each stands alone.
        error.text.insert_str(0, "error: ");
    }
    stderr::tell(messages, &otherwise);
}

/// Makes the texts fit for a terminal, and gives them as lines.
fn joined(messages: &mut [Message]) -> String {
    for message in messages.iter_mut() {
        message.text = printable_lines(&message.text);
    }
    messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n") + "\n"
}

/// The log of this program and of its libraries, on standard error.
#[derive(Debug)]
pub(super) struct Logs;

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        Log(Severity::Info)
    }

    fn make_writer_for(&'a self, event: &tracing::Metadata<'_>) -> Log {
        Log(match *event.level() {
            tracing::Level::ERROR => Severity::Error,
            tracing::Level::WARN => Severity::Warning,
            tracing::Level::INFO => Severity::Info,
            _ => Severity::Debug,
        })
    }
}

/// Writes an event of the log.
#[derive(Debug)]
pub(super) struct Log(Severity);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One call has one event.
        let text = printable_lines(&String::from_utf8_lossy(bytes));
        stderr::tell(vec![message(self.0, text.trim_end())], &text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The form of a command's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataForm {
    /// For people.
    Text,
    /// One JSON document: `--json`.
    Json,
}

/// The document that a command with `--json` prints in place of its own where it fails before it has one.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct ErrorOutput {
    error: CommandError,
}

/// Why a command failed.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct CommandError {
    /// The exit code.
    exit_code: u8,
    /// The message, as on standard error.
    message: String,
}

/// Prints the error of a command with `--json` as a document.
pub(super) fn json_error(message: &str, exit_code: u8) {
    // Where standard output cannot be written to, standard error and the exit code say the same.
    let _ = json(&ErrorOutput { error: CommandError { exit_code, message: message.to_owned() } });
}

/// Prints why a command failed, and gives its exit code.
pub(super) fn report(exit: &Exit, form: DataForm) -> ExitCode {
    let code = exit.code() as u8;
    if !exit.is_silent() {
        error(exit.message());
    }
    if (form, exit.document()) == (DataForm::Json, ErrorDocument::Print) {
        json_error(exit.message(), code);
    }
    ExitCode::from(code)
}

/// Prints a table of data; nothing where there are no rows.
pub(super) fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Exit> {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.iter().map(|word| word.to_uppercase()));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in table.lines() {
        line(row.trim_end())?;
    }
    Ok(())
}

/// A line on the terminal that shows the current step of a command, and is removed at the end. Nothing is shown where standard
/// error is no terminal.
#[derive(Debug)]
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    /// Shows the text that `line` gives each time the line is drawn.
    pub(super) fn new(line: impl Fn() -> String + Clone + Send + Sync + 'static) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        let write = move |_: &ProgressState, to: &mut dyn std::fmt::Write| {
            // Writing to a string cannot fail.
            let _ = to.write_str(&printable_lines(&line()));
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {line}") {
            bar.set_style(style.with_key("line", write));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Draws the line anew.
    pub(super) fn redraw(&self) {
        self.0.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Indents text that belongs to the line above it.
pub(super) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_meaning_without_what_steers_a_terminal() {
        let value = ["a\u{9b}2J\u{202e}\u{e0041}é\n\u{1b}".to_owned(), "\u{7f}\u{1b}".to_owned()];
        let mut escaped = Vec::new();
        json::render_to(&value, EscapedJson(&mut escaped)).unwrap();
        let escaped = String::from_utf8(escaped).unwrap();
        assert!(escaped.contains(r"a\u009b2J\u202e\udb40\udc41é\n\u001b"), "{escaped}");
        assert!(
            escaped.contains(r"\u007f\u001b") && escaped.chars().all(|c| is_printable(c) || c == '\n'),
            "{escaped}"
        );
        assert_eq!(serde_json::from_str::<[String; 2]>(&escaped).unwrap(), value);
    }
}
