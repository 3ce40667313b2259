//! The standard error of a program, within bounds: of a long text, the parts that say what failed.

use super::nix_report::{LEFT_OUT, begins_error};

/// The most bytes of each of its parts.
const MAX_PART: usize = 16 << 10;

/// The standard error of a program, from its last marked line on.
#[derive(Debug, Default)]
pub(super) struct StderrText {
    /// The end of what comes before the first line with an error: warnings, and the inner end of the trace of a newer Nix.
    before: Tail,
    /// The beginning of the error, from that line on.
    error: Vec<u8>,
    /// The end of what follows.
    after: Tail,
}

impl StderrText {
    /// Adds a line, or a part of one where it is long.
    pub(super) fn add(&mut self, line: &[u8]) {
        if self.error.is_empty() && !begins_error(&String::from_utf8_lossy(line)) {
            self.before.add(line);
        } else if self.after.is_empty() && self.error.len() + line.len() <= MAX_PART {
            self.error.extend_from_slice(line);
        } else {
            self.after.add(line);
        }
    }

    /// The text, with a line in the place of each part that is left out.
    pub(super) fn text(&self) -> String {
        let mut all = self.before.rendered();
        all.push_str(&String::from_utf8_lossy(&self.error));
        all.push_str(&self.after.rendered());
        all
    }
}

/// The end of a text.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    left_out: usize,
}

impl Tail {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn add(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        let excess = self.bytes.len().saturating_sub(MAX_PART);
        self.bytes.drain(..excess);
        self.left_out += excess;
    }

    fn rendered(&self) -> String {
        if self.left_out == 0 {
            return String::from_utf8_lossy(&self.bytes).into_owned();
        }
        // The first line has lost its beginning.
        let whole = self.bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&self.bytes[whole..]);
        format!("{LEFT_OUT}{} bytes are left out here …]\n{text}", self.left_out + whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(lines: impl IntoIterator<Item = String>) -> String {
        let mut text = StderrText::default();
        lines.into_iter().for_each(|line| text.add(format!("{line}\n").as_bytes()));
        text.text()
    }

    #[test]
    fn a_long_error_keeps_its_first_and_its_last_part() {
        let numbered = |word: &str, count| (0..count).map(move |n| format!("{word} {n}")).collect::<Vec<_>>();
        let all = [numbered("warning", 5000), vec!["       error: first".to_owned()], numbered("line", 9000)].concat();
        let text = text_of(all);
        for part in ["warning 4999\n       error: first\nline 0\n", "\n[… ", "\nline 8999\n"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("warning 0\n") && !text.contains("line 5000\n"));
        assert!(text.len() < 50_000, "{}", text.len());
    }

    #[test]
    fn a_short_text_is_kept_as_it_is() {
        assert_eq!(text_of(["a".to_owned(), "error: b".to_owned(), "c".to_owned()]), "a\nerror: b\nc\n");
    }
}
