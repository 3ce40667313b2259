//! The warnings of evaluations that were successful: those of one answer, and those of a source as people read them. No I/O.
//!
//! What several hosts share is evaluated once in a process, and warns once there. So an answer that shared a process may lack warnings
//! that it has when it is evaluated alone, as it is when it is learnt what it depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{beginning, headline, printable_line};

/// The most different warnings of one source that are kept.
pub(super) const MAX_WARNINGS: usize = 100;
/// The most bytes of one warning.
const MAX_BYTES: usize = 1 << 10;
/// The most hosts that a warning names.
const MAX_NAMES: usize = 3;
/// The most characters of the name of a host.
const MAX_NAME: usize = 100;

/// The text of a warning, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(super) struct WarningText(Arc<str>);

impl WarningText {
    pub(super) fn new(text: &str) -> Self {
        Self(beginning(text, MAX_BYTES).into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for WarningText {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<WarningText> for String {
    fn from(text: WarningText) -> Self {
        text.0.as_ref().to_owned()
    }
}

/// Whether an answer has all of its warnings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WarningExtent {
    /// It shared a process, so another one may have its warnings.
    #[default]
    Some,
    /// It had a process of its own.
    All,
}

/// The warnings of one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AnswerWarnings {
    pub(super) texts: BTreeSet<WarningText>,
    pub(super) extent: WarningExtent,
}

impl AnswerWarnings {
    /// Adds those of `before` that are among `printed`. Nothing that the answer was made of changed since `before`, so it has these still.
    pub(super) fn add_unchanged(&mut self, before: Self, printed: &BTreeSet<WarningText>) {
        self.texts.extend(before.texts.into_iter().filter(|text| printed.contains(text)));
        self.extent = self.extent.max(before.extent);
    }
}

/// The warnings of the hosts of a source that evaluate, and of the flake itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvalWarnings {
    /// Each warning once, those of the most hosts first. Absent where there is none.
    #[serde(rename = "warnings", default, skip_serializing_if = "Vec::is_empty")]
    pub each: Vec<EvalWarning>,
    /// Whether there are more, which are left out. Absent where there are not.
    #[serde(rename = "warningsLeftOut", default, skip_serializing_if = "std::ops::Not::not")]
    pub has_more: bool,
}

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvalWarning {
    /// The text, in lines. That of a `builtins.trace` begins with `trace: `.
    pub text: String,
    /// The number of hosts that have it. With none, it is a warning of the flake itself, from finding out what it has.
    pub hosts: usize,
    /// Whether no other host can have it. Hosts that were evaluated together share what is printed once; claveld learns afterwards which of
    /// them have it.
    pub is_exact: bool,
    /// The names of three of these hosts at most.
    pub names: Vec<String>,
}

impl EvalWarnings {
    /// The warnings of `hosts`, each with its name, and of the flake itself.
    pub(super) fn new<'a>(
        of_flake: &BTreeSet<WarningText>,
        hosts: impl IntoIterator<Item = (&'a str, AnswerWarnings)>,
    ) -> Self {
        let mut by_name = BTreeMap::<&str, AnswerWarnings>::new();
        for (name, AnswerWarnings { texts, extent }) in hosts {
            // What the flake declares of a host in two places is one host.
            let joined = by_name.entry(name).or_insert(AnswerWarnings { texts: BTreeSet::new(), extent });
            joined.texts.extend(texts);
            joined.extent = joined.extent.min(extent);
        }
        let mut by_text: BTreeMap<&WarningText, Vec<&str>> = of_flake.iter().map(|text| (text, Vec::new())).collect();
        for (name, warnings) in &by_name {
            for text in &warnings.texts {
                by_text.entry(text).or_default().push(name);
            }
        }
        let unsure: Vec<&AnswerWarnings> =
            by_name.values().filter(|warnings| warnings.extent == WarningExtent::Some).collect();
        let warning = |(text, names): (&WarningText, Vec<&str>)| EvalWarning {
            text: text.as_str().to_owned(),
            hosts: names.len(),
            is_exact: unsure.iter().all(|warnings| warnings.texts.contains(text)),
            names: names.iter().take(MAX_NAMES).map(|name| printable_line(name, MAX_NAME)).collect(),
        };
        let mut each: Vec<EvalWarning> = by_text.into_iter().map(warning).collect();
        each.sort_by_key(|warning| std::cmp::Reverse(warning.hosts));
        let has_more = each.len() > MAX_WARNINGS;
        each.truncate(MAX_WARNINGS);
        Self { each, has_more }
    }
}

impl EvalWarning {
    /// Its first line.
    pub fn headline(&self) -> String {
        headline(&self.text)
    }
}

/// Says whose warning it is, without its text.
impl fmt::Display for EvalWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, is_exact, names, .. } = self;
        let more = match hosts.saturating_sub(names.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = names.join(", ");
        match (hosts, is_exact) {
            (0, _) => write!(f, "evaluation warning of the flake itself"),
            (1, true) => write!(f, "evaluation warning of {names}"),
            (_, true) => write!(f, "evaluation warning of {hosts} hosts: {names}{more}"),
            (1, false) => write!(f, "evaluation warning of at least 1 host: {names}"),
            (_, false) => write!(f, "evaluation warning of at least {hosts} hosts: {names}{more}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> BTreeSet<WarningText> {
        texts.iter().map(|text| WarningText::new(text)).collect()
    }

    fn answer(of: &[&str], extent: WarningExtent) -> AnswerWarnings {
        AnswerWarnings { texts: texts(of), extent }
    }

    fn described(warnings: &EvalWarnings) -> Vec<String> {
        warnings.each.iter().map(|warning| format!("{warning}: {}", warning.text)).collect()
    }

    #[test]
    fn each_warning_is_counted_once_with_its_hosts() {
        use WarningExtent::{All, Some};
        let hosts = [
            ("web-1", answer(&["shared", "own"], All)),
            ("web-2", answer(&["shared"], All)),
            ("web-2", answer(&["shared"], All)),
            ("web-3", answer(&["shared"], Some)),
            ("web-4", answer(&["shared"], All)),
        ];
        let warnings = EvalWarnings::new(&texts(&["shared", "top"]), hosts);
        assert_eq!(
            described(&warnings),
            [
                "evaluation warning of 4 hosts: web-1, web-2, web-3 and 1 more: shared",
                "evaluation warning of at least 1 host: web-1: own",
                "evaluation warning of the flake itself: top",
            ]
        );
        assert!(!warnings.has_more);
        let alone = EvalWarnings::new(&texts(&[]), [("web-1", answer(&["own"], Some))]);
        assert_eq!(described(&alone), ["evaluation warning of web-1: own"], "there is no other host");
        assert_eq!(EvalWarnings::new(&texts(&[]), []), EvalWarnings::default());
    }

    #[test]
    fn more_warnings_than_are_kept_are_left_out_and_names_steer_nothing() {
        let many: Vec<String> = (0..=MAX_WARNINGS).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let warnings = EvalWarnings::new(&texts(&many), [("a\u{1b}\nb", answer(&["7"], WarningExtent::All))]);
        assert_eq!((warnings.each.len(), warnings.has_more), (MAX_WARNINGS, true));
        assert_eq!(warnings.each[0].to_string(), "evaluation warning of a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn an_unchanged_answer_keeps_the_warnings_that_are_still_printed() {
        let mut now = answer(&["new"], WarningExtent::Some);
        now.add_unchanged(answer(&["shared", "gone"], WarningExtent::All), &texts(&["new", "shared", "other"]));
        assert_eq!(now, answer(&["new", "shared"], WarningExtent::All));
    }
}
