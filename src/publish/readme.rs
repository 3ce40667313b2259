//! The README of the branch: the table that a git host shows to a visitor. No program reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::{BrokenPart, Deployment, Hold, IndexSource, MAX_SOURCES, Name, SourceRevision, printable_line};

/// The most deployments that the table lists all of. For a larger fleet it lists those that the last publication changed, so that
/// it does not grow with the fleet.
pub(super) const MAX_LISTED_DEPLOYMENTS: usize = 200;

/// The most broken parts that it lists.
const MAX_BROKEN_LINES: usize = 200;

/// The most characters of one cell.
const MAX_CELL: usize = 256;

/// What the table lists.
pub(super) enum Rows<'a> {
    /// Every deployment of the branch.
    All(Vec<&'a Deployment>),
    /// The deployments that changed last.
    Changed(Vec<&'a Deployment>),
}

/// The README of a branch with these deployments and holds, from these sources.
pub(super) fn readme(rows: &Rows<'_>, holds: &BTreeMap<Name, Hold>, sources: &[IndexSource]) -> String {
    let mut text = String::from(
        "# Deployments\n\nWritten by claveld. Machines read the signed files beside this one, not this table.\n\n",
    );
    let deployments = match rows {
        Rows::All(all) => all,
        Rows::Changed(changed) => {
            let shown = changed.len().min(MAX_LISTED_DEPLOYMENTS);
            let _ = writeln!(
                text,
                "`clavel list` shows all deployments. The last publication changed {}:\n",
                if shown < changed.len() {
                    format!("{}, of which these are {shown}", changed.len())
                } else {
                    format!("{shown}")
                }
            );
            &changed[..shown]
        }
    };
    text.push_str("| deployment | unit | revision | runs | source | since |\n|---|---|---|---|---|---|\n");
    for deployment in deployments {
        let provenance = deployment.provenance();
        let source = provenance.and_then(|p| p.source_revision.as_ref()).map_or("", SourceRevision::short);
        let since = provenance.map(|p| p.evaluated_at.to_string()).unwrap_or_default();
        let Deployment { name, revision, specification, .. } = deployment;
        let runs = specification.template.nar_id.name();
        // The reason of a hold is not shown: it is free text, which Markdown could interpret.
        let held = holds.get(name).map(|hold| {
            let until = hold.until.map(|until| format!(" until {until}")).unwrap_or_default();
            format!(", held since {}{until}", hold.since)
        });
        let held = held.unwrap_or_default();
        let unit = &specification.unit;
        let (name, unit, runs) = (code(name.as_str()), code(unit.as_str()), code(runs));
        let source = plain(source);
        let _ = writeln!(text, "| {name} | {unit} | {revision}{held} | {runs} | {source} | {since} |");
    }
    let unread = sources.iter().filter_map(|source| source.unread_since.map(|since| (source, since)));
    for (at, (source, since)) in unread.take(MAX_SOURCES).enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}- Not read since {since}: {}", code(source.source.as_str()));
    }
    let parts = sources.iter().flat_map(|source| source.broken.iter().map(move |part| (source, part)));
    for (at, (source, BrokenPart { attribute, error, since })) in parts.take(MAX_BROKEN_LINES).enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        let (source, attribute) = (code(source.source.as_str()), code(attribute.as_str()));
        let _ = writeln!(text, "{gap}- Broken since {since}: {attribute} of {source}: {}", plain(error.as_str()));
    }
    for source in sources.iter().filter(|source| source.more_broken > 0).take(MAX_SOURCES) {
        let _ = writeln!(text, "- {} more parts of {} are broken", source.more_broken, code(source.source.as_str()));
    }
    text
}

/// The text as code in a table. A text that could end the code or the cell is escaped, and stands there as plain text.
fn code(text: &str) -> String {
    let is_harmless = |c: char| c.is_ascii_graphic() && !matches!(c, '`' | '|' | '\\');
    if !text.is_empty() && text.chars().all(is_harmless) { format!("`{text}`") } else { plain(text) }
}

/// The text without any meaning in Markdown or HTML: a backslash before every punctuation mark, which ends links, tags and
/// entities as well (GitHub Flavored Markdown, section 6.1).
fn plain(text: &str) -> String {
    let escape = |c: char| c.is_ascii_punctuation().then_some('\\').into_iter().chain([c]);
    printable_line(text, MAX_CELL).chars().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, cached_draft, revision};
    use super::*;
    use crate::model::FleetId;

    #[test]
    fn nothing_in_a_cell_is_markdown_or_html() {
        assert_eq!(code("web-1_a@b"), "`web-1_a@b`");
        assert_eq!(code("a` | <img src=x>"), r"a\` \| \<img src\=x\>");
        assert_eq!(code("a\\"), r"a\\");
        assert_eq!(
            plain("[x](https://e.org) www.e.org &lt; *b*"),
            r"\[x\]\(https\:\/\/e\.org\) www\.e\.org \&lt\; \*b\*"
        );
        assert_eq!(plain("a\n\n# b\u{202e}"), "a\u{fffd}\u{fffd}\\# b\u{fffd}");
        assert_eq!(plain(&"x".repeat(1000)).len(), MAX_CELL);
    }

    #[test]
    fn the_table_of_a_large_fleet_lists_what_changed_last() {
        let fleet = FleetId::of(crate::trust::digest(b"fleet"));
        let all: Vec<Deployment> =
            (0..300).map(|n| cached_draft(&format!("host-{n}"), "a", &[]).at(revision(1), fleet)).collect();
        let rows = |count: usize| all[..count].iter().collect::<Vec<_>>();
        let lines = |rows| readme(&rows, &BTreeMap::new(), &[]).lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(lines(Rows::All(rows(150))), 150);
        assert_eq!(lines(Rows::Changed(rows(3))), 3);
        assert_eq!(lines(Rows::Changed(rows(300))), MAX_LISTED_DEPLOYMENTS);
        let since = "2026-01-01T00:00:00Z".parse().unwrap();
        let source = |text: &str, since| IndexSource { unread_since: since, ..fixture::index_source(text, &[]) };
        let sources =
            [source("git+https://git.example.org/a", None), source("git+https://git.example.org/b", Some(since))];
        let text = readme(&Rows::Changed(rows(3)), &BTreeMap::new(), &sources);
        assert!(
            text.ends_with("|\n\n- Not read since 2026-01-01T00:00:00Z: `git+https://git.example.org/b`\n"),
            "{text}"
        );
        assert!(text.contains("`clavel list` shows all deployments. The last publication changed 3:"), "{text}");
    }

    #[test]
    fn broken_parts_are_listed_and_their_errors_are_no_markdown() {
        let mut source =
            fixture::index_source("git+https://git.example.org/a", &["nixosConfigurations.web-2", "a`<b>"]);
        source.more_broken = 7;
        let text = readme(&Rows::All(Vec::new()), &BTreeMap::new(), &[source]);
        let expected = r"|---|---|---|---|---|---|

- Broken since 2026-01-01T00:00:00Z: `nixosConfigurations.web-2` of `git+https://git.example.org/a`: error\: \<b\>
- Broken since 2026-01-01T00:00:00Z: a\`\<b\> of `git+https://git.example.org/a`: error\: \<b\>
- 7 more parts of `git+https://git.example.org/a` are broken
";
        assert!(text.ends_with(expected), "{text}");
    }
}
