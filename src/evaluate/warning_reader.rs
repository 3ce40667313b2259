//! Finds the warnings of an evaluation in what Nix writes on its standard error: `builtins.trace`, `builtins.warn`, and what is made of
//! them, such as `lib.warn` and the option `warnings` of NixOS. No I/O.
//!
//! Nix 2.8 has no `builtins.warn`, so that nixpkgs warns by a trace there. What is one warning for people is one text with every Nix.

use std::collections::BTreeSet;

use super::warnings::{MAX_WARNINGS, WarningText};

/// The beginning of a trace.
const TRACE: &str = "trace: ";
/// The beginning of a warning of the flake, and of what nixpkgs traces in its place.
const WARNING: &str = "evaluation warning: ";
/// The beginning of a warning of Nix itself; after [`TRACE`], that of a warning of an older nixpkgs.
const PLAIN_WARNING: &str = "warning: ";
/// The most bytes of one warning that are read.
const MAX_READ: usize = 4 << 10;

/// Reads the lines that one process writes.
///
/// A flake may warn without end. So at most one warning more than may be kept is told of each process, and each of them once between
/// two marked lines.
#[derive(Debug)]
pub(super) struct WarningReader {
    /// The paths of the source's tree, which differ with each content.
    trees: Vec<String>,
    /// The warning that is being read.
    open: Option<Vec<u8>>,
    /// Whether the last line had no end yet.
    is_within_line: bool,
    known: BTreeSet<WarningText>,
    told: BTreeSet<WarningText>,
}

impl WarningReader {
    /// A reader for a process that evaluates a flake whose tree is at these paths.
    pub(super) fn new(trees: Vec<String>) -> Self {
        Self { trees, open: None, is_within_line: false, known: BTreeSet::new(), told: BTreeSet::new() }
    }

    /// Reads a line, or a piece of a long one. Returns the warning that ended before it.
    pub(super) fn line(&mut self, line: &[u8]) -> Option<WarningText> {
        let begins = |word: &str| line.starts_with(word.as_bytes());
        let is_piece = std::mem::replace(&mut self.is_within_line, !line.ends_with(b"\n"));
        if !is_piece && (begins(TRACE) || begins(WARNING)) {
            let ended = self.end();
            self.open = Some(line[..line.len().min(MAX_READ)].to_owned());
            return ended;
        }
        if !is_piece && begins(PLAIN_WARNING) {
            return self.end();
        }
        if let Some(open) = &mut self.open {
            open.extend_from_slice(&line[..line.len().min(MAX_READ.saturating_sub(open.len()))]);
        }
        None
    }

    /// Reads a marked line, or the end of the output. Returns the warning that ended before it.
    pub(super) fn marked(&mut self) -> Option<WarningText> {
        let ended = self.end();
        self.told.clear();
        self.is_within_line = false;
        ended
    }

    fn end(&mut self) -> Option<WarningText> {
        let text = self.open.take()?;
        let text = read_warning(&String::from_utf8_lossy(&text), &self.trees)?;
        if self.known.len() > MAX_WARNINGS && !self.known.contains(&text) {
            return None;
        }
        self.known.insert(text.clone());
        self.told.insert(text.clone()).then_some(text)
    }
}

/// The text of a warning as Nix wrote it. `.` stands for the flake's own tree in it.
fn read_warning(written: &str, trees: &[String]) -> Option<WarningText> {
    let mut text = match (written.strip_prefix(TRACE), written.strip_prefix(WARNING)) {
        (Some(trace), _) => match trace.strip_prefix(WARNING).or(trace.strip_prefix(PLAIN_WARNING)) {
            Some(warning) => warning.to_owned(),
            None => written.to_owned(),
        },
        // Newer versions indent the lines of their own warnings.
        (None, Some(warning)) => warning.replace(&format!("\n{}", " ".repeat(WARNING.len())), "\n"),
        (None, None) => return None,
    };
    for tree in trees {
        text = text.replace(tree, ".");
    }
    let text = WarningText::new(text.trim_end());
    (!text.as_str().trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The warnings in these lines, of which those that begin with `MARK` are marked.
    fn warnings(reader: &mut WarningReader, lines: &str) -> Vec<String> {
        let read = |line: &str| if line.starts_with("MARK") { reader.marked() } else { reader.line(line.as_bytes()) };
        let mut found: Vec<_> = lines.split_inclusive('\n').filter_map(read).collect();
        found.extend(reader.marked());
        found.iter().map(|text| text.as_str().to_owned()).collect()
    }

    fn reader() -> WarningReader {
        WarningReader::new(vec!["/nix/store/1-source".to_owned(), "/nix/store/2-tree00".to_owned()])
    }

    #[test]
    fn a_warning_is_the_same_text_with_every_nix() {
        for written in [
            "trace: warning: x is old;\nuse y:\n\n  y = 1;\n",
            "trace: evaluation warning: x is old;\nuse y:\n\n  y = 1;\n",
            "evaluation warning: x is old;\n                    use y:\n\n                      y = 1;\n",
        ] {
            assert_eq!(warnings(&mut reader(), written), ["x is old;\nuse y:\n\n  y = 1;"], "{written}");
        }
        assert_eq!(warnings(&mut reader(), "trace: { a = 1; }\n"), ["trace: { a = 1; }"]);
    }

    #[test]
    fn a_warning_ends_before_the_next_one_a_mark_and_the_words_of_nix_itself() {
        let lines = "warning: the group is missing\nodd\ntrace: one\ntwo\ntrace: three\nMARK begin\nodd\ntrace: four\n\
                     warning: Nix says\nthis\nevaluation warning: five\n\n";
        assert_eq!(warnings(&mut reader(), lines), ["trace: one\ntwo", "trace: three", "trace: four", "five"]);
        assert_eq!(warnings(&mut reader(), "trace: \nevaluation warning:  \n"), ["trace:"]);
    }

    #[test]
    fn the_path_of_the_source_is_no_part_of_a_warning() {
        for path in ["/nix/store/1-source", "/nix/store/2-tree00"] {
            assert_eq!(warnings(&mut reader(), &format!("trace: in {path}/a.nix\n")), ["trace: in ./a.nix"]);
        }
    }

    #[test]
    fn a_flood_of_warnings_is_bounded() {
        let mut reader = reader();
        assert_eq!(warnings(&mut reader, &"trace: a\n".repeat(1000)), ["trace: a"]);
        assert_eq!(warnings(&mut reader, "trace: a\nMARK\ntrace: a\n"), ["trace: a", "trace: a"], "once for each item");
        let many = (0..1000).map(|number| format!("trace: {number}\n")).collect::<Vec<_>>().concat();
        assert_eq!(warnings(&mut reader, &many).len(), MAX_WARNINGS);
        assert!(warnings(&mut reader, &many).contains(&"trace: 0".to_owned()));
        // A long line comes in pieces, and none of them begins another warning.
        let mut reader = WarningReader::new(Vec::new());
        assert_eq!(reader.line(format!("trace: {}", "x".repeat(16 << 10)).as_bytes()), None);
        assert_eq!(reader.line(b"trace: y\n"), None);
        let text = reader.marked().unwrap();
        assert!(text.as_str().len() <= 1024 && text.as_str().ends_with("x\n[…]"), "{text:?}");
    }
}
